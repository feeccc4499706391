# SPDX-License-Identifier: Apache-2.0
"""The budget of an export, against figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_imprint_export.precision import LayerError
from edge_imprint_export.proof.budget import Batch, Proof, prove, require_finite
from edge_imprint_runtime import BackboneInfo, Head
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import AgreementError

# The flat backbone of 1 x 4 pixels: an embedding is its pixels, red first; mean 0, std 1.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]], np.uint8)


@pytest.fixture
def head(flat_info: BackboneInfo) -> Head:
    """Red, green, blue: the proxy of a colour is its picture."""
    return Head(np.repeat(np.eye(3), 4, axis=1), [0, 1, 2], list("rgb"), backbone=flat_info)


def opened(flat_backbone: Callable[..., bytes]) -> OrtRunner:
    return OrtRunner(flat_backbone(), "cpu")


def batches(truth: list[int]) -> Iterator[Batch]:
    for colour, index in zip(COLOURS, truth, strict=True):
        pixels = np.broadcast_to(colour, (1, 1, 4, 3)).copy()
        yield pixels, pixels, np.array([index])


def answers(head: Head, **wrong: float) -> Callable[[Any, Any], Any]:
    """Answer as the head does; where red is right, ``red=x`` takes x off its score."""

    def answer(given: Any, embeddings: Any) -> Any:
        scores = head.scores(embeddings)
        scores[:, 0] -= np.where(scores.argmax(axis=1) == 0, wrong.get("red", 0), 0)
        return scores, scores.argmax(axis=1).astype(np.int32)

    return answer


def test_the_same_is_the_same(head: Head, flat_backbone: Callable[..., bytes]) -> None:
    found = prove(
        answers(head), head, opened(flat_backbone), batches([0, 1, 2, 0]), source="held_out"
    )
    assert found == Proof(4, "held_out", 1.0, 1.0, 1.0, 0.0, 0.0)
    assert found.require(1.0) is found
    assert found.line() == (
        "photos=4 source=held_out agreement=1.0000 accuracy=1.0000 accuracy_float32=1.0000 "
        "max_difference=0 mean_difference=0"
    )


def test_differences_are_counted(head: Head, flat_backbone: Callable[..., bytes]) -> None:
    """Red falls behind: two of four labels, each 2.5 off in one of three scores."""
    found = prove(answers(head, red=2.5), head, opened(flat_backbone), batches([0, 1, -1, 2]))
    assert found.agreement == 0.5
    assert found.accuracy == pytest.approx(1 / 3)  # green alone, of three with a label
    assert found.accuracy_float32 == pytest.approx(2 / 3)  # red and green
    assert found.max_difference == pytest.approx(2.5, rel=1e-6)
    assert found.mean_difference == pytest.approx(2 * 2.5 / 12, rel=1e-6)


def test_without_labels_there_is_no_accuracy(
    head: Head, flat_backbone: Callable[..., bytes]
) -> None:
    found = prove(answers(head), head, opened(flat_backbone), batches([-1] * 4))
    assert found.accuracy is found.accuracy_float32 is None
    assert "source=given agreement=1.0000 accuracy=unknown accuracy_float32=unknown" in (
        found.line()
    )


def test_a_budget_that_is_not_met_names_the_layers() -> None:
    found = Proof(200, "held_out", 0.9, None, None, 0.5, 0.1)
    assert found.require(0.9) is found
    layers = [LayerError(f"conv{i}", "Conv", 0.5 - i / 10, 0.25 - i / 20) for i in range(7)]
    with pytest.raises(AgreementError) as caught:
        found.require(0.99, layers)
    assert str(caught.value) == (
        "the exported model agrees with float32 on 90.00% of 200 photos, less than the 99.00% "
        "asked for; the layers that cost most: conv0 (Conv, +25.0%), conv1 (Conv, +20.0%), "
        "conv2 (Conv, +15.0%), conv3 (Conv, +10.0%), conv4 (Conv, +5.0%); keep layers in "
        "float32 with --keep-float32, take a higher --precision, or allow less with "
        "--min-agreement"
    )
    over = LayerError("conv8", "Conv", math.inf, math.inf)
    with pytest.raises(AgreementError) as caught:
        require_finite([*layers, over])
    assert str(caught.value) == (
        "the layer conv8 (Conv) overflows in the exported model; keep it and those beside it "
        "in float32 with --keep-float32, or take another --precision"
    )
    with pytest.raises(AgreementError, match="asked for; keep layers in float32"):
        found.require(1.0)
