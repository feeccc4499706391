# SPDX-License-Identifier: Apache-2.0
"""What a model takes of this process's memory."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "resident_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident_bytes() -> int | None:
    """Return what this process holds of the memory now; None if that can't be had."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


@dataclass
class Memory:
    """This process's resident memory, before a model is opened, after, and at most.

    Make it before the model is opened, call `opened` right after, and `peaked` once the model
    has run; whatever is loaded later is not the model's.

    Attributes:
        before_bytes: Resident before.
        open_bytes: Resident after it was opened.
        peak_bytes: The most since it was made; where Linux can't start that count anew (in
            some sandboxes, or on another system), the most since the process began.
    """

    before_bytes: int | None = None
    open_bytes: int | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.before_bytes is None:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")  # the peak begins anew: man 5 proc
            self.before_bytes = resident_bytes()

    def opened(self) -> None:
        """Note what is resident now, with the model open."""
        self.open_bytes = resident_bytes()

    def peaked(self) -> None:
        """Note what was resident at most."""
        known = [size for size in (_peak_bytes(), resident_bytes()) if size is not None]
        self.peak_bytes = max(known, default=None)

    def as_json(self, device_bytes: int | None) -> dict[str, int | None]:
        """Return the report's ``memory``.

        Args:
            device_bytes: What `Runner.device_memory_bytes` says.
        """
        return {
            "rss_before_bytes": self.before_bytes,
            "rss_open_bytes": self.open_bytes,
            "rss_peak_bytes": self.peak_bytes,
            "device_bytes": device_bytes,
        }


def _peak_bytes() -> int | None:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
