# SPDX-License-Identifier: Apache-2.0
"""ei-bench's facts of a machine and its sensors: the names and values that Python's have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.sensors.board import board_facts
from edge_imprint_runtime.sensors.host import HostSource
from tests.c.building import run

Ask = Callable[..., dict[str, Any]]

# What moves from one look to the next, and what only one of the two has.
MOVES = {"load_average_1min", "disk_free_bytes", "memory_available_bytes", "swap_used_bytes"}
FROM_PACKAGES = {"cuda", "cudnn", "tensorrt"}  # Python reads versions off wheels, too

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"
MODES = """
# < POWER_MODEL ID=2 NAME=COMMENTED >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""
CPU = "sys/devices/system/cpu"


@pytest.fixture(scope="session")
def ask(c_build: Path) -> Ask:
    """Return ``ask(command, root, *more)``: the last line of JSON that bench_check prints."""

    def ask(*arguments: object) -> dict[str, Any]:
        said = run(c_build / "tests/bench_check", *map(str, arguments)).stdout
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    return ask


def write(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """The files of an Orin Nano under JetPack 6.2."""
    write(tmp_path, "etc/nv_tegra_release", RELEASE)
    write(tmp_path, "etc/nvpmodel.conf", MODES)
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    write(
        tmp_path,
        "proc/device-tree/compatible",
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    )
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    write(
        tmp_path,
        "proc/cpuinfo",
        "processor\t: 0\nBogoMIPS\t: 62.50\n"
        "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n\nprocessor\t: 1\nCPU part\t: 0xd03",
    )
    gpu = "sys/class/devfreq/17000000.gpu"
    for name, value in (("min", 306000000), ("max", 1020000000), ("cur", 612000000)):
        write(tmp_path, f"{gpu}/{name}_freq", value)
    write(tmp_path, f"{gpu}/governor", "nvhost_podgov")
    write(tmp_path, f"{gpu}/device/load", 375)
    write(tmp_path, "sys/class/devfreq/15480000.nvdec/min_freq", 1)
    write(tmp_path, "sys/class/devfreq/15480000.nvdec/max_freq", 1)
    return tmp_path


def test_this_machine_has_the_facts_that_python_tells(ask: Ask) -> None:
    ours, theirs = ask("machine", ""), machine_facts()
    shared = (ours.keys() & theirs.keys()) - MOVES - FROM_PACKAGES
    assert {"cpu_model", "architecture", "cores", "memory_bytes", "system"} <= shared
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}
    only = ours.keys() - theirs.keys() - FROM_PACKAGES
    assert not only - {"gpu_name", "gpu_count"}
    assert list(ours)[:4] == ["board", "cpu_model", "architecture", "cores_usable"]


def test_a_machine_without_files(ask: Ask, tmp_path: Path) -> None:
    facts = ask("machine", tmp_path)
    for name in ("board", "cpu_model", "cpu_governor", "virtual_machine", "container"):
        assert facts[name] is None
    assert not facts.keys() & {"power_mode", "l4t", "cuda", "cores_physical"}


def test_an_orin(ask: Ask, orin: Path) -> None:
    facts, theirs = ask("machine", orin), board_facts(orin)
    del theirs["jetson-stats"]
    assert {key: facts[key] for key in theirs} == theirs
    assert facts["jetpack"] == "6.2"
    assert facts["power_mode"] == "MAXN_SUPER"
    assert facts["cpu_model"] == "Cortex-A78AE"
    assert facts["cpu_features"] == "asimd asimdhp asimddp"
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    judged = ask("judged", orin)
    assert (judged["jetpack"], judged["gpu_clocks_locked"]) == ("6.2", "no")


def test_a_jetson_whose_files_are_torn(ask: Ask, orin: Path) -> None:
    write(orin, "etc/nv_tegra_release", "R (release), REVISION: x")
    write(orin, "var/lib/nvpmodel/status", "pmode:")
    write(orin, "sys/class/devfreq/17000000.gpu/min_freq", "fast")
    facts = ask("machine", orin)
    assert not facts.keys() & {"l4t", "jetpack", "power_mode", "gpu_mhz_limit"}
    assert facts["soc"] == "tegra234"


