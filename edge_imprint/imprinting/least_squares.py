# SPDX-License-Identifier: Apache-2.0
"""Least squares: proxies that see all classes at once (arXiv 2503.14572, the oracle).

The rows of W that minimise ``sum_i a_i |W x_i - e(c_i)|^2 + lambda |W|^2``, e(c) being the
unit vector of class c. With k > 1 a class's k-means clusters take the place of classes, so
that it gets a row for each. The weights a_i are the same on both sides of the normal
equations: by sample, or so that all classes (clusters) count the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.kmeans import nearest
from edge_imprint.imprinting.proxies import (
    Float32,
    Float64,
    canonical,
    generate,
    one_blas_thread,
)
from edge_imprint.imprinting.whitening import ClassSource
from edge_imprint_runtime.errors import EmbeddingError, ParameterError

__all__ = ["least_squares"]

# Numbers of a class that are turned into float64 at once: 8 MiB.
_BLOCK = 2**20


def least_squares(
    source: ClassSource, ks: Sequence[int], seed: int, *, ridge: float, balanced: bool
) -> list[Float32]:
    """Solve for the proxies of all classes.

    Args:
        source: The classes; read once, and twice where some k > 1.
        ks: A k for each class: clusters at most; a class with fewer distinct rows has as many.
        seed: For k-means.
        ridge: Lambda as a share of the weighted scatter's mean diagonal, above 0, so that the
            embeddings' scale changes nothing.
        balanced: Whether every class (every cluster, where a class has several) counts the
            same, instead of every sample.

    Returns:
        For each class (p, D) float32, 1 <= p <= k. Memory: one class, D x D and the proxies.
        Sums run from class to class: another order may change their last bits.

    Raises:
        ParameterError: ridge is not above 0, or as in `generate`.
        EmbeddingError: A row holds NaN or infinity, or all embeddings are zero.
    """
    if not 0 < ridge < math.inf:
        raise ParameterError(f"ridge must be a number above 0, got {ridge!r}")
    several = [c for c, k in enumerate(ks) if k != 1]
    clusters = generate(_Some(source, several), "kmeans", [ks[c] for c in several], seed)
    centres = dict(zip(several, clusters, strict=True))
    scatter, targets = np.zeros(0), list[Float64]()
    for c in range(len(ks)):
        rows, weights = canonical(*source[c], f"class {c}")
        if not scatter.size:
            scatter = np.zeros((rows.shape[1],) * 2)
        labels = nearest(rows, centres[c]) if c in centres else np.zeros(len(rows), np.int64)
        targets.append(_add_class(scatter, rows, weights, labels, balanced))
    diagonal = float(np.trace(scatter)) / len(scatter)
    if diagonal == 0:
        raise EmbeddingError(
            "all embeddings are zero, so that least squares has nothing to tell classes by; "
            "check the backbone"
        )
    scatter.flat[:: len(scatter) + 1] += ridge * diagonal
    with one_blas_thread():
        solved = np.linalg.solve(scatter, np.concatenate(targets).T).T
    ends = np.cumsum([len(part) for part in targets])[:-1]
    return [part.astype(np.float32) for part in np.split(solved, ends)]


def _add_class(
    scatter: Float64,
    rows: Float32,
    weights: Float64,
    labels: npt.NDArray[np.int64],
    balanced: bool,
) -> Float64:
    """Add a class to the (D, D) scatter; return its clusters' (p, D) right-hand sides."""
    _, labels = np.unique(labels, return_inverse=True)  # without those that are empty
    if balanced:
        weights = weights / np.bincount(labels, weights)[labels]
    sides = np.zeros((int(labels.max()) + 1, rows.shape[1]))
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        weighted = rows[part] * weights[part, np.newaxis]  # float64
        scatter += weighted.T @ rows[part].astype(np.float64)
        belongs = np.arange(len(sides))[:, np.newaxis] == labels[part]
        sides += belongs.astype(np.float64) @ weighted
    return sides


class _Some:
    """Some classes of a source."""

    def __init__(self, source: ClassSource, chosen: Sequence[int]) -> None:
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self._source[self._chosen[c]]
