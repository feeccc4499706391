# SPDX-License-Identifier: Apache-2.0
"""Stand-in engines with their sidecars, for tests of what runs them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnxruntime

from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.engine.shapes import make_profile
from edge_imprint_runtime.engine.sidecar import Sidecar, write_sidecar
from tests.standins import Plan, World

__all__ = ["make_engine"]


def make_engine(
    model: Path,
    world: World,
    *,
    batch: tuple[int, int, int] | None = (1, 2, 8),
    frame_size: tuple[int, int] | None = None,
    flags: Sequence[str] = (),
    profiles: int = 1,
    verbosity: str = "DETAILED",
    **sidecar: Any,
) -> Path:
    """Write an engine of a model, as `compile_engine` would on a world's machine.

    Args:
        model: An ONNX file with a contract.
        world: The machine.
        batch: Fewest, usual and most images.
        frame_size: As in `compile_engine`.
        flags: The builder's flags.
        profiles: How many profiles, all alike.
        verbosity: What the inspector can tell.
        sidecar: Fields of the sidecar that are to be something else.

    Returns:
        The engine, ``MODEL.engine``.
    """
    data = model.read_bytes()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    inputs, outputs = (
        {value.name: (tuple(value.shape), value.type) for value in values}
        for values in (session.get_inputs(), session.get_outputs())
    )
    contract = decode(metadata, model=True, where=str(model))
    profile = make_profile(
        inputs, contract, where=str(model), batch=batch, frame_size=frame_size
    )
    capability = "{}.{}".format(*world.compute_capability)
    facts = {"profile": profile, "flags": list(flags), "gpu": world.gpu_name, "cc": capability}
    facts |= {"profiles": profiles, "verbosity": verbosity}
    plan = Plan(world.numbers, facts, data).pack()
    engine = model.with_suffix(".engine")
    engine.write_bytes(plan)
    made: dict[str, Any] = {
        "engine_bytes": len(plan),
        "engine_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_tensorrt": world.version,
        "model_file": model.name,
        "model_bytes": len(data),
        "model_sha256": hashlib.sha256(data).hexdigest(),
        "graph_sha256": "0" * 64,
        "head": {},
        "metadata": metadata,
        "inputs": inputs,
        "outputs": outputs,
        "profile": profile,
        "tensorrt": world.version,
        "gpu_name": world.gpu_name,
        "compute_capability": capability,
        "gpu_memory_bytes": world.memory_bytes,
        "driver": "12.6",
        "cuda": "12.6",
        "precision": "fp32",
        "strongly_typed": False,
        "builder_flags": tuple(flags),
        "version_compatible": "VERSION_COMPATIBLE" in flags,
        "hardware_compatible": "none",
        "refittable": False,
        "optimization_level": None,
        "own_kernels": False,
        "workspace_bytes": None,
        "build_s": 1.5,
        "built_unix_s": 1_700_000_000,
        "platform": platform.machine(),
        "contexts": profiles,
    }
    known = {field.name for field in fields(Sidecar)}
    made = {name: value for name, value in made.items() if name in known}
    write_sidecar(engine, Sidecar(**made | sidecar), force=True)
    return engine
