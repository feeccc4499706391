# SPDX-License-Identifier: Apache-2.0
"""Neural collapse: how far the classes' embeddings have drawn together to points.

With n samples in C classes, mean m_c of class c and mean m of all, each sample counting once:

    S_W = 1/n sum over the samples of (z - m_c)(z - m_c)^T      within classes
    S_B = 1/n sum over the samples of (m_c - m)(m_c - m)^T      between classes
    S_T = S_W + S_B                                             total

All is taken about means, so that neither measure changes when every embedding is moved alike.

**Rank.** A direction counts where the standard deviation along it is above
max(e r, sqrt(max(C, D) f) s): e is the relative spacing of the embeddings' type (1.2e-7 for
float32), r the root mean square of their norms, f = 2.2e-16 and s the largest standard
deviation. The first is a bound on what rounding the embeddings can add to the class means, the
second what an eigenvalue loses in float64. What lies below is rounding, not spread.

**Memory.** One class at a time in float64, two D x D matrices, and a few integers a sample;
where classes are few (2 C <= D), S_B is worked on through the C x C Gram matrix of the class
means, and `nc1` needs no D x D matrix at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import EmbeddingError, InputError, TooFewClassesError

__all__ = ["nc1", "vci"]

Float64: TypeAlias = npt.NDArray[np.float64]

_BLOCK = 64  # rows worked on in one go: a hundredth of a class's memory, at full speed
_MAX_VALUE = 1e100  # its square, summed, is still a number
_EPSILON = float(np.finfo(np.float64).eps)


def nc1(Z: npt.ArrayLike, y: npt.ArrayLike) -> float:  # noqa: N803 - the field's name
    """Measure the spread within classes against that between them (Papyan et al. 2020).

    NC1 = trace(S_W pinv(S_B)) / C.

    Args:
        Z: (N, D) embeddings, any real type, finite.
        y: (N,) class labels, two classes or more, of any size from one sample on.

    Returns:
        0 where each class is one point; infinity where all class means coincide.

    Raises:
        InputError: Z or y have the wrong shape or type.
        EmbeddingError: A row holds NaN, infinity or a value above 1e100.
        TooFewClassesError: Fewer than two classes.
    """
    classes = _split(Z, y)
    root = _between_root(classes)
    if not root.shape[1]:
        return math.inf
    trace = 0.0
    for rows in classes:
        rows -= rows.mean(axis=0)
        trace += float(np.square(rows @ root).sum())
    return trace / (len(classes.order) * len(classes))


def vci(Z: npt.ArrayLike, y: npt.ArrayLike) -> float:  # noqa: N803 - the field's name
    """Measure the share of variability that is left within classes (Xu & Liu 2023).

    VCI = 1 - trace(pinv(S_T) S_B) / rank(S_B).

    Args:
        Z: (N, D) embeddings, any real type, finite.
        y: (N,) class labels, two classes or more, of any size from one sample on.

    Returns:
        From 0, where each class is one point, to 1, where all class means coincide. Unchanged
        by any invertible linear map of the embeddings. It needs more samples than dimensions:
        N <= D samples in general position always give 0.

    Raises:
        InputError: Z or y have the wrong shape or type.
        EmbeddingError: A row holds NaN, infinity or a value above 1e100.
        TooFewClassesError: Fewer than two classes.
    """
    classes = _split(Z, y)
    rank = int(_between_root(classes).shape[1])
    if not rank:
        return 1.0
    variances, root = _eigen(_total(classes), classes)
    root /= np.sqrt(variances)  # root root^T = pinv(S_T)
    trace = sum(float(np.square(means @ root).sum()) for means in classes.means())
    return min(max(1.0 - trace / rank, 0.0), 1.0)


@dataclass(frozen=True)
class _Classes:
    """Checked embeddings, read class by class.

    Attributes:
        embeddings: (N, D) as given.
        order: (N,) int64 positions of the samples, class by class.
        ends: (C,) int64 where each class ends in ``order``.
        mean: (D,) of all samples.
        rounding: Bound on what rounding of the embeddings adds to the class means: e r.
    """

    embeddings: npt.NDArray[Any]
    order: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    mean: Float64
    rounding: float

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Float64]:
        """Yield each class's rows less the mean of all: (n_c, D), the caller's to change."""
        start = 0
        for end in self.ends.tolist():
            members = self.embeddings[self.order[start:end]]
            yield np.subtract(members, self.mean, dtype=np.float64)
            start = end

    def means(self) -> Iterator[Float64]:
        """Yield blocks M of class means, weighted so that the sum of M^T M is S_B: (b, D)."""
        weighted = (
            rows.mean(axis=0) * math.sqrt(len(rows) / len(self.order)) for rows in self
        )
        while block := list(itertools.islice(weighted, _BLOCK)):
            yield np.stack(block)


def _split(Z: npt.ArrayLike, y: npt.ArrayLike) -> _Classes:  # noqa: N803
    embeddings, labels = np.asarray(Z), np.asarray(y)
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or not embeddings.size:
        raise InputError(
            "embeddings must be (N, D) real numbers, N and D at least 1, "
            f"got {embeddings.dtype} {embeddings.shape}"
        )
    if labels.shape != embeddings.shape[:1]:
        raise InputError(
            f"labels must be ({len(embeddings)},), one for each embedding, got {labels.shape}"
        )
    try:
        names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise InputError(
            "labels must be all of one kind, such as numbers or text, so that they can be "
            f"sorted ({error})"
        ) from error
    if len(names) < 2:
        raise TooFewClassesError(
            "neural collapse is a matter between classes: at least two are needed, "
            f"got one class: {str(names[0])!r}"
        )
    total, squares = np.zeros(embeddings.shape[1]), 0.0
    for start in range(0, len(embeddings), _BLOCK):
        rows = embeddings[start : start + _BLOCK].astype(np.float64)
        good = (np.abs(rows) <= _MAX_VALUE).all(axis=1)  # False for NaN too
        if not good.all():
            raise EmbeddingError(
                f"row {start + int(np.argmin(good))} of the embeddings holds NaN, infinity or "
                f"a value above {_MAX_VALUE:g}; take it out"
            )
        total += rows.sum(axis=0)
        squares += float(np.square(rows).sum())
    floating = embeddings.dtype.kind == "f"
    spacing = max(float(np.finfo(embeddings.dtype).eps), _EPSILON) if floating else _EPSILON
    return _Classes(
        embeddings,
        np.argsort(index, kind="stable"),
        np.cumsum(counts),
        total / len(embeddings),
        spacing * math.sqrt(squares / len(embeddings)),
    )


def _between_root(classes: _Classes) -> Float64:
    """Return W, (D, r) with r = rank(S_B), such that W W^T = pinv(S_B)."""
    size, dim = len(classes), len(classes.mean)
    if 2 * size <= dim:  # S_B = M^T M and M M^T have the same eigenvalues
        stacked = np.concatenate(list(classes.means()))
        values, vectors = _eigen(stacked @ stacked.T, classes)
        root: Float64 = stacked.T @ (vectors / values)
        return root
    between = np.zeros((dim, dim))
    for means in classes.means():
        between += means.T @ means
    values, root = _eigen(between, classes)
    root /= np.sqrt(values)
    return root


def _total(classes: _Classes) -> Float64:
    total = np.zeros((len(classes.mean), len(classes.mean)))
    for rows in classes:
        total += rows.T @ rows
    return total / len(classes.order)


def _eigen(scatter: Float64, classes: _Classes) -> tuple[Float64, Float64]:
    """Return the r eigenvalues that count, (r,), and their unit eigenvectors, (D, r)."""
    values, vectors = np.linalg.eigh(scatter)
    size = max(len(classes), len(classes.mean))
    rounding = max(classes.rounding**2, size * _EPSILON * max(values[-1], 0.0))
    first = int(np.sum(values <= rounding))  # ascending: a slice, and no copy
    return values[first:], vectors[:, first:]
