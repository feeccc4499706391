# SPDX-License-Identifier: Apache-2.0
"""Readings over time, as a recorder took them and a report keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Trace"]

# Which reading says best what the computation draws, best first: the whole board, then the
# GPU, then the processor's package.
_POWER = ("power_w.total", "gpu_power_w", "power_w.package")


@dataclass(frozen=True, eq=False)
class Trace:
    """Readings taken at the same times.

    Attributes:
        times_s: (T,) float64 seconds since the recording began, rising.
        readings: (T,) float64 by name, with its unit in the name; NaN where it was missing.
        lost: Why a source ended before the recording did, or could not be opened, by name.
        interval_s: Seconds between readings that were asked for.
    """

    times_s: npt.NDArray[np.float64]
    readings: Mapping[str, npt.NDArray[np.float64]]
    lost: Mapping[str, str] = field(default_factory=dict)
    interval_s: float = 0.25

    def at(self, name: str, times_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Resample one reading: linear between its neighbours in time, NaN outside of them.

        Args:
            name: The reading; one that was never taken is NaN throughout.
            times_s: (N,) seconds since the recording began.

        Returns:
            (N,) float64.
        """
        times = np.asarray(times_s, np.float64)
        values = self.readings.get(name)
        if values is None:
            return np.full(times.shape, np.nan)
        known = ~np.isnan(values)
        if not known.any():
            return np.full(times.shape, np.nan)
        return np.interp(times, self.times_s[known], values[known], np.nan, np.nan)

    def power_reading(self) -> str | None:
        """Name the reading that says best what a run draws; None where none was taken."""
        for wanted in _POWER:
            for name, values in self.readings.items():
                if name.startswith(wanted) and not np.isnan(values).all():
                    return name
        return None

    def energy_joules(self, name: str, t0_s: float, t1_s: float) -> float | None:
        """Integrate a reading in watts over time, by the trapezoid rule.

        Args:
            name: A reading in watts.
            t0_s: From when, in seconds since the recording began.
            t1_s: To when; not before ``t0_s``.

        Returns:
            Joules; None unless the reading covers the whole span.
        """
        inside = self.times_s[(self.times_s > t0_s) & (self.times_s < t1_s)]
        times = np.concatenate([[t0_s], inside, [t1_s]])
        watts = self.at(name, times)
        if np.isnan(watts).any() or t1_s < t0_s:
            return None
        return float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())

    def as_json(self) -> dict[str, Any]:
        """Return the trace as a report keeps it: lists, with null where a value is missing."""
        return {
            "interval_s": self.interval_s,
            "times_s": [float(t) for t in self.times_s],
            "readings": {
                name: [float(v) if math.isfinite(v) else None for v in values]
                for name, values in self.readings.items()
            },
            "lost": dict(self.lost),
        }
