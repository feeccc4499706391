# SPDX-License-Identifier: Apache-2.0
"""The normal and Student's distribution, without SciPy."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["normal_tail", "student_quantile", "student_tail"]

_NORMAL = NormalDist()


def normal_tail(z: float) -> float:
    """Return the probability that a standard normal lies above z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def student_tail(t: float, freedom: float) -> float:
    """Return the probability that Student's t lies above t >= 0.

    By the continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8).

    Args:
        t: At least 0.
        freedom: Degrees of freedom, above 0; infinite is the normal distribution.
    """
    if freedom > 1e6:
        return normal_tail(t)
    x = freedom / (freedom + t * t)
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, x)


def student_quantile(probability: float, freedom: float) -> float:
    """Return the t that Student's distribution lies below with this probability."""
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    low, high = 0.0, 2.0
    while student_tail(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if student_tail(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
    )
    # Evaluated from its begin on (Lentz 1976).
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d)
            c = 1 + step / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction / a
