# SPDX-License-Identifier: Apache-2.0
"""The digests of files that were read before: a file a data folder, in the cache."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import OutputWriteError
from edge_imprint_runtime.files import cache_folder, write_atomic

__all__ = ["KEY_BYTES", "Memory", "memory_folder"]

KEY_BYTES = 16

_MAGIC = b"EIDIGST\n"
_VERSION = 1
_HEADER = struct.Struct("<8sI4xQ")
_SUM_BYTES = 32
# Of files that were not among those of the last build so many are remembered all the same:
# two tables of photos of one folder do not push each other out.
_OTHERS = 65_536

_ROW = np.dtype([("name", "<u8"), ("key", "u1", KEY_BYTES), ("digest", "u1", 32)])


def memory_folder() -> Path:
    """Return where the memories are kept; it may not exist yet."""
    return cache_folder() / "digests"


class Memory:
    """What is remembered of one data folder; nothing where it is missing or damaged."""

    def __init__(self, root: bytes) -> None:
        """Read it.

        Args:
            root: The data folder's path.
        """
        from hashlib import sha256

        self._path = memory_folder() / f"{sha256(root).hexdigest()[:32]}.digests"
        self._rows = _read(self._path)

    def find(
        self, keys: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Look files up.

        Args:
            keys: (N, 16) uint8, a hash of all that changes with a file.

        Returns:
            (N, 32) uint8 digests, and (N,) bool whether it is one.
        """
        values = np.zeros((len(keys), 32), np.uint8)
        if not len(self._rows) or not len(keys):
            return values, np.zeros(len(keys), np.bool_)
        held = np.ascontiguousarray(self._rows["key"][:, :8]).view("<u8")[:, 0]
        order = np.argsort(held, kind="stable")
        wanted = np.ascontiguousarray(keys[:, :8]).view("<u8")[:, 0]
        at = np.searchsorted(held[order], wanted)
        row = order[np.minimum(at, len(order) - 1)]
        known: npt.NDArray[np.bool_] = (self._rows["key"][row] == keys).all(axis=1)
        values[known] = self._rows["digest"][row[known]]
        return values, known

    def learn(
        self,
        names: npt.NDArray[np.uint64],
        keys: npt.NDArray[np.uint8],
        values: npt.NDArray[np.uint8],
        kept: npt.NDArray[np.bool_],
    ) -> None:
        """Remember files, and write the memory where it can be written.

        Args:
            names: (N,) a hash of each one's path.
            keys: (N, 16) uint8.
            values: (N, 32) uint8 digests.
            kept: (N,) bool which of them are to be remembered.
        """
        new = np.zeros(int(kept.sum()), _ROW)
        new["name"], new["key"], new["digest"] = names[kept], keys[kept], values[kept]
        others = self._rows[~np.isin(self._rows["name"], names)][: max(_OTHERS, len(names))]
        self._rows = np.concatenate([new, others])
        # A cache that can't be written costs time, never the result.
        with contextlib.suppress(OSError, OutputWriteError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, _packed(self._rows), force=True)


def _packed(rows: npt.NDArray[np.void]) -> bytes:
    from hashlib import sha256

    data = _HEADER.pack(_MAGIC, _VERSION, len(rows)) + rows.tobytes()
    return data + sha256(data).digest()


def _read(path: Path) -> npt.NDArray[np.void]:
    from hashlib import sha256

    none = np.zeros(0, _ROW)
    try:
        data = path.read_bytes()
    except OSError:
        return none
    if len(data) < _HEADER.size + _SUM_BYTES:
        return none
    magic, version, count = _HEADER.unpack_from(data)
    whole = _HEADER.size + count * _ROW.itemsize + _SUM_BYTES
    if (magic, version, whole) != (_MAGIC, _VERSION, len(data)):
        return none
    if sha256(data[:-_SUM_BYTES]).digest() != data[-_SUM_BYTES:]:
        return none
    return np.frombuffer(data, _ROW, count, _HEADER.size)
