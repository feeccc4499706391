# SPDX-License-Identifier: Apache-2.0
"""The measures against scikit-learn, and the interval against its own equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from edge_imprint.judging.measures import (
    balanced_accuracy,
    confusion_matrix,
    paired_difference,
    wilson,
)

counts = st.integers(1, 5_000).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.just(total))
)


@given(counts)
def test_wilsons_ends_are_where_the_score_test_just_rejects(case: tuple[int, int]) -> None:
    right, total = case
    share = right / total
    low, high = wilson(right, total)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 1e-12 < end < 1 - 1e-12:  # |share - p| = z sqrt(p (1 - p) / n)
            error = math.sqrt(end * (1 - end) / total)
            assert abs(share - end) == pytest.approx(1.959964 * error, rel=1e-5)


def test_wilson_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.binomial(200, 0.9, 4_000)
    inside = [low <= 0.9 <= high for low, high in (wilson(int(n), 200) for n in drawn)]
    assert 0.935 <= np.mean(inside) <= 0.97


@given(st.integers(0, 2**32 - 1))
def test_confusion_and_balanced_accuracy_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.append(np.arange(5), rng.integers(0, 5, 40))
    answer = rng.integers(0, 5, 45)
    found = confusion_matrix(truth, answer, 5)
    assert np.array_equal(found, sklearn_confusion(truth, answer, labels=range(5)))
    assert balanced_accuracy(found) == pytest.approx(balanced_accuracy_score(truth, answer))


def test_balanced_accuracy_leaves_out_classes_without_answers() -> None:
    assert balanced_accuracy(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])) == 0.625


def test_paired_difference_by_hand() -> None:
    better, worse = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool)
    difference, error = paired_difference(better, worse)
    assert difference == 0.5
    assert error == pytest.approx(np.sqrt(2 + 1) / 4)
    assert paired_difference(better, better) == (0.0, 0.25)


def test_one_answer_of_any_number_decides_nothing() -> None:
    for count in (2, 10, 1_000):
        worse = np.ones(count, bool)
        worse[0] = False
        difference, error = paired_difference(np.ones(count, bool), worse)
        assert 0 < difference < error
