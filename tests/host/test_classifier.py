# SPDX-License-Identifier: Apache-2.0
"""`ImprintClassifier` against a brute force, its refusals, and scikit-learn's manners."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from edge_imprint import ImprintClassifier
from edge_imprint_runtime.errors import (
    ContractValueError,
    ParameterError,
    TooFewClassesError,
    UnsupportedOptionError,
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


GENERATIONS = "'mean' or 'kmeans' or 'random' or 'all'"
DISTANCES = "'inner_product'"
CHOICES = [
    ("generation", "x", GENERATIONS),
    ("pre_norm", "x", "'none' or 'l2'"),
    ("post_norm", "L2", "'none' or 'l2'"),
    ("inference_norm", None, "'none' or 'l2'"),
    ("aggregation", "x", "'max'"),
    ("distance", "x", DISTANCES),
    ("weighting", 3, "'uniform'"),
    ("proxies", 0, "an integer >= 1"),
    ("proxies", -1, "an integer >= 1"),
    ("proxies", 2.0, "an integer >= 1"),
    ("proxies", True, "an integer >= 1"),
    ("proxies", None, "an integer >= 1"),
    ("proxies", "auto", "an integer >= 1"),
    ("neighbors", 0, "an integer >= 1"),
    ("neighbors", 1.5, "an integer >= 1"),
    ("neighbors", True, "an integer >= 1"),
    ("random_state", -1, "an integer >= 0"),
    ("random_state", None, "an integer >= 0"),
    ("random_state", 0.5, "an integer >= 0"),
]


@pytest.mark.parametrize(("name", "value", "rule"), CHOICES)
def test_a_parameter_out_of_range(name: str, value: object, rule: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ImprintClassifier(**{name: value}).fit(*blobs())
    assert str(caught.value) == f"{name} must be {rule}, got {value!r}"
    assert isinstance(caught.value, ValueError)


LATER = [
    *(
        ("generation", value, "'mean' or 'kmeans' or 'random' or 'all'")
        for value in ("kmedoids", "fps", "cov_max", "least_squares")
    ),
    ("pre_norm", "whiten", "'none' or 'l2'"),
    ("post_norm", "quantile", "'none' or 'l2'"),
    ("aggregation", "mnn", "'max'"),
    *(
        ("distance", value, "'inner_product'")
        for value in ("cosine", "euclidean", "manhattan", "mahalanobis")
    ),
    ("neighbors", 3, "1"),
    ("weighting", "distance", "'uniform'"),
    ("shots", 5, "None"),
]


@pytest.mark.parametrize(("name", "value", "instead"), LATER)
def test_what_is_not_in_this_release(name: str, value: object, instead: str) -> None:
    with pytest.raises(UnsupportedOptionError) as caught:
        ImprintClassifier(**{name: value}).fit(*blobs())
    assert str(caught.value) == (
        f"{name}={value!r} is not available in this release; use {instead}"
    )
    assert caught.value.exit_code == 2


def test_every_parameter_has_a_refusal_here() -> None:
    tested = {name for name, _, _ in CHOICES} | {name for name, _, _ in LATER}
    assert tested == set(ImprintClassifier().get_params())


@pytest.mark.parametrize("generation", ["mean", "kmeans", "random", "all"])
def test_renumbering_the_classes_permutes_the_result(generation: str) -> None:
    x, y = blobs(classes=4, n=80)
    queries, _ = blobs(classes=4, seed=1)
    names = np.array([2, 0, 3, 1])  # class c is now called names[c]
    plain = ImprintClassifier(generation, 3).fit(x, y)
    other = ImprintClassifier(generation, 3).fit(x, names[y])
    np.testing.assert_allclose(
        other.decision_function(queries)[:, names],
        plain.decision_function(queries),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_array_equal(other.predict(queries), names[plain.predict(queries)])


@pytest.mark.parametrize("generation", ["mean", "kmeans", "random", "all"])
def test_order_of_samples_decides_nothing(generation: str) -> None:
    x, y = blobs(n=100)
    order = np.random.default_rng(5).permutation(100)
    plain = ImprintClassifier(generation, 4).fit(x, y)
    other = ImprintClassifier(generation, 4).fit(x[order], y[order])
    assert plain.head_.proxies.tobytes() == other.head_.proxies.tobytes()


@pytest.mark.parametrize(
    ("y", "classes", "labels"),
    [
        (["b", "a", "b", "c"], ["a", "b", "c"], ("a", "b", "c")),
        ([10, -3, 10, 7], [-3, 7, 10], ("-3", "7", "10")),
        ([True, False, True, False], [False, True], ("False", "True")),
        (["ö", "ü ä", "ö", "日本"], ["ö", "ü ä", "日本"], ("ö", "ü ä", "日本")),
    ],
)
def test_labels_of_any_kind(y: list[object], classes: list[object], labels: object) -> None:
    x, _ = blobs(n=4)
    made = ImprintClassifier("all").fit(x, y)
    assert made.classes_.tolist() == classes
    assert made.head_.labels == labels
    assert made.predict(x).tolist() == y
    assert made.predict(x).dtype == np.asarray(y).dtype


@pytest.mark.parametrize("label", ["a", 3])
def test_one_class(label: object) -> None:
    with pytest.raises(TooFewClassesError) as caught:
        ImprintClassifier().fit(blobs(n=5)[0], [label] * 5)
    assert str(caught.value) == (
        f"a classifier needs at least two classes, got one class: {str(label)!r}"
    )


def test_an_empty_label() -> None:
    with pytest.raises(ContractValueError, match=r"^label '' must be 1 to 1024 bytes"):
        ImprintClassifier().fit(blobs(n=4)[0], ["", "a", "", "a"])


@pytest.mark.parametrize(
    ("parameters", "recipe"),
    [
        ({}, "l2 kmeans:20 l2 l2 max"),
        ({"generation": "random", "proxies": 3}, "l2 random:3 l2 l2 max"),
        ({"generation": "mean", "pre_norm": "none"}, "none mean l2 l2 max"),
        ({"generation": "all", "inference_norm": "none"}, "l2 all l2 none max"),
    ],
)
def test_the_head_knows_its_recipe(parameters: dict[str, Any], recipe: str) -> None:
    made = ImprintClassifier(**parameters).fit(*blobs())
    assert made.head_.recipe == recipe
    assert made.head_.rule.embedding_norm == parameters.get("inference_norm", "l2")
    assert made.head_.backbone is None


def test_two_classes_give_one_column_and_more_give_one_each() -> None:
    x, y = blobs(classes=2)
    two = ImprintClassifier().fit(x, y)
    scores = two.head_.scores(x)
    np.testing.assert_array_equal(two.decision_function(x), scores[:, 1] - scores[:, 0])
    np.testing.assert_array_equal(two.predict(x), (two.decision_function(x) > 0).astype(int))
    x, y = blobs(classes=5)
    assert ImprintClassifier().fit(x, y).decision_function(x).shape == (len(x), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    x, y = blobs()
    made = ImprintClassifier().fit(x, y)
    x[3, 2] = bad
    with pytest.raises(ValueError, match=r"X contains (NaN|infinity)"):
        ImprintClassifier().fit(x, y)
    with pytest.raises(ValueError, match=r"X contains (NaN|infinity)"):
        made.predict(x)


def test_before_fit() -> None:
    for call in (ImprintClassifier().predict, ImprintClassifier().decision_function):
        with pytest.raises(NotFittedError):
            call(blobs()[0])


def test_clone_parameters_and_copies() -> None:
    made = ImprintClassifier("random", 7, random_state=3).fit(*blobs())
    fresh = clone(made)
    assert fresh.get_params() == made.get_params()
    assert not hasattr(fresh, "head_")
    fresh.set_params(proxies=2)
    assert fresh.fit(*blobs()).head_.recipe == "l2 random:2 l2 l2 max"
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert twin.head_.proxies.tobytes() == made.head_.proxies.tobytes()
        assert not twin.head_.proxies.flags.writeable
        assert (twin.head_.labels, twin.head_.rule) == (made.head_.labels, made.head_.rule)


def test_in_a_pipeline_and_cross_validation() -> None:
    data = load_digits()
    pipe = make_pipeline(MinMaxScaler(), ImprintClassifier(proxies=5))
    assert cross_val_score(pipe, data.data, data.target, cv=3).min() > 0.9


@parametrize_with_checks([ImprintClassifier(proxies=3)])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)
