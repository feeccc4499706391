# SPDX-License-Identifier: Apache-2.0
"""The head: what it is made of, what it refuses, and its numbers by hand."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.errors import (
    ContractValueError,
    EdgeImprintError,
    HeadValueError,
    InputError,
    LabelCountError,
    NotCalibratedError,
    ParameterError,
)

MakeHead = Callable[..., Head]


def test_scores_by_hand() -> None:
    head = Head(
        [[1, 0], [0.6, 0.8], [0, -1]],
        [0, 1, 1],
        ["right", "up or down"],
    )
    # 3-4-5 triangles: (3, 4) is (0.6, 0.8) after its norm; (-8, -6) is (-0.8, -0.6).
    np.testing.assert_allclose(
        head.scores([[3, 4], [-8, -6], [0.5, 0]]),
        [[0.6, 1.0], [-0.8, 0.6], [1.0, 0.6]],
        rtol=1e-6,
    )
    assert head.predict([[3, 4], [-8, -6], [0.5, 0]]).tolist() == [1, 1, 0]


def test_center_and_transform_by_hand() -> None:
    head = Head(
        [[1, 0, 0], [0, 1, 1]],
        [0, 1],
        ["a", "b"],
        Rule(embedding_norm="none"),
        center=[1, 1],
        transform=[[1, 0, 2], [0, 3, 0]],
    )
    # ((2, 4) - (1, 1)) @ transform = (1, 9, 2)
    assert head.embedding_size == 2
    assert head.scores([[2, 4]]).tolist() == [[1.0, 11.0]]


def test_equal_scores_go_to_the_lowest_index() -> None:
    head = Head([[0, 1], [1, 0], [1, 0], [0, 1]], [3, 1, 2, 0], list("abcd"))
    assert head.predict([[1, 0], [0, 1], [1, 1], [0, 0]]).tolist() == [1, 0, 0, 0]


def test_a_zero_embedding_scores_zero() -> None:
    head = Head([[1, 0], [0, 1]], [0, 1], ["a", "b"])
    assert head.scores([[0, 0]]).tolist() == [[0.0, 0.0]]


def test_an_embedding_near_zero_has_a_norm_down_to_epsilon() -> None:
    head = Head([[1, 0], [0, 1]], [0, 1], ["a", "b"])
    np.testing.assert_allclose(head.scores([[1e-9, 0], [0, 1e-15]]), [[1, 0], [0, 1e-3]])


def test_classes_may_come_in_any_order() -> None:
    proxies = np.eye(4, dtype=np.float32)
    mixed = Head(proxies[[3, 0, 2, 1]], [2, 0, 1, 1], list("abc"))
    in_order = Head(proxies[[0, 2, 1, 3]], [0, 1, 1, 2], list("abc"))
    assert mixed.class_index.tolist() == [0, 1, 1, 2]
    assert np.array_equal(mixed.proxies, in_order.proxies)


@pytest.mark.parametrize(
    ("embeddings", "reason"),
    [
        (np.zeros((2, 7)), r"shape \(N, 8\), got \(2, 7\)"),
        (np.zeros(8), r"shape \(N, 8\), got \(8,\)"),
        (np.zeros((1, 2, 8)), r"got \(1, 2, 8\)"),
        (np.zeros((1, 8), bool), "of bool"),
        (np.zeros((1, 8), complex), "of complex128"),
        ([["a"] * 8], "got"),
        ([[0.0] * 8, [math.nan] + [0.0] * 7], "embedding 1 holds NaN or infinity"),
        ([[math.inf] + [0.0] * 7], "embedding 0 holds NaN or infinity"),
        ([[1e300] + [0.0] * 7], "embedding 0 holds NaN or infinity"),  # in float32 it is
    ],
)
def test_embeddings_that_are_none(
    make_head: MakeHead, embeddings: npt.ArrayLike, reason: str
) -> None:
    head = make_head(3, 2, 8)
    for call in (head.scores, head.predict):
        with pytest.raises(InputError, match=reason):
            call(embeddings)


BAD_ARRAYS: list[tuple[str, object, type[EdgeImprintError]]] = [
    ("proxies", [[1.0, math.nan], [0, 1]], HeadValueError),
    ("proxies", [[1.0, math.inf], [0, 1]], HeadValueError),
    ("proxies", [[1.0, 1e300], [0, 1]], HeadValueError),
    ("proxies", [1.0, 2.0], HeadValueError),
    ("proxies", np.empty((0, 2)), HeadValueError),
    ("proxies", np.empty((2, 0)), HeadValueError),
    ("proxies", [["a", "b"], ["c", "d"]], HeadValueError),
    ("proxies", [[1j, 0], [0, 1]], HeadValueError),
    ("proxies", [[1, 0]], HeadValueError),
    ("class_index", [0], HeadValueError),
    ("class_index", [0, 1, 1], HeadValueError),
    ("class_index", [[0, 1]], HeadValueError),
    ("class_index", [0.0, 1.0], HeadValueError),
    ("class_index", [False, True], HeadValueError),
    ("class_index", [0, -1], LabelCountError),
    ("class_index", [0, 2], LabelCountError),
    ("class_index", [0, 0], LabelCountError),
    ("class_index", [1, 1], LabelCountError),
    ("class_index", np.array([0, 2**64 - 1], np.uint64), LabelCountError),
    ("labels", ["a"], LabelCountError),
    ("labels", ["a", "b", "c"], LabelCountError),
    ("labels", ["a", "a"], ContractValueError),
    ("labels", ["a", ""], ContractValueError),
    ("labels", [], ContractValueError),
    ("center", [0.0], HeadValueError),
    ("center", [0.0, math.nan], HeadValueError),
    ("center", [[0.0, 0.0]], HeadValueError),
    ("transform", [[1.0, 0.0]], HeadValueError),
    ("transform", [[1.0], [0.0]], HeadValueError),
    ("transform", [[math.inf, 0], [0, 1]], HeadValueError),
    ("transform", [1.0, 0.0], HeadValueError),
    ("metric", None, HeadValueError),
    ("metric", [[1.0, 0.0]], HeadValueError),
    ("metric", [1.0, 0.0], HeadValueError),
    ("metric", [[1.0, math.nan], [0, 1]], HeadValueError),
    ("rule", Rule(), HeadValueError),
    ("rule", Rule(distance="euclidean"), HeadValueError),
    ("rule", Rule("l2", "mnn", "mahalanobis", 3), ParameterError),
    ("threshold", None, HeadValueError),
    ("threshold", [0.0], HeadValueError),
    ("threshold", [[0.0, 0.0]], HeadValueError),
    ("threshold", [0.0, math.nan], HeadValueError),
    ("temperature", None, HeadValueError),
    ("temperature", 0.0, ContractValueError),
    ("temperature", -1.0, ContractValueError),
    ("temperature", math.nan, ContractValueError),
    ("temperature", math.inf, ContractValueError),
    ("temperature", "1", ContractValueError),
    ("labels", ["a", "unknown"], ContractValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_ARRAYS)
def test_arrays_that_contradict(
    name: str, value: object, error: type[EdgeImprintError]
) -> None:
    good = {"proxies": np.eye(2), "class_index": [0, 1], "labels": ["a", "b"]}
    good |= {"center": np.zeros(2), "transform": np.eye(2), "metric": np.eye(2)}
    good |= {"rule": Rule("l2", "mnn", "mahalanobis", 2)}
    good |= {"threshold": np.zeros(2), "temperature": np.float32(0.5)}
    Head(**good)
    with pytest.raises(error):
        Head(**good | {name: value})


def test_the_error_names_the_class_without_a_proxy() -> None:
    with pytest.raises(LabelCountError, match="3 labels, but class 1 has no proxy"):
        Head(np.eye(2), [0, 2], ["a", "b", "c"])


def test_the_sentences_of_what_contradicts_the_rule() -> None:
    def said(rule: Rule | None = None, **given: object) -> str:
        with pytest.raises(EdgeImprintError) as caught:
            Head(np.eye(2), [0, 1], ["a", "b"], rule, **given)
        return str(caught.value)

    mahalanobis = Rule(distance="mahalanobis")
    assert said(mahalanobis) == "distance='mahalanobis' needs metric, (2, F) numbers"
    assert said(mahalanobis, metric=np.eye(3)) == "metric must have 2 rows, got 3"
    assert said(metric=np.eye(2)) == (
        "metric belongs to distance='mahalanobis', the rule has 'inner_product'; leave it out"
    )
    assert said(Rule(aggregation="mnn", neighbors=3)) == (
        "neighbors must be at most the 2 proxies of the head, got 3"
    )
    both = "threshold and temperature belong together: both or neither"
    assert said(threshold=[0, 0]) == said(temperature=1.0) == both
    assert said(threshold=[0], temperature=1.0) == (
        "threshold must hold 2 numbers, one a class, got 1"
    )
    assert said(threshold=[0, 0], temperature=0) == (
        "temperature must be a number from 1e-12 to 1e+12, got 0.0"
    )


def test_a_calibrated_head_by_hand() -> None:
    head = Head(
        np.eye(2), [0, 1], ["a", "b"], threshold=[0.9, 0.7], temperature=0.5, recipe="given"
    )
    rows = [[3, 4], [4, 3], [1, 0], [0, 1]]
    assert head.predict(rows).tolist() == [1, 0, 0, 1]
    assert head.known(rows).tolist() == [True, False, True, True]
    assert head.known(rows).dtype == np.bool_
    a, b = math.exp(0.6 / 0.5), math.exp(0.8 / 0.5)
    probability = head.probability(rows)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability[0], [a / (a + b), b / (a + b)], rtol=1e-6)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)


def test_what_is_not_calibrated_says_so(make_head: MakeHead) -> None:
    for call in (make_head().known, make_head().probability):
        with pytest.raises(NotCalibratedError) as caught:
            call(np.zeros((1, 8)))
        assert str(caught.value) == (
            "the head is not calibrated, so that it has no probabilities and "
            "knows no unknown; build it with --calibrate"
        )


def test_a_head_does_not_change(make_head: MakeHead) -> None:
    head = make_head(3, 2, 8, center=True, transform=True)
    for name in ("proxies", "labels", "rule", "novelty"):
        with pytest.raises(AttributeError, match="does not change"):
            setattr(head, name, None)
    for array in (head.proxies, head.class_index, head.center, head.transform):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_head_keeps_its_own_copy() -> None:
    proxies, index, labels = np.eye(2, dtype=np.float32), np.arange(2), ["a", "b"]
    center, transform = np.zeros(2, np.float32), np.eye(2, dtype=np.float32)
    head = Head(proxies, index, labels, center=center, transform=transform)
    before = head.scores([[3, 4]])
    for array in (proxies, index, center, transform):
        array[...] = 7
    labels[0] = "z"
    assert np.array_equal(head.scores([[3, 4]]), before)
    assert head.labels == ("a", "b")


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))]
)
def test_a_copy_is_equal_and_as_immutable(
    make_head: MakeHead, duplicate: Callable[[Head], Head]
) -> None:
    head = make_head(
        3,
        2,
        8,
        center=True,
        transform=True,
        norm="none",
        distance="mahalanobis",
        calibrated=True,
    )
    same = duplicate(head)
    assert same.contract == head.contract
    rows = np.random.default_rng(0).standard_normal((4, 8))
    assert np.array_equal(same.scores(rows), head.scores(rows))
    assert np.array_equal(same.known(rows), head.known(rows))
    with pytest.raises(ValueError, match="read-only"):
        same.proxies[0, 0] = 1


def test_what_could_not_be_saved_is_refused_at_once() -> None:
    with pytest.raises(ContractValueError, match="recipe must be 1 to 4096 bytes"):
        Head([[1.0], [2.0]], [0, 1], ["a", "b"], recipe="")
    with pytest.raises(HeadValueError, match="proxies must be one array of numbers"):
        Head([[1.0], [2.0, 3.0]], [0, 1], ["a", "b"])  # type: ignore[list-item]
