# SPDX-License-Identifier: Apache-2.0
"""Weighted k-means for many classes of moderate size, in float32.

Greedy k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's iteration, as scikit-learn's
default, and held against it in the tests. What makes it fast:

- The start, most of scikit-learn's time, looks at a sketch of 64 numbers a row (CountSketch,
  Charikar et al. 2002), which keeps distances to about 18 %, and at a sample of 32 rows a
  centre: enough to choose where to begin, and eight candidates a step instead of four make
  good what that loses. Lloyd's iteration sees all rows whole.
- Distances are matrix products in float32, without a conversion to float64, and of a size
  that OpenBLAS multiplies where it lies.
- Classes of the same size go through together, so that Python's own time is shared.

`edge_imprint.imprinting.kmeans_cuda` is the same algorithm in torch, with the same draws.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_ITERATIONS",
    "SKETCH",
    "TOLERANCE",
    "Draws",
    "distinct",
    "draws",
    "draws_sample",
    "kmeans",
    "nearest",
    "range_scale",
    "refill",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

MAX_ITERATIONS = 300
# Lloyd ends when an update lowers the inertia by less than this share of the start's.
TOLERANCE = 3e-4
# A row nearer to its centre than this share of the squared scale is where its centre is:
# float32 can't tell them apart.
_COINCIDES = 1e-6
SKETCH = 64
_CANDIDATES = 8
# The start looks at this many rows, or at so many for each centre if that is more.
_SAMPLE, _SAMPLE_A_CENTRE = 512, 32
_SKETCH_ROWS = 128  # at once, to stay near the processor
# Classes of up to this many numbers go through Lloyd's iteration together.
_TOGETHER = 2**17
# Multiplications in a product that OpenBLAS does without packing its factors.
_UNPACKED = 10**6
# Sums of squares outside of these are near the ends of float32's range.
_TINY, _HUGE = 1e-20, 1e30
# Numbers in a block of scores (rows x centres): 16 MiB.
_BLOCK = 2**22


@dataclass(frozen=True)
class Draws:
    """All that is drawn for one call, up front, so that numpy and torch draw the same.

    Attributes:
        seed: What they were drawn with.
        uniforms: (k, candidates) float64 in [0, 1); of the first row only the first is used.
        signs: (blocks, 64) float32 of +1 and -1, or None: rows are short enough themselves.
    """

    seed: int
    uniforms: Float64
    signs: Float32 | None


@lru_cache(maxsize=16)
def draws(seed: int, k: int, size: int) -> Draws:
    """Draw for k centres of rows of ``size`` numbers; the same for classes of any length."""
    rng = np.random.default_rng(seed)
    uniforms = rng.random((k, _CANDIDATES))
    if size <= 2 * SKETCH:
        return Draws(seed, uniforms, None)
    shape = (-(-size // SKETCH), SKETCH)
    return Draws(seed, uniforms, rng.integers(0, 2, shape).astype(np.float32) * 2 - 1)


@lru_cache(maxsize=16)
def draws_sample(seed: int, k: int, n: int) -> Int64:
    """Draw the rows of a class of n that the start looks at; all where they are few."""
    size = max(_SAMPLE, _SAMPLE_A_CENTRE * k)
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).permutation(n)[:size])


def kmeans(
    rows: Sequence[Float32], weights: Sequence[Float64], k: int, seed: int
) -> list[Float32]:
    """Cluster classes, every class for itself: what it gets does not depend on the others.

    Args:
        rows: (n, D) float32 for each class, finite, n > k, D the same for all; within a class
            the rows are distinct, and their order matters. Overwritten.
        weights: (n,) float64 for each class, above 0.
        k: Clusters a class, >= 1.
        seed: Of the draws; every class has the same.

    Returns:
        For each class (p, D) float32 centres, 1 <= p <= k, each the mean of the rows nearest
        to it; fewer than k where rows coincide in float32.
    """
    draw = draws(seed, k, rows[0].shape[1])
    shares = [(w / w.sum()).astype(np.float32) for w in weights]
    maps = [_normalize(*pair) for pair in zip(rows, shares, strict=True)]
    starts = _starts(rows, weights, draw)
    made: list[Float32] = [np.empty(0, np.float32)] * len(rows)
    for group in _of_one_size([part.size for part in rows], _TOGETHER):
        x, centres = _stacked(rows, group), np.stack([rows[i][starts[i][0]] for i in group])
        tolerance = np.array([starts[i][1] for i in group]) * TOLERANCE
        found, used = _lloyd(x, _stacked(shares, group), centres, tolerance)
        for i, own, there in zip(group, found, used, strict=True):
            shift, scale = maps[i]
            made[i] = distinct((own[there] / scale + shift).astype(np.float32))
    return made


def distinct(centres: Float32) -> Float32:
    """Take out centres that are equal to another."""
    if len(np.unique(centres[:, 0])) == len(centres):
        return centres
    return np.unique(centres, axis=0)


def nearest(rows: Float32, centres: Float32) -> Int64:
    """Find the nearest centre of each row.

    Args:
        rows: (n, D) float32.
        centres: (k, D) float32.

    Returns:
        (n,) int64; of equally near ones the lowest.
    """
    middle = centres.mean(axis=0)  # distances between near points far from zero cancel
    about = centres - middle
    half = 0.5 * np.einsum("kd,kd->k", about, about)
    step = max(1, _BLOCK // (len(centres) + rows.shape[1]))
    labels = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        labels[part] = (half - (rows[part] - middle) @ about.T).argmin(axis=1)
    return labels


def range_scale(rows: Float32) -> float:
    """Return the power of two that brings rows into the range where float32 can square them.

    It is 1 for all but rows like 1e-20 or 1e30.
    """
    flat = rows.reshape(-1)
    with np.errstate(over="ignore"):
        energy = float(flat @ flat)
    if _TINY < energy < _HUGE or not flat.any():
        return 1.0
    exponent = int(np.frexp(np.abs(flat).max())[1])
    return 2.0 ** min(-exponent, 126)  # float32's largest


def _normalize(rows: Float32, share: Float32) -> tuple[Float64, float]:
    """Scale a class if need be, and centre it; return its shift (D,) and scale."""
    scale = range_scale(rows)
    if scale != 1:
        rows *= np.float32(scale)
    mean = share @ rows
    rows -= mean
    return mean / np.float64(scale), scale


def _starts(
    rows: Sequence[Float32], weights: Sequence[Float64], draw: Draws
) -> list[tuple[Int64, float]]:
    """Choose k rows of each class to start from, and return what inertia they leave."""
    k = len(draw.uniforms)
    samples = [draws_sample(draw.seed, k, len(part)) for part in rows]
    sketches = [_sketch(part, s, draw.signs) for part, s in zip(rows, samples, strict=True)]
    masses = [
        (w[s] / w[s].sum()).astype(np.float32) for w, s in zip(weights, samples, strict=True)
    ]
    starts: list[tuple[Int64, float]] = [(samples[0], 0.0)] * len(rows)
    for group in _of_one_size([len(s) for s in samples]):
        chosen, left = _seed(_stacked(sketches, group), _stacked(masses, group), draw.uniforms)
        for i, own, potential in zip(group, chosen, left, strict=True):
            starts[i] = samples[i][own], float(potential)
    return starts


def _of_one_size(sizes: Sequence[int], most: float = math.inf) -> list[list[int]]:
    """Group what has the same size; what is larger than ``most`` stays alone."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, size in enumerate(sizes):
        groups[size, i if size > most else -1].append(i)
    return list(groups.values())


