# SPDX-License-Identifier: Apache-2.0
"""What TensorRT's profiler and inspector say of an engine's layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from edge_imprint_runtime.backends import LayerTime
from edge_imprint_runtime.errors import DeviceError

__all__ = ["layer_kinds", "layer_times"]


def layer_times(
    module: Any, profile: Callable[[Any], None], described: str, runs: int
) -> list[LayerTime]:
    """Time an engine's layers.

    Args:
        module: TensorRT.
        profile: Runs the engine with the profiler that it is given.
        described: What the inspector says of the engine, JSON.
        runs: How often it runs it.

    Returns:
        One entry a layer, the dearest first; where the inspector has no kind, "".

    Raises:
        DeviceError: TensorRT reported no layer at all.
    """
    profiler = _profiler(module)
    profile(profiler)
    if not profiler.total_ms:
        names = ", ".join(layer_kinds(described)) or "none"
        raise DeviceError(
            f"TensorRT timed no layer (the inspector names: {names[:300]}); compile the model "
            "again, or leave the layers out"
        )
    kinds = layer_kinds(described)
    found = [
        LayerTime(name, kinds.get(name, ""), 1e6 * total / runs)
        for name, total in profiler.total_ms.items()
    ]
    return sorted(found, key=lambda layer: -layer.mean_ns)


def layer_kinds(described: str) -> dict[str, str]:
    """Read the layers' names and kinds off what the inspector says.

    Args:
        described: JSON. An engine that was compiled without details has names alone.

    Returns:
        Kind by name, in the engine's order; "" where it is not said.
    """
    try:
        layers = json.loads(described).get("Layers", [])
    except (ValueError, AttributeError):  # TensorRT 8 writes JSON that is none for some names
        return {}
    found = {}
    for layer in layers:
        if isinstance(layer, dict):
            found[str(layer.get("Name", ""))] = str(layer.get("LayerType", ""))
        else:
            found[str(layer)] = ""
    return found


def _profiler(module: Any) -> Any:
    class _Profiler(module.IProfiler):  # type: ignore[misc]  # a class of TensorRT's
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            # Two layers may have one name: they count as one.
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return _Profiler()
