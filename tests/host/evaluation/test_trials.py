# SPDX-License-Identifier: Apache-2.0
"""The second pass over the folds gives the answers of the first."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edge_imprint.evaluation.trials import LOGISTIC, Trials, Way
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.crossval import held_out
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import ParameterError

DIGITS = load_digits()
# Shuffled, so that a row's position is not its place within its class.
ORDER = np.random.default_rng(0).permutation(len(DIGITS.data))[:200]
ROWS, INDEX = DIGITS.data[ORDER].astype(np.float32), DIGITS.target[ORDER]
WAYS = [
    Way("mean", "preset", Recipe.parse("qi2018")),
    Way("votes", "preset", Recipe.parse("l2 kmeans:3 l2 l2 mnn:5:cosine:distance")),
    Way("whitened", "k", Recipe.parse("whiten:0.3 kmeans:2 l2 l2 max")),
    Way("not whitened", "k", Recipe.parse("whiten:1.0 kmeans:2 l2 l2 max")),
    Way("auto", "auto", Recipe.parse("whiten:auto kmeans:auto l2 l2 max")),
    Way("impossible", "preset", Recipe.parse("l2 kmeans:3 l2 l2 mnn:9999")),
]


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials(Folds(ByClass(ROWS, INDEX), 3), INDEX, 0, "cpu")


@pytest.fixture(scope="module")
def answers(trials: Trials) -> dict[str, np.ndarray]:
    return trials.cross_validate(WAYS, lambda done, total: None)


def test_positions_are_rows(trials: Trials) -> None:
    assert np.array_equal(np.sort(trials.position), np.arange(200))
    assert np.array_equal(trials.truth, INDEX[trials.position])


@pytest.mark.parametrize("way", WAYS[:-1], ids=lambda way: way.name)
def test_both_passes_agree(trials: Trials, answers: dict[str, np.ndarray], way: Way) -> None:
    held = trials.similarities(way)
    assert np.array_equal(held.label, answers[way.name])
    assert np.array_equal(held.truth, trials.truth)
    assert held.nearest.shape == held.scores.shape == (200, 10)


@pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: way.name)
def test_similarities_are_those_of_the_recipe_alone(trials: Trials, way: Way) -> None:
    held, alone = trials.similarities(way), held_out(trials.split, way.recipe)
    order = np.lexsort([held.row, held.truth])
    assert np.array_equal(held.row[order], alone.row)
    assert np.allclose(held.nearest[order], alone.nearest, atol=1e-5)
    assert np.mean(held.label[order] == alone.label) >= 0.995


def test_what_cannot_be_done_is_noted(trials: Trials, answers: dict[str, np.ndarray]) -> None:
    assert set(answers) == {*(way.name for way in WAYS[:-1]), LOGISTIC}
    assert list(trials.failed) == ["impossible"]
    assert "neighbors must be at most the 30 proxies" in trials.failed["impossible"]


def test_a_bug_is_not_a_row_that_cannot_run(trials: Trials) -> None:
    with pytest.raises(ZeroDivisionError):
        trials.attempt("bug", lambda: 1 / 0)

    def refuse() -> None:
        raise ParameterError("no")

    assert trials.attempt("refused", refuse) is None
    assert trials.attempt("refused", lambda: 1) is None  # once failed, not tried again
    assert trials.failed.pop("refused") == "no"


def test_few_shots_are_few(trials: Trials) -> None:
    recipe = Recipe.parse("l2 all l2 l2 max")
    one = trials.with_shots(recipe, 1)
    every = trials.with_shots(recipe, 1_000)
    assert np.mean(one == trials.truth) < np.mean(every == trials.truth) - 0.1
