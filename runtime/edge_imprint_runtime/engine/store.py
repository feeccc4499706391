# SPDX-License-Identifier: Apache-2.0
"""Writing an engine and its sidecar, so that a crash leaves what is told, never what misleads.

The engine comes first. Where the second file is not written any more, the first does not fit
the old one or has none beside it, and both are refused.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_imprint_runtime.engine.options import Options
from edge_imprint_runtime.engine.plan import plan_version
from edge_imprint_runtime.engine.planning import Plan
from edge_imprint_runtime.engine.shapes import Range
from edge_imprint_runtime.engine.sidecar import Sidecar, write_sidecar
from edge_imprint_runtime.engine.source import Source
from edge_imprint_runtime.engine.tensorrt_api import TensorRT
from edge_imprint_runtime.files import write_atomic

if TYPE_CHECKING:
    from edge_imprint_runtime.backends.cuda import GpuFacts

__all__ = ["make_sidecar", "model_beside", "write_engine"]


def make_sidecar(
    source: Source,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    api: TensorRT,
    gpu: GpuFacts,
    options: Options,
    profile: Mapping[str, Range],
) -> Sidecar:
    """Say what is known of an engine.

    Args:
        source: The model.
        plan: The engine.
        out: Where it will lie.
        api: TensorRT.
        gpu: The GPU.
        options: What was asked for.
        profile: Its shapes.

    Returns:
        What goes beside it.
    """
    said = plan_version(plan.data)
    version = api.version
    if said is not None and said[: len(version)] == version:
        version = said  # pip's TensorRT leaves its fourth number out, the plan does not
    return Sidecar(
        engine_bytes=len(plan.data),
        engine_sha256=hashlib.sha256(plan.data).hexdigest(),
        plan_tensorrt=None if said is None else ".".join(map(str, said)),
        model_file=model_beside(source.path, out),
        model_bytes=len(source.data),
        model_sha256=source.sha256,
        graph_sha256=source.facts.graph_sha256,
        head={name: tensor.shape for name, tensor in source.facts.head_tensors().items()},
        metadata=source.metadata,
        inputs=dict(source.facts.inputs),
        outputs=dict(source.facts.outputs),
        profile=dict(profile),
        tensorrt=".".join(map(str, version)),
        platform=platform.machine(),
        gpu_name=gpu.name,
        compute_capability=gpu.compute_capability,
        gpu_memory_bytes=gpu.memory_bytes,
        driver=gpu.driver,
        cuda=gpu.cuda,
        precision=source.precision,
        strongly_typed=api.types_strongly,
        builder_flags=plan.flags,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        refittable=options.refittable,
        optimization_level=options.optimization_level,
        own_kernels=options.own_kernels,
        contexts=options.contexts,
        workspace_bytes=options.workspace_bytes,
        build_s=plan.build_s,
        built_unix_s=int(time.time()),
    )


def model_beside(model: Path, out: str | os.PathLike[str]) -> str:
    """Say where a model lies, seen from its engine's folder.

    Args:
        model: The ONNX file.
        out: The engine.

    Returns:
        A relative path. Folders are the real ones: ``..`` leads out of what a link leads to.
    """
    folder = os.path.realpath(model.absolute().parent)
    there = os.path.realpath(Path(out).parent)
    return os.path.relpath(os.path.join(folder, model.name), there)


def write_engine(
    out: str | os.PathLike[str], data: bytes, sidecar: Sidecar, *, force: bool = False
) -> None:
    """Write an engine, then its sidecar.

    Args:
        out: The engine's file.
        data: Its bytes.
        sidecar: What goes beside it.
        force: Whether files that are there may be replaced.

    Raises:
        OutputExistsError, OutputWriteError: As `write_atomic`.
    """
    write_atomic(out, data, force=force)
    write_sidecar(out, sidecar, force=force)
