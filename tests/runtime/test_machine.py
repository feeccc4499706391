# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine: what can't be had is None, never an error."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from edge_imprint_runtime import machine
from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.sensors import LostSource

ALWAYS = {
    "board",
    "cpu_model",
    "architecture",
    "cores_usable",
    "cores",
    "memory_bytes",
    "load_average_1min",
    "cpu_governor",
    "cpu_features",
    "virtual_machine",
    "container",
    "disk_free_bytes",
    "system",
    "python",
    "edge-imprint",
}


def test_facts() -> None:
    facts = machine_facts()
    assert facts.keys() >= ALWAYS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == platform.python_version()
    assert facts["numpy"] == np.__version__
    assert facts["cores"] == os.cpu_count()
    usable, memory = facts["cores_usable"], facts["memory_bytes"]
    assert usable is None or 1 <= int(usable) <= int(facts["cores"] or 0)
    assert memory is None or int(memory) > 2**26


def test_texts_are_one_line() -> None:
    for key, value in machine_facts().items():
        if isinstance(value, str):
            assert value.strip() == value != "", key
            assert "\n" not in value, key
            assert "\0" not in value, key


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_memory_and_swap_agree_with_psutil() -> None:
    facts = machine_facts()
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["swap_bytes"] == psutil.swap_memory().total
    free = facts["disk_free_bytes"]
    assert isinstance(free, int)
    assert 0 < free <= psutil.disk_usage(".").total


def test_a_machine_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_slow_cpu_model", lambda: None)
    facts = machine_facts(root=tmp_path)
    nothing = ("board", "cpu_model", "cpu_governor", "virtual_machine", "container")
    assert [facts[name] for name in nothing] == [None] * len(nothing)
    assert "power_mode" not in facts


@pytest.mark.parametrize(
    ("said", "model"),
    [
        ("model name\t: AMD EPYC 9\nflags\t: fpu", "AMD EPYC 9"),
        (
            (
                "model name\t: ARMv8 Processor rev 1 (v8l)\n"
                "CPU implementer\t: 0x41\nCPU part\t: 0xd42"
            ),
            "Cortex-A78AE",
        ),
        ("CPU implementer\t: 0x4e\nCPU part\t: 0x004", "Carmel"),
        ("model name\t: ARMv8 Processor rev 1 (v8l)\nCPU part\t: 0xfff", "ARMv8 Processor"),
        ("CPU implementer\t: 0x61\nCPU part\t: 0x022", "asked of cpuinfo"),
    ],
)
def test_models_of_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, model: str
) -> None:
    told = SimpleNamespace(get_cpu_info=lambda: {"brand_raw": "asked of cpuinfo"})
    monkeypatch.setitem(sys.modules, "cpuinfo", told)
    machine._slow_cpu_model.cache_clear()
    write(tmp_path, "proc/cpuinfo", f"processor\t: 0\n{said}\n\nprocessor\t: 1\n")
    try:
        assert str(machine_facts(root=tmp_path)["cpu_model"]).startswith(model)
    finally:
        machine._slow_cpu_model.cache_clear()


def test_cpuinfo_agrees_with_the_kernel() -> None:
    said = Path("/proc/cpuinfo")
    if not said.exists() or "model name" not in said.read_text():
        pytest.skip("needs a kernel that names its processor")
    facts = machine_facts()
    if str(facts["architecture"]).startswith(("arm", "aarch")):
        pytest.skip("ARM's kernels name the architecture and not the processor")
    machine._slow_cpu_model.cache_clear()
    assert machine._slow_cpu_model() == facts["cpu_model"]


def test_features_that_decide_about_small_numbers(tmp_path: Path) -> None:
    flags = "fpu avx2 hypervisor avx512_vnni amx_int8 fma"
    write(tmp_path, "proc/cpuinfo", f"model name: X\nflags\t: {flags}\n")
    facts = machine_facts(root=tmp_path)
    assert facts["cpu_features"] == "avx2 fma avx512_vnni amx_int8"
    assert facts["virtual_machine"] == "yes"
    write(tmp_path, "sys/class/dmi/id/sys_vendor", "QEMU\n")
    write(tmp_path, "sys/class/dmi/id/product_name", "Standard PC\n")
    assert machine_facts(root=tmp_path)["virtual_machine"] == "QEMU Standard PC"


