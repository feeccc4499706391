# SPDX-License-Identifier: Apache-2.0
"""The charts of sensors over time: one small chart a quantity."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_imprint import report
from edge_imprint.bench_charts import COLORS, STROKES, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Readings", "groups", "render", "throttled"]

Readings = dict[str, npt.NDArray[np.float64]]

_MOST_LINES = 6
_POINTS = 600
_OWN_MEMORY = "memory of this process, MB"

# Seconds that were used since the start, whose slope says how many cores were at work.
_CUMULATIVE = {
    "own_cpu_s": "this process",
    "busy_cpu_s": "all processes",
    "steal_s": "taken by the host",
}


def groups(times_s: npt.NDArray[np.float64], readings: Readings) -> dict[str, Readings]:
    """Sort readings into quantities that share an axis.

    Args:
        times_s: (T,) float64 seconds.
        readings: (T,) float64 by name, NaN where missing.

    Returns:
        By the label of the axis: readings by a short name. Flat zeros are left out.
    """
    found: dict[str, Readings] = {}
    for name, values in readings.items():
        if name in _CUMULATIVE:
            label, short, values = "cores at work", _CUMULATIVE[name], _slope(times_s, values)
        else:
            label, short = _quantity(name)
        if label.endswith("bytes"):
            label = "memory, MB"
        if label in ("memory, MB", _OWN_MEMORY):
            values = values / 1e6
        if (
            np.isnan(values).all()
            or label == "throttled"
            or (not np.nanmax(np.abs(values)) and label == "power, W")
        ):
            continue
        found.setdefault(label, {})[short] = values
    return dict(sorted(found.items(), key=lambda item: _ORDER.get(item[0], 99)))


def throttled(readings: Readings) -> tuple[str, ...]:
    """Return the reasons for which clocks were held down at some time of the run."""
    start = "gpu_throttle_"
    return tuple(
        name.removeprefix(start).replace("_", " ")
        for name, values in readings.items()
        if name.startswith(start) and np.nanmax(np.nan_to_num(values)) > 0
    )


def render(times_s: npt.NDArray[np.float64], readings: Readings) -> str:
    """Draw a small chart a quantity.

    Args:
        times_s: (T,) float64 seconds since the run began.
        readings: As in `groups`.

    Returns:
        HTML.
    """
    made: list[tuple[str, str, Callable[[Figure], None]]] = []
    for label, lines in groups(times_s, readings).items():
        said = ", ".join(f"{name} {_range(values)}" for name, values in lines.items())
        draw = functools.partial(_draw, times_s=times_s, label=label, lines=lines)
        made.append((label, f"{label} over time: {said}"[:1_000], draw))
    return report.drawings(*made, height=2.5) if made else ""


_ORDER = {
    label: number
    for number, label in enumerate(
        (
            *("clock, MHz", "temperature, °C", "power, W", "load, %", "cores at work"),
            *("memory, MB", _OWN_MEMORY),
        )
    )
}


def _quantity(name: str) -> tuple[str, str]:
    """Return the label of the axis, and what is left of the name."""
    kind, _, part = name.partition(".")
    if "_mhz" in kind:
        return "clock, MHz", name.replace("_mhz", "").replace("_", " ").replace(".", " ")
    if name == "own_rss_bytes":  # far below what is free, on an axis of its own
        return _OWN_MEMORY, "resident"
    if kind == "temperature_c" or kind.endswith("_temperature_c"):
        return "temperature, °C", part or kind.removesuffix("_temperature_c")
    if kind.endswith("power_w"):
        return "power, W", part or kind.removesuffix("_w").replace("_", " ")
    if kind.endswith("_percent"):
        return "load, %", name.replace("_percent", "").replace("_", " ").replace(".", " ")
    if kind.endswith("_bytes"):
        return "bytes", name.replace("_bytes", "").replace("_", " ")
    if kind.startswith("gpu_throttle_"):
        return "throttled", name
    return name.replace("_", " "), name.replace("_", " ")


def _draw(
    figure: Figure,
    *,
    times_s: npt.NDArray[np.float64],
    label: str,
    lines: Mapping[str, object],
) -> None:
    axes = figure.subplots()
    shown = _most_telling(lines)
    step = max(1, len(times_s) // _POINTS)
    for (name, values), color, stroke in zip(shown.items(), COLORS, STROKES, strict=False):
        axes.plot(
            times_s[::step], values[::step], color=color, ls=stroke, lw=1.4, label=plain(name)
        )
    axes.set(xlabel="seconds into the run", ylabel=label)
    low, high = axes.get_ylim()
    if label.endswith(", %"):
        axes.set_ylim(0, 105)
    elif low > 0 and high - low < 0.2 * high:  # what hardly moves must look so
        middle = (low + high) / 2
        axes.set_ylim(0.8 * middle, 1.2 * middle)
    axes.legend(
        frameon=False,
        fontsize=8.5,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        borderpad=0,
    )


def _most_telling(lines: Mapping[str, object]) -> Readings:
    """Return as many as a chart holds, those with the largest values."""
    arrays = {name: np.asarray(values, np.float64) for name, values in lines.items()}
    names = sorted(arrays, key=lambda name: -float(np.nanmax(arrays[name])))[:_MOST_LINES]
    return {name: values for name, values in arrays.items() if name in names}


def _slope(
    times_s: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how fast a sum grows, over about a second, for a quarter of one is all noise."""
    if len(times_s) < 3:
        return np.full(len(values), np.nan)
    over = max(1, round(len(times_s) / max(1.0, float(times_s[-1] - times_s[0]))))
    grown = np.full(len(values), np.nan)
    spans = np.maximum(times_s[over:] - times_s[:-over], 1e-9)
    grown[over:] = (values[over:] - values[:-over]) / spans
    return grown


def _range(values: npt.NDArray[np.float64]) -> str:
    known = values[~np.isnan(values)]
    return f"{known.min():.4g} to {known.max():.4g}" if len(known) else "unknown"
