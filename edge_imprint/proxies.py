# SPDX-License-Identifier: Apache-2.0
"""Generation: the embeddings of one class -> its proxies (arXiv 2503.14572, section 3).

A generator takes (n, D) float32 rows, k and a seeded random generator, and gives (p, D)
float32 with 1 <= p <= k (p = n for ``all``). What it gives does not depend on the order of
the rows. Registering it in `GENERATORS` is all that a new one needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import MissingPackageError

__all__ = ["GENERATORS", "Float32", "Generator", "make_proxies"]

Float32: TypeAlias = npt.NDArray[np.float32]
Generator: TypeAlias = Callable[[Float32, int, np.random.Generator], Float32]


def make_proxies(rows: Float32, generation: str, k: int, seed: int) -> Float32:
    """Make the proxies of one class.

    Args:
        rows: (n, D) float32, the class's embeddings in any order, n >= 1.
        generation: A key of `GENERATORS`.
        k: Proxies at most; a class with fewer distinct rows gets one a row.
        seed: For those that draw.

    Returns:
        (p, D) float32.

    Raises:
        MissingPackageError: k-means without scikit-learn.
    """
    # Put the rows into an order of their own, so that the caller's order decides nothing.
    rows = np.ascontiguousarray(rows, np.float32)
    order = np.argsort(
        rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel(), kind="stable"
    )
    return GENERATORS[generation](rows[order], k, np.random.default_rng(seed))


def _mean(rows: Float32, k: int, rng: np.random.Generator) -> Float32:
    mean: Float32 = rows.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    return mean


def _all(rows: Float32, k: int, rng: np.random.Generator) -> Float32:
    return rows


def _random(rows: Float32, k: int, rng: np.random.Generator) -> Float32:
    return rows[np.sort(rng.permutation(len(rows))[:k])]


def _kmeans(rows: Float32, k: int, rng: np.random.Generator) -> Float32:
    distinct = np.unique(rows, axis=0)
    if len(distinct) <= k:  # each its own centre; scikit-learn would warn or refuse
        return distinct
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "k-means", "demo") from error
    kmeans = KMeans(n_clusters=k, n_init=1, random_state=int(rng.integers(2**31)))
    # One class is a small problem: a second thread costs more than it brings, and its sums
    # would come in another order.
    with threadpool_limits(1), warnings.catch_warnings():
        # The same photo twice may embed a last bit apart: distinct, yet no cluster of its own.
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres = np.asarray(kmeans.fit(rows).cluster_centers_, np.float32)
    return np.unique(centres, axis=0)


GENERATORS: dict[str, Generator] = {
    "mean": _mean,
    "kmeans": _kmeans,
    "all": _all,
    "random": _random,
}
