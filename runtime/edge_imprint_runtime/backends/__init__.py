# SPDX-License-Identifier: Apache-2.0
"""What runs a model. Each backend's library is imported in its own file, on use."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BACKENDS", "LayerTime", "Placement", "Runner", "say_notice"]

BACKENDS = ("auto", "cpu", "cuda", "tensorrt")


@dataclass(frozen=True)
class Placement:
    """Which of ONNX Runtime's providers got which nodes of a graph.

    Attributes:
        asked: The provider that was asked for.
        nodes: How many nodes, by provider.
        strays: Nodes that compute and are not on ``asked``, as ``OPERATOR NAME``; the first
            twenty.
    """

    asked: str
    nodes: dict[str, int]
    strays: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerTime:
    """How long one layer of a model takes.

    Attributes:
        name: Its name in the graph or the engine.
        kind: Its operator, or what TensorRT calls it.
        mean_ns: Nanoseconds of a run, on average.
    """

    name: str
    kind: str
    mean_ns: float


class Runner(Protocol):
    """A loaded model: names and shapes, metadata, and one call.

    What is measured of it has a plain answer here, for runners that know no better.

    Attributes:
        provider: What runs it: ONNX Runtime's name of a provider, or ``TensorRT``.
        library: The library that runs it, with its version, such as ``onnxruntime 1.31.1``.
        threads: Threads for one operator on the CPU; 0: its own choice.
        metadata: Text by key.
        inputs: Shape and type by name; the images come first.
        defaults: Inputs that have a default, and need not be given.
        outputs: Shape and type by name.
        batch_limits: The fewest and the most images that one run takes; None: any number.
        placement: Which provider got which nodes; None where that can't be asked.
    """

    provider: str
    library: str
    threads: int
    metadata: dict[str, str]
    inputs: dict[str, tuple[tuple[int | str | None, ...], str]]
    defaults: dict[str, tuple[tuple[int | str | None, ...], str]]
    outputs: dict[str, tuple[tuple[int | str | None, ...], str]]
    batch_limits: tuple[int, int | None] = (1, None)
    placement: Placement | None = None

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

    def run_stages(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> tuple[list[npt.NDArray[np.generic]], dict[str, int]]:
        """Run the model and time its stages one by one, waiting for the device after each.

        Args:
            names: As in `run`, likewise the others.
            images: As there.
            held: As there.

        Returns:
            The outputs, and nanoseconds by stage: ``copy_in``, ``compute``, ``copy_out`` on
            the host's clock, of which a provider on the CPU has only ``compute``; and the
            same with ``_gpu`` behind where CUDA events time them too.
        """
        start = time.perf_counter_ns()
        found = self.run(names, images, held)
        return found, {"compute": time.perf_counter_ns() - start}

    def layers(
        self,
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
        *,
        runs: int = 20,
    ) -> list[LayerTime]:
        """Time the model layer by layer, which makes the whole slower.

        Args:
            images: As in `run`.
            held: As in `run`.
            runs: Over how many runs.

        Returns:
            One entry a layer, the dearest first; none where that can't be had.
        """
        return []

    def device_memory_bytes(self) -> int | None:
        """Return what the model holds of the device's own memory; None on the CPU."""
        return None

    def close(self) -> None:
        """Give back what it holds; a run afterwards raises ClosedModelError."""
        return  # nothing but memory of Python's own


def say_notice(text: str) -> None:
    """Say something where the caller gave no way to: Python's log, a line on stderr."""
    logging.getLogger("edge_imprint_runtime").warning(text)
