# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to an engine and what lies beside it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from edge_imprint_runtime.engine.legible import check_legible
from edge_imprint_runtime.engine.options import Options
from edge_imprint_runtime.engine.planning import make_plan
from edge_imprint_runtime.engine.shapes import make_profile
from edge_imprint_runtime.engine.sidecar import (
    Sidecar,
    compile_command,
    read_sidecar,
    sidecar_path,
)
from edge_imprint_runtime.engine.source import Source, read_source
from edge_imprint_runtime.engine.store import make_sidecar, write_engine
from edge_imprint_runtime.engine.tensorrt_api import is_jetson, load
from edge_imprint_runtime.engine.timing import TimingCache, timing_cache_path
from edge_imprint_runtime.engine.waiting import FIRST_RUN, Progress
from edge_imprint_runtime.errors import (
    EngineFileError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside

__all__ = ["compile_again", "compile_engine"]

Note = Callable[[str], None]


def compile_engine(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    batch: tuple[int, int, int] | None = None,
    workspace_bytes: int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    version_compatible: bool = False,
    hardware_compatible: str = "none",
    refittable: bool = False,
    optimization_level: int | None = None,
    own_kernels: bool = False,
    contexts: int = 1,
    frame_size: tuple[int, int] | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
    force: bool = False,
) -> Sidecar:
    """Compile a model with TensorRT, for the GPU and the TensorRT that are here.

    What is float32 in the graph stays float32 (TF32 is off); fp16 and int8 are what the graph
    has of them.

    Args:
        model: An ONNX file that `edge-imprint export` wrote: a model, or a backbone alone.
        out: The engine. What is known of it is written beside it, `sidecar_path`; and of a
            teachable model the head (`head_beside`), where none is there yet.
        batch: Fewest, usual and most images of a run; None: 1, 1, 8, or what the file fixes.
        workspace_bytes: Memory that kernels may use beside their data; None: all there is.
        timing_cache: A file of timings to use and to add to; None: one in the cache folder.
        version_compatible: Newer TensorRTs may load it (from 8.6 on; slower).
        hardware_compatible: ``none``; ``ampere+``: every GPU from Ampere on may run it;
            ``same_compute_capability``: every GPU of this one's. Not on a Jetson.
        refittable: `refit_engine` may replace the head's numbers.
        optimization_level: 0 (quick build) to 5 (long search); None: TensorRT's own, 3.
        own_kernels: Leave cuBLAS and cuDNN out, where TensorRT 8 or 10 would use them and
            they are not installed.
        contexts: How many callers the engine may serve at once where each needs a profile of
            its own (before TensorRT 8.6); the build takes that much longer.
        frame_size: Height and width, pixels, of a model that takes frames of any size.
        progress: Called with the step's name and: per cent and 100, or seconds passed and 0
            where TensorRT does not tell (before 10). At least once a second.
        note: Called with a sentence: before the build, that it may take long; after it, what
            became of the timings. Without it only what is wrong with the timings is told, as
            a warning of Python's.
        force: Whether an engine that is there may be replaced.

    Returns:
        What was written beside the engine.

    Raises:
        ModelFileError, UnsafeModelError: The file is no ONNX model, or claims too much.
        NoContractError, ContractVersionError, ContractKeyError, ContractValueError: It is
            none of ours.
        TargetError: It was exported for something else than TensorRT.
        ParameterError: A value is out of range.
        UnsupportedOptionError: This TensorRT, or this model, has not what an option asks for.
        MissingPackageError: TensorRT or cuda-python is not installed.
        DeviceError, DeviceMemoryError: There is no GPU, or not enough of its memory.
        EngineBuildError: TensorRT can't read the model or build an engine.
        EngineFileError: ``timing_cache`` is none of ours.
        HeadFileError: The head beside a teachable model can't be read.
        OutputExistsError, OutputWriteError: The engine can't be written.
    """
    options = Options(
        workspace_bytes,
        version_compatible,
        hardware_compatible,
        refittable,
        optimization_level,
        own_kernels,
        contexts,
    )
    source = read_source(model)
    for path in (Path(out), sidecar_path(out)):
        check_output(path, force=force, inputs=[model])
    head = _head_to_bring(model, out, source)
    profile = make_profile(
        source.facts.inputs,
        source.contract,
        where=source.where,
        batch=batch,
        frame_size=frame_size,
    )
    _check_options(options, source)
    api = load("compiling an engine")
    check_legible(source.facts, source.contract, api.version, source.where)
    from edge_imprint_runtime.backends.cuda import gpu_facts

    gpu = gpu_facts()
    place = timing_cache_path(api.text, gpu.name, gpu.compute_capability)
    given = timing_cache is not None
    cache = TimingCache(api, Path(timing_cache) if timing_cache else place, given=given)
    if note is not None:
        note(FIRST_RUN)
    plan = make_plan(api, source, profile, options, cache, progress)
    for text in cache.notes:
        if note is None:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        else:
            note(text)
    sidecar = make_sidecar(
        source, plan, out, api=api, gpu=gpu, options=options, profile=profile
    )
    write_engine(out, plan.data, sidecar, force=force)
    if head is not None:
        write_atomic(head_beside(out), head.to_bytes())
    return sidecar


def compile_again(
    engine: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Sidecar:
    """Compile an engine again, as it was asked for, for what is here now.

    Args:
        engine: The engine, which is replaced; what lies beside it says how it was built, and
            where its ONNX file is.
        progress: As in `compile_engine`.
        note: As there.

    Returns:
        What was written beside the engine.

    Raises:
        EngineFileError: What lies beside it is missing or damaged, or names a file that is
            not there.
        Others: As `compile_engine`.
    """
    old = read_sidecar(engine)
    model = Path(engine).parent / old.model_file
    if not model.is_file():
        raise EngineFileError(
            f"{engine} is to be compiled again, and its ONNX file {model} is gone; put it "
            f"back, or run: {compile_command(engine)}"
        )
    images = next(iter(old.inputs))
    declared, shapes = old.inputs[images][0], old.profile[images]
    sides = [size for size, side in zip(shapes[0], declared, strict=True) if side != size]
    # Beside the batch only the two sides of a frame of any size are open.
    any_size = not isinstance(declared[0], int) and len(sides) == 3
    return compile_engine(
        model,
        engine,
        batch=None if isinstance(declared[0], int) else old.batch,
        workspace_bytes=old.workspace_bytes,
        version_compatible=old.version_compatible,
        hardware_compatible=old.hardware_compatible,
        refittable=old.refittable,
        optimization_level=old.optimization_level,
        own_kernels=old.own_kernels,
        contexts=old.contexts,
        frame_size=(sides[1], sides[2]) if any_size else None,
        progress=progress,
        note=note,
        force=True,
    )


def _head_to_bring(
    model: str | os.PathLike[str], out: str | os.PathLike[str], source: Source
) -> Head | None:
    """Return what a teachable model knows, unless the engine knows something already."""
    graph, there = source.graph, head_beside(model)
    if graph is None or graph.teachable is None or os.path.lexists(head_beside(out)):
        return None
    return Head.load(there) if os.path.lexists(there) else None


def _check_options(options: Options, source: Source) -> None:
    if options.hardware_compatible != "none" and is_jetson():
        raise UnsupportedOptionError(
            "an engine made on a Jetson runs on Jetsons of that kind only; leave "
            "hardware_compatible (--hardware-compatible) out"
        )
    if options.refittable and not source.facts.head_tensors():
        raise UnsupportedOptionError(
            f"{source.where} has no head whose numbers could be replaced in an engine; leave "
            "refittable (--refittable) out"
        )
