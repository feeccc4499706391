# SPDX-License-Identifier: Apache-2.0
"""What the system says, read off files laid as a Jetson and a server have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_imprint_runtime.doctor.system import device_files, system_facts

JETSON = {
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "etc/nvpmodel.conf": (
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_0 /sys/devices/system/cpu/cpu0/online\n"
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n"
    ),
    "etc/systemd/system/jtop.service": "[Unit]\n",
    "run/jtop.sock": "",
    "proc/meminfo": "MemTotal:  7800000 kB\nMemAvailable: 5000000 kB\nSwapTotal: 3900000 kB\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48593\n",
    "sys/class/thermal/thermal_zone1/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "",
    "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
    "dev/nvmap": "",
    "dev/nvhost-ctrl-gpu": "",
    "dev/nvgpu/igpu0/ctrl": "",
    "dev/null": "",
}
SERVER = {
    "proc/driver/nvidia/version": (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
    ),
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
    "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
    "sys/bus/pci/devices/0000:02:00.0/vendor": "0x8086\n",
    "sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
    "proc/1/cgroup": "0::/kubepods/besteffort/pod1\n",
    "dev/nvidia0": "",
    "dev/nvidiactl": "",
}


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_jetson(tmp_path: Path) -> None:
    facts = system_facts(lay(tmp_path, JETSON))
    assert facts["is_jetson"] is True
    assert facts["os"] == "Ubuntu 22.04.5 LTS"
    assert facts["power_modes"] == {"15W": 0, "MAXN_SUPER": 2}
    assert (facts["jtop_service"], facts["jtop_answers"]) == (True, True)
    assert facts["memory_bytes"] == 7_800_000 * 1024
    assert facts["swap_bytes"] == 3_900_000 * 1024
    assert facts["swap_free_bytes"] is None
    assert facts["temperatures_c"] == {"cpu-thermal": 48.593}
    assert facts["system_tensorrt"] == [str(tmp_path / "usr/lib/python3.10/dist-packages")]
    assert facts["container"] is None
    assert (facts["nvidia_on_pci"], facts["kernel_driver"]) == (0, None)


def test_a_server_in_a_container(tmp_path: Path) -> None:
    facts = system_facts(lay(tmp_path, SERVER))
    assert facts["is_jetson"] is False
    assert facts["nvidia_on_pci"] == 1  # a sound device of NVIDIA's and another's GPU are not
    assert facts["kernel_driver"] == "580.95.05"
    assert facts["container"] == "kubepods"
    assert facts["os"] is None
    assert facts["power_modes"] == {}


@pytest.mark.parametrize(
    ("file", "name"), [(".dockerenv", "docker"), ("run/.containerenv", "podman")]
)
def test_containers_by_their_mark(tmp_path: Path, file: str, name: str) -> None:
    assert system_facts(lay(tmp_path, {file: ""}))["container"] == name


def test_device_files(tmp_path: Path) -> None:
    found = device_files(lay(tmp_path, JETSON | SERVER))
    assert {Path(one["path"]).name for one in found} == {
        "nvmap",
        "nvhost-ctrl-gpu",
        "ctrl",
        "nvidia0",
        "nvidiactl",
    }
    assert all(one["open"] for one in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may open every file")
def test_a_device_file_that_is_closed(tmp_path: Path) -> None:
    lay(tmp_path, {"dev/nvidia0": ""})
    (tmp_path / "dev/nvidia0").chmod(0)
    assert [one["open"] for one in device_files(tmp_path)] == [False]


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none" / "yet"))
    facts = system_facts()
    assert facts["cache_folder"] == str(tmp_path / "none" / "yet" / "edge-imprint")
    assert (facts["cache_bytes"], facts["cache_writable"]) == (0, True)
    assert facts["cache_free_bytes"] > 0
    lay(tmp_path / "none" / "yet" / "edge-imprint", {"engines/a": "12345", "b": "123"})
    assert system_facts()["cache_bytes"] == 8


def test_here() -> None:
    facts = system_facts()
    assert facts["memory_bytes"] >= facts["memory_available_bytes"] > 0
    assert facts["virtual_environment"] in (True, False)
    assert facts["user"]
    assert facts["groups"]
