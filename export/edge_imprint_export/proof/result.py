# SPDX-License-Identifier: Apache-2.0
"""What a whole verification found, and whether that is as it must be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_export.precision.layers import LayerError
from edge_imprint_export.proof.verify import Verification
from edge_imprint_runtime.contract import GraphInfo
from edge_imprint_runtime.errors import VerificationError

__all__ = ["Batches", "Pixels", "Way", "Whole"]

_SHOWN_LAYERS = 5


@dataclass(frozen=True)
class Way:
    """One way to run the model, held against the oracle.

    Attributes:
        name: What runs it, and how.
        inputs: ``photos`` or ``random``, numbers that are no photo.
        found: The comparison; None where it could not be run.
        difference: Largest |score - score of the usual way|, on the same inputs.
        passed: Whether it is as it must be; None where nothing is asked of it.
        failed: Why it could not be run.
    """

    name: str
    inputs: str
    found: Verification | None = None
    difference: float = 0.0
    passed: bool | None = None
    failed: str | None = None

    def reason(self) -> str:
        """Return why it did not pass."""
        if self.found is None:
            return str(self.failed)
        return (
            f"{self.found.agreement:.2%} of {self.found.images} labels agree, scores differ "
            f"by up to {self.found.max_difference:.2g}"
        )


@dataclass(frozen=True)
class Batches:
    """The same photos in batches of each size.

    Attributes:
        largest: Sizes are 1 to this.
        images: How many photos.
        agreement: Share of answers with the label that the photo has alone.
        max_difference: Largest |score - score alone|.
        passed: Whether that is as it must be.
    """

    largest: int
    images: int
    agreement: float
    max_difference: float
    passed: bool


@dataclass(frozen=True)
class Pixels:
    """The pixels that a model makes of camera frames, beside Pillow's.

    Attributes:
        images: How many frames.
        within_one: Share of numbers that differ by one grey level (of 255) at most.
        max_difference: Largest difference, grey levels.
        passed: Whether that is as it must be.
    """

    images: int
    within_one: float
    max_difference: float
    passed: bool


@dataclass(frozen=True)
class Whole:
    """All that a whole verification found.

    Attributes:
        graph: What the model says of itself.
        labels: The C class names.
        found: All photos, as a device runs the model on its CPU.
        reduced: Whether the model is less than float32 somewhere.
        min_agreement: Share of photos that must agree, of a reduced model.
        accuracy: Share of labelled photos that the model gets right; None without labels.
        accuracy_float32: The same of the oracle.
        ways: All ways, on some of the photos and on random numbers.
        batches: Answers by batch size.
        pixels: What a model of camera frames makes of them; None for others.
        layers: Layers of a reduced backbone, from pixels to embedding.
        rows: Which of the photos given were compared.
        skipped: Why others were not, one line each.
        notes: What a user should know of how a teachable model was run, a sentence each.
        label: (N,) int32, what the model answers.
        label_float32: (N,) int32, what the oracle answers.
        difference: (N,) float64, largest |score difference| of each photo.
        margin: (N,) float64, how far the oracle's best score is above its second.
    """

    graph: GraphInfo
    labels: tuple[str, ...]
    found: Verification
    reduced: bool
    min_agreement: float
    accuracy: float | None
    accuracy_float32: float | None
    ways: tuple[Way, ...]
    batches: Batches
    pixels: Pixels | None
    layers: tuple[LayerError, ...]
    rows: tuple[int, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    label: npt.NDArray[np.int32]
    label_float32: npt.NDArray[np.int32]
    difference: npt.NDArray[np.float64]
    margin: npt.NDArray[np.float64]

    @property
    def agrees(self) -> bool:
        """Whether the photos are answered as they must be, in the usual way."""
        if self.reduced:
            return self.found.agreement >= self.min_agreement
        return self.found.passed

    @property
    def passed(self) -> bool:
        """Whether all is as it must be."""
        ways = not any(way.passed is False for way in self.ways)
        pixels = self.pixels is None or self.pixels.passed
        return self.agrees and ways and pixels and self.batches.passed

    @property
    def worst_layers(self) -> tuple[LayerError, ...]:
        """The layers, the one that adds most error first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.added))

    def require(self) -> Whole:
        """Return this, or raise.

        Raises:
            VerificationError: It did not pass.
        """
        if not self.agrees:
            self._require_agreement()
        for way in self.ways:
            if way.passed is False:
                raise VerificationError(
                    f"run with {way.name} on {way.inputs} inputs, the model does not decide "
                    f"as its head: {way.reason()}; export it again"
                )
        if self.pixels is not None and not self.pixels.passed:
            raise VerificationError(
                f"{self.pixels.within_one:.3%} of the pixels that the model makes of camera "
                "frames are within one grey level of Pillow's, less than the 99.9 % that must "
                "be; export it again"
            )
        if not self.batches.passed:
            raise VerificationError(
                f"in batches of up to {self.batches.largest} the model answers otherwise than "
                f"photo by photo: {self.batches.agreement:.2%} of labels agree, scores differ "
                f"by up to {self.batches.max_difference:.2g}; export it again"
            )
        return self

    def summary(self) -> dict[str, Any]:
        """Return it for a program, without the photos one by one; None for no number."""
        found = asdict(self.found) | {
            "passed": self.passed,
            "precision": self.graph.precision,
            "head_precision": self.graph.head_precision,
            "min_agreement": self.min_agreement if self.reduced else None,
            "accuracy": self.accuracy,
            "accuracy_float32": self.accuracy_float32,
            "ways": [asdict(way) for way in self.ways],
            "batches": asdict(self.batches),
            "pixels": None if self.pixels is None else asdict(self.pixels),
            "layers": [asdict(layer) for layer in self.worst_layers],
            "notes": list(self.notes),
        }
        return {key: _plain(value) for key, value in found.items()}

    def _require_agreement(self) -> None:
        if not self.reduced:
            self.found.require()
        worst = ", ".join(
            f"{layer.name} ({layer.op}, +{layer.added:.1%})"
            for layer in self.worst_layers[:_SHOWN_LAYERS]
        )
        costly = f"; the layers that cost most: {worst}" if worst else ""
        raise VerificationError(
            f"the model decides as float32 does on {self.found.agreement:.2%} of "
            f"{self.found.images} photos, less than the {self.min_agreement:.2%} asked for"
            f"{costly}; export it with more precision"
        )


def _plain(value: Any) -> Any:
    """Put None for what JSON has no number for: NaN and infinity."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
