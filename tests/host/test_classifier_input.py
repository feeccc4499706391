# SPDX-License-Identifier: Apache-2.0
"""What `ImprintClassifier` is given: labels and embeddings of any kind, and hard ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.exceptions import NotFittedError

from edge_imprint import ImprintClassifier
from edge_imprint.imprinting.recipe import PRESETS
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import (
    ContractValueError,
    EmbeddingError,
    InputError,
    ParameterError,
    TooFewClassesError,
    TooFewImagesError,
)

Array = npt.NDArray[Any]
LINES = [
    *PRESETS.values(),
    "l2 kmedoids:3 l2 l2 max",
    "l2 random:3 l2 l2 max",
    "l2 fps:3 l2 l2 max",
    "l2 cov_max:3 l2 l2 max",
    "l2 least_squares:3 l2 l2 max",
    "none all quantile none mnn:4:manhattan:distance",
    "whiten:0.3:size=4 kmeans:2 l2 l2 max:cosine",
    "l2 mean l2 l2 mnn:2:mahalanobis",
    "l2 kmeans:auto l2 l2 max:euclidean",
]


def blobs(classes: int = 3, n: int = 40, d: int = 8, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    x = rng.standard_normal((classes, d))[y] * 2 + rng.standard_normal((n, d))
    return x.astype(np.float32), y


# Labels ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("make", [list, lambda y: np.array(y, object), tuple])
def test_labels_of_mixed_types(make: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        ImprintClassifier().fit(blobs(n=4)[0], make([1, "a", 1, "a"]))
    assert str(caught.value) == (
        "labels must be all text or all numbers, got both ('a' and 1)"
    )


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


def test_two_classes_give_one_column_and_more_give_one_each() -> None:
    x, y = blobs(classes=2)
    two = ImprintClassifier().fit(x, y)
    scores = two.head_.scores(x)
    np.testing.assert_array_equal(two.decision_function(x), scores[:, 1] - scores[:, 0])
    np.testing.assert_array_equal(two.predict(x), (two.decision_function(x) > 0).astype(int))
    x, y = blobs(classes=5)
    assert ImprintClassifier().fit(x, y).decision_function(x).shape == (len(x), 5)


@pytest.mark.parametrize("classes", [2, 3])
def test_where_votes_are_equal_the_scores_say_what_predict_says(classes: int) -> None:
    x, y = blobs(classes, n=90, d=3)
    made = ImprintClassifier("all", aggregation="mnn", neighbors=2, distance="cosine")
    made.fit(x[:60], y[:60])
    votes, scores, label = (
        made.head_.scores(x),
        made.decision_function(x),
        made.head_.predict(x),
    )
    assert (np.sort(votes, axis=1)[:, -1] == np.sort(votes, axis=1)[:, -2]).any()
    said = scores.argmax(axis=1) if classes > 2 else (scores > 0).astype(int)
    np.testing.assert_array_equal(said, label)
    if classes > 2:
        np.testing.assert_allclose(scores, votes, rtol=1e-6)


# Embeddings --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_row_that_is_no_embedding_is_named(bad: float) -> None:
    x, y = blobs()
    made = ImprintClassifier().fit(x, y)
    wrong = x.astype(np.float64)
    wrong[3, 2] = bad
    what = "NaN" if np.isnan(bad) else "inf, or a number beyond float32's range"
    for call in (
        lambda: ImprintClassifier().fit(wrong, y),
        lambda: made.partial_fit(wrong, y),
        lambda: made.predict(wrong),
        lambda: made.decision_function(wrong),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            f"row 3 of the embeddings holds {what}; mend it or leave it out"
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.uint8])
def test_embeddings_of_any_type_are_taken_as_float32(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = (20 * rng.random((30, 6)) + 30 * np.eye(6)[np.arange(30) % 3]).astype(dtype)
    y = np.arange(30) % 3
    made, plain = (ImprintClassifier().fit(rows, y) for rows in (x, x.astype(np.float32)))
    assert made.head_.proxies.tobytes() == plain.head_.proxies.tobytes()
    np.testing.assert_array_equal(made.decision_function(x), plain.decision_function(x))


def test_large_and_small_embeddings() -> None:
    x, y = blobs(n=60)
    want = ImprintClassifier().fit(x, y).predict(x)
    for scale in (1e-9, 1e30):
        made = ImprintClassifier().fit(x * np.float32(scale), y)
        assert (made.predict(x) == want).mean() > 0.9


def one_sample_each() -> tuple[Array, Array]:
    return 3 * np.eye(4, 6, dtype=np.float32) + 1, np.arange(4)


def duplicates() -> tuple[Array, Array]:
    x, y = one_sample_each()
    return np.repeat(x, 7, axis=0), np.repeat(y, 7)


def constant_features() -> tuple[Array, Array]:
    x, y = blobs(n=60)
    x[:, 3:6] = [0, 2, -7]
    return x, y


def a_zero_row() -> tuple[Array, Array]:
    x, y = blobs(n=60)
    x[[5, 6]] = 0
    return x, y


HARD = {
    "one sample each": one_sample_each,
    "duplicates": duplicates,
    "constant features": constant_features,
    "a zero row": a_zero_row,
    "more numbers than samples": lambda: blobs(n=12, d=200),
    "one number": lambda: (np.array([[1.0], [2], [-1], [-3]]), np.array([0, 0, 1, 1])),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("line", LINES)
def test_hard_samples_give_a_sound_head(line: str, name: str) -> None:
    x, y = HARD[name]()
    made = ImprintClassifier.from_recipe(line)
    try:
        head: Head = made.fit(x, y).head_
    except TooFewImagesError as error:  # k can't be chosen where nothing can be held out
        assert made.recipe.proxies == "auto"
        assert len(np.unique(x, axis=0)) == len(np.unique(y))
        assert str(error).startswith("k can be chosen only where a class has two different")
        return
    except ParameterError as error:
        assert made.recipe.neighbors > len(np.unique(x, axis=0))
        assert str(error).startswith("neighbors must be at most the ")
        return
    assert np.isfinite(head.proxies).all()
    assert np.isfinite(made.decision_function(x)).all()
    counts = [len(np.unique(x[y == c], axis=0)) for c in np.unique(y)]
    if made.recipe.makes_k and made.recipe.proxies != "auto":
        assert (made.proxies_ <= np.minimum(made.recipe.k, counts)).all()
    if name in ("one sample each", "duplicates"):
        assert made.proxies_.tolist() == [1] * 4
        assert (made.predict(x) == y).all()


def test_zero_embeddings_under_least_squares() -> None:
    with pytest.raises(EmbeddingError, match=r"^all embeddings are zero"):
        ImprintClassifier.from_recipe("least-squares").fit(np.zeros((4, 3)), [0, 1, 0, 1])
    assert ImprintClassifier().fit(np.zeros((4, 3)), [0, 1, 0, 1]).predict([[1, 2, 3]]) == 0


def test_before_fit() -> None:
    made = ImprintClassifier()
    for call in (made.predict, made.decision_function, lambda x: made.forget(0)):
        with pytest.raises(NotFittedError):
            call(blobs()[0])
