# SPDX-License-Identifier: Apache-2.0
"""Knowing what it doesn't know: a temperature and a threshold a class, on held-out images.

**Temperature** (Guo et al. 2017): ``softmax(scores / T)`` with the T under which the held-out
answers are most likely. Where all of them are right any confidence would do; Platt's (1999)
targets, which grant one right and one wrong answer more than were seen, keep T finite.

**Threshold**: an image is unknown where it is less similar to its nearest class than that
class's own images are. Of a class's n held-out similarities the threshold is the
``floor(a (n + 1))``-th smallest, so that at most a share ``a`` of the class's further images
fall below it (split conformal prediction, Vovk et al. 2005) - were they drawn like the given
ones. A class with fewer than 1/a - 1 held-out images has no such value: there the deviations
from the class's mean are pooled over all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract.spec import MAX_TEMPERATURE, MIN_TEMPERATURE, UNKNOWN
from edge_imprint_runtime.errors import ParameterError

if TYPE_CHECKING:
    from edge_imprint.judging.crossval import HeldOut

__all__ = [
    "FALSE_ALARM",
    "Calibration",
    "auroc",
    "best_log_likelihood",
    "calibrate",
    "check_false_alarm",
    "left_out",
    "weakly_calibrated",
    "check_labels",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Calibration:
    """What goes into the head, and what speaks for it.

    Attributes:
        temperature: Above 0.
        threshold: (C,) float32 similarity below which an image is unknown.
        false_alarm: Share (0..1) of held-out images of known classes called unknown.
        detected: Share of images called unknown when their class is left out; None with two
            classes, where leaving one out leaves no choice, or where images of one class only
            could be held out.
        auroc: Area under the ROC curve of the same experiment: known images of the other
            classes against those of the class left out, by how far they lie above the
            threshold; the mean over classes.
        confidence: Mean probability of the answer on held-out images.
        accuracy: Share of held-out answers that are right; calibrated where it is near
            ``confidence``.
    """

    temperature: float
    threshold: Float32
    false_alarm: float
    detected: float | None
    auroc: float | None
    confidence: float
    accuracy: float


def calibrate(answers: HeldOut, false_alarm: float = FALSE_ALARM) -> Calibration:
    """Calibrate on held-out answers.

    Args:
        answers: What `held_out` gave for the recipe of the head.
        false_alarm: Share (0..1, exclusive) of a known class's images that may be called
            unknown.

    Returns:
        The calibration.

    Raises:
        ParameterError: ``false_alarm`` is out of range.
    """
    check_false_alarm(false_alarm)
    found = _temperature(answers.scores.astype(np.float64), answers.truth)
    temperature = min(max(found, MIN_TEMPERATURE), MAX_TEMPERATURE)
    threshold = _thresholds(answers, false_alarm)
    margin = answers.nearest - threshold
    row = np.arange(len(margin))
    known = margin[row, answers.label] >= 0
    probability = _softmax(answers.scores.astype(np.float64) / temperature)
    each = [pair for pair in left_out(answers, threshold) if pair is not None]
    detected, area = np.mean(each, axis=0).tolist() if each else (None, None)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        false_alarm=float(1 - known.mean()),
        detected=detected,
        auroc=area,
        confidence=float(probability[row, answers.label].mean()),
        accuracy=float(answers.right.mean()),
    )


def check_false_alarm(false_alarm: float) -> None:
    """Refuse a share that is not between 0 and 1.

    Raises:
        ParameterError: It is not.
    """
    if not 0 < false_alarm < 1:
        raise ParameterError(
            f"false_alarm must be a share above 0 and below 1, got {false_alarm!r}"
        )


def check_labels(labels: Sequence[str]) -> None:
    """Refuse a class named as what a calibrated model answers where it knows none.

    Raises:
        ParameterError: There is one.
    """
    if UNKNOWN in labels:
        raise ParameterError(
            f"a class is called {UNKNOWN!r}, which a calibrated model answers where it does "
            "not know; rename the class"
        )


def weakly_calibrated(answers: HeldOut, false_alarm: float) -> npt.NDArray[np.int64]:
    """Return the classes of too few held-out images for a threshold of their own."""
    counts = np.bincount(answers.truth, minlength=answers.nearest.shape[1])
    return np.flatnonzero(np.floor(false_alarm * (counts + 1) + 1e-9) < 1)


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Return the chance that a known image scores above an unknown one; ties count half.

    Args:
        known: (N,) scores of known images.
        unknown: (M,) scores of unknown images.

    Returns:
        0..1; 0.5 is chance. The area under the ROC curve (Mann and Whitney 1947).
    """
    inside, outside = np.sort(np.asarray(known)), np.asarray(unknown)
    below = np.searchsorted(inside, outside, "left")
    equal = np.searchsorted(inside, outside, "right") - below
    above = len(inside) - below - equal
    return float((above + equal / 2).sum() / (len(inside) * len(outside)))


