# SPDX-License-Identifier: Apache-2.0
"""The normal and Student's distribution against SciPy's."""

from __future__ import annotations

import pytest
from scipy import stats

from edge_imprint_runtime.measuring.student import (
    normal_tail,
    student_quantile,
    student_tail,
)


@pytest.mark.parametrize("freedom", [1, 2, 3.5, 10, 119, 5e4, 1e7])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 2.0, 5.0, 20.0])
def test_students_tail(t: float, freedom: float) -> None:
    # Beyond a million degrees of freedom it is the normal distribution's, to 1e-4.
    near = 1e-8 if freedom < 1e6 else 5e-3
    assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=near)


@pytest.mark.parametrize("freedom", [1, 3, 11.5, 300])
@pytest.mark.parametrize("probability", [0.005, 0.025, 0.5, 0.6, 0.975, 0.9995])
def test_students_quantile(probability: float, freedom: float) -> None:
    want = stats.t.ppf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("z", [-3.0, 0.0, 1.96, 8.0])
def test_the_normal_tail(z: float) -> None:
    assert normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-10)
