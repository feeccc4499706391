# SPDX-License-Identifier: Apache-2.0
"""What runs a model. Each backend's library is imported in its own file, on use."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BACKENDS", "Runner"]

BACKENDS = ("auto", "cpu", "cuda", "tensorrt")


class Runner(Protocol):
    """A loaded model: names and shapes, metadata, and one call."""

    provider: str
    threads: int
    metadata: dict[str, str]
    inputs: dict[str, tuple[tuple[int | str | None, ...], str]]
    outputs: dict[str, tuple[tuple[int | str | None, ...], str]]

    def run(
        self, names: list[str], images: npt.NDArray[np.generic]
    ) -> list[npt.NDArray[np.generic]]:
        """Run the model.

        Args:
            names: The outputs wanted.
            images: What goes into the model's one input; shape and dtype as declared.

        Returns:
            One array an output; the caller owns them.
        """
        ...