def _temperature(scores: Float64, truth: npt.NDArray[np.int64]) -> float:
    count, classes = scores.shape
    if classes == 1:
        return 1.0
    # Platt's targets: the truth gets (n + 1) / (n + 2), the others share the rest.
    rest = 1 / (count + 2) / (classes - 1)
    true = scores[np.arange(count), truth]
    wanted = (1 - rest * classes) * true + rest * scores.sum(axis=1)

    def slope(beta: float) -> float:
        # Of the mean negative log-likelihood in beta = 1 / T, which is convex.
        expected = (_softmax(beta * scores) * scores).sum(axis=1)
        return float((expected - wanted).mean())

    spread = float(np.ptp(scores, axis=1).mean()) or 1.0
    low, high = 1e-4 / spread, 1e6 / spread
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / float(np.sqrt(low * high))


def best_log_likelihood(scores: Float32, truth: npt.NDArray[np.int64]) -> float:
    """Return the mean log-probability of the truth under the best temperature.

    Args:
        scores: (M, C) held-out scores.
        truth: (M,) the classes.

    Returns:
        Nats, at most 0.
    """
    values = scores.astype(np.float64)
    values /= _temperature(values, truth)
    values -= values.max(axis=1, keepdims=True)
    true = values[np.arange(len(truth)), truth]
    return float((true - np.log(np.exp(values).sum(axis=1))).mean())


def _thresholds(answers: HeldOut, false_alarm: float) -> Float32:
    own = answers.nearest[np.arange(len(answers.truth)), answers.truth].astype(np.float64)
    classes = answers.nearest.shape[1]
    groups = [own[answers.truth == c] for c in range(classes)]
    enough = [len(group) >= 2 for group in groups]
    pooled = np.concatenate(
        [
            # A mean's own samples lie nearer to it than new ones will.
            (group - group.mean()) * np.sqrt(len(group) / (len(group) - 1))
            for group, use in zip(groups, enough, strict=True)
            if use
        ]
        or [np.zeros(1)]
    )
    threshold = np.empty(classes)
    for c, group in enumerate(groups):
        rank = min(int(np.floor(false_alarm * (len(group) + 1) + 1e-9)), len(group))
        if rank >= 1:
            threshold[c] = np.sort(group)[rank - 1]
        elif len(group):
            wider = np.sqrt(1 + 1 / len(group))
            threshold[c] = group.mean() + wider * np.quantile(pooled, false_alarm)
        else:  # its only image can't be held out
            threshold[c] = np.quantile(own, false_alarm)
    # Rounded down: the image that sets the threshold is itself known.
    rounded = threshold.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > threshold, below, rounded)


def left_out(answers: HeldOut, threshold: Float32) -> list[tuple[float, float] | None]:
    """Leave each class out in turn: how do its images look to the classes that are left?

    A class is left out by leaving out its column of similarities. That is exact where the
    proxies of the others do not depend on it, as under every recipe without whitening, least
    squares or quantile normalisation. Images are ranked as ``known`` does: by how far the
    similarity to the nearest class lies above that class's threshold.

    Args:
        answers: Held-out answers.
        threshold: (C,) the classes' thresholds.

    Returns:
        For each class the share of its images that is called unknown, and the area under the
        ROC curve (both 0..1); None where it has no held-out image, or where fewer than three
        classes leave no choice.
    """
    nearest, truth = answers.nearest, answers.truth
    classes = nearest.shape[1]
    if classes < 3:
        return [None] * classes
    row = np.arange(len(truth))
    margin = nearest - threshold
    first = nearest.argmax(axis=1)
    others = nearest.copy()
    others[row, first] = -np.inf
    second = others.argmax(axis=1)
    found: list[tuple[float, float] | None] = []
    for c in range(classes):
        above = margin[row, np.where(first == c, second, first)]
        out = truth == c
        tried = bool(out.any() and not out.all())
        found.append(
            (float((above[out] < 0).mean()), auroc(above[~out], above[out])) if tried else None
        )
    return found


def _softmax(values: Float64) -> Float64:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: Float64 = powers / powers.sum(axis=1, keepdims=True)
    return shares
