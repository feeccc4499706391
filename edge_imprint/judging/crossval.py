# SPDX-License-Identifier: Apache-2.0
"""Held-out similarities: each embedding compared with proxies it had no part in.

What `evaluate` reports, what chooses k for each class, and what calibrates, all rest on this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.judging.folds import Folds

__all__ = ["Folds", "HeldOut", "held_out"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """The answers for each embedding that was held out, in the order of the classes' rows.

    Attributes:
        truth: (M,) int64 class of each.
        row: (M,) int64 position of each within its class's rows.
        scores: (M, C) float32.
        nearest: (M, C) float32, similarity to each class's nearest proxy.
        label: (M,) int32, the answer.
    """

    truth: Int64
    row: Int64
    scores: Float32
    nearest: Float32
    label: npt.NDArray[np.int32]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(M,) whether each answer is right."""
        return np.asarray(self.label == self.truth)


def held_out(
    folds: Folds,
    recipe: Recipe,
    *,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Cross-validate a recipe.

    Args:
        folds: The split.
        recipe: How each training part is imprinted.
        ks: As in `imprint`.
        seed: As in `imprint`.
        progress: Told (done, total) folds.

    Returns:
        The answers, each embedding held out once.
    """
    labels = [str(c) for c in range(len(folds.source))]
    parts: list[tuple[npt.NDArray[np.generic], ...]] = []
    for fold in range(folds.count):
        head = imprint(folds.training(fold), labels, recipe, ks=ks, seed=seed)
        rows = folds.rows(fold)
        queries = np.concatenate([folds.held_out(fold)[c][0] for c in range(len(labels))])
        truth = np.repeat(np.arange(len(labels)), [len(row) for row in rows])
        nearest = head.nearest(queries)
        votes = head.rule.aggregation == "mnn"
        parts.append(
            (
                truth,
                np.concatenate(rows),
                head.scores(queries) if votes else nearest,
                nearest,
                head.predict(queries) if votes else nearest.argmax(axis=1).astype(np.int32),
            )
        )
        if progress is not None:
            progress(fold + 1, folds.count)
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    order = np.lexsort([joined[1], joined[0]])
    return HeldOut(*(column[order] for column in joined))