def _stacked(parts: Sequence[Float32], group: list[int]) -> Float32:
    if len(group) == 1:  # nothing to copy
        return parts[group[0]][np.newaxis]
    return np.stack([parts[i] for i in group])


def _sketch(rows: Float32, sample: Int64, signs: Float32 | None) -> Float32:
    """Add up the blocks of 64 columns of some rows under random signs: (s, 64)."""
    if signs is None:
        return rows[sample]
    whole = rows.shape[1] // SKETCH
    sketch = np.empty((len(sample), SKETCH), np.float32)
    for start in range(0, len(sample), _SKETCH_ROWS):
        part = slice(start, start + _SKETCH_ROWS)
        some = rows[sample[part]]
        blocks = some[:, : whole * SKETCH].reshape(len(some), whole, SKETCH)
        np.einsum("nij,ij->nj", blocks, signs[:whole], out=sketch[part])
        rest = some[:, whole * SKETCH :]
        sketch[part, : rest.shape[1]] += rest * signs[-1, : rest.shape[1]]
    return sketch


def _seed(sketch: Float32, share: Float32, uniforms: Float64) -> tuple[Int64, Float64]:
    """Choose k rows a class by greedy k-means++.

    Args:
        sketch: (B, n, d).
        share: (B, n), the rows' weights, of sum 1.
        uniforms: (k, candidates), what is drawn.

    Returns:
        (B, k) indices, and (B,) the potential they leave: the inertia, per unit of weight.
    """
    classes, n, size = sketch.shape
    # |a - b|^2 as one product: (-2 a, |a|^2, 1) . (b, 1, |b|^2).
    left = np.empty((classes, n, size + 2), np.float32)
    right = np.empty((classes, size + 2, n), np.float32)
    square = np.einsum("bnj,bnj->bn", sketch, sketch)
    np.multiply(sketch, -2, out=left[:, :, :size])
    left[:, :, size] = square
    left[:, :, size + 1] = 1
    right[:, :size] = sketch.transpose(0, 2, 1)
    right[:, size] = 1
    right[:, size + 1] = square
    each, column = np.arange(classes), np.arange(classes)[:, np.newaxis]
    mass_of = share[:, :, np.newaxis]
    chosen = np.empty((classes, len(uniforms)), np.int64)
    near = np.full((classes, n), np.inf, np.float32)
    mass = share
    for j, drawn in enumerate(uniforms):
        upto = mass.cumsum(axis=1, dtype=np.float64)
        wanted = upto[:, -1:] * (drawn if j else drawn[:1])
        candidates = np.array(
            [own.searchsorted(w, "right") for own, w in zip(upto, wanted, strict=True)]
        )
        np.minimum(candidates, n - 1, out=candidates)
        distance = np.matmul(left[column, candidates], right)
        np.minimum(distance, near[:, np.newaxis], out=distance)
        best = np.matmul(distance, mass_of)[:, :, 0].argmin(axis=1)
        chosen[:, j] = candidates[each, best]
        near = np.maximum(distance[each, best], 0)
        mass = near * share
    return chosen, mass.sum(axis=1, dtype=np.float64)


