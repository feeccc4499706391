# SPDX-License-Identifier: Apache-2.0
"""Opening an engine; one that does not fit this machine is refused, or compiled again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_imprint_runtime.errors import EngineFileError, EngineMismatchError

if TYPE_CHECKING:
    from edge_imprint_runtime.backends.trt import TrtRunner

__all__ = ["is_engine", "open_engine"]

_MAGICS = (b"ftrt", b"ptrt")  # how TensorRT's own files begin, those of 8.5 with the second


def is_engine(file: Path) -> bool:
    """Tell an engine from an ONNX file: by its name, its sidecar, or its first bytes."""
    if file.suffix == ".engine" or os.path.isfile(f"{file}.json"):
        return True
    with open(file, "rb") as start:
        return start.read(4) in _MAGICS


def open_engine(
    file: Path,
    *,
    cuda_graph: bool = False,
    rebuild: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> TrtRunner:
    """Open an engine that `compile_engine` wrote.

    Args:
        file: The engine; its sidecar lies beside it.
        cuda_graph: Launch its kernels as one recorded graph.
        rebuild: Compile it again, with the same options, where it does not fit this GPU,
            this TensorRT or its ONNX file, or is damaged.
        progress: As `compile_engine` takes it.

    Returns:
        What runs it.

    Raises:
        EngineFileError: The engine or its sidecar is missing or damaged.
        EngineMismatchError: It was built for another GPU, TensorRT or ONNX file.
        EngineBuildError: It was to be built again, and could not.
        DeviceError, DeviceMemoryError: There is no GPU, or not enough of its memory.
        MissingPackageError: TensorRT or cuda-python is not installed.
    """
    from edge_imprint_runtime.backends.trt import TrtRunner

    try:
        return TrtRunner(file, cuda_graph=cuda_graph)
    except (EngineFileError, EngineMismatchError):
        if not rebuild:
            raise
    from edge_imprint_runtime.engine.build import compile_again

    compile_again(file, progress=progress)
    return TrtRunner(file, cuda_graph=cuda_graph)
