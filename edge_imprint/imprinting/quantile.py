# SPDX-License-Identifier: Apache-2.0
"""Quantile normalisation of proxies (Hosoda et al. 2024; Bolstad et al. 2003).

Hosoda et al. give new classes' weights the distribution of the values that a trained
network's weights have, so that no class wins by its scale. Without such a reference, each
class mapped onto those before it makes the result depend on the order of the classes. Here
the reference is all classes at once: the mean of their sorted values, every class with the
same share. Each proxy keeps the order of its values and takes the reference's values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["quantile_normalize"]


def quantile_normalize(
    proxies: npt.NDArray[np.float32], class_index: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Give all proxies the same distribution of values.

    Args:
        proxies: (P, E) float32.
        class_index: (P,) int64, the class of each; a class with many proxies weighs no more
            than one with few.

    Returns:
        (P, E) float32: in each row the reference's values, in the order of the row's own.
        Equal values of a row (such as the zeros of a ReLU) get the mean of the reference's
        values at their ranks, so that they stay equal.
    """
    share = 1.0 / np.bincount(class_index)[class_index] / len(np.unique(class_index))
    ordered = np.sort(proxies, axis=1)
    # Sorted by its bytes first: a sum's last bit must not depend on the order of the classes.
    order = np.lexsort(np.column_stack([ordered, share]).T)
    reference = np.cumsum(np.append(0.0, share[order] @ ordered[order].astype(np.float64)))
    out = np.empty_like(proxies)
    for row, given, values in zip(out, proxies, ordered, strict=True):
        # The mean of the reference between a value's first and last rank.
        first = np.searchsorted(values, given, "left")
        last = np.searchsorted(values, given, "right")
        row[:] = (reference[last] - reference[first]) / (last - first)
    return out
