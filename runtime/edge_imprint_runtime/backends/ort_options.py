# SPDX-License-Identifier: Apache-2.0
"""What each of ONNX Runtime's providers is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.errors import OutputWriteError
from edge_imprint_runtime.files import cache_folder, file_sha256

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "Ranges",
    "TensorrtSetup",
    "shape_ranges",
    "start_list",
    "tensorrt_setup",
]

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)

# Least, usual and greatest shape by input.
Ranges = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class TensorrtSetup:
    """How ONNX Runtime's TensorRT provider is to start.

    Attributes:
        options: What it is told.
        folder: Where it keeps engines and timings.
        max_batch: The most images its engines take; None where each new shape makes it
            compile again.
        is_built: Whether the folder holds an engine already.
    """

    options: dict[str, str]
    folder: Path
    max_batch: int | None
    is_built: bool

    def first_run_notice(self) -> str | None:
        """Say that a build is about to begin, and how long it may take; None: there is one."""
        if self.is_built:
            return None
        again = "" if self.max_batch is not None else ", again for each new size of its input"
        return (
            "TensorRT compiles the model now, which takes from seconds on a large GPU to ten "
            f"minutes on a Jetson{again}; the engine is kept in {self.folder}"
        )


def shape_ranges(model: Path | bytes, *, with_defaults: bool = False) -> Ranges | None:
    """Say which shapes a model's inputs may have.

    Args:
        model: The file, or its bytes, that `check_model_file` let through.
        with_defaults: Whether inputs that have a default count too.

    Returns:
        Least, usual and greatest shape of each input; None where the file does not bound
        them, as with frames of any size, or with classes that are to be taught to a default.

    Raises:
        ModelFileError: The file contradicts itself.
        ContractVersionError, ContractKeyError, ContractValueError: Its metadata are not what
            this release reads.
    """
    from edge_imprint_runtime.engine.onnx_facts import read_facts
    from edge_imprint_runtime.engine.shapes import DEFAULT_BATCH, make_profile

    where = "the model" if isinstance(model, bytes) else str(model)
    facts = read_facts(model if isinstance(model, bytes) else model.read_bytes(), where)
    if f"{PREFIX}version" in facts.metadata:
        contract = decode(facts.metadata, model=True, where=where)
        graph = contract.graph
        assert graph is not None  # decode(model=True) saw to it
        growing = graph.teachable is not None and graph.teachable.form == "default"
        if (graph.frame is not None and graph.frame.any_size) or (with_defaults and growing):
            return None
        return dict(make_profile(facts.inputs, contract, where=where))
    found: Ranges = {}
    for position, (name, (shape, _)) in enumerate(facts.inputs.items()):
        sides = tuple(side for side in shape[1:] if isinstance(side, int))
        if len(sides) != len(shape) - 1 or (position and not isinstance(shape[0], int)):
            return None
        first = shape[0]
        least, usual, most = (first,) * 3 if isinstance(first, int) else DEFAULT_BATCH
        found[name] = (least, *sides), (usual, *sides), (most, *sides)
    return found


def tensorrt_setup(model: Path | bytes, library: str) -> TensorrtSetup:
    """Say how ONNX Runtime's TensorRT provider is to start.

    Its engines and timings are kept, apart for each model and each ONNX Runtime: it finds an
    engine by the graph's form, not by its weights, and would run another model's. Half
    precision is not asked for: it is in the graph, and TensorRT 11 knows no such switch.

    Args:
        model: As in `shape_ranges`.
        library: ONNX Runtime with its version.

    Returns:
        Options, folder, and what they mean.

    Raises:
        OutputWriteError: The folder can't be made.
        ModelFileError, ContractVersionError, ContractKeyError, ContractValueError: As there.
    """
    ranges = shape_ranges(model, with_defaults=True)
    kept = cache_folder() / "tensorrt-provider"
    folder = kept / f"{_digest(model)[:32]}-{library.replace(' ', '-')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputWriteError(
            f"cannot make the folder {folder} for TensorRT's engines: {error.strerror}; set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    max_batch = None
    varying = {n: shapes for n, shapes in (ranges or {}).items() if shapes[0] != shapes[2]}
    for position, name in enumerate(("min", "opt", "max")):
        if varying:
            options[f"trt_profile_{name}_shapes"] = ",".join(
                f"{n}:{'x'.join(map(str, shapes[position]))}" for n, shapes in varying.items()
            )
    if ranges:
        max_batch = next(iter(ranges.values()))[2][0]
    return TensorrtSetup(options, folder, max_batch, any(folder.glob("*.engine")))


def start_list(provider: str, setup: TensorrtSetup | None, available: list[str]) -> list[Any]:
    """List the providers of a session, the one asked for first.

    Args:
        provider: The one asked for.
        setup: What the TensorRT provider is told.
        available: What this ONNX Runtime was built with.

    Returns:
        What `onnxruntime.InferenceSession` takes. Behind TensorRT stands CUDA, for nodes that
        TensorRT can't take; the CPU, for shapes, ONNX Runtime adds itself.
    """
    if setup is None:
        return [provider]
    return [(provider, setup.options), *([CUDA] if CUDA in available else [])]


def _digest(model: Path | bytes) -> str:
    if not isinstance(model, bytes):
        return file_sha256(model)
    import hashlib  # here, since it brings OpenSSL, and the CPU's provider needs none

    return hashlib.sha256(model).hexdigest()
