# SPDX-License-Identifier: Apache-2.0
"""A space's folder: its shards found, checked, written, and small ones merged."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.cache.index import Index
from edge_imprint.embedding.cache.shards import (
    DIGEST_BYTES,
    SUFFIX,
    TMP,
    DamagedShardError,
    Keys,
    Rows,
    Shard,
    open_shard,
    write_shard,
)
from edge_imprint.embedding.cache.space import FACTS, Space, read_facts
from edge_imprint_runtime.files import write_atomic

__all__ = ["ROWS", "Disk"]

ROWS = 1024
"""Rows of a whole shard."""

# So many shards of fewer rows are merged into one.
_SMALL = 16
# A writer that has not renamed its file after so long was killed.
_STALE_S = 3600.0


class Disk:
    """One space's folder.

    Attributes:
        folder: The folder; it may not exist yet.
        damaged: Shards that were found damaged and not yet told of.
        unreadable: Why files could not be read, empty where all could.
    """

    def __init__(self, folder: Path, space: Space, index: Index) -> None:
        """Take a folder, without reading it.

        Args:
            folder: The space's own folder.
            space: What makes its embeddings.
            index: What its shards are put into.
        """
        self.folder, self._space, self._index = folder, space, index
        self._key = bytes.fromhex(space.key)
        self._seen: set[str] = set()
        self.damaged = 0
        self.unreadable = ""

    def scan(self) -> int:
        """Open the shards that are new; what is damaged is removed.

        Returns:
            How many there were.

        Raises:
            OSError: The folder is there and can't be listed.
        """
        found, again = 0, True
        while again:
            # A shard that vanishes was merged by another build, into one that this listing
            # may have missed.
            again = False
            for name in sorted(self._listing()):
                self._seen.add(name)
                try:
                    shard, keys = open_shard(self.folder / name, self._key)
                except FileNotFoundError:
                    again = True
                    continue
                except DamagedShardError:
                    self._remove_damaged(self.folder / name)
                    continue
                except OSError as error:
                    self.unreadable = str(error.strerror or error)
                    continue
                other = next(iter(self._index.shards.values()), shard)
                if other.size != shard.size:  # a space has embeddings of one size
                    self._remove_damaged(shard.path)
                    continue
                self._index.add(shard, keys)
                found += 1
        return found

    def check(self, number: int) -> bool:
        """Check the embeddings of a shard, and note that it is used; both once.

        Args:
            number: Its number in the index, which loses it where it can't be used.

        Returns:
            Whether it can be used.
        """
        shard = self._index.shards[number]
        if not isinstance(shard, Shard) or shard.verified:
            return True
        if self._verified(number, shard):
            with contextlib.suppress(OSError):  # not ours, or read-only: used all the same
                os.utime(shard.path)
        return shard.verified

    def write(self, keys: Keys, rows: Rows) -> None:
        """Write a shard.

        Args:
            keys: (n, 32) uint8.
            rows: (n, D) float32.

        Raises:
            OSError, OutputWriteError: It can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)  # each time: it may have been pruned
        if read_facts(self.folder) is None:
            text = json.dumps(self._space.facts(), indent=1) + "\n"
            write_atomic(self.folder / FACTS, text.encode(), force=True)
        shard = write_shard(self.folder, self._key, keys, [rows])
        self._seen.add(shard.path.name)
        self._index.add(shard, keys)

    def merge(self) -> None:
        """Merge small shards into one, where there are many.

        Readers lose nothing: the whole is in place before the parts go, and a reader that
        misses a part looks its rows up again.
        """
        small = {
            number: shard
            for number, shard in list(self._index.shards.items())
            if isinstance(shard, Shard) and shard.count < ROWS
        }
        if len(small) < _SMALL:
            return
        parts = {n: shard for n, shard in small.items() if self._verified(n, shard)}
        try:
            keys = [shard.keys() for shard in parts.values()]
            chosen = _first_ones(keys)
            blocks = (
                shard.rows(rows) for shard, rows in zip(parts.values(), chosen, strict=True)
            )
            kept = np.concatenate([k[rows] for k, rows in zip(keys, chosen, strict=True)])
            whole = write_shard(self.folder, self._key, kept, blocks)
        except (OSError, ValueError):
            return  # a part is gone, or the disk is full: what there is stays as it is
        with contextlib.suppress(OSError):
            _sync(self.folder)  # before the parts go
        self._seen.add(whole.path.name)
        self._index.remove(*parts)
        self._index.add(whole, kept)
        for shard in parts.values():
            with contextlib.suppress(OSError):
                shard.path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Note that the space is used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / FACTS)

    def _verified(self, number: int, shard: Shard) -> bool:
        try:
            shard.verify()
        except DamagedShardError:
            self._remove_damaged(shard.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.unreadable = str(error.strerror or error)
        if not shard.verified:
            self._index.remove(number)
        return shard.verified

    def _listing(self) -> list[str]:
        names = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    # A pipe would be waited for; and nobody but us writes here, by no links.
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if entry.name.endswith(SUFFIX) and entry.name not in self._seen:
                        names.append(entry.name)
                    elif entry.name.endswith(TMP):
                        _remove_stale(entry)
        except FileNotFoundError:
            return []
        return names

    def _remove_damaged(self, path: Path) -> None:
        self.damaged += 1
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _first_ones(keys: list[Keys]) -> list[npt.NDArray[np.int64]]:
    """Choose of each shard the rows that none before it holds."""
    every = np.ascontiguousarray(np.concatenate(keys)).view(f"V{DIGEST_BYTES}")[:, 0]
    _, first = np.unique(every, return_index=True)
    wanted = np.zeros(len(every), np.bool_)
    wanted[first] = True
    ends = np.cumsum([len(part) for part in keys])[:-1]
    return [np.flatnonzero(part) for part in np.split(wanted, ends)]


def _remove_stale(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if time.time() - entry.stat().st_mtime > _STALE_S:
            os.unlink(entry.path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
