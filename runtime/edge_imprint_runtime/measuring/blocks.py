# SPDX-License-Identifier: Apache-2.0
"""The block bootstrap of percentiles: samples that follow one another are not independent.

Latencies that are taken one after another resemble their neighbours (a clock, a neighbour's
burst, a cache). Drawing single samples again would call them independent and give intervals
that are too narrow, so stretches of neighbours are drawn (Kuensch 1989; circular: Politis and
Romano 1992), as long as the automatic rule of Politis and White (2004) asks for.

A percentile of a resample only depends on how many of its samples lie at or below each
threshold. So each block is counted once, and all resamples are one product of matrices:
how often each block was drawn, times the counts of each block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BlockBootstrap", "dependence", "nearest_rank"]

# Blocks start at every quarter of a block: nearly as good as at every sample (the moving
# block bootstrap's gain over separate blocks is reached), at a fraction of the counting.
_PARTS = 4
# More blocks than this make no difference to the bootstrap's own error (their variance is
# known to 1 / sqrt(1000) = 3 %), while longer ones see longer dependence; it bounds memory.
_MOST_BLOCKS = 1_000
# Below this many blocks a resample has too few pieces to differ from the others.
_FEWEST_BLOCKS = 8
# Thresholds a percentile: over +-5 standard deviations, 1/16 of one apart.
_THRESHOLDS = 160
_SPREAD = 5.0
# Rows of resamples counted at a time: bounds memory.
_ROWS = 250
# Sums of counts that float32 holds exactly.
_EXACT_FLOAT32 = 1 << 23


def nearest_rank(count: int, percent: float) -> int:
    """Return the rank, from 1, of a percentile of so many samples."""
    # A rank is rounded up; what floats make of 99.9 * 1000 / 100 may not cost a whole rank.
    return min(count, max(1, math.ceil(round(percent * count / 100, 6))))


def dependence(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Say how far neighbours resemble each other: the rule of Politis and White (2004).

    With the correction of Patton, Politis and White (2009), for the circular bootstrap.

    Args:
        values: (N,) float64 in the order in which they were taken.

    Returns:
        How long blocks should be, in samples, at least 1; and how many times more the mean
        scatters than that of independent samples, at least 1 (the sum of the correlations
        under a flat-top window). Both are 1 for what is independent.
    """
    n = len(values)
    centred = values - values.mean()
    if n < 8 or not centred.any():
        return 1.0, 1.0
    size = 1 << (2 * n - 1).bit_length()
    longest = n // 2
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    covariance = np.fft.irfft(power, size)[: longest + 1]
    correlation = covariance / covariance[0]
    # The last lag before the first stretch of correlations that are no more than noise.
    stretch = max(5, math.ceil(math.sqrt(math.log10(n))))
    small = np.abs(correlation[1:]) < 2 * math.sqrt(math.log10(n) / n)
    runs = np.convolve(small, np.ones(stretch, np.int64), "valid")
    quiet = np.flatnonzero(runs == stretch)
    last = int(quiet[0]) if len(quiet) else longest // 2
    # So few samples as 30 hide much likeness in that noise: what the next neighbour alone
    # shows is the least, its bias (Kendall 1954) taken out.
    next_one = float(correlation[1])
    next_one = min(max(next_one + (1 + 3 * next_one) / n, 0.0), 0.95)
    least = (1 + next_one) / (1 - next_one)
    if last == 0:
        return 1.0, least
    lags = np.arange(1, min(2 * last, longest) + 1)
    window = np.minimum(1.0, 2 * (1 - lags / (2 * last)))  # flat, then down to zero
    kept = window * correlation[lags]
    long_run = 1 + 2 * float(kept.sum())
    if long_run <= 0:
        return 1.0, least
    slope = 2 * float((lags * kept).sum())
    length = (1.5 * (slope / long_run) ** 2 * n) ** (1 / 3)
    return max(1.0, length), max(least, long_run)


