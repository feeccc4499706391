# SPDX-License-Identifier: Apache-2.0
"""A class's distinct rows in an order of their own, whatever the caller's is."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import EmbeddingError, ParameterError

__all__ = ["canonical", "checked_weights"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]

_MINUS_ZERO = np.iinfo(np.int32).min  # its bits, read as an integer


def canonical(
    rows: Float32,
    weights: Float64 | None,
    name: str = "the class",
    space: Float32 | None = None,
) -> tuple[Float32, Float64]:
    """Give rows an order of their own, and merge equal ones into one with their weights' sum.

    Args:
        rows: (n, D), any real type and memory layout.
        weights: (n,) >= 0; None for ones.
        name: What messages call the class.
        space: Where the result may lie, if it is large enough.

    Returns:
        (m, D) float32 distinct rows, in ``space`` or a new array, and (m,) float64 weights
        above 0.

    Raises:
        ParameterError: The weights are not as above, or all zero; or there is no row.
        EmbeddingError: A row holds NaN or infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(rows, np.float32)
        finite = np.isfinite(np.vdot(rows, rows))  # or large: look closer
    if rows.size and rows.view(np.int32).min() == _MINUS_ZERO:
        rows = rows + np.float32(0)  # makes it equal to the other zero in its bytes as well
    if not finite and not (each := np.isfinite(rows).all(axis=1)).all():
        raise EmbeddingError(
            f"row {int(each.argmin())} of {name} holds NaN or infinity; "
            "mend it or leave it out"
        )
    weights = checked_weights(weights, len(rows), name)
    if weights is not None:
        # Equal rows in the order of their weights, so that their sum has one last bit.
        by_weight = np.argsort(weights, kind="stable")[np.count_nonzero(weights == 0) :]
        rows, weights = rows[by_weight], weights[by_weight]
    if not len(rows):
        raise ParameterError(f"{name} has no row with a weight above 0")
    order = np.argsort(rows.view(np.dtype((np.void, rows.shape[1] * 4)))[:, 0], kind="stable")
    if space is not None and rows.size <= len(space):
        out = space[: rows.size].reshape(rows.shape)
        rows = np.take(rows, order, axis=0, out=out, mode="clip")  # clip: without a detour
    else:
        rows = rows[order]
    weights = np.ones(len(rows)) if weights is None else weights[order]
    like = np.arange(len(rows) - 1)
    for column in range(0, rows.shape[1], max(1, rows.shape[1] // 8)):
        like = like[rows[like + 1, column] == rows[like, column]]
    same = like[(rows[like + 1] == rows[like]).all(axis=1)]
    if len(same):
        first = np.delete(np.arange(len(rows)), same + 1)
        rows, weights = rows[first], np.add.reduceat(weights, first)
    return rows, weights


def checked_weights(weights: Float64 | None, n: int, name: str) -> Float64 | None:
    """Return a class's n weights as float64; refuse what are none.

    Raises:
        ParameterError: They are not n finite numbers >= 0.
    """
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,):
        raise ParameterError(f"the weights of {name} must be {n}, got shape {weights.shape}")
    if not ((weights >= 0) & np.isfinite(weights)).all():
        raise ParameterError(f"the weights of {name} must be finite and >= 0")
    return weights
