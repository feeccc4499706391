# SPDX-License-Identifier: Apache-2.0
"""k for each class: the number follows the modes, the judge is exact, and what is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.choose import CANDIDATES, _Judge, _kept, choose_proxies
from edge_imprint.judging.crossval import held_out
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import ParameterError, TooFewImagesError

Array = npt.NDArray[np.float32]
MODES = (1, 2, 5)


def modal(seed: int, n: int = 60) -> ByClass:
    """Three classes of 1, 2 and 5 modes that lie scattered among each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((sum(MODES), 6))
    rows, index, first = [], [], 0
    for c, modes in enumerate(MODES):
        mode = first + np.arange(n) % modes
        rows.append(centres[mode] + 0.15 * rng.standard_normal((n, 6)))
        index.append(np.full(n, c))
        first += modes
    return ByClass(np.concatenate(rows).astype(np.float32), np.concatenate(index))


@pytest.mark.parametrize("seed", range(6))
def test_k_follows_the_modes(seed: int) -> None:
    source = modal(seed)
    choice = choose_proxies(source, Recipe(), candidates=(1, 2, 5, 10))
    assert choice.ks[0] == 1  # one mode needs no more than one proxy
    assert choice.ks[2] >= 2
    assert choice.ks == sorted(choice.ks)
    assert choice.accuracy >= max(choice.accuracy_by_k)
    assert choice.accuracy > 0.95
    assert choice.accuracy_by_k[0] < choice.accuracy_by_k[2]


def test_the_evidence_is_held_out_answers() -> None:
    source = modal(1)
    told: list[tuple[int, int]] = []
    choice = choose_proxies(source, Recipe(), progress=lambda *step: told.append(step))
    assert choice.candidates == CANDIDATES
    assert told == [(done, 6) for done in range(1, 7)]
    split = Folds(source)
    for k, accuracy in zip(choice.candidates, choice.accuracy_by_k, strict=True):
        answers = held_out(split, Recipe(proxies=k))
        right = [answers.right[answers.truth == c].mean() for c in range(3)]
        assert accuracy == pytest.approx(np.mean(right))
    chosen = held_out(split, Recipe(), ks=choice.ks)
    right = [chosen.right[chosen.truth == c].mean() for c in range(3)]
    assert choice.accuracy == pytest.approx(np.mean(right))


def test_neither_rows_nor_k_of_the_recipe_nor_repeats_decide() -> None:
    source = modal(2)
    rows = np.concatenate([source[c][0] for c in range(3)])
    index = np.repeat(np.arange(3), 60)
    order = np.random.default_rng(0).permutation(180)
    want = choose_proxies(source, Recipe(), seed=5)
    for other in (
        choose_proxies(source, Recipe(proxies=3), seed=5),
        choose_proxies(ByClass(rows[order], index[order]), Recipe(), seed=5),
        choose_proxies(ByClass(np.tile(rows, (2, 1)), np.tile(index, 2)), Recipe(), seed=5),
        choose_proxies(ByClass(rows, index, np.full(180, 2.0)), Recipe(), seed=5),
    ):
        assert other == want


def test_no_k_above_a_class_and_a_class_of_one_image_gets_one() -> None:
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1, 2], [1, 4, 9])
    rows = (3 * np.eye(3)[index] + rng.standard_normal((14, 3))).astype(np.float32)
    choice = choose_proxies(ByClass(rows, index), Recipe())
    assert choice.candidates == (1, 2, 5)
    assert choice.ks[0] == 1
    assert choice.ks[1] <= 4
    pairs = choose_proxies(ByClass(np.repeat(rows, 9, axis=0), np.repeat(index, 9)), Recipe())
    assert (pairs.candidates, pairs.ks) == (choice.candidates, choice.ks)


# The judge ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 4), st.integers(1, 12))
def test_the_judge_is_exact(seed: int, candidates: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that many are equal.
    similarity = rng.integers(0, 4, (candidates, count, classes)).astype(np.float32)
    truth = rng.integers(0, classes, count)
    judge = _Judge(similarity, truth)

    def accuracy(choice: npt.NDArray[np.int64]) -> float:
        right: dict[int, list[bool]] = {}
        for i in range(count):
            scores = [float(similarity[choice[c], i, c]) for c in range(classes)]
            answer = scores.index(max(scores))
            right.setdefault(int(truth[i]), []).append(answer == truth[i])
        return float(np.mean([np.mean(each) for each in right.values()]))

    for choice in np.ndindex(*[candidates] * classes):
        now = np.array(choice)
        assert judge.accuracy(now) == pytest.approx(accuracy(now))
        for c in range(classes):
            each = judge.of_each(now, c)
            for i in range(candidates):
                other = now.copy()
                other[c] = i
                assert each[i] == pytest.approx(accuracy(other))


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**20))
def test_rows_are_drawn_from_all_classes_alike(seed: int, values_a_row: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.integers(0, 5, 200))
    kept = _kept(truth, values_a_row * 100, 0)
    assert (np.diff(kept) > 0).all()
    counts, there = np.bincount(truth[kept], minlength=5), np.bincount(truth, minlength=5)
    assert (counts == np.minimum(there, counts.max())).sum() + (
        counts == counts.max() - 1
    ).sum() >= 5
    assert len(kept) == min(200, max(1, 2**25 // (values_a_row * 100)))


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["hosoda2024", "janson2022", "l2 kmeans:5 l2 l2 mnn:3"])
def test_recipes_whose_classes_cannot_be_judged_one_by_one(line: str) -> None:
    with pytest.raises(ParameterError):
        choose_proxies(modal(0), Recipe.parse(line))
    asked = Recipe(aggregation="mnn", neighbors=3)
    with pytest.raises(ParameterError) as caught:
        choose_proxies(modal(0), asked)
    assert str(caught.value) == (
        "k can be chosen class by class under aggregation='max' and post_norm 'none' or 'l2', "
        "not in the recipe 'l2 kmeans:auto l2 l2 mnn:3'; give a number of proxies"
    )


@pytest.mark.parametrize("k", [0, -3])
def test_candidates_that_are_none(k: int) -> None:
    with pytest.raises(ParameterError, match=rf"^proxies must be an integer .*got {k}"):
        choose_proxies(modal(0), Recipe(), candidates=(k, 5))


def test_one_image_a_class() -> None:
    with pytest.raises(
        TooFewImagesError, match=r"^k can be chosen only where a class has two"
    ):
        choose_proxies(ByClass(np.eye(3, dtype=np.float32), np.arange(3)), Recipe())