@dataclass(frozen=True)
class _Blocks:
    """Parts of a series, equal in length to within a sample; a block is `width` parts."""

    part_of: npt.NDArray[np.int64]
    parts: int
    width: int

    def sums(self, bins: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
        """Count samples by block and bin: (parts, count), a block from each part on."""
        flat = np.bincount(self.part_of * count + bins, minlength=self.parts * count)
        by_part = flat.reshape(self.parts, count).astype(np.float64)
        total: npt.NDArray[np.float64] = by_part.copy()
        for step in range(1, self.width):
            total += np.roll(by_part, -step, axis=0)
        return total


class BlockBootstrap:
    """Percentiles of one series, resampled by blocks.

    Args:
        samples: (N,) what was measured, in the order in which it was taken.
        percents: Which percentiles, above 0 and below 100.

    Attributes:
        ordered: (N,) the samples, sorted: results are places in it.
        blocks: Blocks in a resample.
        design: By percentile: how many times more the share of samples at or below it
            scatters than among independent samples, at least 1. N / design is what the
            samples are worth.
        widen: By percentile: how many times more its place scatters than the bootstrap says,
            at least 1: blocks that end cut off some of the dependence.
    """

    def __init__(self, samples: npt.NDArray[np.generic], percents: Sequence[float]) -> None:
        n = len(samples)
        order = np.argsort(samples, kind="stable")
        self.ordered = samples[order]
        # Equal samples share the last place among them: "at or below" counts them all.
        last = np.searchsorted(self.ordered, self.ordered, side="right") - 1
        self._place = np.empty(n, np.int64)
        self._place[order] = last
        asked = {p: (p, _inner(p)) for p in percents}
        at_or_below = {
            p: self._place <= last[nearest_rank(n, p) - 1]
            for p in {one for pair in asked.values() for one in pair}
        }
        told = {p: dependence(values.astype(np.float64)) for p, values in at_or_below.items()}
        self._blocks = _cut(n, max((told[p][0] for p in percents), default=1.0))
        self.blocks = max(1, round(self._blocks.parts / self._blocks.width))
        seen = {p: self._scatter(values) for p, values in at_or_below.items()}
        self.design = {p: max(*(max(seen[q], told[q][1]) for q in asked[p])) for p in percents}
        self.widen = {p: math.sqrt(self.design[p] / seen[p]) for p in percents}

    def _scatter(self, below: npt.NDArray[np.bool_]) -> float:
        """Return the variance of blocks' counts by that of independent samples, from 1 up."""
        share = float(below.mean())
        if not 0 < share < 1:
            return 1.0
        sums = self._blocks.sums(below.astype(np.int64), 2)
        off = sums[:, 1] - share * sums.sum(axis=1)
        size = len(below) * self._blocks.width / self._blocks.parts
        return max(1.0, float((off * off).mean()) / (size * share * (1 - share)))

    def draw(self, resamples: int, seed: int) -> dict[float, npt.NDArray[np.int64]]:
        """Draw resamples.

        Args:
            resamples: How many.
            seed: The same seed draws the same blocks.

        Returns:
            By percentile: (resamples,) int64 where in `ordered` each resample's lies, rounded
            up to the next of `thresholds`.
        """
        tried = {p: self.thresholds(p) for p in self.design}
        grid = np.unique(np.concatenate(list(tried.values())))
        bins = np.searchsorted(grid, self._place, side="left")
        kind = np.float32 if len(self._place) < _EXACT_FLOAT32 else np.float64
        counts = self._blocks.sums(bins, len(grid) + 1).cumsum(axis=1).astype(kind)
        rng = np.random.default_rng(seed)
        parts = self._blocks.parts
        found: dict[float, list[npt.NDArray[np.int64]]] = {p: [] for p in tried}
        for start in range(0, resamples, _ROWS):
            rows = min(_ROWS, resamples - start)
            drawn = rng.integers(0, parts, (rows, self.blocks))
            drawn += np.arange(rows)[:, None] * parts
            times = np.bincount(drawn.ravel(), minlength=rows * parts).reshape(rows, parts)
            reached = times.astype(kind) @ counts
            sizes = reached[:, -1:].astype(np.float64)
            for p, places in tried.items():
                wanted = np.maximum(1, np.ceil(np.round(sizes * (p / 100), 6)))
                enough = reached[:, np.searchsorted(grid, places)] >= wanted
                enough[:, -1] = True
                found[p].append(places[enough.argmax(axis=1)])
        return {p: np.concatenate(places) for p, places in found.items()}

    def thresholds(self, percent: float) -> npt.NDArray[np.int64]:
        """Return the places in `ordered` that are tried for a percentile, rising."""
        n, share = len(self._place), percent / 100
        deviation = math.sqrt(n * share * (1 - share) * self.design[percent])
        centre = nearest_rank(n, percent) - 1
        low = max(0, math.floor(centre - _SPREAD * deviation - 2))
        high = min(n - 1, math.ceil(centre + _SPREAD * deviation + 2))
        evenly = np.linspace(low, high, min(_THRESHOLDS, high - low + 1)).round()
        places: npt.NDArray[np.int64] = np.unique(evenly.astype(np.int64))
        return places


def _inner(percent: float) -> float:
    """Return the percentile with five times the tail, the median at most.

    Far out there are too few samples to see how they depend on each other; their dependence
    is taken to be no less than that of the samples a little further in.
    """
    tail = min(50.0, 5 * min(percent, 100 - percent))
    return tail if percent < 50 else 100 - tail


def _cut(count: int, length: float) -> _Blocks:
    """Cut a series so that blocks are at least so long, and neither too few nor too many."""
    blocks = int(count / max(length, count / _MOST_BLOCKS))
    blocks = min(count, max(blocks, _FEWEST_BLOCKS))
    width = _PARTS if count >= _PARTS * blocks else 1
    parts = max(1, blocks * width)
    return _Blocks(np.arange(count, dtype=np.int64) * parts // count, parts, width)
