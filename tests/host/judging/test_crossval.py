# SPDX-License-Identifier: Apache-2.0
"""The split, and the answers of proxies that had no part in what they judge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.crossval import Folds, held_out
from edge_imprint_runtime.errors import ParameterError, TooFewImagesError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@st.composite
def classes(draw: st.DrawFn) -> tuple[Float32, Int64]:
    """1 to 5 classes of 1 to 12 rows, some of them several times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    kinds = draw(st.integers(1, 9))
    rows = rng.standard_normal((kinds, 3)).astype(np.float32)[rng.integers(0, kinds, 60)]
    index = np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(index))
    return rows[: len(index)][order], index[order]


@given(classes(), st.integers(2, 7), st.integers(0, 99))
def test_every_split(data: tuple[Float32, Int64], count: int, seed: int) -> None:
    rows, index = data
    source = ByClass(rows, index)
    kinds = [len(np.unique(source[c][0], axis=0)) for c in range(len(source))]
    if max(kinds) == 1:
        with pytest.raises(TooFewImagesError) as caught:
            Folds(source, count, seed)
        assert str(caught.value) == (
            "no class has two different images, so that none can be held out; add images"
        )
        return
    folds = Folds(source, count, seed)
    assert folds.count == min(count, max(kinds))
    for c in range(len(source)):
        whole = source[c][0]
        times = np.zeros(len(whole), int)
        sizes = []
        for fold in range(folds.count):
            training, rest = folds.training(fold)[c][0], folds.held_out(fold)[c][0]
            positions = folds.rows(fold)[c]
            np.testing.assert_array_equal(rest, whole[positions])
            assert len(training) + len(rest) == len(whole)
            assert len(training) > 0
            # What is equal is never on both sides.
            assert not {r.tobytes() for r in training} & {r.tobytes() for r in rest}
            times[positions] += 1
            sizes.append(len(np.unique(rest, axis=0)))
        # The only one of its kind is never held out; every other row once.
        assert (times == (kinds[c] > 1)).all()
        parts = [size for size in sizes if size]
        assert not parts or max(parts) - min(parts) <= 1


def test_the_order_of_rows_and_classes_decides_no_split() -> None:
    rng = np.random.default_rng(0)
    rows, index = rng.standard_normal((40, 3)).astype(np.float32), np.arange(40) % 4
    order, names = rng.permutation(40), np.array([2, 0, 3, 1])
    one = Folds(ByClass(rows, index), 3, 5)
    other = Folds(ByClass(rows[order], names[index][order]), 3, 5)
    for fold in range(3):
        for c in range(4):
            there = {row.tobytes() for row in one.held_out(fold)[c][0]}
            assert there == {row.tobytes() for row in other.held_out(fold)[names[c]][0]}
    assert one.rows(0)[0].tolist() != Folds(ByClass(rows, index), 3, 6).rows(0)[0].tolist()


def test_weights_go_along() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    folds = Folds(ByClass(rows, np.zeros(6, int), np.arange(1.0, 7)), 2)
    for part in (folds.training(0), folds.held_out(0)):
        found, weights = part[0]
        np.testing.assert_array_equal(weights, found[:, 0] / 2 + 1)


@pytest.mark.parametrize("count", [1, 0, -1, 2.0, True, None])
def test_folds_that_are_none(count: int) -> None:
    source = ByClass(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]))
    with pytest.raises(ParameterError) as caught:
        Folds(source, count)
    assert str(caught.value) == f"folds must be an integer >= 2, got {count!r}"


# The answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "l2 mean l2 l2 max",
        "l2 kmeans:3 l2 l2 max:cosine",
        "whiten kmeans:2 l2 l2 max",
        "whiten:auto kmeans:2 l2 l2 max",
        "none least_squares:2 none none max",
        "none mean quantile none mnn:2:euclidean",
        "l2 kmeans:4 l2 l2 mnn:5:cosine:distance",
        "l2 mean l2 l2 max:mahalanobis",
    ],
)
def test_against_a_loop_over_imprint_and_predict(line: str) -> None:
    rng = np.random.default_rng(0)
    index = np.r_[np.arange(54) % 4, 4]  # and a class of one
    rows = (2 * rng.standard_normal((5, 6))[index] + rng.standard_normal((55, 6))).astype(
        np.float32
    )
    source, recipe = ByClass(rows, index), Recipe.parse(line)
    folds = Folds(source, 3, 1)
    told: list[tuple[int, int]] = []
    answers = held_out(folds, recipe, seed=1, progress=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert answers.truth.tolist() == sorted(index[:54].tolist())
    assert len(set(zip(answers.truth.tolist(), answers.row.tolist(), strict=True))) == 54
    heads = [imprint(folds.training(f), list("abcde"), recipe, seed=1) for f in range(3)]
    for i, (c, row) in enumerate(zip(answers.truth, answers.row, strict=True)):
        (head,) = [heads[f] for f in range(3) if row in folds.rows(f)[c]]
        query = source[int(c)][0][row : row + 1]
        np.testing.assert_allclose(answers.scores[i], head.scores(query)[0], atol=1e-5)
        np.testing.assert_allclose(answers.nearest[i], head.nearest(query)[0], atol=1e-5)
        assert answers.label[i] == head.predict(query)[0]
    np.testing.assert_array_equal(answers.right, answers.label == answers.truth)
    assert answers.right.mean() > 0.6


def test_ks_reach_each_class() -> None:
    rng = np.random.default_rng(0)
    source = ByClass(rng.standard_normal((30, 4)).astype(np.float32), np.arange(30) % 2)
    folds = Folds(source, 3)
    both = held_out(folds, Recipe(), ks=[1, 5]).nearest
    ones, fives = (held_out(folds, Recipe(proxies=k)).nearest for k in (1, 5))
    np.testing.assert_array_equal(both[:, 0], ones[:, 0])
    np.testing.assert_array_equal(both[:, 1], fives[:, 1])
