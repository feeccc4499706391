# SPDX-License-Identifier: Apache-2.0
"""Hold a fused model against the oracle: the same pixels, two ways that share no code.

One way is the model itself. The other is the host's own arithmetic for the pixels, the bare
backbone graph, and the head in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_imprint_export.graph import EMBEDDING, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import BackboneInfo, Rule
from edge_imprint_runtime.contract.spec import SHARE_TIE
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    ParameterError,
    VerificationError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.model import Model, Predictions

__all__ = ["TOLERANCE", "Verification", "check_pair", "compare", "joined", "verify"]

TOLERANCE = 1e-4
_BATCH = 64

Floats: TypeAlias = npt.NDArray[Any]  # float32 or float64


@dataclass(frozen=True)
class Verification:
    """What a comparison with the oracle found.

    Attributes:
        images: How many images were compared.
        agreement: Share of images whose label, and ``known`` where there is one, is the
            oracle's, ties aside.
        ties: Images whose answer hangs on less than the tolerance: label or ``known`` differ
            from the oracle's within it, or, under votes, the m-th and the next similarity lie
            within it of each other, so that either may vote.
        max_difference: Largest |score - oracle score|, relative to the largest |oracle score|
            where that is above 1 (it is not where scores are cosines). Under votes, how far a
            share is from those that similarities within the tolerance can give; so too for
            probabilities.
        mean_difference: Mean of it over the scores.
        tolerance: What ``max_difference`` may be.
    """

    images: int
    agreement: float
    ties: int
    max_difference: float
    mean_difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every label agrees and every score is within the tolerance."""
        return self.agreement == 1.0 and self.max_difference <= self.tolerance

    def require(self) -> Verification:
        """Return this, or raise.

        Raises:
            VerificationError: It did not pass.
        """
        if not self.passed:
            raise VerificationError(
                f"the model does not decide as its head: {self.agreement:.2%} of "
                f"{self.images} labels agree, scores differ by up to "
                f"{self.max_difference:.2g} (allowed {self.tolerance:.0e}); "
                "export it again from the head and its backbone"
            )
        return self


