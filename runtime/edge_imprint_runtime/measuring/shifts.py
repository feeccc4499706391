# SPDX-License-Identifier: Apache-2.0
"""Drift and level shifts of a latency over time.

A series is cut into at most 64 stretches, and one number of each is looked at: its median, or
its 90th percentile, which sees what hits only some runs (a neighbour that takes the processor
away now and then). Both tests work on ranks, so that no outlier decides, and both allow for
stretches that resemble their neighbours. What is found must be significant *and* large: of
100,000 samples, a drift of 0.1 % is significant and does not matter.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.student import normal_tail

__all__ = [
    "DRIFT_PERCENT",
    "SHIFT_PERCENT",
    "TAIL_SHIFT_PERCENT",
    "Drift",
    "LevelShift",
    "find_drift",
    "find_level_shifts",
    "is_a_step",
]

Floats = npt.NDArray[np.float64]

# What matters. Two runs on one quiet machine differ by 1 to 2 %: less than 3 % over a whole
# run can't be told from that, and moves no median by more than half of it.
DRIFT_PERCENT = 3.0
# A shift leaves the median at one level or the other, by chance of its time: larger than
# what one would call the same, and what `report --fail-if-slower 5%` stands on.
SHIFT_PERCENT = 5.0
# The 90th percentile of a stretch scatters more than its median.
TAIL_SHIFT_PERCENT = 20.0
# One quiet run in a hundred may be called drifting, one in five hundred shifted: this is
# looked at for each series of each run.
_DRIFT_ALPHA = 0.01
_SHIFT_ALPHA = 0.002

# Stretches: enough to place a shift to 2 % of the run, few enough that each median is of many
# samples. Only these numbers are used, as the test's null distribution is kept for each.
_STRETCHES = (8, 10, 12, 16, 24, 32, 48, 64)
_SHUFFLES = 4_000
_MOST_SHIFTS = 4
# A single change is told as such where it explains nearly as much as the best stretch.
_SINGLE = 0.93
# From so many stretches on, a second shift is taken out before likeness is looked at.
_FOR_TWO = 24


@dataclass(frozen=True)
class Drift:
    """A slope over the whole run.

    Attributes:
        change_percent: From the run's begin to its end, on the line that fits best.
        p_value: Of there being no slope.
        found: Whether it is significant and large enough to matter.
    """

    change_percent: float
    p_value: float
    found: bool


@dataclass(frozen=True)
class LevelShift:
    """Samples ``first`` up to, not with, ``last`` lie at another level than the others.

    Attributes:
        first: Index of the first.
        last: Index after the last; the number of samples where the level stayed.
        percent: The percentile that moved: 50, or 90 where the median did not.
        before_ns: That percentile of the other samples (of those before, where it stayed).
        level_ns: That percentile of these samples.
        change_percent: Of the second against the first.
        p_value: Of no such stretch being there.
    """

    first: int
    last: int
    percent: float
    before_ns: int
    level_ns: int
    change_percent: float
    p_value: float


def find_drift(
    samples_ns: npt.NDArray[np.int64],
    starts_ns: npt.NDArray[np.int64] | None = None,
    *,
    least_percent: float = DRIFT_PERCENT,
    alpha: float = _DRIFT_ALPHA,
) -> Drift:
    """Look for a slope: Theil (1950) and Sen (1968), tested after Mann (1945) and Kendall.

    The variance of Kendall's statistic is widened for stretches that resemble their
    neighbours, as Hamed and Rao (1998) do, by the correlation of what the line leaves over.

    Args:
        samples_ns: (S,) int64 nanoseconds, in the order in which they were taken.
        starts_ns: (S,) int64 when they were; evenly where it is not known.
        least_percent: Below this change it does not matter.
        alpha: How often a run without a slope may be called drifting.
    """
    values = _stretches(samples_ns, 50.0)
    if values is None:
        return Drift(0.0, 1.0, False)
    logs = np.log(np.maximum(values, 1.0))
    count = len(logs)
    if starts_ns is None:
        times = np.arange(count, dtype=np.float64)
    else:
        edges = _edges(len(samples_ns), count)
        times = (starts_ns[edges[:-1]] + starts_ns[edges[1:] - 1]) / 2e9
    later, earlier = np.triu_indices(count, 1)[::-1]
    gaps = times[later] - times[earlier]
    rises = logs[later] - logs[earlier]
    slope = float(np.median(rises[gaps > 0] / gaps[gaps > 0])) if (gaps > 0).any() else 0.0
    left = _ranks(logs - slope * times)
    widen = _excess(left)
    statistic = abs(float(np.sign(rises).sum()))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18 * widen)
    p_value = 2 * normal_tail(max(0.0, statistic - 1) / deviation)
    # From the middle of the first stretch to the last's, and half a stretch on either side.
    span = (times[-1] - times[0]) * count / (count - 1)
    change = math.expm1(min(slope * span, 50.0)) * 100
    return Drift(change, p_value, p_value < alpha and abs(change) > least_percent)


def find_level_shifts(
    samples_ns: npt.NDArray[np.int64],
    *,
    least_percent: float = SHIFT_PERCENT,
    least_tail_percent: float = TAIL_SHIFT_PERCENT,
    alpha: float = _SHIFT_ALPHA,
) -> tuple[LevelShift, ...]:
    """Look for stretches at another level: circular binary segmentation on ranks.

    After Olshen, Venkatraman, Lucito and Wigler (2004): of all stretches (i, j), the one whose
    ranks differ most from the others', against what shuffled stretches give. What is found
    is levelled, and the rest looked at again.

    Args:
        samples_ns: (S,) int64 nanoseconds, in the order in which they were taken.
        least_percent: Below this change of the median it does not matter.
        least_tail_percent: Below this change of the 90th percentile it does not matter.
        alpha: How often a run without a shift may be called shifted.

    Returns:
        At most four, the most significant first; of the 90th percentile only where the
        median did not move.
    """
    for percent, least in ((50.0, least_percent), (90.0, least_tail_percent)):
        found = _shifts_of(samples_ns, percent, least, alpha)
        if found:
            return found
    return ()


def is_a_step(samples_ns: npt.NDArray[np.int64], shift: LevelShift) -> bool:
    """Whether one shift fits better than one slope, where a series shows both."""
    values = _stretches(samples_ns, 50.0)
    if values is None:
        return False
    logs = np.log(np.maximum(values, 1.0))
    times = np.arange(len(logs), dtype=np.float64)
    at = np.searchsorted(_edges(len(samples_ns), len(logs)), (shift.first, shift.last))
    inside = (times >= at[0]) & (times < at[1])
    if inside.all() or not inside.any():
        return False
    stepped = logs - np.where(inside, np.median(logs[inside]), np.median(logs[~inside]))
    later, earlier = np.triu_indices(len(logs), 1)[::-1]
    slope = np.median((logs[later] - logs[earlier]) / (later - earlier))
    sloped = logs - slope * times
    sloped -= np.median(sloped)
    return float(np.abs(stepped).sum()) <= float(np.abs(sloped).sum())


def _shifts_of(
    samples_ns: npt.NDArray[np.int64], percent: float, least: float, alpha: float
) -> tuple[LevelShift, ...]:
    values = _stretches(samples_ns, percent)
    if values is None:
        return ()
    edges = _edges(len(samples_ns), len(values))
    found: list[LevelShift] = []
    for _ in range(_MOST_SHIFTS):
        first, last, p_value = _best_arc(values)
        inside = np.zeros(len(values), np.bool_)
        inside[first:last] = True
        ratio = float(np.median(values[inside]) / max(1.0, np.median(values[~inside])))
        if p_value >= alpha:
            break
        values = np.where(inside, values / max(ratio, 1e-9), values)
        if first == 0:  # another level up to somewhere: what is told is where it ended
            first, last = last, len(values)
            inside = ~inside
        of_sample = np.repeat(inside, np.diff(edges))
        level = _percentile(samples_ns[of_sample], percent)
        before = _percentile(samples_ns[~of_sample], percent)
        change = (level / max(1, before) - 1) * 100
        if abs(change) > least:
            found.append(
                LevelShift(
                    int(edges[first]),
                    int(edges[last]),
                    percent,
                    before,
                    level,
                    change,
                    p_value,
                )
            )
    return tuple(found)


def _best_arc(values: Floats) -> tuple[int, int, float]:
    """Return the stretches [first, last) that differ most from the rest, and the p-value."""
    count = len(values)
    first, last, height = _highest(values)
    left = _levelled(values, first, last)
    if count >= _FOR_TWO:  # a second shift must not pass for likeness
        left = _levelled(left, *_highest(left)[:2])
    null = _null_heights(count)
    above = len(null) - int(np.searchsorted(null, height / math.sqrt(_excess(_ranks(left)))))
    return first, last, (above + 1) / (len(null) + 1)


def _highest(values: Floats) -> tuple[int, int, float]:
    count = len(values)
    firsts, lasts, scale = _arcs(count)
    sums = np.concatenate([[0.0], _ranks(values).cumsum()])
    heights = np.abs(sums[lasts] - sums[firsts]) * scale
    best = int(heights.argmax())
    single = np.where((firsts == 0) | (lasts == count), heights, 0.0)
    if single.max() >= _SINGLE * heights[best]:
        best = int(single.argmax())
    return int(firsts[best]), int(lasts[best]), float(heights.max())


def _levelled(values: Floats, first: int, last: int) -> Floats:
    """Divide the stretches [first, last), and the others, by their medians."""
    inside = np.zeros(len(values), np.bool_)
    inside[first:last] = True
    within, without = np.median(values[inside]), np.median(values[~inside])
    return np.where(inside, values / max(1e-9, within), values / max(1e-9, without))


@functools.cache
def _arcs(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """List all stretches that leave at least two out and hold at least two."""
    firsts, lasts = np.triu_indices(count + 1, 2)
    kept = lasts - firsts <= count - 2
    firsts, lasts = firsts[kept], lasts[kept]
    width = (lasts - firsts).astype(np.float64)
    return firsts, lasts, 1 / np.sqrt(width * (count - width) / count)


@functools.cache
def _null_heights(count: int) -> Floats:
    """Return the heights that shuffled ranks give, sorted: the test's null distribution."""
    rng = np.random.default_rng(count)
    firsts, lasts, scale = _arcs(count)
    ranks = _ranks(np.arange(count, dtype=np.float64))
    heights = []
    for _ in range(_SHUFFLES // 200):
        rows = rng.permuted(np.tile(ranks, (200, 1)), axis=1).cumsum(axis=1)
        sums = np.concatenate([np.zeros((200, 1)), rows], axis=1)
        heights.append((np.abs(sums[:, lasts] - sums[:, firsts]) * scale).max(axis=1))
    return np.sort(np.concatenate(heights))


def _excess(left: Floats) -> float:
    """Return how many times more sums scatter than independent ones': neighbours' likeness.

    The sum of the correlations of a process in which each resembles the one before. What is
    smooth enough for a cubic is no noise, and says nothing about likeness: the decay of a
    warm-up leaves a curve about the line that fits it.
    """
    count = len(left)
    rough = left - _cubic(count) @ (_cubic(count).T @ left)
    power = float((rough * rough).sum())
    if power <= 1e-12 * count:
        return 1.0
    # Each of the four terms fitted takes some likeness away.
    likeness = float((rough[1:] * rough[:-1]).sum()) / power + 4 / count
    likeness = min(max(likeness, 0.0), 0.95)
    return (1 + likeness) / (1 - likeness)


@functools.cache
def _cubic(count: int) -> Floats:
    """Return the orthonormal cubics over so many points, (count, 4)."""
    at = np.linspace(-1.0, 1.0, count)
    basis: Floats = np.linalg.qr(np.vander(at, 4))[0]
    return basis


def _ranks(values: Floats) -> Floats:
    """Return ranks, equal ones for equal values, with mean 0 and variance 1."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    ranks = below + np.searchsorted(ordered, values, "right")
    centred = ranks - ranks.mean()
    deviation = float(centred.std())
    scaled: Floats = centred / deviation if deviation > 0 else centred * 0.0
    return scaled


def _edges(samples: int, count: int) -> npt.NDArray[np.int64]:
    """Return where stretches begin, and the number of samples at the end: (count + 1,)."""
    return np.arange(count + 1, dtype=np.int64) * samples // count


def _stretches(samples_ns: npt.NDArray[np.int64], percent: float) -> Floats | None:
    """Return the percentile of each stretch of samples; None where they are too few."""
    # A 90th percentile needs some samples below it, a median only three where there are few.
    least = 10 if percent > 50 else 3
    most = min(_STRETCHES[-1], max(len(samples_ns) // least, min(len(samples_ns), 12)))
    if percent > 50:
        most = min(_STRETCHES[-1], len(samples_ns) // least)
    counts = [count for count in _STRETCHES if count <= most]
    if not counts:
        return None
    edges = _edges(len(samples_ns), counts[-1])
    pieces = np.split(samples_ns, edges[1:-1])
    return np.array([_percentile(piece, percent) for piece in pieces], np.float64)


def _percentile(samples_ns: npt.NDArray[np.int64], percent: float) -> int:
    rank = max(1, math.ceil(percent * len(samples_ns) / 100)) - 1
    return int(np.partition(samples_ns, rank)[rank])
