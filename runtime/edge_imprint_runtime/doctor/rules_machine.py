# SPDX-License-Identifier: Apache-2.0
"""What of the machine itself stands in the way of running, building or measuring."""

from __future__ import annotations

from collections.abc import Iterator

from edge_imprint_runtime.doctor.seen import Finding, Seen

__all__ = ["RULES"]

_GB = 10**9
# Below these a build of TensorRT's is killed, or a cache can't be kept.
_SMALL_BOARD_BYTES, _ENOUGH_SWAP_BYTES = 9 * _GB, 4 * _GB
_LITTLE_DISK_BYTES, _LITTLE_MEMORY_BYTES = _GB, _GB // 2
_HOT_C, _IMPOSSIBLE_C = 85.0, 150.0
_SLOW_GOVERNORS = ("powersave", "conservative", "ondemand")


def slow_power_mode(seen: Seen) -> Iterator[Finding]:
    """A Jetson in a mode that caps it."""
    mode = seen.machine.get("power_mode")
    if not seen.jetson or not mode or str(mode).upper().startswith("MAXN"):
        return
    modes = seen.system.get("power_modes") or {}
    most = [name for name in modes if name.upper().startswith("MAXN")]
    yield Finding(
        "power-mode",
        "note",
        f"the power mode is {mode}, in which this board is slower than it can be"
        + (f" in {most[-1]}" if most else ""),
        f"sudo nvpmodel -m {modes[most[-1]]}" if most else "sudo nvpmodel -p --verbose",
    )


def clocks_not_locked(seen: Seen) -> Iterator[Finding]:
    """A Jetson whose clocks follow the load, which a measurement sees."""
    locked = seen.machine.get("jetson_clocks"), seen.machine.get("gpu_clocks_locked")
    if not seen.jetson or "on" in locked or not {"off", "no"} & set(locked):
        return
    yield Finding(
        "clocks-not-locked",
        "note",
        "the clocks follow the load: before measuring, lock them",
        "sudo jetson_clocks",
    )


def no_jtop(seen: Seen) -> Iterator[Finding]:
    """jetson-stats is a package and a service; readings need both."""
    if not seen.jetson:
        return
    if seen.package("jetson-stats") is None:
        yield Finding(
            "no-jetson-stats",
            "note",
            "jetson-stats is not installed: bench records no rails, clocks or power mode",
            "pip install 'edge-imprint[jetson]'",
        )
    elif not seen.system.get("jtop_answers"):
        yield Finding(
            "jetson-stats-asleep",
            "warning",
            "jetson-stats is installed and its service does not run: there are no readings",
            "sudo systemctl restart jtop.service"
            if seen.system.get("jtop_service")
            else "sudo jtop --install-service && sudo systemctl start jtop.service",
        )


def little_swap(seen: Seen) -> Iterator[Finding]:
    """A build by TensorRT takes more memory than a small Orin has."""
    memory, swap = seen.system.get("memory_bytes"), seen.system.get("swap_bytes")
    if not seen.jetson or memory is None or swap is None:
        return
    if memory > _SMALL_BOARD_BYTES or swap >= _ENOUGH_SWAP_BYTES:
        return
    yield Finding(
        "little-swap",
        "warning",
        f"{memory / _GB:.1f} GB of memory and {swap / _GB:.1f} GB of swap may not be enough "
        "for TensorRT to build an engine",
        "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && "
        "sudo mkswap /swapfile && sudo swapon /swapfile",
    )


def little_memory(seen: Seen) -> Iterator[Finding]:
    """Hardly any memory is free now."""
    free = seen.system.get("memory_available_bytes")
    if free is not None and free < _LITTLE_MEMORY_BYTES:
        yield Finding(
            "little-memory",
            "warning",
            f"{free / _GB:.2f} GB of memory are free",
            "ps aux --sort=-rss | head  # shows what holds it",
        )


def little_disk(seen: Seen) -> Iterator[Finding]:
    """Backbones and TensorRT's timings are kept on disk."""
    free, folder = seen.system.get("cache_free_bytes"), seen.system.get("cache_folder")
    if free is not None and free < _LITTLE_DISK_BYTES:
        yield Finding(
            "little-disk",
            "warning",
            f"{free / _GB:.2f} GB are free for {folder}",
            "export XDG_CACHE_HOME=FOLDER  # of a larger disk",
        )
    if seen.system.get("cache_writable") is False:
        yield Finding(
            "cache-closed",
            "warning",
            f"user {seen.system.get('user')} can't write to {folder}: nothing is kept "
            "between builds",
            "export XDG_CACHE_HOME=FOLDER  # of your own",
        )


def hot(seen: Seen) -> Iterator[Finding]:
    """A board near the temperature at which it slows down."""
    zones = seen.system.get("temperatures_c") or {}
    # A sensor that is off answers with nonsense.
    over = {n: t for n, t in zones.items() if _HOT_C <= t < _IMPOSSIBLE_C}
    if over:
        name = max(over, key=lambda zone: over[zone])
        yield Finding(
            "hot",
            "warning",
            f"{name} is at {over[name]:.0f} degrees Celsius, where a processor slows down",
            "sudo jetson_clocks --fan"
            if seen.jetson
            else "cat /sys/class/thermal/thermal_zone*/temp  # in thousandths: has it cooled?",
        )


def slow_governor(seen: Seen) -> Iterator[Finding]:
    """Frequencies that rise late are in every measurement of a short run."""
    governor = seen.machine.get("cpu_governor")
    if governor in _SLOW_GOVERNORS and not seen.jetson:
        yield Finding(
            "cpu-governor",
            "note",
            f"the CPU's governor is {governor}: before measuring, set performance",
            "sudo cpupower frequency-set -g performance",
        )


def other_encoding(seen: Seen) -> Iterator[Finding]:
    """Labels and file names may hold any letter."""
    encoding = seen.system.get("encoding")
    if encoding and encoding.replace("-", "").replace("_", "") != "utf8":
        yield Finding(
            "encoding",
            "note",
            f"the locale's encoding is {encoding}, not UTF-8: labels may show as escapes",
            "export LC_ALL=C.UTF-8",
        )


RULES = (
    little_swap,
    little_memory,
    little_disk,
    hot,
    slow_power_mode,
    clocks_not_locked,
    no_jtop,
    slow_governor,
    other_encoding,
)
"""In this order."""
