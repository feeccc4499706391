# SPDX-License-Identifier: Apache-2.0
"""Where embeddings come from, class by class: in memory, drawn from, mapped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.class_source import Block, ClassSource, is_large, whole
from edge_imprint.imprinting.proxies import canonical
from edge_imprint.imprinting.whitening import Whitening
from edge_imprint_runtime.contract import EPSILON

__all__ = ["ByClass", "Distinct", "Mapped", "Sampled", "Some", "normalized"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class ByClass:
    """Embeddings in memory, seen class by class.

    Args:
        rows: (N, D) float32.
        class_index: (N,) integers 0..C-1, each there.
        weights: (N,) float64 sample weights >= 0; None for ones. A row of weight 0 is as
            good as absent.
        shots: Rows a class to use at most, drawn by the seed; None for all.
        seed: For the draw, which does not depend on the order of the rows.
    """

    def __init__(
        self,
        rows: Float32,
        class_index: npt.NDArray[np.int64],
        weights: Float64 | None = None,
        *,
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        self._rows, self._weights, self._shots, self._seed = rows, weights, shots, seed
        order = np.argsort(class_index, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(class_index))[:-1])

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        """Return class c's rows and weights."""
        members = self._members[c]
        rows = self._rows[members]
        weights = None if self._weights is None else self._weights[members]
        if weights is not None:
            there = weights > 0
            rows, weights = rows[there], weights[there]
        if self._shots is None:
            return rows, weights
        return draw(rows, weights, self._shots, self._seed)


@dataclass(frozen=True)
class Mapped:
    """A source seen through the map and the norm."""

    source: ClassSource
    whitening: Whitening | None
    norm: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self._map(*self.source[c])

    def large(self, c: int) -> bool:
        """Return whether ``[c]`` is only a draw of class c."""
        return is_large(self.source, c)

    def blocks(self, c: int) -> Iterator[Block]:
        """Give the whole of class c, a block at a time."""
        return itertools.starmap(self._map, whole(self.source, c)())

    def _map(self, rows: Float32, weights: Float64 | None) -> Block:
        if self.whitening is not None:
            rows = self.whitening.apply(rows)
        return normalized(rows, self.norm), weights


@dataclass(frozen=True)
class Sampled:
    """At most ``limit`` rows of each class of a source, drawn by a seed."""

    source: ClassSource
    limit: int
    seed: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        """Return class c's rows and weights."""
        return draw(*self.source[c], self.limit, self.seed)


@dataclass(frozen=True)
class Some:
    """Some classes of a source."""

    source: ClassSource
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self.source[self.chosen[c]]

    def large(self, c: int) -> bool:
        """Return whether ``[c]`` is only a draw of class c."""
        return is_large(self.source, self.chosen[c])

    def blocks(self, c: int) -> Iterator[Block]:
        """Give the whole of class c, a block at a time."""
        return iter(whole(self.source, self.chosen[c])())


@dataclass(frozen=True)
class Distinct:
    """A source's distinct rows, in an order of their own, each with its sum of weights.

    What is made of it depends neither on the order of the rows, to the last bit of a sum, nor
    on whether a row is given twice or has the weight 2.
    """

    source: ClassSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return canonical(*self.source[c], f"class {c}")

    def large(self, c: int) -> bool:
        """Return whether ``[c]`` is only a draw of class c."""
        return is_large(self.source, c)

    def blocks(self, c: int) -> Iterator[Block]:
        """Give the whole of class c, a block at a time; of a large one as its rows are."""
        return iter(whole(self.source, c)() if self.large(c) else [self[c]])


def draw(
    rows: Float32, weights: Float64 | None, limit: int, seed: int
) -> tuple[Float32, Float64 | None]:
    """Draw at most ``limit`` rows; which ones does not depend on their order."""
    if len(rows) <= limit:
        return rows, weights
    canonical = np.lexsort(rows.T[::-1])
    picked = canonical[np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])]
    return rows[picked], None if weights is None else weights[picked]


def normalized(rows: Float32, norm: str) -> Float32:
    """Normalise rows; a zero row stays zero.

    Args:
        rows: (n, D) float32.
        norm: ``none``, ``l2``, or ``whiten`` (the L2 that follows the map).

    Returns:
        (n, D) float32.
    """
    if norm == "none":
        return rows
    # In float64: the square of a large float32 is infinite.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, np.newaxis]
    unit: Float32 = np.empty_like(rows)
    np.divide(rows, np.maximum(norms, EPSILON), out=unit, casting="same_kind")
    return unit
