# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours among embeddings: exact, in tiles, on all cores, in bounded memory.

Rows go in the order of their classes, so that a class is one run of columns: its own part of
a tile of similarities is looked at, then taken out, and what is left are the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.proxies import cores, one_blas_thread
from edge_imprint.imprinting.sources import normalized

__all__ = ["OTHERS", "Nearest", "Read", "nearest_among", "nearest_to"]

Float32: TypeAlias = npt.NDArray[np.float32]
Int64: TypeAlias = npt.NDArray[np.int64]
Read: TypeAlias = Callable[[Int64], Float32]
"""(n,) positions -> (n, D) float32 rows."""
Told: TypeAlias = Callable[[int, int], None]

# Neighbours of other classes that are kept for each row.
OTHERS = 5
_LOADED_BYTES = 2**22  # rows in memory at once; two such parts are
_TILE = 512  # rows and columns of a tile of similarities: 1 MiB
_NONE = np.float32(-np.inf)


@dataclass
class Nearest:
    """The nearest neighbours of n rows, by cosine; of equally near ones the first in order.

    Attributes:
        position: (n,) int64, which rows these are, in the order of their classes.
        own: (n,) float32, the cosine to the nearest of the same class; -inf where none is.
        own_at: (n,) int64, its position.
        other: (n, 5) float32, cosines to the nearest of all other classes, the nearest first;
            -inf where there are fewer.
        other_at: (n, 5) int64, their positions.
    """

    position: Int64
    own: Float32
    own_at: Int64
    other: Float32
    other_at: Int64

    @classmethod
    def none_yet(cls, position: Int64) -> Nearest:
        """Begin with no neighbours."""
        n = len(position)
        return cls(
            position,
            np.full(n, _NONE),
            np.full(n, -1),
            np.full((n, OTHERS), _NONE),
            np.full((n, OTHERS), -1),
        )


def nearest_among(
    read: Read, position: Int64, class_index: Int64, *, progress: Told | None = None
) -> Nearest:
    """Find rows' nearest neighbours among themselves; every product serves both its rows.

    Args:
        read: Gives rows by their positions.
        position: (n,) which rows.
        class_index: (N,) the class of every position.
        progress: Told (done, total).

    Returns:
        The neighbours, the same whatever the number of cores. Memory: two parts of 4 MiB, a
        few tiles for each core, and the answer.
    """
    order = position[np.argsort(class_index[position], kind="stable")]
    found = Nearest.none_yet(order)
    index = class_index[order]
    parts = _parts(read, order)
    total = len(parts) * (len(parts) + 1) // 2
    with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
        work = _Work(found, order, index)
        for done, (a, b) in enumerate(
            itertools.combinations_with_replacement(range(len(parts)), 2)
        ):
            if a == b:
                left = _unit(read, order[parts[a]])
            right = left if a == b else _unit(read, order[parts[b]])
            tiles = _tiles(left, right, parts[a].start, parts[b].start, above=a == b)
            list(pool.map(work.both, tiles))
            del right, tiles  # before the next part is read
            if progress is not None:
                progress(done + 1, total)
    return found


def nearest_to(
    read: Read,
    position: Int64,
    reference: Int64,
    class_index: Int64,
    *,
    progress: Told | None = None,
) -> Iterator[Nearest]:
    """Find rows' nearest neighbours among others, a part of the rows at a time.

    Args:
        read: Gives rows by their positions.
        position: (n,) which rows; none of the reference.
        reference: (m,) among which.
        class_index: (N,) the class of every position.
        progress: Told (done, total).

    Yields:
        The neighbours of a few thousand rows each.
    """
    position = position[np.argsort(class_index[position], kind="stable")]
    reference = reference[np.argsort(class_index[reference], kind="stable")]
    queries, others = _parts(read, position), _parts(read, reference)
    with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
        for done, query in enumerate(queries):
            rows = position[query]
            found, left = Nearest.none_yet(rows), _unit(read, rows)
            work = _Work(found, reference, class_index[reference], class_index[rows])
            for part in others:
                right = _unit(read, reference[part])
                tiles = _tiles(left, right, 0, part.start, above=False)
                list(pool.map(work.rows, tiles))
                del right, tiles
            yield found
            if progress is not None:
                progress(done + 1, len(queries))


