# SPDX-License-Identifier: Apache-2.0
"""Least squares, against the stacked system solved densely; the faults it must not have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.least_squares import least_squares
from edge_imprint.imprinting.proxies import Float32, Float64, generate
from edge_imprint_runtime.errors import EmbeddingError, ParameterError

Int64 = npt.NDArray[np.int64]


class Classes:
    """A source in memory."""

    def __init__(
        self, classes: Sequence[Float32], weights: Sequence[Float64] | None = None
    ) -> None:
        self.classes, self.weights = classes, weights

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self.classes[c], None if self.weights is None else self.weights[c]


def rows_of(n: int, d: int = 6, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def solved_densely(x: Float64, label: Int64, a: Float64, ridge: float) -> Float64:
    """Minimise sum a_i |W x_i - e(label)|^2 + lambda |W|^2, stacked, by numpy's lstsq."""
    d = x.shape[1]
    root = np.sqrt(a)[:, np.newaxis]
    shift = ridge * (a @ (x**2).sum(axis=1)) / d
    left = np.concatenate([root * x, np.sqrt(shift) * np.eye(d)])
    right = np.concatenate(
        [root * np.eye(label.max() + 1)[label], np.zeros((d, label.max() + 1))]
    )
    solution: Float64 = np.linalg.lstsq(left, right, rcond=None)[0].T
    return solution


