# SPDX-License-Identifier: Apache-2.0
"""`ImprintClassifier` against a brute force, what it takes, and what it refuses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score

from edge_imprint import ImprintClassifier
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import GENERATIONS, PRESETS, Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint_runtime.errors import (
    ParameterError,
)

Array = npt.NDArray[Any]


def blobs(classes: int = 3, n: int = 40, d: int = 8, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    x = rng.standard_normal((classes, d))[y] * 2 + rng.standard_normal((n, d))
    return x.astype(np.float32), y


def two_modes(seed: int = 0) -> tuple[Array, Array, dict[int, Array]]:
    """Two classes of two far modes each; the k-means centres are known."""
    rng = np.random.default_rng(seed)
    modes = 10 * np.eye(4)
    x = np.repeat(modes, 15, axis=0) + rng.standard_normal((60, 4)) * 0.1
    mode = np.repeat(np.arange(4), 15)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centres = np.stack([unit[mode == m].mean(axis=0) for m in range(4)])
    return x, mode % 2, {0: centres[[0, 2]], 1: centres[[1, 3]]}


def brute(x: Array, y: Array, z: Array, pre: bool, mean: bool, post: bool, inf: bool) -> Array:
    """Scores by loops in double precision; shares nothing with the source."""

    def unit(row: Array, wanted: bool) -> Array:
        return row / np.sqrt((row * row).sum()) if wanted else row

    out = np.empty((len(z), len(np.unique(y))))
    for c, label in enumerate(np.unique(y)):
        members = [unit(row.astype(np.float64), pre) for row in x[y == label]]
        proxies = [sum(members) / len(members)] if mean else members
        for i, query in enumerate(z):
            q = unit(query.astype(np.float64), inf)
            out[i, c] = max(float(q @ unit(p, post)) for p in proxies)
    return out


@pytest.mark.parametrize("generation", ["mean", "all"])
@pytest.mark.parametrize("pre", ["none", "l2"])
@pytest.mark.parametrize("post", ["none", "l2"])
@pytest.mark.parametrize("inference", ["none", "l2"])
def test_against_a_brute_force(generation: str, pre: str, post: str, inference: str) -> None:
    x, y = blobs()
    queries, _ = blobs(seed=1)
    made = ImprintClassifier(
        generation, pre_norm=pre, post_norm=post, inference_norm=inference
    ).fit(x, y)
    flags = (pre == "l2", generation == "mean", post == "l2", inference == "l2")
    want = brute(x, y, queries, *flags)
    np.testing.assert_allclose(made.decision_function(queries), want, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(made.predict(queries), want.argmax(axis=1))


def test_kmeans_against_known_centres() -> None:
    x, y, centres = two_modes()
    made = ImprintClassifier("kmeans", 2).fit(x, y)
    assert made.head_.class_index.tolist() == [0, 0, 1, 1]
    for c, want in centres.items():
        want = want / np.linalg.norm(want, axis=1, keepdims=True)
        got = made.head_.proxies[made.head_.class_index == c]
        assert np.abs(got @ want.T).max(axis=0) == pytest.approx([1, 1], abs=1e-6)
    assert (made.predict(x) == y).all()


def test_several_proxies_beat_the_mean_where_classes_have_modes() -> None:
    data = load_digits()
    x, y = data.data + 1.0, data.target % 2  # odd against even: five modes a class
    scores = [
        cross_val_score(ImprintClassifier("kmeans", k), x, y, cv=3).mean() for k in (1, 20)
    ]
    assert scores[1] > scores[0] + 0.05


# Every choice arrives ----------------------------------------------------------------------

LINES = [
    *PRESETS.values(),
    *(f"l2 {name}:3 l2 l2 max" for name in GENERATIONS if name not in ("mean", "all")),
    "none all quantile none mnn:4:manhattan:distance",
    "whiten:0.3:size=4 kmeans:2 l2 l2 max:cosine",
    "none least_squares:2:ridge=0.5:balanced none none max",
    "l2 mean l2 l2 mnn:2:mahalanobis",
    "l2 kmeans:auto l2 l2 max:euclidean",
]


@pytest.mark.parametrize("line", LINES)
def test_every_field_of_a_recipe_reaches_the_head(line: str) -> None:
    x, y = blobs(n=60)
    made = ImprintClassifier.from_recipe(line, random_state=3)
    assert made.recipe == Recipe.parse(line)
    assert made.random_state == 3
    head = made.fit(x, y).head_
    names = [str(label) for label in range(3)]
    ks = made.proxies_.tolist() if made.recipe.proxies == "auto" else None
    want = imprint(ByClass(x, y), names, made.recipe, seed=3, ks=ks)
    assert head.recipe == want.recipe
    assert head.rule == want.rule == Recipe.parse(line).rule
    assert head.proxies.tobytes() == want.proxies.tobytes()
    for name in ("center", "transform", "metric"):
        given, found = getattr(want, name), getattr(head, name)
        assert (given is None) == (found is None)
        assert given is None or given.tobytes() == found.tobytes()
    assert made.proxies_.tolist() == np.bincount(head.class_index).tolist()
    assert head.backbone is None


def test_every_field_of_a_recipe_is_a_parameter() -> None:
    parameters = ImprintClassifier().get_params()
    assert set(parameters) == {field.name for field in fields(Recipe)} | {
        "shots",
        "random_state",
    }
    assert ImprintClassifier().recipe == Recipe()
    recipe = Recipe(generation="fps", proxies=2)
    assert ImprintClassifier.from_recipe(recipe, shots=4).get_params()["shots"] == 4
    with pytest.raises(ParameterError, match=r"^a recipe is a preset \(qi2018, "):
        ImprintClassifier.from_recipe("best")


# Parameters out of range -------------------------------------------------------------------

GENERATION = " or ".join(repr(name) for name in GENERATIONS)
DISTANCE = "'inner_product' or 'cosine' or 'euclidean' or 'manhattan' or 'mahalanobis'"
SHARE = "None, 'auto' or a number above 0 up to 1"
CHOICES = [
    ("generation", "x", GENERATION),
    ("pre_norm", "x", "'none' or 'l2' or 'whiten'"),
    ("post_norm", "L2", "'none' or 'l2' or 'quantile'"),
    ("inference_norm", None, "'none' or 'l2'"),
    ("aggregation", "x", "'max' or 'mnn'"),
    ("distance", "x", DISTANCE),
    ("weighting", 3, "'uniform' or 'distance'"),
    *(("proxies", bad, "an integer >= 1 or 'auto'") for bad in (0, -1, 2.0, True, None, "5")),
    *(("neighbors", bad, "an integer >= 1") for bad in (0, 1.5, True)),
    *(("random_state", bad, "an integer >= 0") for bad in (-1, None, 0.5)),
    *(("shots", bad, "None or an integer >= 1") for bad in (0, 2.5, True)),
    ("whiten_shrinkage", 0, SHARE),
    ("whiten_size", 0, "None or an integer >= 1"),
    ("ridge", 0, "a number above 0"),
    ("balanced", "yes", "True or False"),
]


@pytest.mark.parametrize(("name", "value", "rule"), CHOICES)
def test_a_parameter_out_of_range(name: str, value: object, rule: str) -> None:
    made = ImprintClassifier().fit(*blobs())
    head = made.head_
    made.set_params(**{name: value})
    for call in (made.check_parameters, lambda: made.fit(*blobs())):
        with pytest.raises(ParameterError) as caught:
            call()
        assert str(caught.value) == f"{name} must be {rule}, got {value!r}"
        assert isinstance(caught.value, ValueError)
    assert made.head_ is head


def test_every_parameter_has_a_refusal_here() -> None:
    assert {name for name, _, _ in CHOICES} == set(ImprintClassifier().get_params())


def test_parameters_that_contradict_each_other() -> None:
    for parameters, said in (
        ({"whiten_size": 3}, "whiten_size=3 needs pre_norm='whiten', got 'l2'"),
        (
            {"neighbors": 3},
            "neighbors must be 1 under aggregation='max', got 3; use aggregation='mnn'",
        ),
        (
            {"proxies": "auto", "post_norm": "quantile"},
            (
                "k can be chosen class by class under aggregation='max' and post_norm 'none' "
                "or 'l2', not in the recipe 'l2 kmeans:auto quantile l2 max'; "
                "give a number of proxies"
            ),
        ),
    ):
        with pytest.raises(ParameterError) as caught:
            ImprintClassifier(**parameters).fit(*blobs())
        assert str(caught.value) == said


def test_more_voters_than_proxies() -> None:
    with pytest.raises(ParameterError) as caught:
        ImprintClassifier("mean", aggregation="mnn", neighbors=4).fit(*blobs())
    assert str(caught.value) == "neighbors must be at most the 3 proxies of the head, got 4"


# Order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LINES)
def test_renumbering_the_classes_permutes_the_result(line: str) -> None:
    x, y = blobs(classes=4, n=80)
    queries, _ = blobs(classes=4, seed=1)
    names = np.array([2, 0, 3, 1])  # class c is now called names[c]
    plain = ImprintClassifier.from_recipe(line).fit(x, y)
    other = ImprintClassifier.from_recipe(line).fit(x, names[y])
    np.testing.assert_array_equal(other.predict(queries), names[plain.predict(queries)])
    scores, named = plain.decision_function(queries), other.decision_function(queries)
    scale = np.abs(scores).max()
    np.testing.assert_allclose(named[:, names], scores, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("line", LINES)
def test_order_of_samples_decides_nothing(line: str) -> None:
    x, y = blobs(n=100)
    order = np.random.default_rng(5).permutation(100)
    plain = ImprintClassifier.from_recipe(line, shots=9).fit(x, y)
    other = ImprintClassifier.from_recipe(line, shots=9).fit(x[order], y[order])
    assert plain.head_.proxies.tobytes() == other.head_.proxies.tobytes()
    assert plain.head_.recipe == other.head_.recipe
    np.testing.assert_array_equal(plain.decision_function(x), other.decision_function(x))
