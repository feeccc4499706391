# SPDX-License-Identifier: Apache-2.0
"""What the operating system says that bears on running models, read off its files."""

from __future__ import annotations

import contextlib
import locale
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from edge_imprint_runtime.files import cache_folder
from edge_imprint_runtime.machine import container
from edge_imprint_runtime.sensors.board import is_jetson, power_modes

__all__ = ["device_files", "system_facts"]

_DEVICES = (
    "dev/nvidia[0-9]*",
    "dev/nvidiactl",
    "dev/nvidia-uvm",
    "dev/nvmap",
    "dev/nvhost-*gpu",
    "dev/nvgpu/igpu0/*",
    "dev/dri/renderD*",
)
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # a PCI vendor, and a class of PCI devices
_MOST_FILES = 100_000  # of the cache that are counted


def system_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Describe the system; a fact that can't be had is None.

    Args:
        root: Where its files lie.

    Returns:
        Flat facts by name; bytes and degrees Celsius say so in their names.
    """
    memory = _memory(root)
    cache = _cache()
    return {
        "os": _pretty(root),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "virtual_environment": sys.prefix != sys.base_prefix,
        "sees_system_packages": _sees_system_packages(),
        "container": container(root),
        "encoding": locale.getpreferredencoding(False).lower(),
        "user": _user(),
        "groups": _groups(),
        "memory_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "swap_bytes": memory.get("SwapTotal"),
        "swap_free_bytes": memory.get("SwapFree"),
        **cache,
        "temperatures_c": _temperatures(root),
        "device_files": device_files(root),
        "nvidia_on_pci": _on_pci(root),
        "kernel_driver": _kernel_driver(root),
        "is_jetson": is_jetson(root),
        "power_modes": power_modes(root),
        "jtop_service": (root / "etc/systemd/system/jtop.service").exists(),
        "jtop_answers": (root / "run/jtop.sock").exists(),
        "system_tensorrt": [
            str(path.parent.parent)
            for path in sorted(
                root.glob("usr/lib/python3*/dist-packages/tensorrt/__init__.py")
            )
        ],
    }


def device_files(root: Path = Path("/")) -> list[dict[str, Any]]:
    """List the GPU's device files: ``path``, ``group``, and whether they may be ``open``ed.

    Args:
        root: Where the files lie.
    """
    found = []
    for pattern in _DEVICES:
        for path in sorted(root.glob(pattern)):
            if path.is_dir():
                continue
            group: str | None = None
            with contextlib.suppress(OSError, KeyError, NotImplementedError):
                group = path.group()
            usable = os.access(path, os.R_OK | os.W_OK)
            found.append({"path": str(path), "group": group, "open": usable})
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _pretty(root: Path) -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release") or "", re.M)
    return None if match is None else match[1]


def _sees_system_packages() -> bool | None:
    text = _text(Path(sys.prefix) / "pyvenv.cfg")
    if text is None:
        return None
    return bool(re.search(r"^include-system-site-packages\s*=\s*true", text, re.M | re.I))


def _user() -> str | None:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return None


def _groups() -> list[str]:
    try:
        import grp
    except ImportError:
        return []
    names = []
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.append(grp.getgrgid(number).gr_name)
    return sorted(names)


def _memory(root: Path) -> dict[str, int]:
    text = _text(root / "proc/meminfo") or ""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+): +(\d+) kB", text)}


def _cache() -> dict[str, Any]:
    """Say how much is kept of backbones, engines' timings and the like, and what is free."""
    there = folder = cache_folder()
    # Not Path.exists, which raises where a folder above may not be entered.
    while not os.path.exists(there) and there != there.parent:
        there = there.parent
    sizes: list[int] = []
    for base, _, files in os.walk(folder):
        for name in files[: _MOST_FILES - len(sizes)]:
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(os.path.join(base, name)).st_size)
    return {
        "cache_folder": str(folder),
        "cache_bytes": sum(sizes),
        "cache_free_bytes": shutil.disk_usage(there).free,
        "cache_writable": os.access(there, os.W_OK | os.X_OK),
    }


def _temperatures(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        name, value = _text(zone / "type"), _text(zone / "temp")
        if name and value and re.fullmatch(r"-?[0-9]+", value):
            found[name] = int(value) / 1000
    return found


def _on_pci(root: Path) -> int:
    """Count NVIDIA's graphics devices on the bus, which need no driver to be seen."""
    return sum(
        _text(device / "vendor") == _NVIDIA
        and (_text(device / "class") or "").startswith(_DISPLAY)
        for device in root.glob("sys/bus/pci/devices/*")
    )


def _kernel_driver(root: Path) -> str | None:
    """Return the version of NVIDIA's loaded kernel module."""
    text = _text(root / "proc/driver/nvidia/version") or ""
    match = re.search(r"Kernel Module.*?\s([0-9]+\.[0-9.]+)", text)
    return None if match is None else match[1]
