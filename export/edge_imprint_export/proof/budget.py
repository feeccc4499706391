# SPDX-License-Identifier: Apache-2.0
"""The budget of an export: does the file decide as its float32 original does?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_export.graph import EMBEDDING
from edge_imprint_export.precision.layers import LayerError
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import AgreementError
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import normalize

__all__ = ["MIN_AGREEMENT", "Answer", "Batch", "Proof", "prove", "require_finite"]

Batch: TypeAlias = tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8], npt.NDArray[np.int64]]

Answer: TypeAlias = Callable[
    [npt.NDArray[np.generic], npt.NDArray[np.float32]],
    tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]],
]

MIN_AGREEMENT = 0.99
_SHOWN_LAYERS = 5


@dataclass(frozen=True)
class Proof:
    """An exported file beside its float32 original, on the same photos.

    The original is the backbone as it was exported, run in float32, and the head in numpy.

    Attributes:
        photos: How many photos both were given.
        source: Where they are from: ``held_out`` by the build, so that the head has seen none
            of them; the ``build``, whose head has seen them all; or ``given``, which may be
            either.
        agreement: Share of photos with the same label.
        accuracy: Share of labelled photos that the file gets right; None without labels.
        accuracy_float32: The same of the original.
        max_difference: Largest |score - original score|.
        mean_difference: Mean of it over photos and classes.
    """

    photos: int
    source: str
    agreement: float
    accuracy: float | None
    accuracy_float32: float | None
    max_difference: float
    mean_difference: float

    def line(self) -> str:
        """Return it as one line, for the file's metadata."""
        values = {
            "photos": str(self.photos),
            "source": self.source,
            "agreement": f"{self.agreement:.4f}",
            "accuracy": _number(self.accuracy),
            "accuracy_float32": _number(self.accuracy_float32),
            "max_difference": f"{self.max_difference:.3g}",
            "mean_difference": f"{self.mean_difference:.3g}",
        }
        return " ".join(f"{key}={value}" for key, value in values.items())

    def require(self, min_agreement: float, layers: Sequence[LayerError] = ()) -> Proof:
        """Return this, or raise.

        Args:
            min_agreement: What the agreement must be.
            layers: Where the difference arises, worst first; named in the error.

        Raises:
            AgreementError: It is lower.
        """
        if self.agreement >= min_agreement:
            return self
        worst = ", ".join(
            f"{layer.name} ({layer.op}, +{layer.added:.1%})"
            for layer in layers[:_SHOWN_LAYERS]
        )
        costly = f"; the layers that cost most: {worst}" if worst else ""
        raise AgreementError(
            f"the exported model agrees with float32 on {self.agreement:.2%} of {self.photos} "
            f"photos, less than the {min_agreement:.2%} asked for{costly}; keep layers in "
            "float32 with --keep-float32, take a higher --precision, or allow less with "
            "--min-agreement"
        )


def require_finite(layers: Sequence[LayerError]) -> None:
    """Raise where a layer overflows.

    Args:
        layers: Those of the reduced backbone.

    Raises:
        AgreementError: The first layer whose output is not finite.
    """
    over = [layer for layer in layers if not math.isfinite(layer.error)]
    if over:
        raise AgreementError(
            f"the layer {over[0].name} ({over[0].op}) overflows in the exported model; "
            "keep it and those beside it in float32 with --keep-float32, or take another "
            "--precision"
        )


def prove(
    answer: Answer,
    head: Head,
    original: OrtRunner,
    photos: Iterable[Batch],
    *,
    source: str = "given",
) -> Proof:
    """Run what was exported and its original side by side.

    Args:
        answer: What was exported: from a batch, as it takes it, and the original's (n, D)
            embeddings, to (n, C) scores and (n,) labels.
        head: The head it was made with.
        original: The float32 backbone graph, before it was lowered or reduced, opened.
        photos: Batch by batch: what the model takes; the same photos as (n, H, W, 3) uint8
            RGB at the network's size; and (n,) class indices, -1 for a photo that has no
            label, or one that the head does not know.
        source: As in `Proof`.

    Returns:
        What was found.
    """
    assert head.backbone is not None  # a model with a backbone has one
    rows: list[npt.NDArray[np.int64]] = []  # label, the original's label, truth
    largest, total, count = 0.0, 0.0, 0
    for given, pixels, truth in photos:
        floats = normalize(pixels, head.backbone.preprocess)
        embeddings = original.run([EMBEDDING], floats)[0].astype(np.float32, copy=False)
        scores, label = head.scores(embeddings), head.predict(embeddings)
        our_scores, our_label = answer(given, embeddings)
        difference = np.abs(our_scores.astype(np.float64) - scores)
        largest, total = max(largest, float(difference.max())), total + float(difference.sum())
        count += difference.size
        rows.append(np.stack([our_label, label, truth]).astype(np.int64))
    ours, theirs, truths = np.concatenate(rows, axis=1)
    labelled = truths >= 0
    known = bool(labelled.any())
    return Proof(
        photos=len(ours),
        source=source,
        agreement=float((ours == theirs).mean()),
        accuracy=float((ours == truths)[labelled].mean()) if known else None,
        accuracy_float32=float((theirs == truths)[labelled].mean()) if known else None,
        max_difference=largest,
        mean_difference=total / count,
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
