# SPDX-License-Identifier: Apache-2.0
"""Whether one thing is slower than another: the ratio of two medians, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.blocks import BlockBootstrap, nearest_rank
from edge_imprint_runtime.measuring.intervals import fewest_samples
from edge_imprint_runtime.measuring.student import (
    normal_tail,
    student_quantile,
    student_tail,
)

__all__ = ["Difference", "Samples", "compare"]

Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """The ratio of two percentiles, b over a.

    Attributes:
        ratio: Of b's percentile to a's; above 1, b is slower.
        interval: Of the ratio, at the confidence asked for.
        p_value: Of both being the same.
        significant: Whether the interval leaves out 1.
        runs: Runs of a and of b.
    """

    ratio: float
    interval: tuple[float, float]
    p_value: float
    significant: bool
    runs: tuple[int, int]


def compare(
    a: Samples | Sequence[Samples],
    b: Samples | Sequence[Samples],
    *,
    percent: float = 50.0,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Difference:
    """Compare two things, each measured in one run or in several.

    One run a side: both are resampled by blocks (see `blocks`), and the ratio of the medians
    of the resamples gives interval and p-value; Student's quantiles allow for few blocks.
    What that can't know is how much two runs of the *same* thing differ: memory lands
    elsewhere, a clock settles elsewhere. Series that were measured in turns in one run share
    that; reports of two runs do not, and a difference of 1 or 2 % between them may be of the
    runs, however small the p-value.

    Several runs a side (both, or one): the runs are the samples. Their medians' logarithms
    are compared by Student's t, with the scatter between runs of the side or sides that
    have several, and never less than what is seen within the runs.

    Args:
        a: (S,) int64 nanoseconds in the order in which they were taken, or one such array
            for each run.
        b: As a.
        percent: The percentile that is compared.
        confidence: Of the interval.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        The difference. Where samples are too few to bound the percentile at all, the interval
        is as wide as the samples, the p-value 1.

    Raises:
        ParameterError: A side has no samples, or the percentile is out of its range.
    """
    if not 0 < percent < 100:
        raise ParameterError(f"percent must be above 0 and below 100, got {percent}")
    first = [
        _Run(run, percent, confidence, resamples, seed + i) for i, run in enumerate(_runs(a))
    ]
    second = [
        _Run(run, percent, confidence, resamples, seed - i - 1)
        for i, run in enumerate(_runs(b))
    ]
    runs = len(first), len(second)
    centre = float(np.mean([r.log for r in second]) - np.mean([r.log for r in first]))
    if not all(run.bounded for run in (*first, *second)):
        low = min(r.least for r in second) / max(r.most for r in first)
        high = max(r.most for r in second) / min(r.least for r in first)
        return Difference(math.exp(centre), (low, high), 1.0, False, runs)
    if max(runs) > 1:
        low, high, p_value = _between_runs(first, second, centre, confidence)
    else:
        low, high, p_value = _within_runs(first[0], second[0], centre, confidence)
    interval = math.exp(low), math.exp(high)
    outside = interval[0] > 1 or interval[1] < 1
    return Difference(math.exp(centre), interval, p_value, outside, runs)


class _Run:
    """One run's percentile, in logarithms, and how it scatters by the block bootstrap."""

    def __init__(
        self, samples: Samples, percent: float, confidence: float, resamples: int, seed: int
    ) -> None:
        bootstrap = BlockBootstrap(np.maximum(samples, 1), (percent,))
        ordered = bootstrap.ordered
        self.log = math.log(ordered[nearest_rank(len(ordered), percent) - 1])
        self.least, self.most = float(ordered[0]), float(ordered[-1])
        worth = len(ordered) / bootstrap.design[percent]
        self.bounded = worth >= fewest_samples(percent, confidence)
        self.freedom = max(3.0, 1.5 * bootstrap.blocks - 1)
        drawn = np.log(ordered[bootstrap.draw(resamples, seed % (1 << 32))[percent]])
        self.off = (drawn - self.log) * bootstrap.widen[percent]
        self.variance = float(self.off.var())


def _within_runs(
    first: _Run, second: _Run, centre: float, confidence: float
) -> tuple[float, float, float]:
    """Return low, high and p-value from the resamples of one run a side."""
    drawn = np.sort(centre + second.off - first.off)
    total = first.variance + second.variance
    if total == 0:
        return centre, centre, 1.0 if centre == 0 else 0.0
    parts = [(run.variance, run.freedom) for run in (first, second)]
    freedom = total**2 / sum(v * v / f for v, f in parts)
    far = student_quantile((1 + confidence) / 2, freedom)
    out = math.floor(normal_tail(far) * len(drawn))
    crossed = min((drawn <= 0).mean(), (drawn >= 0).mean())
    if crossed > 0:
        z = -NormalDist().inv_cdf(min(0.5, float(crossed)))
    else:  # further out than the resamples reach
        z = max(-NormalDist().inv_cdf(1 / len(drawn)), abs(centre) / math.sqrt(total))
    return float(drawn[out]), float(drawn[-1 - out]), 2 * student_tail(z, freedom)


def _between_runs(
    first: list[_Run], second: list[_Run], centre: float, confidence: float
) -> tuple[float, float, float]:
    """Return low, high and p-value where there are several runs of one side or both."""
    sides = (first, second)
    freedom = sum(len(side) - 1 for side in sides)
    squares = sum(
        float(np.var([run.log for run in side]) * len(side)) for side in sides if len(side) > 1
    )
    between = squares / freedom * sum(1 / len(side) for side in sides)
    within = sum(sum(run.variance for run in side) / len(side) ** 2 for side in sides)
    error = math.sqrt(max(between, within))
    if error == 0:
        return centre, centre, 1.0 if centre == 0 else 0.0
    far = student_quantile((1 + confidence) / 2, freedom) * error
    return centre - far, centre + far, 2 * student_tail(abs(centre) / error, freedom)


def _runs(side: Samples | Sequence[Samples]) -> list[Samples]:
    runs = [side] if isinstance(side, np.ndarray) and side.ndim == 1 else list(side)
    if not runs or any(len(run) == 0 for run in runs):
        raise ParameterError("there are no samples to compare; measure both sides")
    return [np.asarray(run, np.int64) for run in runs]
