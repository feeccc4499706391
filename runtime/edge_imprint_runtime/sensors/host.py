# SPDX-License-Identifier: Apache-2.0
"""The processor, the memory and the load of this machine.

Through psutil; files of Linux are read here only where psutil has no word for them: the
counters of thermal throttling, the processor's own energy counters, and a container's quota.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from edge_imprint_runtime.sensors.source import Facts

__all__ = ["HostSource"]

_BUSY = ("user", "nice", "system", "irq", "softirq")
_IDLE = ("idle", "iowait")
# What changes slowly, or costs much (a file for each core), is read once a second and
# repeated in between.
_SLOW_S = 1.0
# Linux counts in ticks of 10 ms: over fewer than some of them a share says nothing.
_TICKS_S = 0.1
# The energy counters move about once a millisecond.
_ENERGY_S = 0.02


class HostSource:
    """psutil's readings: load, clocks, memory, temperatures; and Linux' own of throttling.

    Readings: ``cpu_percent`` (of all cores, since the reading before), ``busy_cpu_s`` and
    ``steal_s`` (of all cores, since boot), ``own_cpu_s`` (this process, and its children once
    they ended), ``load_average_1min``, ``memory_available_bytes``, ``own_rss_bytes``;
    ``cpu_mhz``, ``cpu_mhz_min``, ``cpu_mhz_max`` (over cores), ``temperature_c.ZONE``,
    ``cpu_throttle_count`` (all cores, since boot), ``power_w.ZONE`` (mean since the reading
    before), ``quota_throttled_s`` (of this container, since it began).

    Args:
        root: Where ``sys`` is found.
        slow_s: How old memory, clocks, temperatures and throttling may be; 0: never old.
    """

    name = "psutil"

    def __init__(self, root: Path = Path("/"), *, slow_s: float = _SLOW_S) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._root = root
        self._slow_s = slow_s
        self._slow: dict[str, float] = {}
        self._slow_due_s = -float("inf")
        self._before: tuple[float, float] | None = None  # busy and all, in seconds
        cpus = root / "sys/devices/system/cpu"
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        self._quota = root / "sys/fs/cgroup/cpu.stat"
        energy = _EnergyCounters(root / "sys/class/powercap")
        self._fast = [self._load]
        if energy.zones:
            self._fast.append(energy.read)
        if self._quota.exists():
            self._fast.append(self._throttled_quota)

    def read(self) -> dict[str, float]:
        """Read the load and the energy counters, and what is slow when it is due."""
        row: dict[str, float] = {}
        for take in self._fast:
            _try(take, row)
        now_s = time.monotonic()
        if now_s >= self._slow_due_s:
            self._slow_due_s = now_s + self._slow_s
            self._slow = {}
            for take in (self._memory, self._clocks, self._temperatures, self._throttling):
                _try(take, self._slow)
        return row | self._slow

    def facts(self) -> Facts:
        """Return cores, memory, swap, boost, governor, and whether the clocks are locked."""
        facts: Facts = {}
        for take in (self._memory_facts, self._clock_facts, self._quota_facts):
            try:
                facts |= take()
            except Exception:  # a fact that can't be had is left out
                continue
        return facts

    def close(self) -> None:
        """Nothing is held."""

    # What is read each time -----------------------------------------------------------------

    def _load(self) -> dict[str, float]:
        times = self._psutil.cpu_times()._asdict()
        busy = sum(times.get(name, 0.0) for name in _BUSY)
        steal = times.get("steal", 0.0)
        whole = busy + steal + sum(times.get(name, 0.0) for name in _IDLE)
        own = os.times()
        row = {
            "busy_cpu_s": busy,
            # In nanoseconds, where psutil counts ticks of 10 ms.
            "own_cpu_s": time.process_time() + own.children_user + own.children_system,
            "load_average_1min": self._psutil.getloadavg()[0],
        }
        if "steal" in times:
            row["steal_s"] = steal
        passed = whole - self._before[1] if self._before is not None else math.inf
        if passed < _TICKS_S:
            return row
        if self._before is not None:
            share = (busy - self._before[0]) / passed
            row["cpu_percent"] = 100 * min(max(share, 0.0), 1.0)
        self._before = busy, whole
        return row

    def _throttled_quota(self) -> dict[str, float]:
        for line in self._quota.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "throttled_usec":
                return {"quota_throttled_s": int(value) / 1e6}
        return {}

    # What is read once a second -------------------------------------------------------------

    def _memory(self) -> dict[str, float]:
        return {
            "memory_available_bytes": float(self._psutil.virtual_memory().available),
            "own_rss_bytes": float(self._process.memory_info().rss),
        }

    def _clocks(self) -> dict[str, float]:
        # 0 or nothing: a virtual machine that is not told, or an ARM core without cpufreq.
        mhz = [core.current for core in self._psutil.cpu_freq(percpu=True) or ()]
        mhz = [value for value in mhz if value and value > 0]
        if not mhz:
            return {}
        return {
            "cpu_mhz": sum(mhz) / len(mhz),
            "cpu_mhz_min": min(mhz),
            "cpu_mhz_max": max(mhz),
        }

    def _temperatures(self) -> dict[str, float]:
        zones: dict[str, float] = {}
        for chip, sensors in self._psutil.sensors_temperatures().items():
            for index, sensor in enumerate(sensors):
                zone = "_".join(f"{chip} {sensor.label}".split())
                name = f"temperature_c.{zone}"
                # 0 and below is what a sensor says that is switched off.
                if sensor.current and sensor.current > 0:
                    zones[f"{name}.{index}" if name in zones else name] = sensor.current
        return zones

    def _throttling(self) -> dict[str, float]:
        counts = [int(file.read_text()) for file in self._throttles]
        return {"cpu_throttle_count": float(sum(counts))} if counts else {}

    # Facts ----------------------------------------------------------------------------------

    def _memory_facts(self) -> Facts:
        memory, swap = self._psutil.virtual_memory(), self._psutil.swap_memory()
        return {
            "cores_physical": self._psutil.cpu_count(logical=False),
            "memory_available_bytes": memory.available,
            "swap_bytes": swap.total,
            "swap_used_bytes": swap.used,
        }

    def _clock_facts(self) -> Facts:
        cpus = self._root / "sys/devices/system/cpu"
        policies = sorted((cpus / "cpufreq").glob("policy[0-9]*"))
        facts: Facts = {}
        limits = [_numbers(p, "scaling_min_freq", "scaling_max_freq") for p in policies]
        known = [pair for pair in limits if len(pair) == 2]
        if known:
            facts["cpu_mhz_limit"] = max(pair[1] for pair in known) / 1e3
            facts["cpu_clocks_locked"] = (
                "yes" if all(low == high for low, high in known) else "no"
            )
        boost = _numbers(cpus, "cpufreq/boost", "intel_pstate/no_turbo")
        if boost:
            off = (cpus / "intel_pstate/no_turbo").exists()
            facts["cpu_boost"] = "on" if bool(boost[0]) != off else "off"
        return facts

    def _quota_facts(self) -> Facts:
        quota, _, period = (
            (self._root / "sys/fs/cgroup/cpu.max").read_text().strip().partition(" ")
        )
        return {} if quota == "max" else {"cores_quota": int(quota) / int(period)}


class _EnergyCounters:
    """The processor's own energy counters (RAPL), where this user may read them."""

    def __init__(self, home: Path) -> None:
        self.zones: list[tuple[str, Path, int]] = []
        self._before: dict[str, tuple[float, int]] = {}
        now_s = time.monotonic()
        for zone in sorted(home.glob("*-rapl:*")):
            try:
                energy = int((zone / "energy_uj").read_text())
                name = (zone / "name").read_text().strip()
                top = int((zone / "max_energy_range_uj").read_text())
            except (OSError, ValueError):  # for root alone, since 2020
                continue
            if any(name == other for other, _, _ in self.zones):
                name = f"{name}.{zone.name}"
            self.zones.append((name, zone / "energy_uj", top))
            self._before[name] = now_s, energy

    def read(self) -> dict[str, float]:
        """Return watts by zone, as a mean since the reading before."""
        row = {}
        for name, file, top in self.zones:
            now_s, energy = time.monotonic(), int(file.read_text())
            since_s, before = self._before[name]
            if now_s - since_s < _ENERGY_S:
                continue
            # The counter starts over at its range's end.
            spent = (energy - before) % (top + 1)
            row[f"power_w.{name}"] = spent / 1e6 / (now_s - since_s)
            self._before[name] = now_s, energy
        return row


def _try(take: Callable[[], dict[str, float]], row: dict[str, float]) -> None:
    """Add readings; what can't be read costs itself only."""
    try:
        row |= take()
    except Exception:
        return


def _numbers(home: Path, *names: str) -> list[int]:
    found = []
    for name in names:
        try:
            found.append(int((home / name).read_text()))
        except (OSError, ValueError):
            continue
    return found
