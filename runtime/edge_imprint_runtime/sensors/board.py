# SPDX-License-Identifier: Apache-2.0
"""What a Jetson's own files say of it: quick, and without jetson-stats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from edge_imprint_runtime.sensors.source import Facts

__all__ = ["board_facts", "is_jetson", "power_modes"]

# NVIDIA names the release of the system (L4T) in a file, and JetPack in its documents alone.
_JETPACKS = {
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.3": "5.1.5",
    "35.6.4": "5.1.6",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.2": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
}
# How the GPU is called among the devices with a clock, from the Nano to Thor.
_GPU = re.compile(r"gpu|gm20b|gp10b|gv11b|ga10b", re.IGNORECASE)


def is_jetson(root: Path = Path("/")) -> bool:
    """Tell whether this is a Jetson, by the release file or the device tree.

    Args:
        root: Where its files lie.
    """
    if (root / "etc/nv_tegra_release").exists():
        return True
    return _soc(root) is not None


def board_facts(root: Path = Path("/")) -> Facts:
    """Describe a Jetson; nothing on other machines.

    Args:
        root: Where its files lie.

    Returns:
        ``l4t``, ``jetpack``, ``soc``, ``power_mode`` (its name; its number means another mode
        on another board), ``power_mode_id``, ``gpu_mhz_limit``, ``gpu_clocks_locked``,
        ``gpu_governor``, and ``jetson-stats``: its version, or that it is not installed. What
        can't be had is left out.
    """
    if not is_jetson(root):
        return {}
    facts: Facts = {}
    release = re.search(
        r"R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release")
    )
    if release is not None:
        facts["l4t"] = l4t = f"{release[1]}.{release[2]}"
        if l4t in _JETPACKS:
            facts["jetpack"] = _JETPACKS[l4t]
    soc = _soc(root)
    if soc is not None:
        facts["soc"] = soc
    facts |= _power_mode(root) | _gpu_clock(root)
    try:
        facts["jetson-stats"] = metadata.version("jetson-stats")
    except metadata.PackageNotFoundError:
        facts["jetson-stats"] = "not installed"
    return facts


def power_modes(root: Path = Path("/")) -> dict[str, int]:
    """Return the numbers of a Jetson's power modes by name: they differ by board and JetPack.

    Args:
        root: Where its files lie.
    """
    text = _text(root / "etc/nvpmodel.conf")
    pairs = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text, re.MULTILINE)
    return {name: int(number) for number, name in pairs}


def _soc(root: Path) -> str | None:
    found = re.findall(r"nvidia,(tegra\d+)", _text(root / "proc/device-tree/compatible"))
    return found[-1] if found else None


def _power_mode(root: Path) -> Facts:
    # What nvpmodel writes when a mode is set; its configuration has the names.
    current = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if current is None:
        return {}
    mode = int(current[1])
    for name, number in power_modes(root).items():
        if number == mode:
            return {"power_mode": name, "power_mode_id": mode}
    return {"power_mode_id": mode}


def _gpu_clock(root: Path) -> Facts:
    for device in _devices(root):
        low, high = _text(device / "min_freq"), _text(device / "max_freq")
        if not (low.isdigit() and high.isdigit()):
            continue
        facts: Facts = {
            "gpu_mhz_limit": int(high) / 1e6,
            "gpu_clocks_locked": "yes" if low == high else "no",
        }
        governor = _text(device / "governor")
        return facts | ({"gpu_governor": governor} if governor else {})
    return {}


def _devices(root: Path) -> Iterator[Path]:
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU.search(device.name + _text(device / "device/of_node/name")):
            yield device


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
