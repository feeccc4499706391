# SPDX-License-Identifier: Apache-2.0
"""MLPerf Inference's early-stopping estimate of a percentile.

From the rules of MLPerf Inference (early stopping, tolerance d = 0): a run of q queries of
which t may lie above a latency shows, at confidence c, that the percentile p lies at or below
it, where t is the largest with

    P(at most t of q queries lie above | each does with probability 1 - p) <= 1 - c.

The t - 1 highest latencies are discarded, and the highest of the rest is the estimate: it
lies above the percentile that was seen, by as much as so few queries leave open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import ParameterError

__all__ = ["EarlyStopping", "estimate", "needed_queries", "suggested_queries"]

# MLPerf's suggestion is rounded up to a multiple of this.
_QUERIES_STEP = 1 << 13
# So many standard deviations below the mean, a binomial's tail is nothing at any confidence.
_NOTHING = 40.0


@dataclass(frozen=True)
class EarlyStopping:
    """What so many queries say of a percentile.

    Attributes:
        queries: Samples there were (q).
        over_latency: Samples that may lie above (t); 0 where there were too few queries.
        discarded: Highest samples left out: t - 1, or 0.
        estimate_ns: The highest of the rest; None where there were too few queries.
        needed_queries: The fewest queries that give an estimate at all (64 for p90 at 99 %).
        suggested_queries: What MLPerf suggests for a tight one (24,576 for p90 at 99 %).
    """

    queries: int
    over_latency: int
    discarded: int
    estimate_ns: int | None
    needed_queries: int
    suggested_queries: int


def estimate(
    samples_ns: npt.NDArray[np.int64], percent: float = 90.0, confidence: float = 0.99
) -> EarlyStopping:
    """Estimate a percentile as MLPerf Inference's single-stream scenario does.

    Args:
        samples_ns: (Q,) int64 nanoseconds, in any order.
        percent: The percentile, above 0 and below 100.
        confidence: That the percentile lies at or below the estimate; above 0, below 1.

    Raises:
        ParameterError: Percentile or confidence are out of their ranges.
    """
    queries = len(samples_ns)
    needed = needed_queries(percent, confidence)
    over = most_over_latency(queries, percent, confidence) if queries >= needed else 0
    at = queries - over
    return EarlyStopping(
        queries,
        over,
        max(0, over - 1),
        int(np.partition(samples_ns, at)[at]) if over else None,
        needed,
        suggested_queries(percent, confidence),
    )


def most_over_latency(queries: int, percent: float = 90.0, confidence: float = 0.99) -> int:
    """Return t, the most queries that may lie above; below 1 there is no estimate."""
    above = _checked(percent, confidence)
    mean = queries * above
    low = max(0, math.floor(mean - _NOTHING * math.sqrt(mean) - _NOTHING))
    high = min(queries, math.ceil(mean))
    counts = np.arange(low, high + 1)
    # From one probability to the next of the binomial distribution, in logarithms.
    steps = np.log((queries - counts[:-1]) / (counts[:-1] + 1)) + math.log(above / (1 - above))
    first = (
        math.lgamma(queries + 1)
        - math.lgamma(low + 1)
        - math.lgamma(queries - low + 1)
        + low * math.log(above)
        + (queries - low) * math.log1p(-above)
    )
    logs = first + np.concatenate([[0.0], np.cumsum(steps)])
    at_most = np.exp(logs).cumsum()
    return low + int(np.searchsorted(at_most, 1 - confidence, side="right")) - 1


def needed_queries(percent: float = 90.0, confidence: float = 0.99) -> int:
    """Return the fewest queries that give an estimate: t is then 1.

    64 for p90, 662 for p99 at 99 %, as MLPerf's load generator says.

    Raises:
        ParameterError: Percentile or confidence are out of their ranges.
    """
    above = _checked(percent, confidence)
    low, high = 1, 2
    while _at_most_one(high, above) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most_one(middle, above) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def suggested_queries(percent: float = 90.0, confidence: float = 0.99) -> int:
    """Return the queries that MLPerf Inference's rules suggest.

    As many as know the share of queries above the percentile to a twentieth of it:
    z^2 p (1 - p) / ((1 - p) / 20)^2, rounded up to a multiple of 8,192.

    Raises:
        ParameterError: Percentile or confidence are out of their ranges.
    """
    above = _checked(percent, confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    queries = z * z * (1 - above) * above / (above / 20) ** 2
    return math.ceil(queries / _QUERIES_STEP) * _QUERIES_STEP


def _at_most_one(queries: int, above: float) -> float:
    return (1 - above) ** (queries - 1) * (1 + (queries - 1) * above)


def _checked(percent: float, confidence: float) -> float:
    """Return the share above the percentile, after the ranges were looked at."""
    if not 0 < percent < 100:
        raise ParameterError(f"percent must be above 0 and below 100, got {percent}")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence must be above 0 and below 1, got {confidence}")
    # 1 - 0.9 is not 0.1 in floats; what is meant is.
    return round((100 - percent) / 100, 12)