def test_a_virtual_machine_by_its_device_tree(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "model name: X\n")
    write(tmp_path, "proc/device-tree/hypervisor/compatible", "linux,kvm\0")
    assert machine_facts(root=tmp_path)["virtual_machine"] == "linux,kvm"


@pytest.mark.parametrize(
    ("path", "text", "container"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/1/cgroup", "0::/kubepods/pod1/ab\n", "kubepods"),
        ("proc/1/cgroup", "0::/init.scope\n", None),
    ],
)
def test_containers(tmp_path: Path, path: str, text: str, container: str | None) -> None:
    write(tmp_path, "proc/cpuinfo", "model name: X\n")
    write(tmp_path, path, text)
    assert machine_facts(root=tmp_path)["container"] == container


@pytest.mark.parametrize(
    ("wheels", "files", "expected"),
    [
        (
            {},
            {
                "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.68"}}',
                "usr/lib/x86_64-linux-gnu/libcudnn.so.9": "",
                "usr/lib/x86_64-linux-gnu/libcudnn.so.9.3.0": "",
                "usr/lib/x86_64-linux-gnu/libnvinfer.so.10.3.0": "",
            },
            {"cuda": "12.6.68", "cudnn": "9.3.0", "tensorrt": "10.3.0"},
        ),
        (
            {"tensorrt-cu12": "10.9.0.34", "nvidia-cuda-runtime-cu12": "12.8.90"},
            {"usr/lib64/libnvinfer.so.8": "", "usr/local/cuda/version.json": "{"},
            {"cuda": "12.8.90", "tensorrt": "10.9.0.34"},
        ),
        (
            {},
            {
                "usr/local/cuda/version.json": "{",
                "usr/local/cuda/lib64/libcudart.so.12.4.99": "",
                "usr/lib/libcudnn.so.bak": "",
            },
            {"cuda": "12.4.99"},
        ),
        ({}, {}, {}),
    ],
)
def test_versions_of_libraries_that_are_not_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wheels: dict[str, str],
    files: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr(machine, "_version", wheels.get)
    write(tmp_path, "proc/cpuinfo", "model name: X\n")
    for path, text in files.items():
        write(tmp_path, path, text)
    facts = machine_facts(root=tmp_path)
    assert {k: v for k, v in facts.items() if k in ("cuda", "cudnn", "tensorrt")} == expected


def test_sources_add_their_facts() -> None:
    class Known:
        name = "jtop"

        def read(self) -> dict[str, float]:
            return {}

        def facts(self) -> dict[str, str | int | float | None]:
            return {"power_mode": "25W"}

        def close(self) -> None: ...

    facts = machine_facts([Known(), LostSource("nvml", "NVML: GPU is lost")])
    assert facts["power_mode"] == "25W"
    assert facts["sensors_missing_nvml"] == "NVML: GPU is lost"
    assert facts.keys() >= ALWAYS


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("10.3.0.30", "10.3.0", "10.3.0.30"),  # the same, and its build
        ("10.3.0.30", "10.9.0.34", "10.9.0.34"),  # a wheel beside the board's own
        ("10.3.0.30", None, "10.3.0.30"),
        (None, "10.9.0.34", "10.9.0.34"),
    ],
)
def test_a_library_that_two_know(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    theirs: str | None,
    ours: str | None,
    expected: str,
) -> None:
    class Known(LostSource):
        def facts(self) -> dict[str, str | int | float | None]:
            return {} if theirs is None else {"tensorrt": theirs}

    monkeypatch.setattr(machine, "_version", {"tensorrt": ours}.get)
    write(tmp_path, "proc/cpuinfo", "model name: X\n")
    assert machine_facts([Known("jtop", "")], root=tmp_path)["tensorrt"] == expected
