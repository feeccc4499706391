# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` reports is what independent code finds on the same folds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_imprint import ImprintClassifier
from edge_imprint.evaluation.evaluate import evaluate
from edge_imprint.evaluation.result import RULE, Evaluation, as_json
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import calibrate, left_out
from edge_imprint.judging.crossval import held_out
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import (
    EmbeddingError,
    InputError,
    ParameterError,
    TooFewClassesError,
    TooFewImagesError,
)

DIGITS = load_digits()
ROWS = DIGITS.data[:300].astype(np.float32)
INDEX = DIGITS.target[:300]
LABELS = tuple("0123456789")


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def found(steps: list[tuple[str, int, int]]) -> Evaluation:
    return evaluate(
        ROWS, INDEX, LABELS, progress=lambda step, n, of: steps.append((step, n, of))
    )


def accuracy(found: Evaluation, name: str) -> float:
    (row,) = [row for row in found.rows if row.name == name]
    assert row.accuracy is not None
    return row.accuracy


def folds() -> Folds:
    return Folds(ByClass(ROWS, INDEX))


def test_every_way_is_there(found: Evaluation) -> None:
    ks = (1, 2, 5, 10, 20)  # 50 is above the largest class
    assert [row.name for row in found.rows] == [
        "qi2018",
        "hosoda2024",
        "janson2022",
        *(f"imprint, k = {k}" for k in ks),
        "imprint, auto",
        *(f"whitened, k = {k}" for k in ks),
        "whitened, auto",
        "least-squares",
        "logistic regression",
    ]
    for row in found.rows:
        assert row.failed is None
        assert row.low is not None
        assert row.high is not None
        assert row.accuracy is not None
        assert row.make_s is not None
        assert row.head_bytes is not None
        assert 0 <= row.low <= row.accuracy <= row.high <= 1
        assert row.make_s > 0
        assert row.head_bytes > 0
    notes = {row.name: row.note for row in found.rows if row.note}
    assert notes == {
        "least-squares": "oracle: sees all classes",
        "logistic regression": "trained; sees all classes",
    }


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("qi2018", "qi2018"),
        ("hosoda2024", "hosoda2024"),
        ("janson2022", "janson2022"),
        ("imprint, k = 5", "l2 kmeans:5 l2 l2 max"),
        ("whitened, k = 20", "whitened"),
        ("whitened, k = 2", "whiten:auto kmeans:2 l2 l2 max"),
        ("least-squares", "least-squares"),
    ],
)
def test_accuracy_is_that_of_the_recipe(found: Evaluation, name: str, recipe: str) -> None:
    # The whitened embeddings are shared between ways here, and made anew there.
    answers = held_out(folds(), Recipe.parse(recipe))
    assert accuracy(found, name) == pytest.approx(answers.right.mean(), abs=1 / 300)


def test_auto_chooses_within_each_training_part(found: Evaluation) -> None:
    split, right = folds(), []
    for fold in range(split.count):
        parts = [split.training(fold)[c][0] for c in range(10)]
        model = ImprintClassifier("kmeans", "auto")
        model.fit(np.concatenate(parts), np.repeat(np.arange(10), [len(p) for p in parts]))
        right += [
            answer == c
            for c in range(10)
            for answer in model.predict(split.held_out(fold)[c][0])
        ]
    assert accuracy(found, "imprint, auto") == np.mean(right)


def test_logistic_regression_is_scikit_learns(found: Evaluation) -> None:
    split, right = folds(), []
    for fold in range(split.count):
        parts = [split.training(fold)[c][0] for c in range(10)]
        truth = np.repeat(np.arange(10), [len(p) for p in parts])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        model.fit(np.concatenate(parts), truth)
        right += [
            answer == c
            for c in range(10)
            for answer in model.predict(split.held_out(fold)[c][0])
        ]
    assert accuracy(found, "logistic regression") == np.mean(right)


