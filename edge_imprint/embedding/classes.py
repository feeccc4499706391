# SPDX-License-Identifier: Apache-2.0
"""Embeddings that are kept elsewhere, class by class: memory holds one class, or a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.class_source import Block
from edge_imprint.imprinting.sources import draw
from edge_imprint_runtime.errors import EmbeddingError

__all__ = ["Reader", "StoredClasses", "drawn_by_content"]

Float32: TypeAlias = npt.NDArray[np.float32]
Int64: TypeAlias = npt.NDArray[np.int64]
Digests: TypeAlias = npt.NDArray[np.uint8]

# What is read of a large class at once.
_BLOCK_BYTES = 2**24


class Reader(Protocol):
    """What keeps embeddings by the digests of their photos, such as an `EmbeddingStore`."""

    @property
    def embedding_size(self) -> int | None:
        """Return D; None where nothing is kept yet."""

    def read(self, digests: Digests) -> Float32:
        """Return the (n, D) float32 embeddings of (n, 32) uint8 digests, in their order."""


class StoredClasses:
    """Embeddings in a store, seen class by class.

    A class that is larger than ``limit_bytes`` is *large*: ``[c]`` gives rows of it that the
    seed draws by the photos' content, and `blocks` gives it whole, a block at a time.

    Args:
        store: What keeps the embeddings; it holds all of ``digests``.
        digests: (N, 32) uint8, the SHA-256 of each photo's bytes.
        class_index: (N,) integers 0..C-1, each there.
        shots: Rows a class to use at most, drawn by the seed; None for all.
        seed: For the draws, which do not depend on the order of the photos.
        limit_bytes: What a class may take in memory.

    Raises:
        EmbeddingError: The store holds nothing.
    """

    def __init__(
        self,
        store: Reader,
        digests: Digests,
        class_index: Int64,
        *,
        shots: int | None = None,
        seed: int = 0,
        limit_bytes: int = 2**28,
    ) -> None:
        size = store.embedding_size
        if size is None:
            raise EmbeddingError(
                "the store of embeddings is empty; embed the photos before making a head"
            )
        self._store, self._digests = store, digests
        self._shots, self._seed = shots, seed
        self._limit = max(1, limit_bytes // (4 * size))
        self._step = max(1, _BLOCK_BYTES // (4 * size))
        order = np.argsort(class_index, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(class_index))[:-1])

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, c: int) -> Block:
        """Return class c's rows, whole or drawn; weights are None: each photo counts 1."""
        used = self._used(c)
        if len(used) > self._limit:
            used = drawn_by_content(self._digests, used, self._limit, self._seed)
        rows = self._store.read(self._digests[used])
        return (
            (rows, None) if self._shots is None else draw(rows, None, self._shots, self._seed)
        )

    def large(self, c: int) -> bool:
        """Return whether ``[c]`` is only a draw of class c."""
        return len(self._used(c)) > self._limit

    def blocks(self, c: int) -> Iterator[Block]:
        """Give the whole of class c (of its shots), in the photos' order, 16 MiB at a time."""
        used = self._used(c)
        if len(used) <= self._limit:
            yield self[c]
            return
        for start in range(0, len(used), self._step):
            yield self._store.read(self._digests[used[start : start + self._step]]), None

    def read(self, photos: Int64) -> Float32:
        """Return the (n, D) rows of photos by their positions, in that order."""
        return self._store.read(self._digests[photos])

    def _used(self, c: int) -> Int64:
        """Return the photos that class c is made of; more than its shots where they fit."""
        members = self._members[c]
        if self._shots is None or len(members) <= max(self._limit, self._shots):
            return members
        return drawn_by_content(self._digests, members, self._shots, self._seed)


def drawn_by_content(digests: Digests, members: Int64, count: int, seed: int) -> Int64:
    """Draw photos by their content: whatever they are called, the seed draws the same.

    Args:
        digests: (N, 32) uint8.
        members: Positions to draw from.
        count: How many.
        seed: The seed.

    Returns:
        ``count`` of the members, or all of fewer, in the members' order.
    """
    if len(members) <= count:
        return members
    place = np.ascontiguousarray(digests[members, :8]).view(np.uint64)[:, 0]
    # SHA-256 is as good as drawn; splitmix64's last steps give each seed an order of its own.
    place = place ^ np.random.default_rng(seed).integers(2**64, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        place = (place ^ (place >> np.uint64(shift))) * np.uint64(factor)
    return members[np.sort(np.argsort(place, kind="stable")[:count])]