@pytest.mark.parametrize(
    ("said", "model"),
    [
        ("model name\t: AMD EPYC 9\nflags\t: fpu", "AMD EPYC 9"),
        ("CPU implementer\t: 0x4e\nCPU part\t: 0x004", "Carmel"),
        ("model name\t: ARMv8 rev 1\nCPU part\t: 0xfff", "ARMv8 rev 1"),
        ("CPU implementer\t: 0x61\nCPU part\t: 0x022", None),
    ],
)
def test_models_of_processors(ask: Ask, tmp_path: Path, said: str, model: str | None) -> None:
    write(tmp_path, "proc/cpuinfo", f"processor\t: 0\n{said}\n\nprocessor\t: 1")
    assert ask("machine", tmp_path)["cpu_model"] == model


def test_virtual_machines(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "model name: X\nflags\t: fpu avx2 hypervisor fma")
    facts = ask("machine", tmp_path)
    assert (facts["virtual_machine"], facts["cpu_features"]) == ("yes", "avx2 fma")
    write(tmp_path, "sys/class/dmi/id/sys_vendor", "QEMU")
    write(tmp_path, "sys/class/dmi/id/product_name", "Standard PC")
    assert ask("machine", tmp_path)["virtual_machine"] == "QEMU Standard PC"
    write(tmp_path, "proc/device-tree/hypervisor/compatible", "linux,kvm\0xen\0")
    assert ask("machine", tmp_path)["virtual_machine"] == "linux,kvm xen"


@pytest.mark.parametrize(
    ("path", "text", "container"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/1/cgroup", "0::/kubepods/pod1/ab", "kubepods"),
        ("proc/1/cgroup", "0::/init.scope", None),
    ],
)
def test_containers(
    ask: Ask, tmp_path: Path, path: str, text: str, container: str | None
) -> None:
    write(tmp_path, path, text)
    assert ask("machine", tmp_path)["container"] == container


def test_versions_of_nvidias_libraries(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path, "usr/local/cuda/version.json", '{"cuda": {"version": "12.6.68"}}')
    for name in ("libcudnn.so.9", "libcudnn.so.9.3.0", "libnvinfer.so.10.3.0"):
        write(tmp_path, f"usr/lib/aarch64-linux-gnu/{name}", "")
    write(tmp_path, "usr/lib/libcudnn.so.bak", "")
    facts = ask("machine", tmp_path)
    assert [facts[k] for k in ("cuda", "cudnn", "tensorrt")] == ["12.6.68", "9.3.0", "10.3.0"]
    write(tmp_path, "usr/local/cuda/version.json", "{")
    write(tmp_path, "usr/local/cuda/lib64/libcudart.so.12.4.99", "")
    assert ask("machine", tmp_path)["cuda"] == "12.4.99"


def test_a_gpu_of_nvidias(ask: Ask, tmp_path: Path) -> None:
    write(
        tmp_path,
        "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA H200\nIRQ:   \t\t 0",
    )
    facts = ask("machine", tmp_path)
    assert (facts["gpu_name"], facts["gpu_count"]) == ("NVIDIA H200", 1)


@pytest.mark.parametrize(("low", "high", "locked"), [(408, 1510, "no"), (1510, 1510, "yes")])
def test_clocks_that_are_locked(
    ask: Ask, tmp_path: Path, low: int, high: int, locked: str
) -> None:
    for policy, least in (("policy0", low), ("policy4", high)):
        write(tmp_path, f"{CPU}/cpufreq/{policy}/scaling_min_freq", least * 1000)
        write(tmp_path, f"{CPU}/cpufreq/{policy}/scaling_max_freq", high * 1000)
    write(tmp_path, f"{CPU}/cpu0/cpufreq/scaling_governor", "schedutil")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000")
    facts, theirs = ask("machine", tmp_path), HostSource(tmp_path).facts()
    keys = ("cpu_mhz_limit", "cpu_clocks_locked", "cores_quota")
    assert [facts[key] for key in keys] == [theirs[key] for key in keys]
    assert facts["cpu_clocks_locked"] == locked
    assert facts["cpu_governor"] == "schedutil"


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("file", ["cpufreq/boost", "intel_pstate/no_turbo"])
def test_boost(ask: Ask, tmp_path: Path, file: str, value: int) -> None:
    write(tmp_path, f"{CPU}/{file}", value)
    assert ask("machine", tmp_path)["cpu_boost"] == HostSource(tmp_path).facts()["cpu_boost"]


