# SPDX-License-Identifier: Apache-2.0
"""Where embeddings come from, class by class: order, weights, draws, norms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.class_source import Block, is_large
from edge_imprint.imprinting.sources import (
    ByClass,
    Distinct,
    Mapped,
    Sampled,
    Some,
    normalized,
)
from edge_imprint.imprinting.whitening import Whitening
from edge_imprint_runtime.errors import EmbeddingError
from tests.large_source import InBlocks

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)
INDEX = np.array([2, 0, 1, 0, 2, 2, 0, 2])


def as_set(rows: npt.NDArray[np.float32]) -> set[tuple[float, ...]]:
    return {tuple(row) for row in rows.tolist()}


def test_by_class_keeps_the_order_within_a_class() -> None:
    source = ByClass(ROWS, INDEX)
    assert len(source) == 3
    for c in range(3):
        rows, weights = source[c]
        np.testing.assert_array_equal(rows, ROWS[c == INDEX])
        assert weights is None


def test_weight_zero_is_as_good_as_absent() -> None:
    weights = np.array([1, 0, 2, 3, 0.5, 0, 0, 1])
    source = ByClass(ROWS, INDEX, weights)
    rows, of_rows = source[2]
    np.testing.assert_array_equal(rows, ROWS[[0, 4, 7]])
    assert of_rows is not None
    np.testing.assert_array_equal(of_rows, [1, 0.5, 1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_shots_are_drawn_by_the_seed_whatever_the_order(seed: int, shots: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((20, 3)).astype(np.float32)
    index = np.r_[0, 0, 1, 1, 1, 1, 1, np.zeros(13, np.int64)]
    order = rng.permutation(20)
    one = ByClass(rows, index, shots=shots, seed=3)
    other = ByClass(rows[order], index[order], shots=shots, seed=3)
    for c, count in enumerate((15, 5)):
        drawn, _ = one[c]
        assert len(drawn) == min(shots, count)
        assert len(as_set(drawn)) == len(drawn)
        assert as_set(drawn) <= as_set(rows[index == c])
        assert as_set(drawn) == as_set(other[c][0])


def test_each_seed_draws_others_and_each_row_has_its_chance() -> None:
    rows = np.arange(10, dtype=np.float32)[:, np.newaxis]
    index, seen = np.zeros(10, np.int64), np.zeros(10)
    for seed in range(400):
        drawn, _ = ByClass(rows, index, shots=2, seed=seed)[0]
        seen[drawn[:, 0].astype(int)] += 1
    assert seen.sum() == 800
    assert 40 < seen.min() <= seen.max() < 130  # 80 on average


def test_sampled_takes_the_weights_along() -> None:
    weights = np.arange(1.0, 9)
    rows, of_rows = Sampled(ByClass(ROWS, INDEX, weights), 2, 0)[2]
    assert of_rows is not None
    for row, weight in zip(rows, of_rows, strict=True):
        assert ROWS[int(weight) - 1].tolist() == row.tolist()
    whole, _ = Sampled(ByClass(ROWS, INDEX), 4, 0)[2]
    np.testing.assert_array_equal(whole, ROWS[INDEX == 2])


def test_some_of_the_classes() -> None:
    some = Some(ByClass(ROWS, INDEX), [2, 1])
    assert len(some) == 2
    np.testing.assert_array_equal(some[0][0], ROWS[INDEX == 2])
    np.testing.assert_array_equal(some[1][0], ROWS[INDEX == 1])


def test_distinct_rows_have_an_order_of_their_own_and_weights() -> None:
    rows = np.array([[2, 0], [1, 5], [2, 0], [1, 5], [1, 5], [0, 0]], np.float32)
    plain = Distinct(ByClass(rows, np.zeros(6, np.int64)))
    assert len(plain) == 1
    found, weights = plain[0]
    assert weights is not None
    assert {tuple(r): w for r, w in zip(found.tolist(), weights, strict=True)} == {
        (2, 0): 2,
        (1, 5): 3,
        (0, 0): 1,
    }
    given_weights = np.array([1.0, 3, 1, 0, 0, 1])
    other, of_other = Distinct(ByClass(rows[::-1], np.zeros(6, int), given_weights[::-1]))[0]
    assert other.tobytes() == found.tobytes()
    np.testing.assert_array_equal(of_other, weights)
    rows[4, 1] = np.nan
    with pytest.raises(EmbeddingError, match=r"^row 4 of class 0 holds NaN or infinity; mend"):
        _ = plain[0]


def test_mapped_is_the_map_and_then_the_norm() -> None:
    transform = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    whitening = Whitening(np.ones(3, np.float32), transform, 0.5)
    mapped = Mapped(ByClass(ROWS, INDEX, np.arange(1.0, 9)), whitening, "whiten")
    assert len(mapped) == 3
    rows, weights = mapped[1]
    want = (ROWS[2:3] - 1) @ transform
    np.testing.assert_allclose(rows, want / np.linalg.norm(want), rtol=1e-6)
    np.testing.assert_array_equal(weights, [3])
    bare, _ = Mapped(ByClass(ROWS, INDEX), None, "none")[1]
    np.testing.assert_array_equal(bare, ROWS[2:3])


# The norm ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(-10, 37))
def test_rows_become_unit_rows_at_any_scale(seed: int, power: float) -> None:
    rows = np.random.default_rng(seed).uniform(-3, 3, (4, 5)) * 10**power
    unit = normalized(rows.astype(np.float32), "l2")
    assert unit.dtype == np.float32
    want = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, want, rtol=1e-5, atol=1e-6)


def test_a_zero_row_stays_zero_and_none_changes_nothing() -> None:
    rows = np.array([[0, 0], [3, 4]], np.float32)
    np.testing.assert_array_equal(normalized(rows, "l2"), np.float32([[0, 0], [0.6, 0.8]]))
    np.testing.assert_array_equal(normalized(rows, "whiten"), normalized(rows, "l2"))
    assert normalized(rows, "none") is rows
    np.testing.assert_array_equal(rows, [[0, 0], [3, 4]])


# Classes larger than memory ----------------------------------------------------------------


def large_and_small() -> InBlocks:
    rng = np.random.default_rng(0)
    classes = [rng.standard_normal((n, 3)).astype(np.float32) for n in (50, 4)]
    weights = [rng.random(len(rows)) for rows in classes]
    return InBlocks(classes, 10, block=7, weights=weights)


def read(blocks: Iterator[Block]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    rows, weights = zip(*blocks, strict=True)
    return np.concatenate(rows), np.concatenate([w for w in weights if w is not None])


def test_what_stands_before_a_source_lets_its_blocks_through() -> None:
    source = large_and_small()
    whitening = Whitening(np.ones(3, np.float32), 2 * np.eye(3, dtype=np.float32), 0.5)
    mapped = Mapped(source, whitening, "l2")
    some = Some(source, [1, 0])
    distinct = Distinct(source)
    for view, c in ((mapped, 0), (some, 1), (distinct, 0)):
        assert is_large(view, c)
        assert not is_large(view, 1 - c)
        rows, weights = read(view.blocks(c))
        expected = source.classes[0]
        if view is mapped:
            expected = normalized(2 * (expected - 1), "l2")
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
        assert source.weights is not None
        np.testing.assert_array_equal(weights, source.weights[0])
        assert len(view[c][0]) <= 10
    # A class that fits is one block, as it is seen.
    for view, c in ((mapped, 1), (some, 0), (distinct, 1)):
        rows, weights = read(view.blocks(c))
        np.testing.assert_array_equal(rows, view[c][0])
        np.testing.assert_array_equal(weights, view[c][1])


def test_a_sample_of_a_large_class_is_of_its_draw() -> None:
    source = large_and_small()
    sampled = Sampled(source, 4, 0)
    assert not is_large(sampled, 0)
    assert as_set(sampled[0][0]) <= as_set(source[0][0])


def test_a_source_in_memory_is_never_large() -> None:
    source = ByClass(ROWS, INDEX)
    for view in (source, Mapped(source, None, "l2"), Some(source, [0]), Distinct(source)):
        assert not is_large(view, 0)
