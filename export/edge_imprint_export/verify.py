# SPDX-License-Identifier: Apache-2.0
"""Hold a fused model against the oracle: the same pixels, two ways that share no code.

One way is the model itself. The other is the host's own arithmetic for the pixels, the bare
backbone graph, and `Head.scores` in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from edge_imprint_export.graph import EMBEDDING, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    ParameterError,
    VerificationError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.model import Model

__all__ = ["TOLERANCE", "Verification", "verify"]

TOLERANCE = 1e-4
_BATCH = 64


@dataclass(frozen=True)
class Verification:
    """What a comparison with the oracle found.

    Attributes:
        images: How many images were compared.
        agreement: Share of equal labels, ties aside.
        ties: Images whose label differs while the two scores lie within the tolerance.
        max_difference: Largest |score - oracle score|, relative to the largest |oracle score|
            where that is above 1 (it is not where scores are cosines).
        mean_difference: Mean of it.
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
        BackboneMismatchError: Model and head have other labels, or the head names no backbone.
    """
    if not 0 <= tolerance <= 1:
        raise ParameterError(f"tolerance must be a number from 0 to 1, got {tolerance}")
    if model.labels != head.labels or head.backbone is None:
        raise BackboneMismatchError(
            "the model's labels are not the head's; verify a model with the head it came from"
        )
    data = backbone_onnx if isinstance(backbone_onnx, bytes) else to_bytes(backbone_onnx)
    backbone = OrtRunner(data, "cpu")
    scores, labels, oracle = [], [], []
    for start in range(0, len(pixels), _BATCH):
        batch = pixels[start : start + _BATCH]
        floats = normalize(batch, head.backbone.preprocess)
        answer = model.predict(batch if model.input_dtype == np.uint8 else floats)
        scores.append(answer.scores)
        labels.append(answer.label)
        oracle.append(head.scores(backbone.run([EMBEDDING], floats)[0]))
    return compare(
        np.concatenate(scores), np.concatenate(labels), np.concatenate(oracle), tolerance
    )


def compare(
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    oracle: npt.NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare answers with the oracle's.

    Args:
        scores: (N, C) float32, the model's.
        labels: (N,) int32, the model's.
        oracle: (N, C) float32.
        tolerance: As in `verify`.

    Returns:
        What was found.
    """
    # float32 is exact to a share of a number, not to a distance.
    scale = max(1.0, float(np.abs(oracle).max()))
    difference = np.abs(scores.astype(np.float64) - oracle) / scale
    row = np.arange(len(oracle))
    best = oracle.argmax(axis=1)
    wrong = labels != best
    # Two classes nearer to each other than the arithmetic is exact: either answer is right.
    tie = wrong & (oracle[row, best] - oracle[row, labels] <= tolerance * scale)
    return Verification(
        images=len(oracle),
        agreement=float(1 - (wrong & ~tie).mean()),
        ties=int(tie.sum()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        tolerance=tolerance,
    )
