# SPDX-License-Identifier: Apache-2.0
"""Batches of any size on a runner that takes only some: split, padded, joined again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends import Runner

__all__ = ["run_in_parts"]


def run_in_parts(
    runner: Runner,
    names: list[str],
    images: npt.NDArray[np.generic],
    held: Mapping[str, Any] | None = None,
) -> list[npt.NDArray[np.generic]]:
    """Run a model on a batch of any size.

    What is above the most images of a run is run in parts as equal as can be, so that none
    is slow for being small; what is below the fewest gets images of zeros beside, whose
    answers are dropped.

    Args:
        runner: What runs it; its ``batch_limits`` say what a run takes.
        names: The outputs wanted, each with one row an image.
        images: (N, ...) with N >= 1.
        held: As in `Runner.run`.

    Returns:
        One array of N rows an output; the caller owns them.
    """
    least, most = runner.batch_limits
    count = len(images)
    if count >= least and (most is None or count <= most):
        return runner.run(names, images, held)
    parts = -(-count // most) if most is not None else 1
    found = [
        _padded(runner, names, part, held, least) for part in np.array_split(images, parts)
    ]
    return [np.concatenate(rows) for rows in zip(*found, strict=True)]


def _padded(
    runner: Runner,
    names: list[str],
    images: npt.NDArray[np.generic],
    held: Mapping[str, Any] | None,
    least: int,
) -> list[npt.NDArray[np.generic]]:
    count = len(images)
    if count < least:
        room = np.zeros((least - count, *images.shape[1:]), images.dtype)
        images = np.concatenate([images, room])
    return [rows[:count] for rows in runner.run(names, images, held)]
