# SPDX-License-Identifier: Apache-2.0
"""What the sensors saw of the machine while something was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.findings import Finding
from edge_imprint_runtime.measuring.series import Series

__all__ = ["TraceLike", "machine_findings"]

Floats = npt.NDArray[np.float64]
Facts = Mapping[str, str | int | float | None]

# Others' load, in percent of all cores. A model that uses all of them loses as many percent
# of its time: 10 % on average is twice what is called a shift, and a quarter for two seconds
# is one core of four. What a quiet system does in the background stays at 1 to 4 %.
OTHER_LOAD_PERCENT = 10.0
OTHER_LOAD_PEAK_PERCENT = 25.0
# Time that a hypervisor gave to others hits the run without a trace in its own figures.
STEAL_PERCENT = 2.0
STEAL_PEAK_PERCENT = 10.0
_PEAK_S = 2.0
# A clock's levels, by means of eighths of the run, but of 4 s at least, since those of fewer
# readings are its jitter: 10 % of the clock is up to 10 % of the latency.
CLOCK_PERCENT = 10.0
_PARTS = 8
_CLOCK_PART_S = 4.0
# Boards begin to slow down from 80 to 85 (Raspberry Pi), 83 to 90 (desktop GPUs), 95 to 100
# (Jetson Orin, desktop CPUs); what rises through 85 has not settled.
TEMPERATURE_C = 85.0
# Of the run's time; a quota stops a process for tens of milliseconds at a time.
QUOTA_PERCENT = 1.0
# A cap on power holds the clock steady; the others come and go.
_STEADY_THROTTLES = ("sw_power_cap", "sync_boost")
# A reading belongs to the run where a sample began so shortly before it, or still ran.
_NEAR_S = 0.5
# Sensors repeat a slow reading for a second: so old may be what a clock's first ones tell, of
# a processor or a GPU that was still at rest, or on one core alone.
_OLD_S = 1.0
_CLOCKS = {
    "gpu_mhz": "GPU",
    "emc_mhz": "memory",
    "gpu_memory_mhz": "GPU's memory",
    "cpu_mhz_max": "CPU",
}


class TraceLike(Protocol):
    """What is read of `sensors.Trace`."""

    @property
    def times_s(self) -> Floats:
        """(T,) float64 seconds, rising, on the clock of the series' ``starts_ns``."""

    @property
    def readings(self) -> Mapping[str, Floats]:
        """(T,) float64 by name, NaN where missing."""

    @property
    def lost(self) -> Mapping[str, str]:
        """Why a source ended, by its name."""


def machine_findings(
    series: Sequence[Series], trace: TraceLike | None, facts: Facts
) -> Iterator[Finding]:
    """Tell what the sensors and the machine's settings say of a measurement.

    Args:
        series: What was measured: readings are looked at only while samples were taken.
        trace: The readings, or None.
        facts: The machine's.

    Yields:
        Findings, of any weight.
    """
    if trace is None or len(trace.times_s) < 2:
        yield Finding(
            "no_sensors",
            None,
            "nothing was read of the machine meanwhile, so that other load, clocks and "
            "temperatures are not known; install psutil, or measure for longer than a second",
            False,
        )
    else:
        during = _during(series, trace.times_s)
        yield from _load(trace, during, facts)
        yield from _clocks(trace, during, facts)
        yield from _throttles(trace, during)
        yield from _temperatures(trace, during)
        for source, reason in trace.lost.items():
            yield Finding(
                "sensor_lost",
                None,
                f"the sensors of {source} were not read to the end ({reason}); what they "
                "would have shown is not known",
                False,
            )
    yield from _settings(facts)


