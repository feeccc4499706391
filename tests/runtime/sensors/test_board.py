# SPDX-License-Identifier: Apache-2.0
"""What a Jetson's files say of it, over files as Jetsons have them."""

from __future__ import annotations

import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.sensors import LostSource, Recorder, open_sensors
from edge_imprint_runtime.sensors.board import board_facts, is_jetson
from tests.standins.jetson import jtop_standin

RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025"
)
MODES = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
# < POWER_MODEL ID=2 NAME=COMMENTED >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """The files of an Orin Nano under JetPack 6.2."""
    write(tmp_path, "etc/nv_tegra_release", RELEASE)
    write(tmp_path, "etc/nvpmodel.conf", MODES)
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002\n")
    write(
        tmp_path,
        "proc/device-tree/compatible",
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    )
    write(
        tmp_path,
        "proc/device-tree/model",
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    )
    write(
        tmp_path,
        "proc/cpuinfo",
        "processor\t: 0\nBogoMIPS\t: 62.50\n"
        "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        "CPU part\t: 0xd42\nCPU revision\t: 1\n\nprocessor\t: 1\nCPU part\t: 0xd03\n",
    )
    gpu = "sys/class/devfreq/17000000.gpu"
    write(tmp_path, f"{gpu}/min_freq", "306000000\n")
    write(tmp_path, f"{gpu}/max_freq", "1020000000\n")
    write(tmp_path, f"{gpu}/governor", "nvhost_podgov\n")
    write(tmp_path, "sys/class/devfreq/15480000.nvdec/min_freq", "1\n")
    write(tmp_path, "sys/class/devfreq/15480000.nvdec/max_freq", "1\n")
    return tmp_path


def test_an_orin(orin: Path) -> None:
    facts = board_facts(orin)
    stats = facts.pop("jetson-stats")
    assert facts == {
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "soc": "tegra234",
        "power_mode": "MAXN_SUPER",
        "power_mode_id": 2,
        "gpu_mhz_limit": 1020.0,
        "gpu_clocks_locked": "no",
        "gpu_governor": "nvhost_podgov",
    }
    try:
        assert stats == metadata.version("jetson-stats")
    except metadata.PackageNotFoundError:
        assert stats == "not installed"


def test_facts_of_the_machine(orin: Path) -> None:
    write(orin, "usr/local/cuda/version.json", '{"cuda": {"version": "12.6.68"}}')
    for name in ("libnvinfer.so.10", "libnvinfer.so.10.3.0"):
        write(orin, f"usr/lib/aarch64-linux-gnu/{name}", "")
    facts = machine_facts(root=orin)
    assert (
        facts["board"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    )
    assert facts["cpu_model"] == "Cortex-A78AE"
    assert facts["cpu_features"] == "asimd asimdhp asimddp"
    assert facts["jetpack"] == "6.2"
    assert facts["power_mode"] == "MAXN_SUPER"
    try:
        metadata.version("tensorrt")
    except metadata.PackageNotFoundError:
        assert facts["tensorrt"] == "10.3.0"


def test_clocks_that_are_locked(orin: Path) -> None:
    write(orin, "sys/class/devfreq/17000000.gpu/min_freq", "1020000000\n")
    assert board_facts(orin)["gpu_clocks_locked"] == "yes"


def test_a_gpu_by_its_name_in_the_device_tree(orin: Path) -> None:
    gpu = orin / "sys/class/devfreq/17000000.gpu"
    gpu.rename(gpu.with_name("17000000.other"))
    assert "gpu_mhz_limit" not in board_facts(orin)
    write(orin, "sys/class/devfreq/17000000.other/device/of_node/name", "ga10b\0")
    assert board_facts(orin)["gpu_mhz_limit"] == 1020.0


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pmode:0000", ("15W", 0)),
        ("pmode:0001 fmode:cool", ("25W", 1)),
        ("pmode:0007", (None, 7)),
        ("", (None, None)),
    ],
)
def test_power_modes(orin: Path, status: str, expected: tuple[str | None, int | None]) -> None:
    write(orin, "var/lib/nvpmodel/status", status)
    facts = board_facts(orin)
    assert (facts.get("power_mode"), facts.get("power_mode_id")) == expected


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 1", "35.4.1", "5.1.2"),
        ("# R38 (release), REVISION: 2.1, GCID: 1", "38.2.1", "7.0"),
        ("# R39 (release), REVISION: 9.9, GCID: 1", "39.9.9", None),
        ("something else", None, None),
    ],
)
def test_releases(orin: Path, release: str, l4t: str | None, jetpack: str | None) -> None:
    write(orin, "etc/nv_tegra_release", release)
    facts = board_facts(orin)
    assert (facts.get("l4t"), facts.get("jetpack")) == (l4t, jetpack)


def test_what_is_no_jetson(tmp_path: Path) -> None:
    assert not is_jetson(tmp_path)
    assert board_facts(tmp_path) == {}
    write(tmp_path, "proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert not is_jetson(tmp_path)


def test_a_container_that_sees_the_device_tree_alone(orin: Path) -> None:
    (orin / "etc/nv_tegra_release").unlink()
    assert is_jetson(orin)
    assert board_facts(orin)["soc"] == "tegra234"


# What is opened there ----------------------------------------------------------------------


def test_sensors_of_a_jetson(orin: Path) -> None:
    with jtop_standin():
        sources = open_sensors(root=orin)
        assert [source.name for source in sources] == ["psutil", "jtop"]
        facts = machine_facts(sources, root=orin)
        for source in sources:
            source.close()
    assert facts["module"] == "NVIDIA Jetson Orin NX (16GB ram)"
    assert facts["power_mode"] == "MAXN"  # jtop's word, over the file's
    assert facts["tensorrt"] == "10.3.0.30"


def test_a_jetson_without_jetson_stats(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    why = "the package jetson-stats is not installed; run pip install 'edge-imprint[jetson]'"
    sources = open_sensors(root=orin)
    assert [type(source) for source in sources[1:]] == [LostSource]
    facts = machine_facts(sources, root=orin)
    assert facts["sensors_missing_jtop"] == why
    assert facts["power_mode"] == "MAXN_SUPER"
    with Recorder(sources, 0.001) as recorder:
        while not recorder.trace().lost:
            time.sleep(0.001)
    assert recorder.trace().lost == {"jtop": why}
    for source in sources:
        source.close()


def test_a_jetson_whose_service_does_not_run(orin: Path) -> None:
    refusal = RuntimeError("The jtop.service is not active. Please run:\nsudo jtop")
    with jtop_standin(refusal):
        facts = machine_facts(open_sensors(root=orin), root=orin)
    assert facts["sensors_missing_jtop"] == (
        "jtop: The jtop.service is not active. Please run: sudo jtop"
    )
