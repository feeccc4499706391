# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a photo the network sees: one set of roundings for photos and for graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL

from edge_imprint_runtime.contract import Preprocess

__all__ = ["Span", "fill_color", "linear_taps", "spans", "vertical_first"]

_PILLOW = int(PIL.__version__.partition(".")[0])


@dataclass(frozen=True)
class Span:
    """How one side of a photo becomes one side of the network's input.

    Attributes:
        start: The first pixel of the photo that is resized.
        length: How many are.
        resized: How many these become.
        offset: Which of those the network sees first; below zero: it first sees so many pixels
            of padding.
    """

    start: int
    length: int
    resized: int
    offset: int


def spans(height: int, width: int, preprocess: Preprocess) -> tuple[Span, Span]:
    """Return how a photo's rows and columns become those of the network's input.

    Args:
        height: The photo's height, pixels.
        width: Its width, pixels.
        preprocess: The steps.

    Returns:
        The spans of the rows and of the columns.
    """
    p = preprocess
    if p.interpolation == "linear":
        return _linear_spans(height, width, p)
    sides = (height, width), _resized(height, width, p), (p.height, p.width)
    rows, columns = (
        Span(0, side, resized, _offset(resized, size))
        for side, resized, size in zip(*sides, strict=True)
    )
    return rows, columns


def _offset(resized: int, size: int) -> int:
    """Cut or pad about the centre; the roundings are those of timm 1.0 / torchvision."""
    return round((resized - size) / 2) if resized >= size else -((size - resized) // 2)


def _linear_spans(height: int, width: int, p: Preprocess) -> tuple[Span, Span]:
    """Cut first, then resize: whole numbers only, so that a graph computes the same.

    A side of the box stands for ``num / den`` times as many pixels of the photo.
    """
    rows, columns = (height, p.resize_height), (width, p.resize_width)
    if p.resize != "stretch":
        rows_less = rows[0] * columns[1] <= columns[0] * rows[1]
        rows = columns = rows if rows_less == (p.resize == "crop") else columns
    return _linear_span(height, p.height, *rows), _linear_span(width, p.width, *columns)


def _linear_span(side: int, size: int, num: int, den: int) -> Span:
    length = -(-size * num // den)  # rounded up: at least one
    if length <= side:
        return Span((side - length) // 2, length, size, 0)
    resized = min(size, max(1, (2 * side * den + num) // (2 * num)))
    return Span(0, side, resized, -((size - resized) // 2))


def linear_taps(
    length: int, resized: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return what linear interpolation takes: ONNX's Resize, half_pixel, not antialiased.

    Pixel i lies at ``(i + 0.5) * length / resized - 0.5``, within the first and the last.

    Args:
        length: Pixels to resize.
        resized: What they become.

    Returns:
        The lower and the upper neighbour of each, (resized,) int64, and the upper one's share.
    """
    at = np.clip((np.arange(resized) + 0.5) * (length / resized) - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, length - 1), at - low


def vertical_first(rows: Span, columns: Span) -> bool:
    """Whether the Pillow at hand resizes vertically first; it rounds to 8 bits in between.

    Up to release 12 it never does. From 13 on (python-pillow/Pillow#9549) it does where the
    height loses more than twice as many pixels as the width.

    Args:
        rows: The span of the rows.
        columns: That of the columns.

    Returns:
        Whether it does.
    """
    lost_rows, lost_columns = rows.length - rows.resized, columns.length - columns.resized
    return _PILLOW >= 13 and lost_rows > max(0, 2 * lost_columns)


def fill_color(preprocess: Preprocess) -> tuple[int, int, int]:
    """Return the colour of padding: the mean under ``pad``, black otherwise; RGB, 0..255."""
    if preprocess.resize != "pad":
        return 0, 0, 0
    red, green, blue = (min(255, max(0, round(255 * value))) for value in preprocess.mean)
    return red, green, blue


def _resized(height: int, width: int, p: Preprocess) -> tuple[int, int]:
    """Height and width after the resize; the roundings are those of timm 1.0 / torchvision."""
    box_height, box_width = p.resize_height, p.resize_width
    if p.resize == "stretch":
        return box_height, box_width
    if p.resize == "crop" and box_height == box_width:
        short, long = sorted((height, width))
        longer = int(box_height * long / short)
        return (box_height, longer) if height <= width else (longer, box_height)
    ratios = height / box_height, width / box_width
    ratio = min(ratios) if p.resize == "crop" else max(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))