def _during(series: Sequence[Series], times_s: Floats) -> npt.NDArray[np.bool_]:
    """Return which readings were taken while samples were: (T,) bool."""
    timed = [one for one in series if one.starts_ns is not None and len(one.starts_ns)]
    if len(timed) < len(series) or not timed:
        return np.ones(len(times_s), np.bool_)
    starts = np.concatenate(
        [one.starts_ns / 1e9 for one in timed if one.starts_ns is not None]
    )
    ends = starts + np.concatenate([one.samples_ns / 1e9 for one in timed])
    order = np.argsort(starts)
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    before = np.searchsorted(starts, times_s, side="right") - 1
    after = np.minimum(before + 1, len(starts) - 1)
    near = np.abs(starts[after] - times_s) <= _NEAR_S
    started = before >= 0
    found: npt.NDArray[np.bool_] = near | (started & (times_s - ends[before] <= _NEAR_S))
    # So short a run has no readings of its own: those there are have to do.
    return found if found.sum() >= 2 else np.ones(len(times_s), np.bool_)


# Load --------------------------------------------------------------------------------------


def _load(trace: TraceLike, during: npt.NDArray[np.bool_], facts: Facts) -> Iterator[Finding]:
    cores = facts.get("cores")
    cores = float(cores) if isinstance(cores, int | float) and cores > 0 else 1.0
    readings = trace.readings
    if "busy_cpu_s" in readings and "own_cpu_s" in readings:
        others = readings["busy_cpu_s"] - readings["own_cpu_s"]
        mean, peak = _shares(trace.times_s, others / cores, during)
        if mean > OTHER_LOAD_PERCENT or peak > OTHER_LOAD_PEAK_PERCENT:
            yield Finding(
                "other_load",
                None,
                f"other programs used {mean:.0f} % of all {cores:g} cores, and {peak:.0f} % "
                "at their worst; end them (top shows which) and measure again",
                True,
            )
    if "steal_s" in readings:
        mean, peak = _shares(trace.times_s, readings["steal_s"] / cores, during)
        if mean > STEAL_PERCENT or peak > STEAL_PEAK_PERCENT:
            yield Finding(
                "steal",
                None,
                f"the hypervisor gave {mean:.1f} % of the cores' time to other machines, and "
                f"{peak:.0f} % at worst; measure on a machine that is not shared",
                True,
            )
    if "quota_throttled_s" in readings:
        mean, peak = _shares(trace.times_s, readings["quota_throttled_s"], during)
        if mean > QUOTA_PERCENT:
            yield Finding(
                "throttle",
                None,
                f"the container's CPU quota held processes up for {mean:.0f} % of the time; "
                "give it more CPUs, or the model fewer --threads",
                True,
            )


