# SPDX-License-Identifier: Apache-2.0
"""A head with all that was asked for: each part as it would be made alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edge_imprint.backbones import OwnClasses
from edge_imprint.imprinting.imprint import imprint, resolved
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import calibrate
from edge_imprint.judging.choose import choose_proxies
from edge_imprint.judging.crossval import held_out
from edge_imprint.judging.folds import Folds
from edge_imprint.keep import keep_classes, own_scale
from edge_imprint.make_head import make_head
from edge_imprint_runtime import BackboneInfo, Head, Preprocess
from edge_imprint_runtime.errors import ParameterError, TooFewImagesError

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def source() -> ByClass:
    rng = np.random.default_rng(0)
    index = np.arange(90) % 3
    rows = 1.5 * rng.standard_normal((3, 2, 5))[index, rng.integers(0, 2, 90)]
    return ByClass((rows + 0.7 * rng.standard_normal((90, 5))).astype(np.float32), index)


@pytest.fixture(scope="module")
def own() -> OwnClasses:
    weights = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    return OwnClasses(weights, ("w", "x", "y", "z"))


def assert_same(one: Head, other: Head) -> None:
    assert one.contract == other.contract
    for name in ("proxies", "class_index", "center", "transform", "threshold"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_nothing_asked_for_is_imprint(source: ByClass) -> None:
    info = BackboneInfo("tiny", "packaged", "0" * 64, Preprocess(8, 8))
    made = make_head(source, NAMES, Recipe(), seed=3, backbone=info)
    assert_same(made.head, imprint(source, NAMES, Recipe(), seed=3, backbone=info))
    assert (made.choice, made.calibration, made.notes) == (None, None, ())


@pytest.mark.parametrize("nuisance", [8.0, 0.0])
def test_auto_says_where_whitening_would_be_right_more_often(nuisance: float) -> None:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(3), 40)
    rows = rng.standard_normal((3, 32))[index] + 0.3 * rng.standard_normal((120, 32))
    rows += nuisance * rng.standard_normal((120, 3)) @ rng.standard_normal((3, 32))
    source = ByClass(rows.astype(np.float32), index)
    notes = make_head(source, NAMES, Recipe(proxies="auto")).notes
    assert len(notes) == (1 if nuisance else 0)
    for note in notes:
        assert re.fullmatch(
            r"whitening brings [0-9.]+ points on held-out photos \(standard error [0-9.]+\): "
            "try --recipe whitened",
            note,
        )
    assert make_head(source, NAMES, Recipe.parse("whiten kmeans:auto l2 l2 max")).notes == ()


def test_everything_at_once(source: ByClass) -> None:
    recipe = Recipe.parse("whiten:auto kmeans:auto l2 l2 max")
    told: list[tuple[str, int, int]] = []
    made = make_head(
        source,
        NAMES,
        recipe,
        false_alarm=0.1,
        seed=2,
        progress=lambda *step: told.append(step),
    )
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps == [
        "choosing the shrinkage",
        "choosing proxies",
        "holding out photos",
        "imprinting",
    ]
    assert all(0 <= done <= total for _, done, total in told)
    settled = resolved(source, recipe, 2)
    choice = choose_proxies(source, settled, seed=2)
    assert made.choice == choice
    answers = held_out(Folds(source, seed=2), settled, ks=choice.ks, seed=2)
    calibration = calibrate(answers, 0.1)
    assert made.calibration is not None
    np.testing.assert_array_equal(made.calibration.threshold, calibration.threshold)
    want = imprint(source, NAMES, settled, ks=choice.ks, seed=2, calibration=calibration)
    assert_same(made.head, want)
    rows = source[0][0]
    assert made.head.known(rows).mean() > 0.8


def test_own_classes_are_weighed_on_held_out_images(source: ByClass, own: OwnClasses) -> None:
    recipe = Recipe.parse("l2 kmeans:3 l2 l2 max")
    made = make_head(source, NAMES, recipe, own=own)
    scale = own_scale(own, source, held_out(Folds(source), recipe))
    assert_same(made.head, keep_classes(imprint(source, NAMES, recipe), own, scale))
    assert made.notes == (
        (
            f"4 classes of the backbone were kept, their similarity times {scale:.3f}, with "
            "which at most 5% of the held-out photos of new classes go to them"
        ),
    )
    both = make_head(source, NAMES, recipe, own=own, false_alarm=0.05)
    assert both.calibration is not None
    assert both.head.threshold is not None
    np.testing.assert_array_equal(both.head.threshold[:3], both.calibration.threshold)


def test_own_classes_beside_one_image_a_class(own: OwnClasses) -> None:
    few = ByClass(np.eye(3, 5, dtype=np.float32), np.arange(3))
    made = make_head(few, NAMES, Recipe(), own=own)
    assert made.head.labels == ("a", "b", "c", "w", "x", "y", "z")
    assert made.notes == (
        (
            "4 classes of the backbone were kept as they are: no photo could be held out to "
            "weigh them against the new"
        ),
    )
    with pytest.raises(TooFewImagesError, match=r"^no class has two different images"):
        make_head(few, NAMES, Recipe(), own=own, false_alarm=0.1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"false_alarm": 0}, "false_alarm must be a share above 0 and below 1, got 0"),
        (
            {"false_alarm": 0.1, "labels": ["a", "unknown", "b"]},
            (
                "a class is called 'unknown', which a calibrated model answers where it does "
                "not know; rename the class"
            ),
        ),
        (
            {"labels": ["a", "w", "x"], "own": True},
            (
                "the class 'w' (and 1 more) is one of the backbone's own too; "
                "rename its folder, or leave out --keep-classes"
            ),
        ),
    ],
)
def test_refusals(
    source: ByClass, own: OwnClasses, options: dict[str, Any], said: str
) -> None:
    labels = options.pop("labels", NAMES)
    if options.get("own"):
        options["own"] = own
    with pytest.raises(ParameterError) as caught:
        make_head(source, labels, Recipe(), **options)
    assert str(caught.value) == said


def test_unknown_may_be_a_class_of_what_is_not_calibrated(source: ByClass) -> None:
    assert make_head(source, ["a", "b", "unknown"], Recipe()).head.labels[2] == "unknown"
