# SPDX-License-Identifier: Apache-2.0
"""Measures of held-out answers: accuracy and its interval, confusion, paired differences."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = [
    "Interval",
    "balanced_accuracy",
    "confusion_matrix",
    "paired_difference",
    "wilson",
]

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

_Z95 = 1.959963984540054  # of the normal distribution: 95 % lie within
Interval = tuple[float, float]


def wilson(right: int, total: int) -> Interval:
    """Return the 95 % interval of a share (Wilson 1927).

    Args:
        right: Successes, 0 to ``total``.
        total: Trials, at least 1.

    Returns:
        Lower and upper end, within 0..1; it takes the trials for independent.
    """
    share, z2 = right / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = (
        _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    )
    # Where all or none is right, the end is 1 or 0 but for rounding.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def paired_difference(better: Bool, worse: Bool) -> tuple[float, float]:
    """Compare two sets of answers to the same questions.

    Args:
        better: (M,) whether each answer of the one is right.
        worse: (M,) the same of the other.

    Returns:
        The difference of their accuracies and its standard error, both as shares. The error
        is McNemar's, with one more differing answer than was seen: where the two differ in
        one answer only, either may be the better one.
    """
    ahead, behind = int((better & ~worse).sum()), int((worse & ~better).sum())
    error = math.sqrt(ahead + behind + 1) / len(better)
    return (ahead - behind) / len(better), error


def confusion_matrix(truth: Int64, answer: npt.NDArray[np.integer], classes: int) -> Int64:
    """Count answers: (C, C) int64, rows are true classes, columns answers."""
    counts = np.bincount(truth * classes + answer, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def balanced_accuracy(confusion: Int64) -> float:
    """Return the mean over the classes that have any of the share that is right."""
    totals = confusion.sum(axis=1)
    there = totals > 0
    return float((np.diag(confusion)[there] / totals[there]).mean())