def _shares(
    times_s: Floats, total_s: Floats, during: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the rise of a running total in percent of time: on average, and at its worst.

    The worst is that of two seconds at a time, or of the whole where it is shorter.
    """
    known = np.isfinite(total_s)
    times, total, kept = times_s[known], total_s[known], during[known]
    if len(times) < 2:
        return 0.0, 0.0
    counted = kept[1:] & kept[:-1]
    steps = np.where(counted, np.diff(times), 0.0)
    rises = np.where(counted, np.diff(total), 0.0)
    passed = np.concatenate([[0.0], steps.cumsum()])
    risen = np.concatenate([[0.0], rises.cumsum()])
    if passed[-1] <= 0:
        return 0.0, 0.0
    mean = 100 * risen[-1] / passed[-1]
    last = np.searchsorted(passed, passed + _PEAK_S)
    full = last < len(passed)
    if not full.any():
        return max(0.0, float(mean)), max(0.0, float(mean))
    first = np.flatnonzero(full)
    worst = (risen[last[full]] - risen[first]) / (passed[last[full]] - passed[first])
    return max(0.0, float(mean)), max(0.0, float(100 * worst.max()))


# Clocks, throttling, temperature -----------------------------------------------------------


def _clocks(
    trace: TraceLike, during: npt.NDArray[np.bool_], facts: Facts
) -> Iterator[Finding]:
    during = during & (trace.times_s >= trace.times_s[during][0] + _NEAR_S + _OLD_S)
    names = dict(_CLOCKS)
    if "cpu_mhz_max" not in trace.readings:
        names["cpu_mhz"] = names.pop("cpu_mhz_max")
    for name, what in names.items():
        levels = _levels(trace, name, during, _CLOCK_PART_S)
        if levels is None or levels.max() <= levels.min() * (1 + CLOCK_PERCENT / 100):
            continue
        lock = _lock(name, facts, float(np.nanmedian(trace.readings[name][during])))
        yield Finding(
            "clock_change",
            None,
            f"the clock of the {what} moved between {levels.min():,.0f} and "
            f"{levels.max():,.0f} MHz while it ran; lock it: {lock}",
            True,
        )


def _lock(name: str, facts: Facts, usual_mhz: float) -> str:
    if _is_jetson(facts):
        return "sudo jetson_clocks"
    if name.startswith("cpu"):
        return "sudo cpupower frequency-set -g performance"
    which = "memory" if name == "gpu_memory_mhz" else "gpu"
    return f"sudo nvidia-smi --lock-{which}-clocks={usual_mhz:.0f}"


def _throttles(trace: TraceLike, during: npt.NDArray[np.bool_]) -> Iterator[Finding]:
    for name, values in trace.readings.items():
        if not name.startswith("gpu_throttle_"):
            continue
        reason = name.removeprefix("gpu_throttle_")
        seen = values[during & np.isfinite(values)]
        if not len(seen) or not (seen > 0).any():
            continue
        steady = reason in _STEADY_THROTTLES
        advice = (
            "the figures are those of its power limit"
            if steady
            else "cool it, or lock a lower clock, and measure again"
        )
        yield Finding(
            "throttle",
            None,
            f"the GPU was slowed down ({reason.replace('_', ' ')}) in "
            f"{100 * (seen > 0).mean():.0f} % of the readings; {advice}",
            not steady,
        )
    counts = trace.readings.get("cpu_throttle_count")
    if counts is not None:
        seen = counts[during & np.isfinite(counts)]
        if len(seen) and seen[-1] > seen[0]:
            yield Finding(
                "throttle",
                None,
                f"the CPU was slowed down {seen[-1] - seen[0]:.0f} times for its heat; cool "
                "it, or lock a lower clock, and measure again",
                True,
            )


def _temperatures(trace: TraceLike, during: npt.NDArray[np.bool_]) -> Iterator[Finding]:
    for name in trace.readings:
        if not name.startswith("temperature_c."):
            continue
        levels = _levels(trace, name, during)
        if levels is None or levels.max() < TEMPERATURE_C:
            continue
        rose = bool(levels[0] < TEMPERATURE_C)
        yield Finding(
            "temperature",
            None,
            f"{name.removeprefix('temperature_c.')} went from {levels[0]:.0f} to "
            f"{levels.max():.0f} degrees C, where devices slow themselves down; cool it, or "
            "let it reach its temperature before",
            rose,
        )


def _levels(
    trace: TraceLike, name: str, during: npt.NDArray[np.bool_], part_s: float = 0.0
) -> Floats | None:
    """Return the means of eighths of the readings, in their order, or of fewer, longer parts.

    None without any, or where they span too short a time for two such parts.
    """
    values = trace.readings.get(name)
    if values is None:
        return None
    kept = during & np.isfinite(values)
    seen, times_s, parts = values[kept], trace.times_s[kept], _PARTS
    if len(seen) and part_s:
        parts = min(_PARTS, int((times_s[-1] - times_s[0]) // part_s))
    if not len(seen) or parts < 2:
        return None
    return np.array([part.mean() for part in np.array_split(seen, parts) if len(part)])


# Settings ----------------------------------------------------------------------------------


def _settings(facts: Facts) -> Iterator[Finding]:
    governor = facts.get("cpu_governor")
    if _is_jetson(facts):
        # jtop says the one, and the board's own files the other.
        if (facts.get("jetson_clocks") or facts.get("gpu_clocks_locked")) in ("off", "no"):
            yield Finding(
                "governor",
                None,
                "the clocks of this Jetson are not locked; run sudo jetson_clocks for figures "
                "that repeat",
                False,
            )
    elif governor is not None and governor != "performance":
        yield Finding(
            "governor",
            None,
            f"the CPU's governor is {governor}; for figures that repeat run sudo cpupower "
            "frequency-set -g performance",
            False,
        )


def _is_jetson(facts: Facts) -> bool:
    return any(facts.get(key) is not None for key in ("jetpack", "l4t", "jetson_clocks"))