@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    balanced=st.booleans(),
    weighted=st.booleans(),
)
def test_one_a_class_is_the_dense_solution(
    seed: int, sizes: list[int], balanced: bool, weighted: bool
) -> None:
    classes = [rows_of(n, 6, seed + i) for i, n in enumerate(sizes)]
    rng = np.random.default_rng(seed)
    weights = [rng.random(n) + 0.1 for n in sizes] if weighted else None
    w = np.concatenate(weights) if weights else np.ones(sum(sizes))
    label = np.repeat(np.arange(len(sizes)), sizes)
    a = w / (np.bincount(label, w)[label] if balanced else 1)
    want = solved_densely(np.concatenate(classes).astype(np.float64), label, a, 0.1)
    made = least_squares(
        Classes(classes, weights), [1] * len(sizes), 0, ridge=0.1, balanced=balanced
    )
    assert [part.shape for part in made] == [(1, 6)] * len(sizes)
    np.testing.assert_allclose(np.concatenate(made), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_clusters_take_the_place_of_classes(balanced: bool) -> None:
    classes = [rows_of(40, 6, c) + np.float32(c) for c in range(3)]
    source = Classes(classes)
    ks = [4, 1, 3]
    label, first = [], 0
    for rows, centres in zip(classes, generate(source, "kmeans", ks, 0), strict=True):
        label.append(first + ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1))
        first += len(centres)
    labels = np.concatenate(label)
    a = 1 / np.bincount(labels)[labels] if balanced else np.ones(len(labels))
    want = solved_densely(np.concatenate(classes).astype(np.float64), labels, a, 0.05)
    made = least_squares(source, ks, 0, ridge=0.05, balanced=balanced)
    assert [len(part) for part in made] == ks
    np.testing.assert_allclose(np.concatenate(made), want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_the_scale_of_the_embeddings_changes_nothing(k: int) -> None:
    classes = [rows_of(30, seed=c) for c in range(3)]
    one, large = (
        least_squares(
            Classes([r * s for r in classes]), [k] * 3, 0, ridge=0.01, balanced=False
        )
        for s in (np.float32(1), np.float32(1024))
    )
    for a, b in zip(one, large, strict=True):
        np.testing.assert_allclose(a, b * 1024, rtol=1e-4, atol=1e-6)


def test_the_order_of_rows_and_classes_changes_nothing() -> None:
    classes = [rows_of(20 + c, seed=c) for c in range(4)]
    made = least_squares(Classes(classes), [3] * 4, 0, ridge=0.01, balanced=True)
    turned = least_squares(
        Classes([rows[::-1] for rows in classes[::-1]]), [3] * 4, 0, ridge=0.01, balanced=True
    )
    for a, b in zip(made, turned[::-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_weight_is_a_repetition() -> None:
    classes = [rows_of(12, seed=c) for c in range(2)]
    times = np.arange(12) % 3
    made = least_squares(
        Classes(classes, [times.astype(np.float64)] * 2), [3, 3], 0, ridge=0.01, balanced=False
    )
    want = least_squares(
        Classes([np.repeat(rows, times, axis=0) for rows in classes]),
        [3, 3],
        0,
        ridge=0.01,
        balanced=False,
    )
    for a, b in zip(made, want, strict=True):
        np.testing.assert_array_equal(a, b)


def accuracy(made: Sequence[Float32], rows: Float32, label: Int64) -> float:
    index = np.repeat(np.arange(len(made)), [len(part) for part in made])
    return float((index[(rows @ np.concatenate(made).T).argmax(axis=1)] == label).mean())


def several_modes(
    modes: int, sizes: Sequence[int], d: int = 64, seed: int = 0
) -> tuple[list[Float32], Float32, Int64]:
    """Classes to imprint, rows held out of all (100 a class), and their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), modes, d)) * 1.5

    def draw(c: int, n: int) -> Float32:
        rows = centres[c, rng.integers(0, modes, n)] + rng.standard_normal((n, d))
        return rows.astype(np.float32)

    train = [draw(c, n) for c, n in enumerate(sizes)]
    test = np.concatenate([draw(c, 100) for c in range(len(sizes))])
    return train, test, np.repeat(np.arange(len(sizes)), 100)


def test_targets_by_share_beat_equal_targets() -> None:
    # Clusters are never equal in size: one target for all, beside a scatter by sample, favours
    # the small ones.
    train, test, label = several_modes(1, [110] * 10)
    source, ks = Classes(train), [20] * 10
    made = least_squares(source, ks, 0, ridge=1e-3, balanced=False)
    equal = least_squares(source, ks, 0, ridge=1e-3, balanced=True)
    counts = []
    for rows, centres in zip(train, generate(source, "kmeans", ks, 0), strict=True):
        nearest = ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        counts.append(np.bincount(nearest)[:, np.newaxis])
    mixed = [(part / n).astype(np.float32) for part, n in zip(made, counts, strict=True)]
    by_share, by_cluster, by_neither = (accuracy(m, test, label) for m in (made, equal, mixed))
    assert by_share > by_neither + 0.1
    assert by_cluster > by_neither + 0.1


def test_balance_helps_the_rare_classes() -> None:
    train, test, label = several_modes(3, [3, 5, 10, 30, 110, 110, 110, 110])
    plain, balanced = (
        accuracy(
            least_squares(Classes(train), [1] * 8, 0, ridge=0.01, balanced=b), test, label
        )
        for b in (False, True)
    )
    assert balanced > plain + 0.02


def test_fewer_samples_than_k_give_no_raw_rows() -> None:
    train, test, label = several_modes(1, [3, 110, 110, 110])
    made = least_squares(Classes(train), [5] * 4, 0, ridge=0.01, balanced=False)
    assert [len(part) for part in made] == [3, 5, 5, 5]
    lengths = [np.linalg.norm(part, axis=1).max() for part in made]
    assert max(lengths) < 10 * min(lengths)
    assert accuracy(made, test, label) > 0.7


def test_fewer_distinct_samples_than_k_give_fewer_clusters() -> None:
    train, test, label = several_modes(1, [60, 60, 60])
    train[1] = np.repeat(train[1][:1], 60, axis=0)
    made = least_squares(Classes(train), [5] * 3, 0, ridge=0.01, balanced=False)
    assert [len(part) for part in made] == [5, 1, 5]
    assert all(np.isfinite(part).all() for part in made)
    assert accuracy(made, test, label) > 0.7


@pytest.mark.parametrize("k", [1, 4])
def test_a_singular_scatter(k: int) -> None:
    classes = [rows_of(2, 50, c) for c in range(3)]  # 6 samples, 50 features
    for rows in classes:
        rows[:, 10:20] = 0
    made = least_squares(Classes(classes), [k] * 3, 0, ridge=0.01, balanced=False)
    assert all(np.isfinite(part).all() for part in made)
    assert accuracy(made, np.concatenate(classes), np.repeat(np.arange(3), 2)) == 1


@pytest.mark.parametrize("ridge", [0, -1.0, float("nan"), float("inf")])
def test_a_ridge_that_is_not_above_zero_is_refused(ridge: float) -> None:
    with pytest.raises(ParameterError) as caught:
        least_squares(Classes([rows_of(3)]), [1], 0, ridge=ridge, balanced=False)
    assert str(caught.value) == f"ridge must be a number above 0, got {ridge!r}"


def test_embeddings_that_are_all_zero_are_refused() -> None:
    zeros = np.zeros((4, 6), np.float32)
    with pytest.raises(EmbeddingError) as caught:
        least_squares(Classes([zeros, zeros]), [1, 1], 0, ridge=0.01, balanced=False)
    assert str(caught.value) == (
        "all embeddings are zero, so that least squares has nothing to tell classes by; "
        "check the backbone"
    )


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        least_squares(Classes([rows_of(3)] * 2), [1, 0], 0, ridge=0.01, balanced=False)
    assert str(caught.value) == "k must be an integer >= 1, got 0"
