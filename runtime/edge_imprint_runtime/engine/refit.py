# SPDX-License-Identifier: Apache-2.0
"""An engine with other proxies, without building it again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path
from typing import Any

from edge_imprint_runtime.engine.answers import deserialize, memory_or
from edge_imprint_runtime.engine.fits import check_machine, read_engine
from edge_imprint_runtime.engine.plan import plan_version
from edge_imprint_runtime.engine.sidecar import Sidecar, read_sidecar, sidecar_path
from edge_imprint_runtime.engine.source import Source, read_source
from edge_imprint_runtime.engine.store import model_beside, write_engine
from edge_imprint_runtime.engine.tensorrt_api import Log, TensorRT, load
from edge_imprint_runtime.errors import (
    EngineBuildError,
    EngineMismatchError,
    ModelFileError,
)
from edge_imprint_runtime.files import check_output

__all__ = ["refit_engine"]

_DIGEST = "edge_imprint.backbone_digest"
_BUILD = "; compile it: edge-imprint compile MODEL --out ENGINE"


def refit_engine(
    engine: str | os.PathLike[str],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    force: bool = False,
) -> Sidecar:
    """Make an engine of a model out of an older one's, in seconds.

    Args:
        engine: An engine that was compiled with ``refittable``.
        model: An ONNX file that differs from that engine's in its head's numbers and labels
            only: the same backbone, rule and precision, as many classes and proxies.
        out: The new engine.
        force: Whether an engine that is there may be replaced; ``out`` may then be ``engine``.

    Returns:
        What was written beside the new engine.

    Raises:
        EngineFileError: The old engine or what lies beside it is missing or damaged.
        EngineMismatchError: The old engine is not refittable, is for another machine, or the
            model differs in more than its head's numbers.
        EngineBuildError: TensorRT does not take the numbers.
        Others: As `compile_engine`.
    """
    source = read_source(model)
    old = read_sidecar(engine)
    for path in (Path(out), sidecar_path(out)):
        check_output(path, force=force, inputs=[model])
    data = read_engine(engine, old)
    _check_same(engine, old, source)
    api = load("refitting an engine")
    from edge_imprint_runtime.backends.cuda import gpu_facts

    check_machine(engine, old, api.version, gpu_facts())
    log = api.log()
    runtime, loaded = deserialize(
        api, data, str(engine), log, version_compatible=old.version_compatible
    )
    started = time.monotonic()
    _replace(api, loaded, source, log)
    serialized = loaded.serialize()
    if serialized is None:
        raise memory_or(
            EngineBuildError, api, log, f"can't write the engine of {source.where}"
        )
    plan = bytes(serialized)
    del loaded, runtime
    said = plan_version(plan)
    made = dataclasses.replace(
        old,
        engine_bytes=len(plan),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        plan_tensorrt=None if said is None else ".".join(map(str, said)),
        model_file=model_beside(source.path, out),
        model_bytes=len(source.data),
        model_sha256=source.sha256,
        metadata=source.metadata,
        build_s=time.monotonic() - started,
        built_unix_s=int(time.time()),
    )
    write_engine(out, plan, made, force=force)
    return made


def _check_same(engine: str | os.PathLike[str], old: Sidecar, source: Source) -> None:
    """Refuse a model that differs in more than numbers."""
    if not old.refittable:
        raise EngineMismatchError(
            f"{engine} was compiled without --refittable, so that nothing in it can be "
            "replaced; compile MODEL with it"
        )
    if source.metadata.get(_DIGEST) != old.metadata.get(_DIGEST):
        raise EngineMismatchError(f"{source.where} has another backbone than {engine}{_BUILD}")
    head = {name: tensor.shape for name, tensor in source.facts.head_tensors().items()}
    if head != old.head:
        name = min(
            name
            for name in head.keys() | old.head.keys()
            if head.get(name) != old.head.get(name)
        )
        raise EngineMismatchError(
            f"{source.where} has {_shape(head.get(name))} of {name!r} where {engine} has "
            f"{_shape(old.head.get(name))}, and an engine's shapes are fixed{_BUILD}"
        )
    if source.facts.graph_sha256 != old.graph_sha256:
        raise EngineMismatchError(
            f"{source.where} differs from {engine} in more than its head's numbers (its "
            f"precision, rule, preprocessing or layout){_BUILD}"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"the shape {list(shape)}"


def _replace(api: TensorRT, engine: Any, source: Source, log: Log) -> None:
    """Give an engine a model's numbers."""
    refitter = api.module.Refitter(engine, log.logger)
    kept = []  # TensorRT reads them until the refit is over
    takes = set(refitter.get_all_weights())
    wanted = list(source.facts.head_tensors())
    lacking = sorted(set(wanted) - takes)
    if lacking:
        raise EngineBuildError(
            f"TensorRT {api.text} can't replace {lacking[0]!r} in the engine{_BUILD}"
        )
    # What was fused with the head's numbers wants to be given again, too.
    while wanted:
        for name in wanted:
            values = _values(source, name)
            kept.append(values)
            if not refitter.set_named_weights(name, api.module.Weights(values)):
                raise EngineBuildError(
                    f"TensorRT {api.text} does not take {name!r} of {source.where}: "
                    f"{log.errors() or 'it does not say why'}{_BUILD}"
                )
            takes.discard(name)
        missing = refitter.get_missing_weights()
        wanted = [name for name in missing if name in takes]
        if missing and not wanted:
            raise EngineBuildError(
                f"TensorRT {api.text} wants {missing[0]!r} again, which it was given{_BUILD}"
            )
    if not refitter.refit_cuda_engine():
        raise memory_or(
            EngineBuildError, api, log, f"can't refit the engine with {source.where}"
        )


def _values(source: Source, name: str) -> Any:
    tensor = source.facts.tensors.get(name)
    values = None if tensor is None else tensor.values(source.data)
    if values is None:
        raise ModelFileError(
            f"{source.where} has no numbers {name!r} that could be read; export it again"
        )
    return values.copy()
