# SPDX-License-Identifier: Apache-2.0
"""The oracle's arithmetic: similarities, votes, labels, probabilities, in plain numpy.

Part of what a head means (`docs/contract.md`), so this file shares no code with the exporter.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import EPSILON, Rule
from edge_imprint_runtime.contract.spec import SHARE_TIE
from edge_imprint_runtime.errors import InputError

__all__ = ["Comparison", "decide", "softmax"]

Float32: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[Any]  # float32 or float64: see Comparison.dtype
Int64: TypeAlias = npt.NDArray[np.int64]

# A vote's distance is not below this share of the proxies' own spread: an embedding that is a
# proxy would outvote all others without end. Also what float32 leaves of 1 - cosine, and of an
# expanded square.
_FLOOR = 1e-6
# Embeddings are compared in blocks of rows, so that memory stays bounded for any N.
_BLOCK_BYTES = 16 * 2**20
_TILE_NUMBERS = 2**18  # manhattan has no matrix product: tiles of what a core's cache holds


class Comparison:
    """A rule made ready for one head's proxies.

    Args:
        rule: How embeddings are compared.
        proxies: (P, E) float32.
        class_index: (P,) int64, ascending, each class at least once.
        center: (D,) float32 or None.
        transform: (D, E) float32 or None.
        metric: (E, F) float32 under mahalanobis, else None.
    """

    def __init__(
        self,
        rule: Rule,
        proxies: Float32,
        class_index: Int64,
        *,
        center: Float32 | None = None,
        transform: Float32 | None = None,
        metric: Float32 | None = None,
    ) -> None:
        self._rule = rule
        self._class_index = class_index
        self._first = np.flatnonzero(np.diff(class_index, prepend=-1))
        self._squares = rule.distance in ("euclidean", "mahalanobis")
        # float64 where differences cancel: squares are expanded, so that they become a
        # product, and weighted votes divide by 1 - cosine.
        exact = self._squares or (rule.distance, rule.weighting) == ("cosine", "distance")
        self._dtype: np.dtype[Any] = np.dtype(np.float64 if exact else np.float32)
        self._center = center
        self._transform, self._metric = (
            None if matrix is None else matrix.astype(self._dtype, copy=False)
            for matrix in (transform, metric)
        )
        points: Floats = proxies.astype(self._dtype, copy=False)
        # What is common to all proxies cancels in a difference: out with it before squaring.
        self._mean = points.mean(axis=0)
        if rule.distance == "cosine":
            points = _unit_rows(points)
        elif self._squares:
            points = self._centered(points)
        self._points = points
        self._floor = self._smallest_distance() if rule.weighting == "distance" else 0.0

    def scores_and_nearest(self, rows: Float32) -> tuple[Float32, Float32]:
        """Compare embeddings with every class.

        Args:
            rows: (N, D) finite embeddings.

        Returns:
            (N, C) float32 scores, and (N, C) float32 similarities of each class's nearest
            proxy; under ``max`` they are one array.

        Raises:
            InputError: A similarity is beyond float32.
        """
        votes = self._rule.aggregation == "mnn"
        nearest = np.empty((len(rows), len(self._first)), np.float32)
        scores = np.empty_like(nearest) if votes else nearest
        block = max(1, _BLOCK_BYTES // (self._dtype.itemsize * len(self._points)))
        # What is beyond float32 is infinity, or NaN after it, and refused below by name.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), block):
                part = slice(start, start + block)
                similarity = self.similarity(rows[part])
                nearest[part] = self.nearest(similarity)
                if votes:
                    scores[part] = self.shares(similarity)
        finite = np.isfinite(nearest).all(axis=1)
        if not finite.all():
            raise InputError(
                f"embedding {int(np.argmin(finite))} is too large for this head: "
                "its scores are beyond float32; normalise it"
            )
        return scores, nearest

    def similarity(self, rows: Float32) -> Floats:
        """Compare embeddings with every proxy.

        Args:
            rows: (n, D) finite embeddings.

        Returns:
            (n, P), higher is nearer; float64 under euclidean, mahalanobis and votes weighted
            by cosines, else float32.
        """
        n = self._normed(rows)
        if self._rule.distance == "manhattan":
            return _negative_manhattan(n, self._points)
        if self._rule.distance == "cosine":
            n = _unit_rows(n)
        if not self._squares:
            return _product(n, self._points)
        n = self._centered(n)
        found = _product(2 * n, self._points)
        found -= _square_sums(self._points)
        found -= _square_sums(n)[:, np.newaxis]
        return np.minimum(found, 0, out=found)

    def nearest(self, similarity: Floats) -> Floats:
        """Return (n, C) similarities: those of each class's nearest proxy."""
        best: Floats = np.maximum.reduceat(similarity, self._first, axis=1)
        return best

    def shares(self, similarity: Floats) -> Floats:
        """Let the nearest proxies vote.

        Args:
            similarity: (n, P).

        Returns:
            (n, C) float64: each class's share of the votes. What ties with the m-th nearest
            votes too, so that nothing depends on how proxies are numbered.
        """
        voters = similarity >= _nth_largest(similarity, self._rule.neighbors)
        votes = self._votes(similarity, voters)
        shares: Floats = votes / votes.sum(axis=1, keepdims=True)
        return shares

    def vote_bounds(
        self, similarity: Floats, margin: float
    ) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Bound the votes of another arithmetic, whose similarities may be off a little.

        Who votes is no continuous function of the similarities: where the m-th and the next
        lie within the margin, either may. So a model is held against an interval.

        Args:
            similarity: (n, P).
            margin: Largest difference between two similarities that may count as none.

        Returns:
            (n, C) least and (n, C) most votes by weight, and (n,) bool: where it is open who
            votes.
        """
        m, count = self._rule.neighbors, similarity.shape[1]
        last = _nth_largest(similarity, m)
        outside = _nth_largest(similarity, m + 1) if m < count else np.float64(-np.inf)
        sure, possible = similarity > outside + margin, similarity >= last - margin
        least = self._votes(similarity, sure, -margin)
        most = self._votes(similarity, possible, margin)
        return least, most, (sure != possible).any(axis=1)

    def _votes(
        self, similarity: Floats, voters: npt.NDArray[np.bool_], shift: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Sum the voters' weights by class, their similarities moved by ``shift``: (n, C)."""
        rows, classes = len(similarity), len(self._first)
        row, proxy = np.nonzero(voters)
        weights = None
        if self._rule.weighting == "distance":
            moved = similarity[row, proxy].astype(np.float64) + shift
            weights = 1 / np.maximum(self._distance(moved), self._floor)
        box = row * classes + self._class_index[proxy]
        votes = np.bincount(box, weights, rows * classes).astype(np.float64, copy=False)
        return votes.reshape(rows, classes)

    def _distance(self, similarity: Floats) -> Floats:
        """Turn similarities into what divides a vote: squared distances, or 1 - cosine."""
        if self._rule.distance == "cosine":
            return 1 - similarity
        if self._rule.distance == "manhattan":
            squared: Floats = np.square(np.minimum(similarity, 0))
            return squared
        return -similarity

    def _smallest_distance(self) -> float:
        if self._rule.distance == "cosine":
            return _FLOOR
        if self._squares:
            spread = float(_square_sums(self._points).mean())
        else:
            lengths = np.abs(self._points - self._mean).sum(axis=1, dtype=np.float64)
            spread = float(np.square(lengths).mean())
        return _FLOOR * spread if spread > 0 else EPSILON

    def _normed(self, rows: Float32) -> Floats:
        n: Floats = rows.astype(self._dtype, copy=False)
        if self._center is not None:
            n = n - self._center
        if self._transform is not None:
            n = n @ self._transform
        return _unit_rows(n) if self._rule.embedding_norm == "l2" else n

    def _centered(self, rows: Floats) -> Floats:
        rows = rows - self._mean
        return rows if self._metric is None else rows @ self._metric


