# SPDX-License-Identifier: Apache-2.0
"""Temperature, thresholds and the left-out experiment, against known truths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import (
    auroc,
    best_log_likelihood,
    calibrate,
    check_false_alarm,
    check_labels,
)
from edge_imprint.judging.crossval import HeldOut, held_out
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import ParameterError

Float32 = npt.NDArray[np.float32]


def answers(nearest: npt.ArrayLike, truth: npt.ArrayLike) -> HeldOut:
    near, true = np.asarray(nearest, np.float32), np.asarray(truth)
    label = near.argmax(axis=1).astype(np.int32)
    return HeldOut(true, np.arange(len(true)), near, near, label)


# Temperature -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 1.0, 40.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_temperature_of_synthetic_answers_is_found(
    temperature: float, classes: int
) -> None:
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal((6_000, classes))
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    made = calibrate(answers(temperature * logits + 7, truth))
    assert made.temperature == pytest.approx(temperature, rel=0.1)
    assert made.confidence == pytest.approx(made.accuracy, abs=0.02)


def test_the_temperature_stays_finite_where_all_is_right() -> None:
    truth = np.arange(40) % 4
    made = calibrate(answers(np.eye(4)[truth], truth))
    assert made.accuracy == 1
    # Platt's targets: of 40, one more right and one more wrong. With a gap of 1 between the
    # right score and the three others, softmax gives 41/42 at this temperature.
    assert made.temperature == pytest.approx(1 / np.log(3 * 41), rel=1e-3)
    assert made.confidence == pytest.approx(41 / 42, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.ones((6, 3)), [0, 1, 2, 0, 1, 2]),  # no score says anything
        (-np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 0]),  # all is wrong
        (1e12 * np.eye(2)[[0, 1]], [1, 0]),
        (1e-12 * np.eye(2)[[0, 1]], [0, 1]),
        (np.zeros((3, 1)), [0, 0, 0]),
    ],
)
def test_a_temperature_there_always_is(scores: npt.ArrayLike, truth: npt.ArrayLike) -> None:
    made = calibrate(answers(scores, truth))
    assert 1e-12 <= made.temperature <= 1e12
    assert np.isfinite(made.threshold).all()


def test_the_likelihood_is_that_of_the_best_temperature() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((400, 3)).astype(np.float32)
    truth = (2 * scores + rng.gumbel(size=scores.shape)).argmax(axis=1)

    def likelihood(temperature: float) -> float:
        powers = np.exp(scores.astype(np.float64) / temperature)
        return float(np.log(powers[np.arange(400), truth] / powers.sum(axis=1)).mean())

    best = max(likelihood(t) for t in np.geomspace(0.05, 5, 400))
    assert best_log_likelihood(scores, truth) == pytest.approx(best, abs=1e-3)


# Threshold ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(20, 60), st.floats(0.05, 0.9))
def test_the_threshold_is_a_held_out_similarity(seed: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    near = rng.standard_normal((2 * count, 2)).astype(np.float32)
    truth = np.arange(2 * count) % 2
    made = calibrate(answers(near, truth), share)
    for c in range(2):
        own = np.sort(near[truth == c, c])
        below = int((own < made.threshold[c]).sum())
        assert made.threshold[c] in own
        assert below + 1 <= share * (count + 1) + 1e-6 < below + 2


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("count", [49, 60])
def test_at_most_the_stated_share_of_further_images_is_unknown(
    share: float, count: int
) -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(1_500):
        own = rng.gamma(2, size=(count, 1))
        made = calibrate(answers(own, np.zeros(count, int)), share)
        alarms.append((rng.gamma(2, size=200) < made.threshold[0]).mean())
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) <= share + 3 * error
    assert np.mean(alarms) >= share - 1 / (count + 1) - 3 * error  # and no fewer than need be


def test_small_classes_lean_on_all_the_others() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(12), 4)
    means, alarms = np.linspace(0, 5, 12), []
    for _ in range(400):
        near = np.full((48, 12), -100.0)
        near[np.arange(48), truth] = means[truth] + 0.3 * rng.standard_normal(48)
        made = calibrate(answers(near, truth), 0.1)
        fresh = means + 0.3 * rng.standard_normal((50, 12))
        alarms.append((fresh < made.threshold).mean())
    assert np.mean(alarms) == pytest.approx(0.1, abs=0.03)


def test_a_class_whose_only_image_cannot_be_held_out() -> None:
    own = np.linspace(0, 1, 11)
    near = np.stack([own, own - 5, np.full(11, -9.0)], axis=1)
    made = calibrate(answers(near, np.zeros(11, int)), 0.2)
    assert made.threshold[0] == pytest.approx(own[1])
    assert made.threshold[1:] == pytest.approx(np.quantile(own, 0.2), abs=1e-6)
    assert (made.detected, made.auroc) == (None, None)  # no class to leave out


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-10])
def test_shares_near_the_ends(share: float) -> None:
    near = np.random.default_rng(0).standard_normal((30, 3))
    made = calibrate(answers(near, np.arange(30) % 3), share)
    assert np.isfinite(made.threshold).all()


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, float("nan"), float("inf")])
def test_a_share_that_is_none(share: float) -> None:
    for refuse in (
        lambda: check_false_alarm(share),
        lambda: calibrate(answers(np.eye(2), [0, 1]), share),
    ):
        with pytest.raises(ParameterError) as caught:
            refuse()
        assert str(caught.value) == (
            f"false_alarm must be a share above 0 and below 1, got {share!r}"
        )


def test_a_class_named_unknown() -> None:
    with pytest.raises(ParameterError) as caught:
        check_labels(["a", "unknown"])
    assert str(caught.value) == (
        "a class is called 'unknown', which a calibrated model answers where it does not "
        "know; rename the class"
    )
    check_labels(["Unknown", "unknown "])


# Unknowns ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_auroc_is_scikit_learns(seed: int, known: int, unknown: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = rng.integers(1, 6, known), rng.integers(0, 5, unknown)
    truth = np.repeat([1, 0], [known, unknown])
    want = roc_auc_score(truth, np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(want)


def test_each_class_left_out_by_hand() -> None:
    truth = np.repeat([0, 1, 2], 2)
    near = [
        [0.9, 0.5, 0.1],
        [0.8, 0.2, 0.3],
        [0.4, 0.9, 0.6],
        [0.3, 0.7, 0.5],
        [0.2, 0.1, 0.9],
        [0.1, 0.3, 0.6],
    ]
    made = calibrate(answers(near, truth), 0.5)
    # floor(0.5 x 3) = the lowest of two.
    np.testing.assert_allclose(made.threshold, [0.8, 0.7, 0.6], atol=1e-6)
    assert made.false_alarm == 0
    # Left out, an image is nearest to one of the two others, by this much above its threshold:
    # 0: b -0.2, c -0.3; 1: c 0 and c -0.1; 2: a -0.6, b -0.4. Below 0 is unknown.
    assert made.detected == pytest.approx((1 + 0.5 + 1) / 3)
    # The known lie 0.1, 0 (0), 0.2, 0 (1) and 0.3, 0 (2) above theirs: but for 0 against 0,
    # where 1 is left out (2 of 8 pairs), each of them above each of the unknown.
    areas = [1, (8 - 2 / 2) / 8, 1]
    assert made.auroc == pytest.approx(np.mean(areas))


def test_two_classes_leave_nothing_to_leave_out() -> None:
    made = calibrate(answers(np.eye(2)[[0, 1, 0]], [0, 1, 0]))
    assert (made.detected, made.auroc) == (None, None)


@pytest.mark.parametrize("line", ["imprint", "l2 kmeans:20 l2 l2 mnn:3:cosine:distance"])
def test_digits_never_seen_are_called_unknown(line: str) -> None:
    data = load_digits()
    rows, digit = data.data.astype(np.float32), data.target
    order = np.random.default_rng(0).permutation(len(rows))
    rows, digit = rows[order], digit[order]
    train = (digit < 8) & (np.arange(len(rows)) % 2 == 0)
    test = ~train & (digit < 8)
    source, recipe = ByClass(rows[train], digit[train]), Recipe.parse(line)
    made = calibrate(held_out(Folds(source), recipe))
    head = imprint(source, [str(c) for c in range(8)], recipe, calibration=made)
    alarm = 1 - head.known(rows[test]).mean()
    assert alarm < 0.1
    assert made.false_alarm < 0.1
    near, label = head.nearest(rows), head.predict(rows)
    margin = near[np.arange(len(rows)), label] - made.threshold[label]
    area = auroc(margin[test], margin[digit >= 8])
    assert area > 0.8
    assert made.auroc is not None
    assert made.auroc == pytest.approx(area, abs=0.1)  # what was foretold without them
    assert made.detected is not None
    assert made.detected > 0.3
    assert abs(made.confidence - made.accuracy) < 0.05
    probability = head.probability(rows[test])
    right = head.predict(rows[test]) == digit[test]
    assert probability.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)


def test_votes_are_scores_and_thresholds_are_of_the_nearest() -> None:
    near = answers(np.eye(3)[[0, 1, 2, 0, 1, 2]], [0, 1, 2, 0, 1, 2])
    votes = replace(near, scores=np.full((6, 3), 1 / 3, np.float32))
    one, other = calibrate(near), calibrate(votes)
    np.testing.assert_array_equal(one.threshold, other.threshold)
    assert other.confidence == pytest.approx(1 / 3)
