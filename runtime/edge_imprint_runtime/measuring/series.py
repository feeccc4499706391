# SPDX-License-Identifier: Apache-2.0
"""The samples of one thing measured, and what is said of them.

Percentiles are by nearest rank: a percentile is always a sample that was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.blocks import nearest_rank
from edge_imprint_runtime.measuring.intervals import percentile_intervals

__all__ = ["PERCENTS", "Series", "percent_key", "rate_text"]

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


def percent_key(percent: float) -> str:
    """Return the name of a percentile in reports: p50, p99, p99_9."""
    return f"p{percent:g}".replace(".", "_")


def rate_text(per_s: float) -> str:
    """Write a rate for people: 20, 0.5, 90.91, 100,000."""
    return f"{per_s:,.0f}" if per_s >= 1_000 else f"{per_s:.4g}"


@dataclass(frozen=True)
class Series:
    """The samples of one thing measured.

    Attributes:
        name: What ran.
        batch: Images a sample.
        samples_ns: (S,) int64 nanoseconds, in the order in which they were taken.
        starts_ns: (S,) int64 nanoseconds since the run began, when each was asked for; None
            where that is not known.
        concurrency: Callers at a time.
        stage: The part that was timed: "whole", "copy_in", "compute", "copy_out", ...
        clock: "host" or "cuda_events".
        warm_up_ns: (W,) int64 nanoseconds, the samples before, that count nowhere.
        warmed_up: Whether it had become steady before the first sample.
        offered_per_s: Where calls come at a rate of their own: calls a second.
    """

    name: str
    batch: int
    samples_ns: npt.NDArray[np.int64]
    starts_ns: npt.NDArray[np.int64] | None = None
    _: KW_ONLY
    concurrency: int = 1
    stage: str = "whole"
    clock: str = "host"
    warm_up_ns: Sequence[int] | npt.NDArray[np.int64] = field(default=())
    warmed_up: bool = True
    offered_per_s: float | None = None

    def percentile_ms(self, percent: float) -> float:
        """Return the nearest-rank percentile in milliseconds: a sample that was seen."""
        rank = nearest_rank(len(self.samples_ns), percent) - 1
        return float(np.partition(self.samples_ns, rank)[rank]) / 1e6

    def throughput_images_per_s(self) -> float:
        """Return images a second while it ran.

        Callers that each wait for their answer finish concurrency / mean latency calls a
        second (Little's law), which holds whatever ran between the turns of this series.
        Where calls come at a rate of their own, it is calls by the time from the first
        arrival to the last answer.
        """
        if self.offered_per_s is not None and self.starts_ns is not None:
            ends = self.starts_ns + self.samples_ns
            span_ns = max(1, int(ends.max()) - int(self.starts_ns.min()))
            return self.batch * len(self.samples_ns) / span_ns * 1e9
        mean_ms = max(float(self.samples_ns.mean()), 1e-3) / 1e6
        return self.concurrency * self.batch / mean_ms * 1e3

    def summary(
        self, *, confidence: float = 0.95, resamples: int = 1_000, seed: int = 0
    ) -> dict[str, Any]:
        """Return what a report says of the series, the samples left out.

        Args:
            confidence: Of the intervals.
            resamples: Of the bootstrap.
            seed: Of the bootstrap.

        Returns:
            Names, counts, latencies in ms, ``intervals_ms`` by percentile ("p50", ...,
            "p99_9": [low, high], or None where so few samples bound no such percentile)
            and throughput, as JSON takes them.
        """
        ordered = np.sort(self.samples_ns)
        at = {p: int(ordered[nearest_rank(len(ordered), p) - 1]) for p in PERCENTS}
        bounds = percentile_intervals(
            self.samples_ns, PERCENTS, confidence=confidence, resamples=resamples, seed=seed
        )
        return {
            "name": self.name,
            "batch": self.batch,
            "concurrency": self.concurrency,
            "stage": self.stage,
            "clock": self.clock,
            "iterations": len(ordered),
            "warm_up_iterations": len(self.warm_up_ns),
            "warmed_up": self.warmed_up,
            "min_ms": float(ordered[0]) / 1e6,
            **{f"{percent_key(p)}_ms": value / 1e6 for p, value in at.items()},
            "max_ms": float(ordered[-1]) / 1e6,
            "mean_ms": float(ordered.mean()) / 1e6,
            "intervals_ms": {
                percent_key(p): None if bound is None else [side / 1e6 for side in bound]
                for p, bound in bounds.items()
            },
            "throughput_images_per_s": self.throughput_images_per_s(),
            "offered_per_s": self.offered_per_s,
        }
