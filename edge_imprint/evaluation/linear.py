# SPDX-License-Identifier: Apache-2.0
"""Logistic regression, to hold imprinting against: trained, on all classes at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import MissingPackageError, ParameterError

__all__ = ["check_size", "fit_logistic", "weight_bytes"]

Int64 = npt.NDArray[np.int64]

_MAX_STEPS = 1_000
# Multiplications a step; beyond this, a fit takes minutes where imprinting takes seconds.
_MAX_WORK = 2**30


def check_size(rows: int, size: int, classes: int) -> None:
    """Refuse what would take many minutes, before it does.

    Args:
        rows: N.
        size: D.
        classes: C.

    Raises:
        ParameterError: N x D x C is above 2**30.
    """
    if rows * size * classes > _MAX_WORK:
        raise ParameterError(
            f"left out: {rows} rows x {size} numbers x {classes} classes would be trained for "
            "many minutes"
        )


def fit_logistic(
    rows: npt.NDArray[np.float32], class_index: Int64
) -> tuple[Callable[[npt.NDArray[np.float32]], Int64], bool]:
    """Train logistic regression on standardised embeddings (scikit-learn's, its defaults).

    Args:
        rows: (N, D) float32.
        class_index: (N,) int64.

    Returns:
        What names the class of (M, D) rows, and whether training has converged.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "logistic regression", "demo") from error
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_STEPS))
    with warnings.catch_warnings():  # it is told by what is returned
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, class_index)
    converged = bool((model[-1].n_iter_ < _MAX_STEPS).all())
    return lambda given: np.asarray(model.predict(given), np.int64), converged


def weight_bytes(size: int, classes: int) -> int:
    """Return what its weights take as float32, the standardisation folded in."""
    return 4 * classes * (size + 1)
