# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine that a measurement was made on."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from edge_imprint_runtime.sensors import LostSource, SensorLostError, Source
from edge_imprint_runtime.sensors.board import board_facts, is_jetson
from edge_imprint_runtime.sensors.source import Facts

__all__ = ["Facts", "container", "machine_facts"]

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "pillow",
    "onnx",
    "torch",
    "timm",
    "cuda-python",
    "jetson-stats",
    "nvidia-ml-py",
)
# NVIDIA's libraries: the wheels that bring one, and its file where the system does.
_LIBRARIES = {
    "cuda": (("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"), "libcudart.so.*"),
    "cudnn": (("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"), "libcudnn.so.*"),
    "tensorrt": (("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), "libnvinfer.so.*"),
}
_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/local/cuda/lib64", "usr/lib")
# What decides how fast 8-bit and half-precision arithmetic is, of all that a CPU tells.
_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
# ARM's kernel tells a number and no name, as the architecture's MIDR has it.
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}
_CONTAINERS = ("docker", "kubepods", "containerd", "podman", "lxc")


def machine_facts(sources: Iterable[Source] | None = None, *, root: Path = Path("/")) -> Facts:
    """Describe this machine; a fact that can't be had is None, or left out.

    Files and the metadata of packages are read; no library is loaded for its version. It
    takes some 20 ms, and what NVML takes to open where there is a GPU.

    Args:
        sources: Open sensors, whose facts are added: with jtop's among them a Jetson's are
            more. None: NVML is opened for a moment where there is a GPU of NVIDIA's.
        root: Where the machine's files lie.

    Returns:
        CPU model, cores, memory in bytes, load, governor, board, system, versions of packages
        and of NVIDIA's libraries; the GPU; a Jetson's JetPack and power mode, by name.
    """
    cpu = _processor(root)
    facts: Facts = {
        "board": _text(root / "proc/device-tree/model"),
        "cpu_model": _cpu_model(cpu),
        "architecture": platform.machine(),
        "cores_usable": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else None,
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "load_average_1min": round(os.getloadavg()[0], 2)
        if hasattr(os, "getloadavg")
        else None,
        "cpu_governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_features": " ".join(_features(cpu)) or None,
        "virtual_machine": _virtual_machine(cpu, root),
        "container": container(root),
        "disk_free_bytes": _disk_free_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "edge-imprint": _version("edge-imprint"),
    }
    for package in _PACKAGES:
        version = _version(package)
        if version is not None:
            facts[package] = version
    facts |= board_facts(root) | _sources_facts(sources, root)
    for name, version in _libraries(root).items():
        # A wheel is what this process loads, whatever jtop finds on the board; but of one
        # version jtop may know the build too.
        if not str(facts.get(name)).startswith(version):
            facts[name] = version
    return facts


def _sources_facts(sources: Iterable[Source] | None, root: Path) -> Facts:
    from edge_imprint_runtime.sensors.host import HostSource
    from edge_imprint_runtime.sensors.nvidia import NvmlSource

    if sources is not None:
        found: Facts = {}
        for source in sources:
            found |= source.facts()
            if isinstance(source, LostSource):
                found[f"sensors_missing_{source.name}"] = source.reason
        return found
    facts = HostSource(root).facts()
    if is_jetson(root):  # where NVML is not there, or says next to nothing
        return facts
    try:
        gpu = NvmlSource()
    except SensorLostError:
        return facts
    try:
        return facts | gpu.facts()
    finally:
        gpu.close()


# Software ----------------------------------------------------------------------------------


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _libraries(root: Path) -> dict[str, str]:
    found = {}
    for name, (wheels, pattern) in _LIBRARIES.items():
        version = next((v for w in wheels if (v := _version(w)) is not None), None)
        if version is None and name == "cuda":
            version = _toolkit(root)
        if version is None:
            version = _file_version(root, pattern)
        if version is not None:
            found[name] = version
    return found


def _toolkit(root: Path) -> str | None:
    try:
        told = json.loads((root / "usr/local/cuda/version.json").read_text())
        return str(told["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_version(root: Path, pattern: str) -> str | None:
    """Read the version off the longest of a library's names: libnvinfer.so.10.3.0."""
    found = [
        file.name.partition(".so.")[2]
        for folder in _FOLDERS
        for file in root.glob(f"{folder}/{pattern}")
    ]
    found = [version for version in found if re.fullmatch(r"[\d.]+", version)]
    return max(found, key=lambda version: (version.count("."), version), default=None)


# Hardware ----------------------------------------------------------------------------------


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _processor(root: Path) -> dict[str, str]:
    """Read what the kernel says of the first processor."""
    said: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if not key.strip():
            break
        said.setdefault(key.strip(), value.strip())
    return said


def _cpu_model(cpu: dict[str, str]) -> str | None:
    core = _ARM_CORES.get((cpu.get("CPU implementer", ""), cpu.get("CPU part", "")))
    return core or cpu.get("model name") or _slow_cpu_model()


@cache
def _slow_cpu_model() -> str | None:
    # It starts programs and takes a second: asked only where the kernel gives no name (other
    # ARM cores, macOS, Windows), and once.
    import cpuinfo

    try:
        return cpuinfo.get_cpu_info().get("brand_raw") or None
    except Exception:  # it runs what it finds on the path
        return None


def _features(cpu: dict[str, str]) -> list[str]:
    told = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [feature for feature in _FEATURES if feature in told]


def _virtual_machine(cpu: dict[str, str], root: Path) -> str | None:
    guest = _text(root / "proc/device-tree/hypervisor/compatible")
    if guest is not None:
        return guest.replace("\0", " ")
    if "hypervisor" not in cpu.get("flags", "").split():
        return None
    maker = _text(root / "sys/class/dmi/id/sys_vendor")
    product = _text(root / "sys/class/dmi/id/product_name")
    return " ".join(filter(None, (maker, product))) or "yes"


def container(root: Path = Path("/")) -> str | None:
    """Name what this runs in, by the marks that containers leave; None outside of one."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = _text(root / "proc/1/cgroup") or ""
    return next((name for name in _CONTAINERS if name in groups), None)


def _disk_free_bytes() -> int | None:
    try:
        return shutil.disk_usage(".").free
    except OSError:
        return None


def _memory_bytes() -> int | None:
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
