# SPDX-License-Identifier: Apache-2.0
"""Photos that end the process that reads them, as a decoder that crashes does."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DeadlyPhoto"]


@dataclass(frozen=True)
class DeadlyPhoto:
    """A photo that kills the process that reads it.

    Attributes:
        photo: The photo that it otherwise is.
        spared: The number of a process in which it only fails: the test's own.
        how: The signal; a SIGSEGV is a real one, by a read of address 0.
        once: A file that is made at the first time; then the photo is as any other.
    """

    photo: Path
    spared: int
    how: int = signal.SIGSEGV
    once: Path | None = None

    def __str__(self) -> str:
        return str(self.photo)

    def read_bytes(self) -> bytes:
        if os.getpid() == self.spared:
            raise AssertionError("a deadly photo was read in the test's own process")
        if self.once is not None:
            if self.once.exists():
                return self.photo.read_bytes()
            self.once.touch()
        if self.how == signal.SIGSEGV:
            ctypes.string_at(0)
        os.kill(os.getpid(), self.how)
        return b""
