# SPDX-License-Identifier: Apache-2.0
"""Files of embeddings: written once, never changed, and checked before they are believed.

One file, little-endian, (n, D) embeddings with the SHA-256 of each one's photo::

    offset           bytes     what
    0                8         "EIEMBED" and a line feed
    8                4         version, 1
    12               4         D
    16               8         n
    24               16        the key of the space that the embeddings belong to
    40               24        zeros
    64               32 n      the photos' SHA-256, a row of 32 bytes each
    64 + 32 n        4 n D     the embeddings, float32, row by row
    64 + 32 n + 4 nD 32        SHA-256 of all that stands before the embeddings
    ...              32        SHA-256 of the embeddings

The two sums are apart so that a build of a few photos checks the embeddings of their shards
and not those of a million others.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = [
    "DIGEST_BYTES",
    "SUFFIX",
    "TMP",
    "DamagedShardError",
    "Shard",
    "embedding_count",
    "open_shard",
    "write_shard",
]

SUFFIX = ".shard"
TMP = ".tmp"
DIGEST_BYTES = 32

_MAGIC = b"EIEMBED\n"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQ16s24x")
_PART_BYTES = 2**20

Keys = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


class DamagedShardError(Exception):
    """A file is no shard of this space, or not the one that was written."""


@dataclass
class Shard:
    """One file of embeddings.

    Attributes:
        path: The file.
        count: Embeddings in it (n).
        size: Numbers of each (D).
        verified: Whether the embeddings' sum was checked.
    """

    path: Path
    count: int
    size: int
    verified: bool = False

    def verify(self) -> None:
        """Check the embeddings' sum, once.

        Raises:
            DamagedShardError: They are not those that were written.
            OSError: The file is gone or can't be read.
        """
        if self.verified:
            return
        from hashlib import sha256  # here: it brings OpenSSL, and help needs none

        digest, left = sha256(), 4 * self.size * self.count
        with open(self.path, "rb") as file:  # read, not mapped: nothing stays resident
            file.seek(self._rows_at)
            while left and (part := file.read(min(left, _PART_BYTES))):
                digest.update(part)
                left -= len(part)
            file.seek(DIGEST_BYTES, os.SEEK_CUR)
            if left or file.read() != digest.digest():
                raise DamagedShardError(f"{self.path}: its embeddings are damaged")
        self.verified = True

    def rows(self, positions: npt.NDArray[np.int64]) -> Rows:
        """Copy embeddings out of a map of the file that is gone when this returns.

        Args:
            positions: (m,) rows to take.

        Returns:
            (m, D) float32.

        Raises:
            OSError: The file is gone.
        """
        shape = (self.count, self.size)
        mapped = np.memmap(self.path, "<f4", "r", self._rows_at, shape)
        return np.asarray(mapped[positions], np.float32)

    def keys(self) -> Keys:
        """Read the photos' SHA-256.

        Returns:
            (n, 32) uint8.

        Raises:
            OSError: The file is gone or can't be read.
        """
        with open(self.path, "rb") as file:
            file.seek(_HEADER.size)
            data = file.read(DIGEST_BYTES * self.count)
        return np.frombuffer(data, np.uint8).reshape(self.count, DIGEST_BYTES)

    @property
    def _rows_at(self) -> int:
        return _HEADER.size + DIGEST_BYTES * self.count


def open_shard(path: Path, space_key: bytes) -> tuple[Shard, Keys]:
    """Open a shard and check all of it but the embeddings' sum.

    Args:
        path: The file.
        space_key: The 16 bytes that name the space it must belong to.

    Returns:
        The shard, and the (n, 32) uint8 SHA-256 of its photos.

    Raises:
        DamagedShardError: It is no shard of this space.
        OSError: The file is gone or can't be read.
    """
    from hashlib import sha256

    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise DamagedShardError(f"{path}: it is cut short")
        magic, version, size, count, key = _HEADER.unpack(header)
        if magic != _MAGIC or version != _VERSION:
            raise DamagedShardError(f"{path}: it is no shard of version {_VERSION}")
        if key != space_key:
            raise DamagedShardError(f"{path}: it belongs to another space")
        # The file's own length bounds what is read: a count of 2**60 asks for no memory.
        whole = _HEADER.size + count * (DIGEST_BYTES + 4 * size) + 2 * DIGEST_BYTES
        if not size or not count or os.fstat(file.fileno()).st_size != whole:
            raise DamagedShardError(f"{path}: its length is not what it says")
        keys = file.read(DIGEST_BYTES * count)
        file.seek(whole - 2 * DIGEST_BYTES)
        if file.read(DIGEST_BYTES) != sha256(header + keys).digest():
            raise DamagedShardError(f"{path}: its list of photos is damaged")
    table = np.frombuffer(keys, np.uint8).reshape(count, DIGEST_BYTES)
    return Shard(path, count, size), table


def embedding_count(path: Path) -> int:
    """Read how many embeddings a shard says it holds; 0 where it can't be read."""
    try:
        with open(path, "rb") as file:
            magic, _, _, count, _ = _HEADER.unpack(file.read(_HEADER.size))
            fits = magic == _MAGIC and count < os.fstat(file.fileno()).st_size
    except (OSError, struct.error):
        return 0
    return int(count) if fits else 0


def write_shard(folder: Path, space_key: bytes, keys: Keys, blocks: Iterable[Rows]) -> Shard:
    """Write a shard beside where it goes, then rename it into place.

    Its name is new, so that any number of writers share a folder without a lock.

    Args:
        folder: Where.
        space_key: The 16 bytes that name the space.
        keys: (n, 32) uint8, the photos' SHA-256.
        blocks: Their embeddings, n rows in all, (any, D) float32 at a time.

    Returns:
        The shard.

    Raises:
        OSError: It can't be written; nothing of it is left.
    """
    from hashlib import sha256

    name = os.urandom(8).hex()
    path, beside = folder / f"{name}{SUFFIX}", folder / f".{name}{TMP}"
    digest, size, count = sha256(), 0, 0
    try:
        with open(beside, "xb") as file:
            head = b""
            for block in blocks:
                if not count:
                    size = block.shape[1]
                    head = _HEADER.pack(_MAGIC, _VERSION, size, len(keys), space_key)
                    head += keys.tobytes()
                    file.write(head)
                data = np.ascontiguousarray(block, "<f4").reshape(-1).view(np.uint8).data
                digest.update(data)
                file.write(data)
                count += len(block)
            file.write(sha256(head).digest() + digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return Shard(path, count, size, verified=True)