def test_head_bytes_are_those_of_the_file(found: Evaluation, tmp_path: Any) -> None:
    head = ImprintClassifier.from_recipe("imprint").fit(ROWS, INDEX).head_
    row = next(row for row in found.rows if row.name == "imprint, k = 20")
    assert row.head_bytes == head.save(tmp_path / "head").stat().st_size
    assert row.proxies == len(head.proxies)


def test_confusion_recall_and_answers_agree(found: Evaluation) -> None:
    kept = found.answers
    assert np.array_equal(kept.row, np.arange(300))  # each once, in the order given
    assert np.array_equal(kept.truth, INDEX)
    confusion = np.zeros((10, 10), int)
    for truth, label in zip(kept.truth, kept.label, strict=True):
        confusion[truth, label] += 1
    assert np.array_equal(found.confusion, confusion)
    best = found.recommended
    assert best.accuracy == np.trace(confusion) / 300
    assert best.balanced_accuracy == pytest.approx(np.mean(found.recall))  # type: ignore[type-var]
    wrong = kept.own < kept.best_other
    assert np.array_equal(wrong, kept.label != kept.truth)


def test_the_recommendation_follows_its_rule(found: Evaluation) -> None:
    tried = [row for row in found.rows if row.kind != "comparison"]
    top = max(row.accuracy or 0 for row in tried)
    best = found.recommended
    assert best.kind != "comparison"
    assert best.recipe == found.recommendation.recipe
    assert Recipe.parse(best.recipe)
    assert found.recommendation.rule == RULE
    # A standard error of paired differences is below that of two separate shares.
    assert top - (best.accuracy or 0) <= math.sqrt(2 * 0.25 / 300)
    simpler = [row for row in tried if (row.proxies or 0) < (best.proxies or 0)]
    assert all((row.accuracy or 0) < top for row in simpler)


def test_unknowns_by_hand(found: Evaluation) -> None:
    held = held_out(folds(), Recipe.parse("imprint"))
    calibration = calibrate(held)
    areas = [pair[1] for pair in left_out(held, calibration.threshold) if pair is not None]
    for c in (0, 3, 8):
        left = [other for other in range(10) if other != c]
        scores = []
        for row in held.nearest:
            nearest = max(left, key=lambda other: row[other])
            scores.append(row[nearest] - calibration.threshold[nearest])
        expected = roc_auc_score(held.truth != c, scores)
        assert areas[c] == pytest.approx(expected)
    assert calibration.auroc == pytest.approx(np.mean(areas))  # type: ignore[arg-type]
    assert found.calibration.auroc == pytest.approx(np.mean(found.unknown_auroc))  # type: ignore[arg-type]


def test_more_images_help_digits(found: Evaluation) -> None:
    points = {(point.name, point.n): point for point in found.shots}
    assert {n for _, n in points} == {1, 2, 5, 10, 20, 26}
    assert {name for name, _ in points} == {"qi2018", "imprint", "whitened"}
    for name in ("qi2018", "imprint", "whitened"):
        assert points[name, 1].accuracy < points[name, 10].accuracy
    for name, row in (("qi2018", "qi2018"), ("imprint", "imprint, k = 20")):
        assert points[name, 26].accuracy == accuracy(found, row)
    # With one image a class the mean is the image, and so is k-means.
    assert points["qi2018", 1].accuracy == points["imprint", 1].accuracy
    assert found.more_photos.startswith("From 10 to 26 images a class ")


def test_maps_show_every_class(found: Evaluation) -> None:
    for shown in found.maps:
        assert shown.points.shape == (300, 2)
        assert set(shown.proxy_class) == set(range(10))
        assert len(shown.proxies) == len(shown.proxy_class)
        assert 0 < shown.explained < 1
        assert np.allclose(shown.points.mean(axis=0), 0, atol=1e-6)
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    variance = np.linalg.svd(unit - unit.mean(axis=0))[1] ** 2
    assert found.maps[0].explained == pytest.approx(variance[:2].sum() / variance.sum())


def test_the_order_of_the_rows_changes_nothing(found: Evaluation) -> None:
    order = np.random.default_rng(1).permutation(300)
    other = evaluate(ROWS[order], INDEX[order], LABELS)
    assert [row.accuracy for row in other.rows] == [row.accuracy for row in found.rows]
    assert other.recommendation == found.recommendation
    assert np.array_equal(other.confusion, found.confusion)


