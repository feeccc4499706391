# SPDX-License-Identifier: Apache-2.0
"""What the stand-in for TensorRT says of an engine's layers."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["IProfiler", "Inspector"]


class IProfiler:
    """What TensorRT tells of layers' times; to be derived from."""

    _made = False

    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Be told of one layer; the derived class says what to do."""
        raise NotImplementedError


class Inspector:
    """What describes an engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:
        """Describe it."""
        world, enums = self._engine.facts
        layers = [
            {"Name": node.name or f"layer {i}", "LayerType": node.op_type}
            for i, node in enumerate(self._engine.nodes)
        ]
        if format is not enums["forms"].JSON:
            return "\n".join(layer["Name"] for layer in layers)
        tensors = "I/O Tensors" if world.numbers >= (11,) else "Bindings"
        names: list[Any] = [*self._engine.inputs, *self._engine.outputs]
        if self._engine._plan.facts["verbosity"] == "LAYER_NAMES_ONLY":
            return json.dumps({"Layers": [layer["Name"] for layer in layers], tensors: names})
        return json.dumps({"Layers": layers, tensors: names})
