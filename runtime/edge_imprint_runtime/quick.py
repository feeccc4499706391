# SPDX-License-Identifier: Apache-2.0
"""The quick way from a photo to pixels: a JPEG decoded small, no pixel resized in vain.

It gives nearly the pixels of the exact way; docs/data.md says how nearly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.geometry import Span, fill_color, spans, vertical_first

__all__ = ["FILTERS", "ORIENTATION", "Opened", "averages", "draft", "resized_part"]

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

# A photo decoded small keeps at least so many pixels for each one it becomes, on both sides.
_DRAFT_PIXELS = 2


class Opened(NamedTuple):
    """A photo in memory.

    Attributes:
        image: Upright RGB.
        width: Of the whole photo, upright, pixels.
        height: The same.
        shrunk: 1, or the 2, 4 or 8 by which its sides were divided (and rounded up).
    """

    image: Image.Image
    width: int
    height: int
    shrunk: int


def averages(preprocess: Preprocess) -> bool:
    """Whether the resize weighs the pixels that it shrinks, falling off to nothing.

    The other filters take a pixel whole or not at all: of a smaller photo, or of a box
    rounded by a hair, they would take others.
    """
    return preprocess.interpolation in ("bilinear", "bicubic", "lanczos", "hamming")


def draft(image: Image.Image, preprocess: Preprocess) -> tuple[int, int, int]:
    """Have a photo decoded at 1/2, 1/4 or 1/8 of its size, if it is a JPEG large enough.

    Args:
        image: A photo that Pillow has opened and not yet decoded.
        preprocess: The steps.

    Returns:
        The width and the height of the whole photo, upright, and by what they are divided.
    """
    on_its_side = image.getexif().get(ORIENTATION, 1) in _ON_THEIR_SIDE
    width, height = image.size[::-1] if on_its_side else image.size
    if not isinstance(image, JpegImageFile) or not averages(preprocess):
        return width, height, 1
    rows, columns = spans(height, width, preprocess)
    wanted = (_DRAFT_PIXELS * columns.resized, _DRAFT_PIXELS * rows.resized)
    before = image.width
    drafted = image.draft(None, wanted[::-1] if on_its_side else wanted)
    return width, height, 1 if drafted is None else round(before / drafted[1][2])


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
    left, right, across = _part(columns, p.width, opened.width / opened.shrunk)
    top, bottom, down = _part(rows, p.height, opened.height / opened.shrunk)
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


def _part(span: Span, side: int, extent: float) -> tuple[float, float, int]:
    """Return from where to where a side is resized, and to how many pixels.

    Args:
        span: How the whole side is.
        side: The network's, pixels.
        extent: Of the photo at hand, pixels; a photo decoded small may end within a pixel.
    """
    start, kept = max(span.offset, 0), min(span.resized, side)
    step = extent / span.resized
    return start * step, (start + kept) * step, kept