@dataclass(frozen=True)
class _Tile:
    """Rows from ``row`` on against columns from ``column`` on."""

    row: int
    column: int
    left: Float32
    right: Float32


def _tiles(
    left: Float32, right: Float32, row: int, column: int, *, above: bool
) -> list[_Tile]:
    """Cut rows against columns into tiles; ``above``: those on and above the diagonal."""
    return [
        _Tile(row + i, column + j, left[i : i + _TILE], right[j : j + _TILE])
        for i in range(0, len(left), _TILE)
        for j in range(i if above else 0, len(right), _TILE)
    ]


class _Work:
    """What the threads share: the answer, which one at a time writes to.

    Args:
        found: The answer, a row for each row of a tile.
        order: The position of each column.
        index: The class of each column, in rising order.
        row_index: The class of each row; None where rows and columns are the same.
    """

    def __init__(
        self, found: Nearest, order: Int64, index: Int64, row_index: Int64 | None = None
    ) -> None:
        self._found, self._order, self._index = found, order, index
        self._row_index = index if row_index is None else row_index
        self._lock = Lock()

    def both(self, tile: _Tile) -> None:
        """Take a tile as its rows see it, and, where it is not on the diagonal, turned."""
        similarity = tile.left @ tile.right.T
        if tile.row == tile.column:
            np.fill_diagonal(similarity, _NONE)
        self._own(similarity, tile, turned=tile.row != tile.column)
        if tile.row != tile.column:  # a copy: what is looked at is used up
            self._others(similarity.T.copy(), tile.column, tile.row)
        self._others(similarity, tile.row, tile.column)

    def rows(self, tile: _Tile) -> None:
        """Take a tile as its rows see it."""
        similarity = tile.left @ tile.right.T
        self._own(similarity, tile, turned=False)
        self._others(similarity, tile.row, tile.column)

    def _own(self, similarity: Float32, tile: _Tile, *, turned: bool) -> None:
        """Look at the rows' own classes, then take them out."""
        rows = self._row_index[tile.row : tile.row + len(similarity)]
        columns = self._index[tile.column : tile.column + similarity.shape[1]]
        for c in np.intersect1d(rows, columns):
            r = slice(*np.searchsorted(rows, (c, c + 1)))
            k = slice(*np.searchsorted(columns, (c, c + 1)))
            part = similarity[r, k]
            self._better(tile.row + r.start, part, tile.column + k.start)
            if turned:
                self._better(tile.column + k.start, part.T, tile.row + r.start)
            part[:] = _NONE

    def _better(self, row: int, part: Float32, column: int) -> None:
        best = part.argmax(axis=1)
        value = part[np.arange(len(part)), best]
        rows = slice(row, row + len(part))
        at = self._order[column + best]
        with self._lock:
            known, known_at = self._found.own[rows], self._found.own_at[rows]
            take = (value > known) | ((value == known) & (value > _NONE) & (at < known_at))
            known[take], known_at[take] = value[take], at[take]

    def _others(self, similarity: Float32, row: int, column: int) -> None:
        rows = slice(row, row + len(similarity))
        each = np.arange(len(similarity))
        values, places = [], []
        for _ in range(min(OTHERS, similarity.shape[1])):
            best = similarity.argmax(axis=1)
            value = similarity[each, best]
            # Another thread may raise what is known meanwhile, never lower it.
            if not (value >= self._found.other[rows, -1]).any():
                break
            values.append(value)
            places.append(self._order[column + best])
            similarity[each, best] = _NONE
        if not values:
            return
        with self._lock:
            known, known_at = self._found.other[rows], self._found.other_at[rows]
            value = np.column_stack([known, *values])
            at = np.column_stack([known_at, *places])
            kept = np.lexsort((at, -value), axis=1)[:, :OTHERS]
            known[:] = np.take_along_axis(value, kept, axis=1)
            known_at[:] = np.take_along_axis(at, kept, axis=1)


def _parts(read: Read, position: Int64) -> list[slice]:
    """Cut rows into parts of 4 MiB."""
    size = read(position[:1]).shape[1]
    step = max(1, _LOADED_BYTES // (4 * size * _TILE)) * _TILE
    return [slice(i, min(i + step, len(position))) for i in range(0, len(position), step)]


def _unit(read: Read, position: Int64) -> Float32:
    return normalized(read(position), "l2")
