# SPDX-License-Identifier: Apache-2.0
"""The quick ways from a photo to pixels: a JPEG decoded small, no pixel resized in vain.

They give nearly the pixels of the exact way, ``draft`` least so of a photo that libjpeg brings
to the network's size alone; docs/data.md says how nearly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.geometry import Span, fill_color, spans, vertical_first

__all__ = [
    "DECODES",
    "FILTERS",
    "ORIENTATION",
    "Opened",
    "averages",
    "check_decode",
    "draft",
    "lead",
    "resized_part",
]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

ORIENTATION = 0x0112  # the EXIF tag
_ON_THEIR_SIDE = frozenset(range(5, 9))  # orientations that swap height and width
# Orientations whose upright photo begins where the file's rows or columns end.
_X_FROM_THE_END = frozenset((2, 3, 6, 7))
_Y_FROM_THE_END = frozenset((3, 4, 7, 8))

# The ways to decode: a JPEG decoded small keeps at least so many pixels for each one that it
# becomes, on both sides; 0: it is decoded whole, and resized as a device does. With 2 a photo
# of 640x480 is decoded whole for 224 pixels, which takes about twice as long as halved with 1.
DECODES = {"exact": 0, "quick": 2, "draft": 1}


class Opened(NamedTuple):
    """A photo in memory.

    Attributes:
        image: Upright RGB.
        width: Of the whole photo, upright, pixels.
        height: The same.
        shrunk: 1, or the 2, 4 or 8 by which its sides were divided (and rounded up).
        lead: Where the photo begins in ``image``, x and y, in its pixels: below 1, and 0
            but where the side that was rounded up was turned to the front.
    """

    image: Image.Image
    width: int
    height: int
    shrunk: int
    lead: tuple[float, float] = (0.0, 0.0)


def check_decode(decode: str) -> None:
    """Refuse what is no way to decode.

    Raises:
        ParameterError: It is not in `DECODES`.
    """
    if decode not in DECODES:
        raise ParameterError(f"decode must be one of {', '.join(DECODES)}, got {decode!r}")


def averages(preprocess: Preprocess) -> bool:
    """Whether the resize weighs the pixels that it shrinks, falling off to nothing.

    The other filters take a pixel whole or not at all: of a smaller photo, or of a box
    rounded by a hair, they would take others.
    """
    return preprocess.interpolation in ("bilinear", "bicubic", "lanczos", "hamming")


def draft(image: Image.Image, preprocess: Preprocess, decode: str) -> tuple[int, int, int]:
    """Have a photo decoded at 1/2, 1/4 or 1/8 of its size, if it is a JPEG large enough.

    It is where enough pixels stay, on both sides, for each one that the resize makes of them.

    Args:
        image: A photo that Pillow has opened and not yet decoded.
        preprocess: The steps.
        decode: One of `DECODES`, which says how many are enough.

    Returns:
        The width and the height of the whole photo, upright, and by what they are divided.
    """
    on_its_side = image.getexif().get(ORIENTATION, 1) in _ON_THEIR_SIDE
    width, height = image.size[::-1] if on_its_side else image.size
    kept = DECODES[decode]
    if not kept or not isinstance(image, JpegImageFile) or not averages(preprocess):
        return width, height, 1
    rows, columns = spans(height, width, preprocess)
    wanted = (kept * columns.resized, kept * rows.resized)
    before = image.width
    drafted = image.draft(None, wanted[::-1] if on_its_side else wanted)
    return width, height, 1 if drafted is None else round(before / drafted[1][2])


def lead(image: Image.Image, width: int, height: int, shrunk: int) -> tuple[float, float]:
    """Tell where a photo decoded small begins once it is upright; see `Opened`.

    libjpeg fills the last pixel of a side that does not divide. A photo that is turned may
    begin with it.

    Args:
        image: The photo as `draft` left it, not yet turned.
        width: Of the whole photo, upright, pixels.
        height: The same.
        shrunk: By what they are divided.

    Returns:
        x and y.
    """
    orientation = image.getexif().get(ORIENTATION, 1)
    x, y = -width % shrunk / shrunk, -height % shrunk / shrunk
    return x * (orientation in _X_FROM_THE_END), y * (orientation in _Y_FROM_THE_END)


def resized_part(
    opened: Opened, rows: Span, columns: Span, preprocess: Preprocess
) -> npt.NDArray[np.uint8]:
    """Resize only what the network sees; else as `images.prepare`.

    Args:
        opened: The photo.
        rows: How the whole photo's rows become the network's.
        columns: How its columns do.
        preprocess: The steps, whose filter averages.

    Returns:
        (H, W, 3) uint8 RGB at the network's size.
    """
    p, image = preprocess, opened.image
    x, y = opened.lead
    left, right, across = _part(columns, p.width, opened.width / opened.shrunk, x)
    top, bottom, down = _part(rows, p.height, opened.height / opened.shrunk, y)
    # Rounding may lead a hair past the last pixel.
    box = (left, top, min(right, float(image.width)), min(bottom, float(image.height)))
    vertical = vertical_first(rows, columns)
    # Pillow looks at the image and the result, whatever the box is.
    sides = Span(0, image.height, down, 0), Span(0, image.width, across, 0)
    if vertical_first(*sides) == vertical:
        part = image.resize((across, down), FILTERS[p.interpolation], box=box)
    else:
        part = _one_by_one(image, (across, down), FILTERS[p.interpolation], box, vertical)
    if part.size == (p.width, p.height):
        return np.asarray(part)
    canvas = Image.new("RGB", (p.width, p.height), fill_color(p))
    canvas.paste(part, (max(-columns.offset, 0), max(-rows.offset, 0)))
    return np.asarray(canvas)


def _one_by_one(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    box: tuple[float, float, float, float],
    vertical: bool,
) -> Image.Image:
    """Resize first one side, then the other, as the whole photo would be.

    In between pixels are rounded and cut to 0..255, so that the order shows.
    """
    left, top, right, bottom = box
    if vertical:
        strip = image.resize(
            (image.width, size[1]), resample, box=(0, top, image.width, bottom)
        )
        return strip.resize(size, resample, box=(left, 0, right, size[1]))
    strip = image.resize((size[0], image.height), resample, box=(left, 0, right, image.height))
    return strip.resize(size, resample, box=(0, top, size[0], bottom))


def _part(span: Span, side: int, extent: float, lead: float) -> tuple[float, float, int]:
    """Return from where to where a side is resized, and to how many pixels.

    Args:
        span: How the whole side is.
        side: The network's, pixels.
        extent: Of the photo at hand, pixels; a photo decoded small may end within a pixel.
        lead: Where it begins, pixels.
    """
    start, kept = max(span.offset, 0), min(span.resized, side)
    step = extent / span.resized
    return lead + start * step, lead + (start + kept) * step, kept
