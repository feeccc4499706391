# SPDX-License-Identifier: Apache-2.0
"""The split of a cross-validation, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.whitening import ClassSource
from edge_imprint_runtime.errors import ParameterError, TooFewImagesError

__all__ = ["FOLDS", "Folds"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FOLDS = 5


class Folds:
    """A split of every class's rows into parts of equal size, by a seed.

    The only row of a class is never held out: its class would be gone.

    Args:
        source: C classes.
        folds: Parts, from 2 on. A class with fewer rows takes part in fewer.
        seed: For the split, which does not depend on the order of the classes.

    Raises:
        ParameterError: ``folds`` is below 2.
        TooFewImagesError: No class has two rows.
    """

    def __init__(self, source: ClassSource, folds: int = FOLDS, seed: int = 0) -> None:
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
            raise ParameterError(f"folds must be an integer >= 2, got {folds!r}")
        self.source = source
        self.parts: list[Int64] = []
        for c in range(len(source)):
            rows, _ = source[c]
            # The same photo twice must not be held out once: it would know its own answer.
            _, same = np.unique(rows, axis=0, return_inverse=True)
            same = same.ravel()  # numpy 2.0 gives a column
            distinct = int(same.max()) + 1
            part = np.random.default_rng(seed).permutation(distinct) % folds
            self.parts.append(part[same] if distinct > 1 else np.full(len(rows), -1))
        self.count = min(folds, max(int(part.max()) for part in self.parts) + 1)
        if self.count < 2:
            raise TooFewImagesError(
                "no class has two different images, so that none can be held out; add images"
            )

    def training(self, fold: int) -> ClassSource:
        """Return what is left for training."""
        return _Part(self.source, self.parts, fold, held_out=False)

    def held_out(self, fold: int) -> ClassSource:
        """Return what is held out; classes may be empty."""
        return _Part(self.source, self.parts, fold, held_out=True)

    def rows(self, fold: int) -> list[Int64]:
        """Return the positions of the held-out rows, class by class."""
        return [np.flatnonzero(part == fold) for part in self.parts]


@dataclass(frozen=True)
class _Part:
    source: ClassSource
    parts: Sequence[Int64]
    fold: int
    held_out: bool

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        rows, weights = self.source[c]
        chosen = (self.parts[c] == self.fold) == self.held_out
        return rows[chosen], None if weights is None else weights[chosen]