# Sensors -----------------------------------------------------------------------------------


def test_readings_of_this_machine_are_those_of_python(ask: Ask) -> None:
    ours, source = ask("sensors", "", 0.3), HostSource()
    source.read()
    theirs = source.read()
    assert theirs.keys() - ours.keys() <= {"cpu_percent"}
    assert ours["own_cpu_s"] < 1
    assert ours["busy_cpu_s"] == pytest.approx(theirs["busy_cpu_s"], abs=20)
    assert 0 <= ours["cpu_percent"] <= 100
    assert ours["memory_available_bytes"] == pytest.approx(
        theirs["memory_available_bytes"], rel=0.3
    )


def test_busy_steal_and_idle(ask: Ask, tmp_path: Path) -> None:
    write(tmp_path, "proc/stat", "cpu  1000 100 200 10000 500 30 40 200 999 9\ncpu0 1 1 1 1")
    row = ask("sensors", tmp_path, 0)
    assert row["busy_cpu_s"] == pytest.approx(13.7)  # ticks of 10 ms; a guest is in user
    assert row["steal_s"] == pytest.approx(2.0)
    assert "cpu_percent" not in row  # nothing passed
    write(tmp_path, "proc/stat", "cpu  300 0 100 700")
    row = ask("sensors", tmp_path, 0)
    assert row["busy_cpu_s"] == pytest.approx(4.0)
    assert "steal_s" not in row


def test_clocks_of_cores(ask: Ask, tmp_path: Path) -> None:
    said = "processor: 0\ncpu MHz\t\t: 1000.5\n\nprocessor: 1\ncpu MHz\t\t: 3000.5"
    write(tmp_path, "proc/cpuinfo", said)
    row = ask("sensors", tmp_path, 0)
    names = ("cpu_mhz", "cpu_mhz_min", "cpu_mhz_max")
    assert [row[name] for name in names] == [2000.5, 1000.5, 3000.5]
    write(tmp_path, "proc/cpuinfo", "processor: 0\nBogoMIPS: 62")
    for core, khz in ((0, 0), (1, 1_510_000)):
        write(tmp_path, f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq", khz)
    row = ask("sensors", tmp_path, 0)
    assert [row[name] for name in names] == [1510.0] * 3
    write(tmp_path, f"{CPU}/cpufreq/policy0/scaling_cur_freq", 800_000)
    assert ask("sensors", tmp_path, 0)["cpu_mhz_max"] == 800.0


def test_temperatures(ask: Ask, tmp_path: Path) -> None:
    chips: list[tuple[str, str, dict[int, tuple[str | None, int]]]] = [
        ("hwmon0", "coretemp", {1: ("Package id 0", 55000), 2: ("Core 0", 54000)}),
        ("hwmon1", "nvme", {1: ("Composite", 40000)}),
        ("hwmon2", "nvme", {1: ("Composite", 41000)}),
        ("hwmon3", "off", {1: (None, 0), 2: (None, -273100)}),
    ]
    for folder, chip, inputs in chips:
        write(tmp_path, f"sys/class/hwmon/{folder}/name", chip)
        for number, (label, value) in inputs.items():
            write(tmp_path, f"sys/class/hwmon/{folder}/temp{number}_input", value)
            if label is not None:
                write(tmp_path, f"sys/class/hwmon/{folder}/temp{number}_label", label)
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "acpitz")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", 20000)
    row = ask("sensors", tmp_path, 0)
    assert {name: v for name, v in row.items() if name.startswith("temperature_c")} == {
        "temperature_c.coretemp_Package_id_0": 55.0,
        "temperature_c.coretemp_Core_0": 54.0,
        "temperature_c.nvme_Composite": 40.0,
        "temperature_c.nvme_Composite.1": 41.0,
    }