def decide(rule: Rule, scores: Float32, nearest: Float32) -> npt.NDArray[np.int32]:
    """Choose the class of each embedding.

    Args:
        rule: Under ``mnn`` the nearest of the classes with most votes wins.
        scores: (n, C) float32.
        nearest: (n, C) float32, as `Comparison.nearest` gives it.

    Returns:
        (n,) int32 class indices; what is equal in both goes to the lowest index.
    """
    if rule.aggregation == "mnn":
        most = scores.max(axis=1, keepdims=True)
        scores = np.where(scores < most - np.float32(SHARE_TIE), -np.inf, nearest)
    label: npt.NDArray[np.int32] = scores.argmax(axis=1).astype(np.int32)
    return label


def softmax(scores: Float32, temperature: float) -> Float32:
    """Return (n, C) float32 probabilities, ``softmax(scores / temperature)``."""
    scaled = scores.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probability: Float32 = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probability


def _unit_rows(rows: Floats) -> Floats:
    """Divide each row by its L2 norm, or by 1e-12 where that is greater."""
    # In float64, because the square of a large float32 is infinite; in the ufuncs' small
    # buffers, because a copy of all rows is large.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, np.newaxis]
    unit: Floats = np.empty_like(rows)
    np.divide(rows, np.maximum(norms, EPSILON), out=unit, casting="same_kind")
    return unit


def _product(rows: Floats, points: Floats) -> Floats:
    product: Floats = rows @ points.T
    return product


def _square_sums(rows: Floats) -> Floats:
    sums: Floats = np.einsum("ij,ij->i", rows, rows)
    return sums


def _nth_largest(values: Floats, n: int) -> Floats:
    """Return (rows, 1): the n-th largest of each row, equal ones counted one by one."""
    place = values.shape[1] - n
    found: Floats = np.partition(values, place, axis=1)[:, place, np.newaxis]
    return found


def _negative_manhattan(rows: Floats, points: Floats) -> Floats:
    found = np.empty((len(rows), len(points)), rows.dtype)
    size = rows.shape[1]
    high = max(1, min(len(rows), 64, _TILE_NUMBERS // size))
    wide = max(1, _TILE_NUMBERS // (size * high))
    for i in range(0, len(rows), high):
        for j in range(0, len(points), wide):
            gap = rows[i : i + high, np.newaxis] - points[np.newaxis, j : j + wide]
            found[i : i + high, j : j + wide] = np.abs(gap, out=gap).sum(axis=2)
    return np.negative(found, out=found)