def verify(
    model: Model,
    head: Head,
    backbone_onnx: onnx.ModelProto | bytes,
    pixels: npt.NDArray[np.uint8],
    *,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare a fused model with the oracle on real pixels.

    Args:
        model: The fused model, opened.
        head: The head that it was fused from.
        backbone_onnx: The bare backbone graph.
        pixels: (N, H, W, 3) uint8 RGB at the network's size, N >= 1.
        tolerance: Largest difference that passes; see `Verification.max_difference`.

    Returns:
        What was found; call ``require()`` to raise where it did not pass.

    Raises:
        ParameterError: The tolerance is out of range.
        BackboneMismatchError: Model and head have other labels, only one of them is
            calibrated, or the head names no backbone.
    """
    if not 0 <= tolerance <= 1:
        raise ParameterError(f"tolerance must be a number from 0 to 1, got {tolerance}")
    info = check_pair(model, head)
    data = backbone_onnx if isinstance(backbone_onnx, bytes) else to_bytes(backbone_onnx)
    backbone = OrtRunner(data, "cpu")
    answers, embeddings = [], []
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        floats = normalize(batch, info.preprocess)
        answers.append(model.predict(batch if model.input_dtype == np.uint8 else floats))
        embeddings.append(backbone.run([EMBEDDING], floats)[0])
    return compare(
        joined(answers), head, np.concatenate(embeddings).astype(np.float32), tolerance
    )


def check_pair(model: Model, head: Head) -> BackboneInfo:
    """Refuse a head that a model can't have come from; returns the head's backbone.

    Raises:
        BackboneMismatchError: As in `verify`; or another backbone, recipe, rule or build.
    """
    if model.labels != head.labels or head.backbone is None:
        raise BackboneMismatchError(
            "the model's labels are not the head's; verify a model with the head it came from"
        )
    if (model.contract.temperature is None) != (head.temperature is None):
        raise BackboneMismatchError(
            "of model and head only one is calibrated; verify a model with the head it came "
            "from"
        )
    ours, other = model.contract, head.contract
    pairs = [
        ("backbone", ours.backbone and ours.backbone.digest, head.backbone.digest),
        ("recipe", ours.recipe, other.recipe),
        ("rule", ours.rule, other.rule),
        ("build", *(dict(made.notes).get("build") for made in (ours, other))),
    ]
    for what, of_model, of_head in pairs:
        if None not in (of_model, of_head) and of_model != of_head:
            raise BackboneMismatchError(
                f"the model was made of another head, whose {what} is not this one's; verify "
                "a model with the head it came from"
            )
    return head.backbone


def compare(
    answer: Predictions,
    head: Head,
    embeddings: npt.NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare a model's answers with the oracle's.

    Args:
        answer: The model's, to N images.
        head: The oracle.
        embeddings: (N, D) float32, the images' embeddings by another way.
        tolerance: As in `verify`.

    Returns:
        What was found.
    """
    nearest = head.nearest(embeddings).astype(np.float64)
    # float32 is exact to a share of a number, not to a distance.
    scale = max(1.0, float(np.abs(nearest).max()))
    margin = tolerance * scale
    better = nearest > _of_label(nearest, answer.label) + margin
    low = high = nearest
    tie = np.zeros(len(nearest), np.bool_)
    if head.rule.aggregation == "mnn":
        least, most, tie = _vote_bounds(head, embeddings, margin)
        better = _outvoted(least, most, answer.label, better)
        low, high = _share_bounds(head.rule, least, most)
        scale = 1.0  # of a share
    wrong = better.any(axis=1)  # another class surely wins
    tie |= answer.label != head.predict(embeddings)
    difference = _outside(answer.scores, low, high) / scale
    largest = difference.max()
    if answer.known is not None and answer.probability is not None:
        threshold, temperature = head.calibration()
        gap = _of_label(nearest, answer.label)[:, 0] - threshold[answer.label]
        other = answer.known != (gap >= 0)
        wrong |= other & (np.abs(gap) > margin)
        tie |= other
        slack = tolerance * scale
        bounds = _softmax_bounds((low - slack) / temperature, (high + slack) / temperature)
        largest = np.maximum(largest, _outside(answer.probability, *bounds).max())
    return Verification(
        images=len(nearest),
        agreement=float(1 - wrong.mean()),
        ties=int((tie & ~wrong).sum()),
        max_difference=float(largest),
        mean_difference=float(difference.mean()),
        tolerance=tolerance,
    )


def joined(parts: list[Predictions]) -> Predictions:
    """Put answers to batches together."""
    calibrated = parts[0].known is not None
    names = ("scores", "label", *(("known", "probability") if calibrated else ()))
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Predictions(labels=parts[0].labels, **arrays)


def _vote_bounds(
    head: Head, embeddings: npt.NDArray[np.float32], margin: float
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Run `Comparison.vote_bounds` in batches."""
    comparison = head.comparison()
    parts = [
        comparison.vote_bounds(
            comparison.similarity(embeddings[start : start + _BATCH]), margin
        )
        for start in range(0, len(embeddings), _BATCH)
    ]
    least, most, is_open = (np.concatenate(part) for part in zip(*parts, strict=True))
    return least, most, is_open


def _outvoted(
    least: Floats, most: Floats, label: npt.NDArray[np.int32], nearer: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Tell which classes surely win against the label: (N, C) bool.

    By more votes than a tie leaves open; or by as many, being surely nearer.
    """
    lead = least - _of_label(most, label)
    outvoted: npt.NDArray[np.bool_] = lead > SHARE_TIE * most.sum(axis=1, keepdims=True)
    outvoted |= nearer & (lead >= 0)
    return outvoted


def _share_bounds(rule: Rule, least: Floats, most: Floats) -> tuple[Floats, Floats]:
    """Turn bounds of votes into bounds of shares: own least, others' most; and reversed."""
    rivals_most = np.maximum(most.sum(axis=1, keepdims=True) - most, 0)
    rivals_least = np.maximum(least.sum(axis=1, keepdims=True) - least, 0)
    if rule.weighting == "uniform":  # m vote, whoever they are
        rivals_least = np.maximum(rivals_least, rule.neighbors - most)
    # No rival may vote: all of it. No voter of its own: nothing.
    low = np.divide(least, least + rivals_most, np.ones_like(least), where=rivals_most > 0)
    high = np.divide(most, most + rivals_least, np.zeros_like(most), where=most > 0)
    return low, high


def _of_label(values: Floats, label: npt.NDArray[np.int32]) -> Floats:
    """Return (N, 1): the value of each row's label."""
    found: Floats = np.take_along_axis(values, label[:, np.newaxis], axis=1)
    return found


def _outside(values: Floats, low: Floats, high: Floats) -> Floats:
    """Return how far each value lies outside its bounds; NaN stays NaN."""
    values = values.astype(np.float64)
    outside: Floats = np.maximum(np.maximum(low - values, values - high), 0)
    return outside


def _softmax_bounds(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Bound each class's softmax: its own power lowest, all others highest; and reversed."""
    top = high.max(axis=1, keepdims=True)
    least, most = np.exp(low - top), np.exp(high - top)
    below = least + most.sum(axis=1, keepdims=True) - most
    above = most + least.sum(axis=1, keepdims=True) - least
    return (
        np.divide(least, below, np.zeros_like(least), where=below > 0),
        np.divide(most, above, np.ones_like(most), where=above > 0),
    )