def test_zones_where_there_are_no_monitors(ask: Ask, tmp_path: Path) -> None:
    for zone, (kind, value) in enumerate([("cpu-thermal", 61500), ("x", "none")]):
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/type", kind)
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/temp", value)
    row = ask("sensors", tmp_path, 0)
    assert [name for name in row if name.startswith("temperature")] == [
        "temperature_c.cpu-thermal"
    ]


def test_counters_of_throttling_and_a_quota(ask: Ask, tmp_path: Path) -> None:
    for name, count in [("cpu0", 3), ("cpu1", 4)]:
        write(tmp_path, f"{CPU}/{name}/thermal_throttle/core_throttle_count", count)
        write(tmp_path, f"{CPU}/{name}/thermal_throttle/package_throttle_count", 10)
        write(tmp_path, f"{CPU}/{name}/thermal_throttle/core_throttle_total_time_ms", 999)
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "nr_throttled 3\nthrottled_usec 2500000")
    row = ask("sensors", tmp_path, 0)
    assert (row["cpu_throttle_count"], row["quota_throttled_s"]) == (27.0, 2.5)


def test_energy_counters(ask: Ask, c_build: Path, tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    write(tmp_path, f"{zone}/name", "package-0")
    write(tmp_path, f"{zone}/energy_uj", 5_000_000)
    write(tmp_path, f"{zone}/max_energy_range_uj", 10_000_000)
    write(tmp_path, "sys/class/powercap/intel-rapl:1/name", "no energy")
    row = ask("sensors", tmp_path, 0.1)
    assert row["power_w.package-0"] == 0.0
    assert "power_w.no_energy" not in row


def test_a_jetsons_gpu_zones_rails_and_fan(ask: Ask, orin: Path) -> None:
    write(orin, "sys/class/thermal/thermal_zone0/type", "CPU-therm")
    write(orin, "sys/class/thermal/thermal_zone0/temp", 48500)
    home = "sys/class/hwmon/hwmon1"
    write(orin, f"{home}/name", "ina3221")
    rails = [(1, "VDD_IN", 5000, 1500), (2, "VDD_CPU GPU", 5000, 300), (3, "NC", 1, 1)]
    for number, label, millivolts, milliamperes in rails:
        write(orin, f"{home}/in{number}_label", label)
        write(orin, f"{home}/in{number}_input", millivolts)
        write(orin, f"{home}/curr{number}_input", milliamperes)
    write(orin, "sys/class/hwmon/hwmon2/name", "pwmfan")
    write(orin, "sys/class/hwmon/hwmon2/pwm1", 51)
    row = ask("sensors", orin, 0)
    assert (row["gpu_mhz"], row["gpu_percent"]) == (612.0, 37.5)
    assert row["temperature_c.cpu"] == 48.5
    assert row["power_w.VDD_IN"] == row["power_w.total"] == 7.5
    assert row["power_w.VDD_CPU_GPU"] == 1.5
    assert "power_w.NC" not in row
    assert row["fan_percent"] == pytest.approx(20)
    (orin / home / "in1_input").unlink()
    assert ask("sensors", orin, 0)["power_w.total"] == 1.5  # of the rails there are


def test_the_recorder_keeps_its_interval(ask: Ask) -> None:
    found = ask("record", 0.52)
    times = found.pop("times_s")
    assert 4 <= len(times) <= 12  # 0, 0.05, ..., 0.5, and one at the end
    assert times == sorted(times)
    assert times[0] < 0.3
    assert all(len(values) == len(times) for values in found.values())
    assert found["busy_cpu_s"] == sorted(found["busy_cpu_s"])