def _lloyd(
    rows: Float32, share: Float32, centres: Float32, tolerance: Float64
) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Iterate each class until its update lowers the inertia by no more than ``tolerance``."""
    final, used = np.empty_like(centres), np.empty(centres.shape[:2], np.bool_)
    live = np.arange(len(rows))
    for iteration in range(MAX_ITERATIONS):
        updated, counts = _assign(rows, share, centres)
        empty = counts == 0
        updated /= np.where(empty, 1, counts)[:, :, np.newaxis]
        updated[empty] = centres[empty]
        # With its rows fixed, moving a centre to their mean lowers the inertia by this much.
        fell = np.einsum("bk,bkd->b", counts, (updated - centres) ** 2)
        for b in np.flatnonzero(empty.any(axis=1)):
            if refill(rows[b], updated[b], counts[b]):
                fell[b] = np.inf
        done = (fell <= tolerance) | (iteration == MAX_ITERATIONS - 1)
        final[live[done]], used[live[done]] = updated[done], ~empty[done]
        if done.all():
            break
        if done.any():
            go = ~done
            live, rows, share, tolerance = live[go], rows[go], share[go], tolerance[go]
            updated = updated[go]
        centres = updated
    return final, used


def _assign(rows: Float32, share: Float32, centres: Float32) -> tuple[Float32, Float32]:
    """Assign rows to their nearest centres; return (B, k, D) weighted sums, (B, k) weights."""
    classes, k, length = centres.shape
    half = 0.5 * np.einsum("bkd,bkd->bk", centres, centres)[:, np.newaxis]
    turned = np.ascontiguousarray(centres.transpose(0, 2, 1))
    sums, counts = np.zeros_like(centres), np.zeros((classes, k), np.float32)
    step = max(1, _BLOCK // (k * classes))
    for start in range(0, rows.shape[1], step):
        part, weight = rows[:, start : start + step], share[:, start : start + step]
        scores = np.empty((classes, part.shape[1], k), np.float32)
        pieces = _pieces(part.shape[1], k * length)
        for piece in pieces:
            np.matmul(part[:, piece], turned, out=scores[:, piece])
        labels = np.subtract(half, scores, out=scores).argmin(axis=2)
        belongs = np.zeros((classes, k, part.shape[1]), np.float32)
        np.put_along_axis(belongs, labels[:, np.newaxis], weight[:, np.newaxis], axis=1)
        for piece in pieces:
            sums += np.matmul(belongs[:, :, piece], part[:, piece])
        counts += np.matmul(belongs, np.ones(part.shape[1], np.float32))
    return sums, counts


def _pieces(n: int, products_a_row: int) -> list[slice]:
    """Cut n rows into equal pieces that OpenBLAS multiplies in place, without packing them."""
    most = _UNPACKED // products_a_row
    count = -(-n // most) if most >= 16 else 1
    ends = [n * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def refill(rows: Float32, centres: Float32, counts: Float32) -> bool:
    """Move empty centres onto the rows farthest from theirs; false where none is apart."""
    labels = nearest(rows, centres)
    apart = np.einsum("nd,nd->n", rows - centres[labels], rows - centres[labels])
    empty = np.flatnonzero(counts == 0)
    far = np.argsort(-apart, kind="stable")[: len(empty)]
    far = far[apart[far] > _COINCIDES * np.einsum("nd,nd->n", rows, rows).max()]
    centres[empty[: len(far)]] = rows[far]
    return len(far) > 0
