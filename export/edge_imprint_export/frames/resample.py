# SPDX-License-Identifier: Apache-2.0
"""Resizing as a matrix: the weights with which Pillow makes one row of pixels of another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.geometry import Span, linear_taps

__all__ = ["Block", "Pass", "resampling"]

# Pillow's filters for 8 bits compute with whole numbers: weights are multiples of 2^-22.
_PILLOW_BITS = 22
# Output pixels of one block: smaller, and the copies cost more than the products save
# (1280 x 720 to 224, ONNX Runtime on a CPU: 8.1 ms as one block, 2.6 ms as eight).
_BLOCK_PIXELS = 32


@dataclass(frozen=True)
class Block:
    """Some pixels of the output and those of the input that they need.

    Attributes:
        start: The first of them in the source.
        weights: (input, output) float32.
    """

    start: int
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pass:
    """How one side is resized; what the network sees of it, without padding.

    Attributes:
        start: The first pixel of the source that counts.
        stop: The one after the last.
        blocks: In the output's order; none where the pixels stay as they are.
        rounds: Whether weighted means have to be rounded.
        overshoots: Whether they may lie outside 0..255.
        before: Pixels of padding before.
        after: Pixels of padding after.
    """

    start: int
    stop: int
    blocks: tuple[Block, ...]
    rounds: bool
    overshoots: bool
    before: int
    after: int


def resampling(span: Span, size: int, interpolation: str, *, step: int = 1) -> Pass:
    """Lay out how one side of a frame becomes one side of the network's input.

    Args:
        span: From the frame's side to the network's.
        size: Pixels of the network's side.
        interpolation: One of `Preprocess`'s.
        step: Source pixels come in groups of so many, which are not split.

    Returns:
        The blocks of weights, and the padding around what they give.
    """
    before = max(0, -span.offset)
    first = max(0, span.offset)
    count = min(size - before, span.resized - first)
    after = size - before - count
    if span.resized == span.length:
        start = span.start + first
        start, stop = start // step * step, -(-(start + count) // step) * step
        if stop - start == count:
            return Pass(start, stop, (), False, False, before, after)
    weights = _weights(span, interpolation, np.arange(first, first + count))
    blocks = _blocks(weights, span.start, step)
    one = _blocks(weights, span.start, step, pixels=count)
    # Bands that overlap much, or are few, save too little to pay for.
    if _products(one) < 2 * _products(blocks):
        blocks = one
    return Pass(
        start=min(block.start for block in blocks),
        stop=max(block.start + len(block.weights) for block in blocks),
        blocks=blocks,
        rounds=bool((weights % 1).any()),
        overshoots=bool((weights < 0).any()),
        before=before,
        after=after,
    )


def _products(blocks: tuple[Block, ...]) -> int:
    return sum(block.weights.size for block in blocks)


def _blocks(
    weights: npt.NDArray[np.float64], origin: int, step: int, pixels: int = _BLOCK_PIXELS
) -> tuple[Block, ...]:
    """Cut (output, input) weights into blocks of outputs, each with the inputs it needs."""
    parts = np.array_split(weights, -(-len(weights) // pixels))
    blocks = []
    for part in parts:
        used = np.flatnonzero(part.any(axis=0)) + origin
        start, stop = used[0] // step * step, -(-(used[-1] + 1) // step) * step
        wide = np.zeros((stop - start, len(part)), np.float32)
        inside = slice(max(start, origin), min(stop, origin + part.shape[1]))
        wide[inside.start - start : inside.stop - start] = part.T[
            inside.start - origin : inside.stop - origin
        ]
        blocks.append(Block(int(start), wide))
    return tuple(blocks)


def _weights(
    span: Span, interpolation: str, pixels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return (pixels, length) weights; each row sums to one, or as Pillow rounds it."""
    rows = np.arange(len(pixels))
    if interpolation == "linear":
        low, high, share = (taps[pixels] for taps in linear_taps(span.length, span.resized))
        weights = np.zeros((len(pixels), span.length))
        weights[rows, low] = 1 - share
        weights[rows, high] += share
        return weights
    scale = span.length / span.resized
    if interpolation == "nearest":
        # Summed, not multiplied: so Pillow walks along a row; at ties the last digit decides.
        walk = np.add.accumulate([scale * 0.5] + [scale] * (span.resized - 1))
        picked = np.minimum(walk.astype(np.int64), span.length - 1)
        weights = np.zeros((len(pixels), span.length))
        weights[rows, picked[pixels]] = 1
        return weights
    radius, kernel = _KERNELS[interpolation]
    stretch = max(scale, 1.0)  # antialiased: where it shrinks, the filter grows
    centers = (pixels[:, np.newaxis] + 0.5) * scale
    low = np.maximum(0, np.trunc(centers - radius * stretch + 0.5))
    high = np.minimum(span.length, np.trunc(centers + radius * stretch + 0.5))
    source = np.arange(span.length)
    weights = kernel((source + 0.5 - centers) / stretch)
    weights[(source < low) | (source >= high)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    whole = np.trunc(weights * 2**_PILLOW_BITS + np.copysign(0.5, weights))
    return np.asarray(whole / 2**_PILLOW_BITS)


def _box(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.maximum(0, 1 - np.abs(x)))


def _hamming(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(math.pi * x)), 0)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)  # Keys' cubic convolution, a = -0.5
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


_Kernel = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
_KERNELS: dict[str, tuple[float, _Kernel]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
