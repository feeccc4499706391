# SPDX-License-Identifier: Apache-2.0
"""What runs a model. Each backend's library is imported in its own file, on use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BACKENDS", "Runner"]

BACKENDS = ("auto", "cpu", "cuda", "tensorrt")


class Runner(Protocol):
    """A loaded model: names and shapes, metadata, and one call.

    Attributes:
        provider: What runs it.
        threads: Threads for one operator on the CPU; 0: its own choice.
        metadata: Text by key.
        inputs: Shape and type by name; the images come first.
        defaults: Inputs that have a default, and need not be given.
        outputs: Shape and type by name.
    """

    provider: str
    threads: int
    metadata: dict[str, str]
    inputs: dict[str, tuple[tuple[int | str | None, ...], str]]
    defaults: dict[str, tuple[tuple[int | str | None, ...], str]]
    outputs: dict[str, tuple[tuple[int | str | None, ...], str]]

    def hold(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
        """Put arrays where the provider reads them, once for many runs.

        Args:
            arrays: Inputs by name, C contiguous; not to be changed afterwards.

        Returns:
            What `run` takes as ``held``.
        """
        ...

    def run(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> list[npt.NDArray[np.generic]]:
        """Run the model. Several threads may.

        Args:
            names: The outputs wanted.
            images: What goes into the model's first input; shape and dtype as declared.
            held: What goes into the others, as `hold` gave it.

        Returns:
            One array an output; the caller owns them.
        """
        ...
