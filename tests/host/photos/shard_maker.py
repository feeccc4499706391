# SPDX-License-Identifier: Apache-2.0
"""Tar shards for tests, whole and hostile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def write_shard(
    path: Path, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]], form: str = "pax"
) -> Path:
    """Write a tar file as WebDataset's writer does: members one after another, no folders."""
    pairs = files.items() if isinstance(files, Mapping) else files
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def header(name: bytes, size: int | bytes, kind: bytes = b"0") -> bytes:
    """Return a header whose checksum is right, whatever else it says."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(field)] = field
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)
