# SPDX-License-Identifier: Apache-2.0
"""Which shared libraries a library asks for, read off its ELF file without loading it.

A loader names the first library that it does not find; the file names all of them.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["needed"]

_LOADED, _DYNAMIC = 1, 2  # kinds of segments
_NEEDED, _NAMES = 1, 5  # kinds of dynamic entries: a library's name, and where names begin
_MOST_ENTRIES = 4096


def needed(path: Path) -> list[str]:
    """Read what a library asks for.

    Args:
        path: A shared library.

    Returns:
        File names such as ``libcudnn.so.9``; none where it is no 64-bit little-endian ELF
        file, or can't be read.
    """
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _needed(data)
    except (OSError, OverflowError, ValueError, struct.error):
        return []


def _needed(data: mmap.mmap) -> list[str]:
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loaded: list[tuple[int, int, int]] = []  # address, where in the file, bytes
    entries: list[tuple[int, int]] = []
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from(
            "<IIQQQQ", data, table + number * size
        )
        if kind == _LOADED:
            loaded.append((address, offset, length))
        elif kind == _DYNAMIC:
            most = min(length // 16, _MOST_ENTRIES)
            entries = [struct.unpack_from("<qQ", data, offset + 16 * i) for i in range(most)]
    names = next((value for tag, value in entries if tag == _NAMES), None)
    if names is None:
        return []
    begins = (at + names - to for to, at, length in loaded if to <= names < to + length)
    start = next(begins, None)
    if start is None:
        return []
    return [_text(data, start + value) for tag, value in entries if tag == _NEEDED]


def _text(data: mmap.mmap, start: int) -> str:
    end = data.find(b"\0", start, start + 256)
    if end < 0:
        raise ValueError("a name without an end")
    return data[start:end].decode("ascii", "replace")
