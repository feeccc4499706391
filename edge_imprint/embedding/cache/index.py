# SPDX-License-Identifier: Apache-2.0
"""Where each photo's embedding lies: a sorted table, 24 bytes a photo."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.cache.shards import Keys, Rows, Shard

__all__ = ["Index", "Loose"]

_Columns: TypeAlias = tuple[
    npt.NDArray[np.uint64],
    npt.NDArray[np.uint64],
    npt.NDArray[np.int32],
    npt.NDArray[np.int32],
]


class Loose:
    """Rows that could not be written to a file, or were not to be.

    Attributes:
        count: Embeddings (n).
        size: Numbers of each (D).
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.count, self.size = rows.shape

    def rows(self, positions: npt.NDArray[np.int64]) -> Rows:
        """Copy rows out.

        Args:
            positions: (m,) rows to take.

        Returns:
            (m, D) float32.
        """
        return self._rows[positions]


class Index:
    """Shards, and the (shard, row) of each photo's SHA-256.

    Of a digest the first 16 bytes are held: two photos that share them are not to be found
    by chance (less than 1e-20 for a billion photos), nor made with less than 2**64 work.

    Attributes:
        shards: The shards by number; a number is never used again.
    """

    def __init__(self) -> None:
        self.shards: dict[int, Shard | Loose] = {}
        self._next = 0
        self._first = np.empty(0, np.uint64)
        self._second = np.empty(0, np.uint64)
        self._shard = np.empty(0, np.int32)
        self._row = np.empty(0, np.int32)
        # What was learned since the last look-up: a build adds a thousand shards and asks
        # later, so that it sorts once.
        self._new: list[_Columns] = []

    def __len__(self) -> int:
        """Return how many embeddings it knows; one that is in two shards counts twice."""
        return len(self._first) + sum(len(columns[0]) for columns in self._new)

    def add(self, shard: Shard | Loose, keys: Keys) -> None:
        """Learn a shard.

        Args:
            shard: The shard.
            keys: (n, 32) uint8, the digests of its rows.
        """
        number, self._next = self._next, self._next + 1
        self.shards[number] = shard
        rows = np.arange(len(keys), dtype=np.int32)
        self._new.append((*_words(keys), np.full(len(keys), number, np.int32), rows))

    def remove(self, *numbers: int) -> None:
        """Forget shards."""
        self._sort()
        self._keep(np.flatnonzero(~np.isin(self._shard, numbers)))
        for number in numbers:
            del self.shards[number]

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Look digests up.

        Args:
            keys: (m, 32) uint8.

        Returns:
            (m,) shard numbers, -1 where it is not known, and (m,) rows in them.
        """
        self._sort()
        first, second = _words(keys)
        at = np.searchsorted(self._first, first)
        shard, row = np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.int64)
        # Several entries share a first word where an embedding is held twice, so the next
        # ones are looked at too; for most digests this ends after one round.
        open_ = np.arange(len(keys))
        while len(open_):
            open_ = open_[at[open_] < len(self._first)]
            open_ = open_[self._first[at[open_]] == first[open_]]
            hit = self._second[at[open_]] == second[open_]
            found = open_[hit]
            shard[found] = self._shard[at[found]]
            row[found] = self._row[at[found]]
            open_ = open_[~hit]
            at[open_] += 1
        return shard, row

    def _sort(self) -> None:
        if self._new:
            old = (self._first, self._second, self._shard, self._row)
            columns = zip(old, *self._new, strict=True)
            self._first, self._second, self._shard, self._row = map(np.concatenate, columns)
            self._new = []
            self._keep(np.argsort(self._first, kind="stable"))

    def _keep(self, chosen: npt.NDArray[np.int64]) -> None:
        self._first, self._second = self._first[chosen], self._second[chosen]
        self._shard, self._row = self._shard[chosen], self._row[chosen]


def _words(keys: Keys) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    words = np.ascontiguousarray(keys[:, :16]).view("<u8")
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)