def test_progress_never_goes_back(
    found: Evaluation, steps: list[tuple[str, int, int]]
) -> None:
    assert list(dict.fromkeys(step for step, _, _ in steps)) == [
        "cross-validating",
        "making the heads",
        "with fewer photos",
        "looking closer",
    ]
    for name in ("cross-validating", "making the heads", "with fewer photos"):
        done = [(n, of) for step, n, of in steps if step == name]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


def test_json_is_plain_and_of_a_stable_form(found: Evaluation) -> None:
    shown = json.loads(json.dumps(as_json(found, ["run this"]), allow_nan=False))
    assert shown["schema"] == "edge-imprint.evaluate/1"
    assert set(shown) == {
        "schema",
        "images",
        "images_by_class",
        "held_out",
        "embedding_size",
        "folds",
        "seed",
        "interval",
        "rows",
        "recommendation",
        "per_class",
        "confusion",
        "collapse",
        "shots",
        "more_photos",
        "unknown",
        "suspects_total",
        "suspects",
        "duplicates_total",
        "duplicates",
        "evaluate_s",
    }
    assert set(shown["rows"][0]) == {
        "name",
        "kind",
        "family",
        "k",
        "recipe",
        "note",
        "failed",
        "accuracy",
        "low",
        "high",
        "balanced_accuracy",
        "make_s",
        "head_bytes",
        "proxies",
    }
    assert set(shown["recommendation"]) == {
        "row",
        "recipe",
        "rule",
        "reason",
        "warnings",
        "commands",
    }
    assert shown["recommendation"]["commands"] == ["run this"]
    assert shown["confusion"] == found.confusion.tolist()


@pytest.mark.parametrize(
    ("rows", "index", "labels", "options", "error", "message"),
    [
        (
            np.zeros(3),
            [0, 1, 1],
            "ab",
            {},
            InputError,
            "embeddings must be (N, D) real numbers, N and D at least 1, got (3,) of float64",
        ),
        (
            np.ones((3, 2)),
            [0, 1],
            "ab",
            {},
            InputError,
            "class_index must be 3 integers, one an embedding, got shape (2,) of int64",
        ),
        (
            np.ones((3, 2)),
            [0, 1, 2],
            "ab",
            {},
            InputError,
            "class_index must be from 0 to 1, positions in labels, got 0 to 2",
        ),
        (
            np.ones((3, 2)),
            [0, 0, 2],
            "abc",
            {},
            InputError,
            "the class 'b' has no embedding; leave it out",
        ),
        (
            np.ones((2, 2)),
            [0, 0],
            "a",
            {},
            TooFewClassesError,
            "a classifier needs at least two classes, got one class: 'a'",
        ),
        (
            np.array([[1, 2], [np.nan, 1], [0, 1]]),
            [0, 1, 1],
            "ab",
            {},
            EmbeddingError,
            "row 1 of the embeddings holds NaN or infinity; mend it or leave it out",
        ),
        (
            np.ones((3, 2)),
            [0, 1, 1],
            "ab",
            {"paths": ["x"]},
            InputError,
            "paths must be 3, one an embedding, got 1",
        ),
        (
            np.eye(3),
            [0, 1, 1],
            "ab",
            {"folds": 1},
            ParameterError,
            "folds must be an integer >= 2, got 1",
        ),
        (
            np.eye(3),
            [0, 1, 1],
            "ab",
            {"seed": -1},
            ParameterError,
            "random_state must be an integer >= 0, got -1",
        ),
        (
            np.eye(2),
            [0, 1],
            "ab",
            {},
            TooFewImagesError,
            "no class has two different images, so that none can be held out; add images",
        ),
    ],
)
def test_bad_input(
    rows: Any,
    index: Any,
    labels: str,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error) as caught:
        evaluate(rows, index, list(labels), **options)
    assert type(caught.value) is error
    assert str(caught.value) == message
