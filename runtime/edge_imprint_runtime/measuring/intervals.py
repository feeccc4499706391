# SPDX-License-Identifier: Apache-2.0
"""Intervals of percentiles, from samples that follow one another in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.blocks import BlockBootstrap
from edge_imprint_runtime.measuring.student import normal_tail, student_quantile

__all__ = ["fewest_samples", "percentile_intervals"]


def fewest_samples(percent: float, confidence: float = 0.95) -> int:
    """Return how many independent samples bound a percentile from both sides at all.

    The largest of n samples lies above the percentile p of what they come from with the
    probability 1 - p^n. Only where that reaches the half of the confidence that is the upper
    side's do n samples say anything about how high the percentile may lie: 72 for p95, 368
    for p99, 3,688 for p99.9, at 95 %.
    """
    share = max(percent, 100 - percent) / 100
    return math.ceil(math.log((1 - confidence) / 2) / math.log(share))


def percentile_intervals(
    samples_ns: npt.NDArray[np.int64],
    percents: Sequence[float] = (50.0, 90.0, 95.0, 99.0, 99.9),
    *,
    confidence: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> dict[float, tuple[int, int] | None]:
    """Bound percentiles by the block bootstrap.

    Args:
        samples_ns: (S,) int64 nanoseconds, in the order in which they were taken.
        percents: Which percentiles, above 0 and below 100.
        confidence: Of each interval by itself.
        resamples: Of the bootstrap.
        seed: Of the bootstrap: the same samples give the same intervals.

    Returns:
        By percentile: low and high in nanoseconds, both samples that were seen; None where
        so few samples can't bound it (see `fewest_samples`; samples that resemble their
        neighbours count for fewer).
    """
    bootstrap = BlockBootstrap(samples_ns, percents)
    bounded = [p for p in percents if _is_bounded(bootstrap, p, confidence)]
    found: dict[float, tuple[int, int] | None] = dict.fromkeys(percents)
    if not bounded:
        return found
    # Few blocks know their own scatter badly, as few samples do: Student's quantile instead
    # of the normal one, by taking the resamples further out.
    far = -student_quantile((1 - confidence) / 2, max(3.0, 1.5 * bootstrap.blocks - 1))
    drawn = bootstrap.draw(resamples, seed)
    for p in bounded:
        places = np.sort(drawn[p])
        out = math.floor(normal_tail(far * bootstrap.widen[p]) * resamples)
        tried = bootstrap.thresholds(p)
        ends = np.searchsorted(tried, (places[out], places[-1 - out]))
        # One further out on either side: a bound among few samples is a whole sample, and
        # is rounded so that it holds.
        low, high = max(0, ends[0] - 1), min(len(tried) - 1, ends[1] + 1)
        found[p] = int(bootstrap.ordered[tried[low]]), int(bootstrap.ordered[tried[high]])
    return found


def _is_bounded(bootstrap: BlockBootstrap, percent: float, confidence: float) -> bool:
    worth = len(bootstrap.ordered) / bootstrap.design[percent]
    return worth >= fewest_samples(percent, confidence)
