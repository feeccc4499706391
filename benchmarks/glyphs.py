# SPDX-License-Identifier: Apache-2.0
"""Letters of the fonts that matplotlib ships, as distances to their skeletons. No digits."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.ft2font import FT2Font, LoadFlags
from PIL import Image
from scipy.ndimage import distance_transform_edt

__all__ = ["CANVAS", "distance_fields"]

LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρστφψω"
# Fitted to the same box, these capitals are the small letter over again.
SAME_SHAPE = str.maketrans("CKOPSUVWXYZI", "ckopsuvwxyzl")

CANVAS = 64  # side of the stored distance fields
GLYPH = 44  # longer side of a glyph within the canvas


def letters_in(font: FT2Font) -> Iterator[tuple[str, int]]:
    """Find the letters that a font really draws.

    Mathematical alphabets (script, sans serif, ...) count as the letter they stand for. The
    glyph's name is checked since the Computer Modern fonts keep other symbols at the code
    points of letters, and the last-resort font has the same box for all.

    Args:
        font: An open font.

    Yields:
        The letter, out of ``LATIN + GREEK``, and its code point in this font.
    """
    for code, index in font.get_charmap().items():
        char = chr(code)
        letter = unicodedata.normalize("NFKC", char)
        decomposition = unicodedata.decomposition(char)
        if letter not in LATIN + GREEK or len(letter) != 1:
            continue
        if decomposition and not decomposition.startswith("<font>"):
            continue
        words = unicodedata.name(letter).split()
        greek = words[-1].capitalize() if words[1] == "CAPITAL" else words[-1].lower()
        known = {letter, greek, f"uni{code:04X}", f"u{code:04X}"}
        if font.get_glyph_name(index) in known:
            yield letter, code


def draw(font: FT2Font, code: int) -> npt.NDArray[np.bool_]:
    """Draw one glyph, its longer side ``GLYPH`` pixels, in the middle of the canvas.

    Args:
        font: An open font.
        code: Code point of the glyph.

    Returns:
        (CANVAS, CANVAS) bool, true where there is ink.
    """
    font.set_size(200, 72)
    font.set_text(chr(code), 0, flags=LoadFlags.NO_HINTING)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image(), dtype=np.uint8)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = GLYPH / max(ink.shape)
    width, height = (max(2, round(side * scale)) for side in ink.shape[::-1])
    glyph = Image.fromarray(ink).resize((width, height), Image.Resampling.BOX)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(glyph, ((CANVAS - width) // 2, (CANVAS - height) // 2))
    return np.asarray(canvas) > 127


def thin(ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Thin strokes to one pixel by the algorithm of Zhang and Suen.

    Args:
        ink: (N, H, W) bool; the border must be empty.

    Returns:
        (N, H, W) bool, the skeletons.
    """
    ink = ink.copy()
    steps = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            ring = [np.roll(ink, (-dy, -dx), axis=(1, 2)) for dy, dx in steps]
            count = np.sum(ring, axis=0, dtype=np.uint8)
            turns = np.zeros(ink.shape, dtype=np.uint8)
            for here, after in zip(ring, ring[1:] + ring[:1], strict=True):
                turns += ~here & after
            north, east, south, west = ring[0::2]
            if first:
                kept = (north & east & south) | (east & south & west)
            else:
                kept = (north & east & west) | (north & south & west)
            gone = ink & (count >= 2) & (count <= 6) & (turns == 1) & ~kept
            ink &= ~gone
            changed |= bool(gone.any())
    return ink


def distance_fields() -> tuple[torch.Tensor, torch.Tensor]:
    """Render every letter of every font.

    The pixels nearer than w to the skeleton are strokes of half-width w, be the font light
    or bold.

    Returns:
        Distances to the skeleton, (N, 1, CANVAS, CANVAS) float32, in pixels; and the class
        of each glyph, (N,) int64.
    """
    drawn: list[npt.NDArray[np.bool_]] = []
    names: list[str] = []
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for path in sorted(folder.glob("*.ttf")):
        font = FT2Font(str(path))
        for letter, code in sorted(letters_in(font)):
            drawn.append(draw(font, code))
            names.append(letter.translate(SAME_SHAPE))
    skeletons = thin(np.stack(drawn))
    fields = np.stack([distance_transform_edt(~skeleton) for skeleton in skeletons])
    classes = sorted(set(names))
    labels = [classes.index(name) for name in names]
    return torch.tensor(fields, dtype=torch.float32).unsqueeze(1), torch.tensor(labels)
