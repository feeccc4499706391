# SPDX-License-Identifier: Apache-2.0
"""Which file a model is; opening an engine, which may have to be compiled again first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_imprint_runtime.engine.plan import MAGICS
from edge_imprint_runtime.errors import (
    EngineFileError,
    EngineMismatchError,
    ModelFileError,
)

if TYPE_CHECKING:
    from edge_imprint_runtime.backends.trt import TrtRunner
    from edge_imprint_runtime.engine.waiting import Progress

__all__ = ["is_engine", "model_file", "open_engine"]

_SIDECAR_START_BYTES = 64  # its format stands there


def is_engine(file: Path) -> bool:
    """Tell an engine from an ONNX file: by its name, its first bytes, or its sidecar."""
    if file.suffix == ".engine":
        return True
    with open(file, "rb") as start:
        if start.read(4) in MAGICS:
            return True
    # Of a damaged engine the sidecar tells; but others, too, write a FILE.json beside a model.
    beside = f"{file}.json"
    if not os.path.isfile(beside):
        return False
    with open(beside, "rb") as sidecar:
        return b'"edge-imprint.engine"' in sidecar.read(_SIDECAR_START_BYTES)


def model_file(path: str | os.PathLike[str]) -> Path:
    """Refuse what can be no model: ModelFileError says what is there instead."""
    file = Path(path)
    if not os.path.isfile(file):  # unlike Path's, it takes names that no file can have
        if os.path.isdir(file):
            raise ModelFileError(f"{file} is a folder; name a model file")
        raise ModelFileError(f"there is no model file {file}")
    try:
        with open(file, "rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise ModelFileError(f"cannot read {file}: {error.strerror}") from error
    if start[8:] == b"{":  # safetensors: eight bytes of length, then JSON
        raise ModelFileError(
            f"{file} is a head, not a model; make one of it with: edge-imprint export"
        )
    return file


def open_engine(
    file: Path,
    *,
    cuda_graph: bool = False,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> TrtRunner:
    """Open an engine that `compile_engine` wrote.

    Args:
        file: The engine; its sidecar lies beside it.
        cuda_graph: Launch its kernels as one recorded graph.
        rebuild: Compile it again, with the same options, where it does not fit this GPU,
            this TensorRT or its ONNX file, or is damaged.
        progress: Told how far that is, as `compile_engine` tells it.

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
    from edge_imprint_runtime.backends import say_notice
    from edge_imprint_runtime.engine.build import compile_again

    compile_again(file, progress=progress, note=say_notice)  # ten minutes, not in silence
    return TrtRunner(file, cuda_graph=cuda_graph)
