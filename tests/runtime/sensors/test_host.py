# SPDX-License-Identifier: Apache-2.0
"""psutil's source: on this machine, and over files of machines that this one is not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edge_imprint_runtime.sensors import host
from edge_imprint_runtime.sensors.host import HostSource

ALWAYS = {
    "busy_cpu_s",
    "own_cpu_s",
    "load_average_1min",
    "memory_available_bytes",
    "own_rss_bytes",
}


def write(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_this_machine() -> None:
    source = HostSource()
    first = source.read()
    burn(0.3)
    second = source.read()
    source.close()
    assert first.keys() >= ALWAYS
    assert second.keys() >= ALWAYS | {"cpu_percent"}
    assert second["own_cpu_s"] - first["own_cpu_s"] >= 0.3
    assert second["busy_cpu_s"] - first["busy_cpu_s"] >= 0.2
    assert 0 < second["cpu_percent"] <= 100
    memory = psutil.virtual_memory().total
    assert 0 < second["memory_available_bytes"] <= memory
    assert 2**20 < second["own_rss_bytes"] < memory
    assert all(isinstance(value, float) for value in second.values())


def test_a_child_that_ended_counts_as_own() -> None:
    source = HostSource()
    before = source.read()["own_cpu_s"]
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert source.read()["own_cpu_s"] - before >= 0.25


def times(**seconds: float) -> Any:
    fields = {"user": 0.0, "nice": 0.0, "system": 0.0, "idle": 0.0} | seconds
    return SimpleNamespace(_asdict=lambda: fields)


def test_busy_steal_and_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HostSource()
    told = [
        times(user=10, idle=100, iowait=5, irq=1, softirq=1, steal=2, guest=10),
        times(user=10.01, idle=100.03, iowait=5, irq=1, softirq=1, steal=2, guest=10),
        times(user=11, idle=102, iowait=6, irq=1, softirq=1, steal=3, guest=11),
    ]
    monkeypatch.setattr(psutil, "cpu_times", lambda: told.pop(0))
    rows = [source.read() for _ in range(3)]
    assert [row["busy_cpu_s"] for row in rows] == [12.0, 12.01, 13.0]  # a guest is in user
    assert [row["steal_s"] for row in rows] == [2.0, 2.0, 3.0]
    # Over four ticks of a clock of 10 ms a share says nothing; over five seconds it does.
    assert ["cpu_percent" in row for row in rows] == [False, False, True]
    assert rows[2]["cpu_percent"] == pytest.approx(100 * 1 / 5)


def test_a_system_without_steal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: times(user=3, system=1, idle=7))
    row = HostSource().read()
    assert "steal_s" not in row
    assert row["busy_cpu_s"] == 4.0


def core(mhz: float | None) -> Any:
    return SimpleNamespace(current=mhz)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([core(1000.0), core(3000.0)], (2000.0, 1000.0, 3000.0)),
        ([core(0.0), core(1500.0), core(None)], (1500.0, 1500.0, 1500.0)),
        ([core(0.0)], None),
        ([], None),
        (None, None),
    ],
)
def test_clocks(
    monkeypatch: pytest.MonkeyPatch, cores: Any, expected: tuple[float, ...] | None
) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda percpu: cores)
    row = HostSource().read()
    names = ("cpu_mhz", "cpu_mhz_min", "cpu_mhz_max")
    if expected is None:
        assert not {*names} & row.keys()
    else:
        assert tuple(row[name] for name in names) == expected


def test_temperatures(monkeypatch: pytest.MonkeyPatch) -> None:
    def sensor(label: str, current: float | None) -> Any:
        return SimpleNamespace(label=label, current=current)

    told = {
        "coretemp": [sensor("Package id 0", 55.0), sensor("Core 0", 54.0)],
        "cpu-thermal": [sensor("", 61.5)],
        "nvme": [sensor("Composite", 40.0), sensor("Composite", 41.0)],
        "off": [sensor("", 0.0), sensor("a", None), sensor("b", -273.1)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: told, raising=False)
    row = HostSource().read()
    assert {name: v for name, v in row.items() if name.startswith("temperature_c")} == {
        "temperature_c.coretemp_Package_id_0": 55.0,
        "temperature_c.coretemp_Core_0": 54.0,
        "temperature_c.cpu-thermal": 61.5,
        "temperature_c.nvme_Composite": 40.0,
        "temperature_c.nvme_Composite.1": 41.0,
    }


@pytest.mark.parametrize(
    ("call", "gone"),
    [
        ("cpu_times", "busy_cpu_s"),
        ("getloadavg", "load_average_1min"),
        ("virtual_memory", "memory_available_bytes"),
        ("cpu_freq", "cpu_mhz"),
        ("sensors_temperatures", "temperature_c.x"),
    ],
)
@pytest.mark.parametrize("error", [OSError("no"), ValueError("x"), None])
def test_what_fails_costs_itself_only(
    monkeypatch: pytest.MonkeyPatch, call: str, gone: str, error: Exception | None
) -> None:
    source = HostSource()

    def fail(*_: object, **__: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(psutil, call, fail, raising=False)
    row = source.read()
    assert gone not in row
    assert len(row) >= 2


def test_what_psutil_has_not_on_a_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("sensors_temperatures", "cpu_freq"):
        monkeypatch.delattr(psutil, call, raising=False)
    assert HostSource().read().keys() >= ALWAYS


def test_slow_readings_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    mhz = [1000.0]
    asked = []

    def clocks(percpu: bool) -> Any:
        asked.append(percpu)
        return [core(mhz[0])]

    now = time.monotonic()
    monkeypatch.setattr(psutil, "cpu_freq", clocks)
    monkeypatch.setattr(host.time, "monotonic", lambda: now)
    source = HostSource()
    assert [source.read()["cpu_mhz"] for _ in range(5)] == [1000.0] * 5
    mhz[0] = 2000.0
    now += 0.9
    assert source.read()["cpu_mhz"] == 1000.0
    now += 0.2
    assert source.read()["cpu_mhz"] == 2000.0
    assert len(asked) == 2


# Files of Linux that psutil does not read --------------------------------------------------


def test_throttle_counters(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    for name, count in [("cpu0", 3), ("cpu1", 4)]:
        write(tmp_path, f"{cpus}/{name}/thermal_throttle/core_throttle_count", count)
        write(tmp_path, f"{cpus}/{name}/thermal_throttle/package_throttle_count", 10)
        write(tmp_path, f"{cpus}/{name}/thermal_throttle/core_throttle_total_time_ms", 999)
    source = HostSource(tmp_path, slow_s=0)
    assert source.read()["cpu_throttle_count"] == 27.0
    write(tmp_path, f"{cpus}/cpu1/thermal_throttle/core_throttle_count", 5)
    assert source.read()["cpu_throttle_count"] == 28.0
    (tmp_path / cpus / "cpu1/thermal_throttle/core_throttle_count").unlink()
    assert "cpu_throttle_count" not in source.read()
    assert "cpu_throttle_count" not in HostSource(tmp_path / "none").read()


def zone(root: Path, name: str, label: str, energy: int, top: int = 1000) -> None:
    write(root, f"sys/class/powercap/{name}/name", label)
    write(root, f"sys/class/powercap/{name}/energy_uj", energy)
    write(root, f"sys/class/powercap/{name}/max_energy_range_uj", top)


def test_energy_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0, 100_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 90_000_000, 100_000_000)
    zone(tmp_path, "intel-rapl:1", "package-0", 5)
    write(tmp_path, "sys/class/powercap/intel-rapl:2/name", "for root alone")
    now = 1000.0
    monkeypatch.setattr(host.time, "monotonic", lambda: now)
    source = HostSource(tmp_path)
    assert not [name for name in source.read() if name.startswith("power_w")]
    zone(tmp_path, "intel-rapl:0", "package-0", 30_000_000, 100_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 4_999_999, 100_000_000)  # it started over
    now += 0.01  # too soon to say
    assert not [name for name in source.read() if name.startswith("power_w")]
    now += 1.99
    row = source.read()
    assert {name: v for name, v in row.items() if name.startswith("power_w")} == {
        "power_w.package-0": pytest.approx(15.0),
        "power_w.core": pytest.approx(7.5),
        "power_w.package-0.intel-rapl:1": 0.0,
    }


def test_a_quota_that_throttles(tmp_path: Path) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 9\nthrottled_usec 2500000")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000")
    source = HostSource(tmp_path)
    assert source.read()["quota_throttled_s"] == 2.5
    assert source.facts()["cores_quota"] == 1.5
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    assert "cores_quota" not in source.facts()


@pytest.mark.parametrize(
    ("low", "high", "locked"), [(400000, 4800000, "no"), (2000000, 2000000, "yes")]
)
def test_clock_facts(tmp_path: Path, low: int, high: int, locked: str) -> None:
    for policy in ("policy0", "policy4"):
        home = f"sys/devices/system/cpu/cpufreq/{policy}"
        write(tmp_path, f"{home}/scaling_min_freq", low)
        write(tmp_path, f"{home}/scaling_max_freq", high)
    facts = HostSource(tmp_path).facts()
    assert facts["cpu_clocks_locked"] == locked
    assert facts["cpu_mhz_limit"] == high / 1e3


@pytest.mark.parametrize(
    ("file", "value", "boost"),
    [
        ("cpufreq/boost", 1, "on"),
        ("cpufreq/boost", 0, "off"),
        ("intel_pstate/no_turbo", 0, "on"),
        ("intel_pstate/no_turbo", 1, "off"),
    ],
)
def test_boost(tmp_path: Path, file: str, value: int, boost: str) -> None:
    write(tmp_path, f"sys/devices/system/cpu/{file}", value)
    assert HostSource(tmp_path).facts()["cpu_boost"] == boost


def test_facts_of_this_machine() -> None:
    facts = HostSource().facts()
    assert facts["swap_bytes"] == psutil.swap_memory().total
    assert facts["cores_physical"] == psutil.cpu_count(logical=False)
