# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

__all__ = ["Facts", "machine_facts"]

Facts = dict[str, str | int | float | None]

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "onnx", "torch", "timm")


def machine_facts() -> Facts:
    """Describe this machine; a fact that can't be had is None.

    Returns:
        CPU model, cores, memory in bytes, load, governor, board, system, and versions.
    """
    facts: Facts = {
        "board": _text("/proc/device-tree/model"),
        "cpu_model": _field("/proc/cpuinfo", "model name"),
        "architecture": platform.machine(),
        "cores_usable": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else None,
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "load_average_1min": round(os.getloadavg()[0], 2)
        if hasattr(os, "getloadavg")
        else None,
        "cpu_governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "edge-imprint": _version("edge-imprint"),
    }
    for package in _PACKAGES:
        version = _version(package)
        if version is not None:
            facts[package] = version
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _field(path: str, name: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _memory_bytes() -> int | None:
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
