# SPDX-License-Identifier: Apache-2.0
"""Generators that choose k of a class's samples: random, farthest points, covariance, medoids.

Each takes distinct rows in an order of their own and their weights, and returns the indices of
its choice. They compare rows with rows, but keep no n x n table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.kmeans import kmeans, range_scale

__all__ = ["cov_max", "farthest_points", "kmedoids", "random_rows", "weighted_mean"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

# Numbers in a block that is turned into float64, or of distances: 8 to 16 MiB.
_BLOCK = 2**20
_DISTANCES = 2**21
# A class with more rows offers this many of them as medoids; all rows judge.
_MAX_CANDIDATES = 4096
# A swap of medoids has to lower the cost by this share: less is float32's noise.
_GAIN = 1e-6


def weighted_mean(rows: Float32, weights: Float64) -> Float64:
    """Return the (D,) mean, summed in float64."""
    total = np.zeros(rows.shape[1])
    for part, block in _double_blocks(rows):
        total += weights[part] @ block
    mean: Float64 = total / weights.sum()
    return mean


def random_rows(rows: Float32, weights: Float64, k: int, seed: int) -> Int64:
    """Draw k rows without replacement, each draw in proportion to the weights left.

    The k lowest of n exponential clocks (Efraimidis and Spirakis 2006).
    """
    clocks = np.random.default_rng(seed).exponential(size=len(rows)) / weights
    return np.sort(np.argsort(clocks, kind="stable")[:k])


def farthest_points(rows: Float32, weights: Float64, k: int, seed: int) -> Int64:
    """Start at the row nearest to the mean; then always the row farthest from those chosen.

    Nothing is drawn; of equal ones the first in the rows' order is taken.
    """
    rows = rows * np.float32(range_scale(rows))
    mean = weighted_mean(rows, weights).astype(np.float32)
    chosen = [int(_squared_distances(rows, mean).argmin())]
    apart = np.full(len(rows), np.inf, np.float32)
    while len(chosen) < min(k, len(rows)):
        apart = np.minimum(apart, _squared_distances(rows, rows[chosen[-1]]))
        chosen.append(int(apart.argmax()))
    return np.array(chosen, np.int64)


def cov_max(rows: Float32, weights: Float64, k: int, seed: int) -> Int64:
    """Take the k rows with the largest column sums of the samples' covariance.

    The covariance is the n x n one between samples, over their D features, as in the paper
    (arXiv 2503.14572, section 3). Its column sum is the product of a row, less its own mean,
    with the sum of all such rows: O(n D), and no table. A row of weight 2 counts as two
    columns. The rows chosen resemble one another, since each is near the class's main
    direction; equal ones are merged before, near ones are not.
    """
    total = np.zeros(rows.shape[1])
    for part, block in _double_blocks(rows):
        total += weights[part] @ (block - block.mean(axis=1, keepdims=True))
    total -= total.mean()  # so that the rows' own means fall out of the product below
    sums = np.concatenate([block @ total for _, block in _double_blocks(rows)])
    return np.argsort(-sums, kind="stable")[:k]


def kmedoids(rows: Float32, weights: Float64, k: int, seed: int) -> Int64:
    """Find k rows with a low weighted sum of Euclidean distances to the nearest of them.

    Begins at the rows nearest to k-means' centres; then swaps a medoid for another row while
    that lowers the cost: PAM's neighbourhood, with all k removals of a candidate judged at
    once (FastPAM, Schubert and Rousseeuw 2021), and the best swap of a block taken at once.
    """
    about = rows * np.float32(range_scale(rows))
    about -= weighted_mean(about, weights).astype(np.float32)
    square = np.einsum("nd,nd->n", about, about)
    medoids = _first_medoids(about, square, weights, k, seed)
    share = (weights / weights.sum()).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(rows))[:_MAX_CANDIDATES]
    step = max(1, _DISTANCES // len(rows))
    blocks = [np.sort(order[i : i + step]) for i in range(0, len(order), step)]
    to_medoids = _distances(about, square, medoids)
    idle = at = 0
    table, shown = np.empty(0, np.float32), -1
    while idle < len(blocks):
        if shown != at:
            table, shown = _distances(about, square, blocks[at]), at
        swap = _best_swap(table, to_medoids, share)
        if swap is None:
            idle, at = idle + 1, (at + 1) % len(blocks)
            continue
        candidate, leaving = swap
        medoids[leaving] = blocks[at][candidate]
        to_medoids[leaving] = table[candidate]
        idle = 0
    return np.sort(medoids)


def _first_medoids(
    about: Float32, square: Float32, weights: Float64, k: int, seed: int
) -> Int64:
    centres = kmeans([about.copy()], [weights], k, seed)[0]
    half = 0.5 * square
    chosen = np.unique((half - centres @ about.T).argmin(axis=1))
    while len(chosen) < k:  # two centres, one nearest row: fill up with the farthest
        apart = _distances(about, square, chosen).min(axis=0)
        apart[chosen] = -1
        chosen = np.append(chosen, apart.argmax())
    return chosen


def _best_swap(table: Float32, to_medoids: Float32, share: Float32) -> tuple[int, int] | None:
    """Find the best (candidate, medoid) to swap; None where no swap lowers the cost."""
    k = len(to_medoids)
    owner = to_medoids.argmin(axis=0)
    first = to_medoids.min(axis=0)
    second = np.partition(to_medoids, 1, axis=0)[1] if k > 1 else np.float32(np.inf)
    belongs = np.zeros((len(share), k), np.float32)
    belongs[np.arange(len(share)), owner] = share
    closer = np.minimum(table, first)
    # Adding the candidate lowers the cost by this; where its owner leaves, a row goes to the
    # candidate or to its second medoid instead.
    change = ((closer - first) @ share)[:, np.newaxis]
    change = change + (np.minimum(table, second) - closer) @ belongs
    best = int(change.argmin())
    if change.flat[best] >= -_GAIN * float(first @ share):
        return None
    return best // k, best % k


def _distances(about: Float32, square: Float32, chosen: Int64) -> Float32:
    """Euclidean distances (chosen, n) of centred rows."""
    table: Float32 = about[chosen] @ about.T
    table *= -2
    table += square
    table += square[chosen, np.newaxis]
    table[np.arange(len(chosen)), chosen] = 0
    np.maximum(table, 0, out=table)
    np.sqrt(table, out=table)
    return table


def _squared_distances(rows: Float32, point: Float32) -> Float32:
    # By differences: near points don't cancel, and equal distances compare as equal.
    apart = np.empty(len(rows), np.float32)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step] - point
        apart[start : start + step] = np.einsum("nd,nd->n", part, part)
    return apart


def _double_blocks(rows: Float32) -> Iterator[tuple[slice, Float64]]:
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        yield part, rows[part].astype(np.float64)
