# SPDX-License-Identifier: Apache-2.0
"""Runs in a child: TensorRT itself, from the import to an engine that answers rightly."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends.cuda import Cuda, DeviceBuffer, PinnedBuffer, Stream
from edge_imprint_runtime.doctor import tiny
from edge_imprint_runtime.doctor.child import Tell
from edge_imprint_runtime.doctor.libraries import needs_own_kernels
from edge_imprint_runtime.engine.answers import deserialize
from edge_imprint_runtime.engine.tensorrt_api import Log, TensorRT, load
from edge_imprint_runtime.errors import DeviceError, EngineBuildError, MissingPackageError

__all__ = ["run"]

_WORKSPACE_BYTES = 64 << 20
_WHERE = "the tiny model"


def run(tell: Tell, _argument: str) -> dict[str, Any]:
    """Import TensorRT, make a builder, build the tiny model's engine, and run it.

    Args:
        tell: Told of each stage.

    Returns:
        ``status``, ``reason``, and what was found out: ``version``, ``path``,
        ``own_kernels`` (whether cuBLAS and cuDNN had to be left out), ``build_s``,
        ``first_run_ms``.
    """
    tell("import")
    try:
        api = load()
    except MissingPackageError:
        return {"status": "missing", "reason": "TensorRT's Python module is not installed"}
    tell("builder", version=api.text, path=getattr(api.module, "__file__", None))
    log = api.log()
    builder = api.builder(log)
    own = needs_own_kernels(api.version)
    tell("build", own_kernels=own)
    begun = time.monotonic()
    plan = _build(api, builder, log, own_kernels=own)
    tell("load", build_s=round(time.monotonic() - begun, 3))
    runtime, engine = deserialize(api, plan, f"{_WHERE}'s engine", log)
    tell("first run")
    begun = time.monotonic()
    scores = _answer(engine)
    tell("runs", first_run_ms=round((time.monotonic() - begun) * 1e3, 3))
    del engine, runtime
    if not tiny.is_right(scores):
        shown = np.array2string(scores.ravel()[:5], precision=3)
        return {"status": "wrong", "reason": f"it answered {shown} to {_WHERE}"}
    return {"status": "runs"}


def _build(api: TensorRT, builder: Any, log: Log, *, own_kernels: bool) -> bytes:
    network = api.network(builder)
    api.parse(network, tiny.FILE.read_bytes(), log, _WHERE)
    config = builder.create_builder_config()
    api.limit_workspace(config, _WORKSPACE_BYTES)
    api.keep_layer_names(config)  # as `compile` does
    if own_kernels:
        api.use_own_kernels(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = log.errors() or "it does not say why"
        raise EngineBuildError(f"TensorRT {api.text} builds no engine of {_WHERE}: {said}")
    return bytes(plan)


def _answer(engine: Any) -> npt.NDArray[np.float32]:
    cuda = Cuda()
    stream, pixels = Stream(cuda), tiny.images()
    context = engine.create_execution_context()
    if context is None:
        raise DeviceError("TensorRT makes no context of the engine to run it in")
    given = DeviceBuffer(cuda, pixels.nbytes)
    scores = np.empty(tuple(engine.get_tensor_shape("scores")), np.float32)
    taken, back = DeviceBuffer(cuda, scores.nbytes), PinnedBuffer(cuda, scores.nbytes)
    given.fill(pixels, stream)
    context.set_tensor_address("images", given.address)
    context.set_tensor_address("scores", taken.address)
    if not context.execute_async_v3(stream.handle):
        raise DeviceError("TensorRT does not start the engine")
    stream.copy_out(back, taken, scores.nbytes)
    stream.synchronize()
    scores[...] = back.view(np.float32, scores.shape)
    return scores
