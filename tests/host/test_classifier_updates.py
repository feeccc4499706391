# SPDX-License-Identifier: Apache-2.0
"""What comes later, goes, weighs or is drawn: it ends as `fit` on all that is left."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint import ImprintClassifier
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import (
    InputError,
    ParameterError,
    TooFewClassesError,
)

Array = npt.NDArray[Any]
LINES = [
    "imprint",
    "whitened",
    "least-squares",
    "hosoda2024",
    "none least_squares:2:balanced l2 l2 max",
    "l2 random:3 l2 l2 max",
    "l2 kmedoids:3 l2 l2 mnn:3:cosine",
    "l2 mean l2 l2 max:mahalanobis",
    "l2 kmeans:auto l2 l2 max",
]
WEIGHTED = ["imprint", "qi2018", "whitened", "least-squares", "l2 kmeans:auto l2 l2 max"]


def samples(n: int = 90, classes: int = 4, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = 1.5 * rng.standard_normal((classes, 6))[y] + rng.standard_normal((n, 6))
    return x.astype(np.float32), np.array(["ant", "bee", "cat", "dog"])[y]


def arrays(head: Head) -> list[bytes | None]:
    names = ("proxies", "class_index", "center", "transform", "metric")
    return [None if (a := getattr(head, name)) is None else a.tobytes() for name in names]


def assert_same(one: ImprintClassifier, other: ImprintClassifier) -> None:
    assert arrays(one.head_) == arrays(other.head_)
    assert one.head_.contract == other.head_.contract
    assert one.classes_.tolist() == other.classes_.tolist()
    assert one.proxies_.tolist() == other.proxies_.tolist()


# partial_fit -------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LINES)
def test_in_parts_and_in_any_order_it_is_the_same_head(line: str) -> None:
    x, y = samples()
    whole = ImprintClassifier.from_recipe(line, random_state=2).fit(x, y)
    rng = np.random.default_rng(1)
    for _ in range(3):
        order = rng.permutation(len(x))
        parts = np.split(order, [20, *np.sort(rng.integers(20, len(x), 2))])
        made = ImprintClassifier.from_recipe(line, random_state=2)
        for part in parts:
            if len(part):
                made.partial_fit(x[part], y[part])
        assert_same(made, whole)
        first, second = order[:60], order[60:]
        made.fit(x[first], y[first]).partial_fit(x[second], y[second])
        assert_same(made, whole)


@pytest.mark.parametrize("line", LINES)
def test_classes_that_come_one_by_one(line: str) -> None:
    x, y = samples()
    made = ImprintClassifier.from_recipe(line)
    for label in ("dog", "ant", "cat", "bee"):
        made.partial_fit(x[y == label], y[y == label], classes=["ant", "bee", "cat", "dog"])
    assert made.classes_.tolist() == ["ant", "bee", "cat", "dog"]
    assert_same(made, ImprintClassifier.from_recipe(line).fit(x, y))


def test_only_the_classes_given_are_made_anew() -> None:
    x, y = samples()
    made = ImprintClassifier().fit(x, y)
    before = dict(made._made)
    made.partial_fit(x[y == "bee"][:3] + 1, y[y == "bee"][:3])
    assert made._made["bee"] is not before["bee"]
    assert all(made._made[label] is before[label] for label in ("ant", "cat", "dog"))
    made.partial_fit(x[:5], ["eel"] * 5).forget("ant")
    assert all(made._made[label] is before[label] for label in ("cat", "dog"))
    assert sorted(made._made) == ["bee", "cat", "dog", "eel"]


@pytest.mark.parametrize(
    "change", [{"proxies": 2}, {"pre_norm": "none"}, {"shots": 4}, {"random_state": 9}]
)
def test_parameters_that_change_in_between(change: dict[str, Any]) -> None:
    x, y = samples()
    made = ImprintClassifier("random", 5).fit(x[:60], y[:60])
    made.set_params(**change).partial_fit(x[60:], y[60:])
    assert_same(made, ImprintClassifier("random", 5).set_params(**change).fit(x, y))
    made.set_params(generation="mean").forget("bee")
    rest = y != "bee"
    want = ImprintClassifier("mean").set_params(**change).fit(x[rest], y[rest])
    np.testing.assert_array_equal(made.head_.proxies, want.head_.proxies)


def test_one_class_alone_is_a_start() -> None:
    x, y = samples()
    made = ImprintClassifier().partial_fit(x[y == "ant"], y[y == "ant"])
    assert set(made.predict(x)) == {"ant"}
    assert made.decision_function(x).shape == (90, 1)
    assert set(made.partial_fit(x, y).predict(x)) == set(y)


def test_a_refused_part_changes_nothing() -> None:
    x, y = samples()
    made = ImprintClassifier(aggregation="mnn", neighbors=3).fit(x, y)
    head = made.head_
    broken = x[:4].copy()
    broken[2, 0] = np.nan
    with pytest.raises(InputError, match=r"^row 2 of the embeddings holds NaN"):
        made.partial_fit(broken, y[:4])
    with pytest.raises(ParameterError) as caught:
        made.partial_fit(x[:4], [1, 2, 1, 2])
    assert str(caught.value) == (
        "the new labels are int64, those before <U3; give labels of one type"
    )
    with pytest.raises(ValueError, match=r"X has 5 features, but ImprintClassifier is expect"):
        made.partial_fit(x[:, :5], y)
    made.set_params(neighbors=999)
    with pytest.raises(ParameterError, match=r"^neighbors must be at most the \d+ proxies"):
        made.partial_fit(x[:4], y[:4])
    assert made.head_ is head
    made.set_params(neighbors=3).partial_fit(x[:1], y[:1])
    again = ImprintClassifier(aggregation="mnn", neighbors=3)
    assert_same(made, again.fit(np.r_[x, x[:1]], np.r_[y, y[:1]]))


def test_longer_names_and_other_numbers() -> None:
    x, y = samples()
    made = ImprintClassifier("mean").fit(x, y).partial_fit(x[:3], ["elephant"] * 3)
    assert made.classes_.tolist() == ["ant", "bee", "cat", "dog", "elephant"]
    numbers = ImprintClassifier("mean").fit(x[:4], np.array([1, 2, 1, 2], np.int8))
    numbers.partial_fit(x[:2], [70_000, 70_000])
    assert numbers.head_.labels == ("1", "2", "70000")


# forget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LINES)
def test_forgotten_is_never_given(line: str) -> None:
    x, y = samples()
    made = ImprintClassifier.from_recipe(line).fit(x, y).forget("cat")
    rest = y != "cat"
    assert_same(made, ImprintClassifier.from_recipe(line).fit(x[rest], y[rest]))
    made.partial_fit(x[~rest], y[~rest])
    assert_same(made, ImprintClassifier.from_recipe(line).fit(x, y))


def test_forget_what_is_not_there() -> None:
    x, y = samples()
    made = ImprintClassifier("mean").fit(x, y)
    for label in ("eel", 1, None, "Ant"):
        with pytest.raises(ParameterError) as caught:
            made.forget(label)
        assert str(caught.value) == (
            f"there is no class {label!r} to forget; there are: 'ant', 'bee', 'cat', 'dog'"
        )
    made.forget("ant").forget("bee")
    head = made.head_
    with pytest.raises(TooFewClassesError) as few:
        made.forget("cat")
    assert str(few.value) == (
        "a classifier needs at least two classes; without 'cat' one is left"
    )
    assert made.head_ is head


@pytest.mark.parametrize("label", [7, np.int64(7), 7.0])
def test_forget_a_number(label: object) -> None:
    x, _ = samples()
    made = ImprintClassifier("mean").fit(x[:6], [5, 6, 7, 5, 6, 7]).forget(label)
    assert made.classes_.tolist() == [5, 6]


# sample_weight -----------------------------------------------------------------------------


@pytest.mark.parametrize("line", WEIGHTED)
def test_0_is_not_given_and_2_is_given_twice(line: str) -> None:
    x, y = samples()
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 4, len(x))
    made = ImprintClassifier.from_recipe(line).fit(x, y, weights)
    order = rng.permutation(weights.sum())
    again = np.repeat(x, weights, axis=0)[order], np.repeat(y, weights)[order]
    assert_same(made, ImprintClassifier.from_recipe(line).fit(*again))
    there = weights > 0
    parts = ImprintClassifier.from_recipe(line)
    parts.partial_fit(x[:50], y[:50], sample_weight=weights[:50])
    parts.partial_fit(x[50:], y[50:], sample_weight=weights[50:])
    assert_same(parts, made)
    only = ImprintClassifier.from_recipe(line).fit(x[there], y[there], weights[there])
    assert_same(only, made)
    ones = ImprintClassifier.from_recipe(line).fit(x, y, np.ones(len(x)))
    assert_same(ones, ImprintClassifier.from_recipe(line).fit(x, y))


def test_a_weight_draws_the_mean() -> None:
    x, y = np.array([[1.0, 0], [0, 1], [1, 1]]), [0, 0, 1]
    made = ImprintClassifier("mean", pre_norm="none", post_norm="none")
    made.fit(x, y, [1, 3, 0.5])
    np.testing.assert_allclose(made.head_.proxies, [[0.25, 0.75], [1, 1]])


def test_a_class_of_weight_zero_is_no_class() -> None:
    x, y = samples()
    made = ImprintClassifier().fit(x, y, y != "cat")
    assert made.classes_.tolist() == ["ant", "bee", "dog"]
    with pytest.raises(TooFewClassesError, match=r"got one class: 'bee'$"):
        ImprintClassifier().fit(x, y, y == "bee")


@pytest.mark.parametrize("generation", ["random", "fps", "kmedoids", "cov_max", "all"])
def test_generations_that_take_samples_as_they_are(generation: str) -> None:
    x, y = samples()
    for call in (ImprintClassifier(generation).fit, ImprintClassifier(generation).partial_fit):
        with pytest.raises(ParameterError) as caught:
            call(x, y, sample_weight=np.ones(len(x)))
        assert str(caught.value) == (
            f"generation={generation!r} takes samples as they are and has no use for "
            "sample_weight; give none, or use 'kmeans'"
        )


def test_weights_that_are_none() -> None:
    x, y = samples()
    # Newer releases of scikit-learn refuse it themselves.
    with pytest.raises(ValueError, match=r"is zero for every sample|at least one non-zero"):
        ImprintClassifier().fit(x, y, np.zeros(len(x)))
    for bad in (np.full(90, -1.0), np.full(90, np.nan), np.full(90, np.inf), np.ones(89)):
        with pytest.raises(ValueError, match=r"sample_weight|Sample weights|Negative values"):
            ImprintClassifier().fit(x, y, bad)


# shots -------------------------------------------------------------------------------------


def test_shots_are_drawn_of_each_class_by_the_seed() -> None:
    x, y = samples()
    made = ImprintClassifier("all", pre_norm="none", post_norm="none", shots=5).fit(x, y)
    assert made.proxies_.tolist() == [5] * 4
    given = {row.tobytes() for row in x}
    assert all(row.tobytes() in given for row in made.head_.proxies)
    order = np.random.default_rng(0).permutation(len(x))
    other = ImprintClassifier("all", pre_norm="none", post_norm="none", shots=5)
    assert_same(made, other.fit(x[order], y[order]))
    seeds = [
        ImprintClassifier("all", shots=5, random_state=s).fit(x, y).head_.proxies.tobytes()
        for s in range(4)
    ]
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("line", LINES)
def test_more_shots_than_samples_are_all_of_them(line: str) -> None:
    x, y = samples()
    made = ImprintClassifier.from_recipe(line, shots=10**6).fit(x, y)
    assert_same(made, ImprintClassifier.from_recipe(line).fit(x, y))


def test_all_generations_see_the_same_shots() -> None:
    x, y = samples()
    drawn = ImprintClassifier("all", pre_norm="none", post_norm="none", shots=7).fit(x, y)
    means = ImprintClassifier("mean", pre_norm="none", post_norm="none", shots=7).fit(x, y)
    for c in range(4):
        rows = drawn.head_.proxies[drawn.head_.class_index == c]
        np.testing.assert_allclose(means.head_.proxies[c], rows.mean(axis=0), atol=1e-5)
    for generation in ("random", "fps", "kmedoids", "cov_max"):
        few = ImprintClassifier(generation, 3, pre_norm="none", post_norm="none", shots=7)
        chosen = {row.tobytes() for row in few.fit(x, y).head_.proxies}
        assert chosen <= {row.tobytes() for row in drawn.head_.proxies}


# Copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_copies_are_whole(twin: Any) -> None:
    x, y = samples()
    for line in LINES:
        made = ImprintClassifier.from_recipe(line).fit(x[:60], y[:60])
        other = twin(made)
        assert_same(other, made)
        assert not other.head_.proxies.flags.writeable
        other.partial_fit(x[60:], y[60:])
        assert_same(other, ImprintClassifier.from_recipe(line).fit(x, y))
        assert_same(made, ImprintClassifier.from_recipe(line).fit(x[:60], y[:60]))
