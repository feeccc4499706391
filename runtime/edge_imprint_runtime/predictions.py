# SPDX-License-Identifier: Apache-2.0
"""What a model answers: arrays for programs, items for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract.spec import UNKNOWN

__all__ = ["Prediction", "Predictions"]


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: The class's name, or ``unknown`` where ``known`` is false.
        index: Position of the nearest class in the model's labels.
        score: Its score.
        nearest: Its name.
        known: Whether the image is as near to it as its known ones; None where the model is
            not calibrated.
        probability: That it is this class, among those of the model; None likewise.
        proxy: Position of the nearest class's nearest proxy in the head; None where the model
            was exported without it.
    """

    label: str
    index: int
    score: float
    nearest: str
    known: bool | None = None
    probability: float | None = None
    proxy: int | None = None


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """The answers for N images: arrays for programs, items for people.

    Attributes:
        scores: (N, C) float32, higher is nearer.
        label: (N,) int32 class indices, whether known or not.
        labels: The C class names.
        known: (N,) bool; None where the model is not calibrated.
        probability: (N, C) float32; None likewise.
        proxy: (N,) int32; None where the model was exported without it.
    """

    scores: npt.NDArray[np.float32]
    label: npt.NDArray[np.int32]
    labels: tuple[str, ...]
    known: npt.NDArray[np.bool_] | None = None
    probability: npt.NDArray[np.float32] | None = None
    proxy: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, item: int) -> Prediction:  # type: ignore[override]
        index = int(self.label[item])
        nearest = self.labels[index]
        known = None if self.known is None else bool(self.known[item])
        return Prediction(
            label=UNKNOWN if known is False else nearest,
            index=index,
            score=float(self.scores[item, index]),
            nearest=nearest,
            known=known,
            probability=(
                None if self.probability is None else float(self.probability[item, index])
            ),
            proxy=None if self.proxy is None else int(self.proxy[item]),
        )

    def __iter__(self) -> Iterator[Prediction]:
        return (self[item] for item in range(len(self)))
