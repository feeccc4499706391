# SPDX-License-Identifier: Apache-2.0
"""Energy of an image, where a sensor tells the power."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.sensors.trace import Trace

__all__ = ["energy_of"]


def energy_of(series: Series, trace: Trace) -> dict[str, Any] | None:
    """Integrate the power over the time in which a series ran.

    One caller at a time: over its own calls, so that what ran between its turns is not its.
    Several: over the whole span, in which their calls overlap. It is the power of all that
    the sensor sees, at rest too.

    Args:
        series: Its starts are counted from the begin of the trace.
        trace: The sensors.

    Returns:
        The report's ``energy``; None where no sensor tells a power, or where its readings do
        not cover the series.
    """
    name = trace.power_reading()
    if name is None or series.starts_ns is None or not len(series.samples_ns):
        return None
    starts_s, taken_s = series.starts_ns / 1e9, series.samples_ns / 1e9
    if series.concurrency > 1 or series.offered_per_s is not None:
        begin_s, end_s = float(starts_s.min()), float((starts_s + taken_s).max())
        joules, seconds = trace.energy_joules(name, begin_s, end_s), end_s - begin_s
        if joules is None:
            return None
    else:
        watts = trace.at(name, starts_s + taken_s / 2)
        if np.isnan(watts).any():
            return None
        joules, seconds = float((watts * taken_s).sum()), float(taken_s.sum())
    return {
        "joules_per_image": joules / (series.batch * len(series.samples_ns)),
        "mean_power_w": joules / seconds if seconds else 0.0,
        "source": name,
        "series": series.name,
    }
