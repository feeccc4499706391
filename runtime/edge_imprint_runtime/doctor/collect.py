# SPDX-License-Identifier: Apache-2.0
"""Everything that the doctor looks at, in one mapping that rules judge and JSON holds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_imprint_runtime.doctor.attempt import attempt
from edge_imprint_runtime.doctor.elf import needed
from edge_imprint_runtime.doctor.libraries import find_libraries, folders, packages
from edge_imprint_runtime.doctor.system import system_facts
from edge_imprint_runtime.doctor.try_onnxruntime import LIBRARIES
from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.sensors import SensorLostError, open_sensors

__all__ = ["PROVIDERS", "collect"]

PROVIDERS = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
"""ONNX Runtime's providers that this project runs models on."""

# In each build of PyPI's; it sends what it is given to a server, and computes nothing here.
_REMOTE = "AzureExecutionProvider"

# A first start on a small board reads hundreds of megabytes; a build tries many kernels.
_LIMIT_S = 90.0
_BUILD_LIMIT_S = 600.0


def collect(tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Look at this machine, and try what it has.

    Args:
        tell: Told of what is tried next.

    Returns:
        ``machine`` (as `machine_facts`), ``readings``, ``system``, ``packages``,
        ``libraries``, ``gpu``, ``cuda``, ``onnxruntime``, ``providers`` by name, and
        ``tensorrt``; see docs/doctor.md.
    """
    tell = tell or (lambda step: None)
    tell("looking")
    machine, readings = _machine()
    facts: dict[str, Any] = {
        "machine": machine,
        "readings": readings,
        "system": system_facts(),
        "packages": packages(),
        "libraries": find_libraries(folders()),
    }
    tell("CUDA")
    runtimes = facts["libraries"]["cudart"]
    path = runtimes[0]["path"] if runtimes else ""
    facts["cuda"] = attempt("cuda", path, limit_s=_LIMIT_S)
    facts["gpu"] = _gpu(facts)
    tell("ONNX Runtime")
    facts["onnxruntime"] = attempt("onnxruntime", limit_s=_LIMIT_S)
    facts["providers"] = _providers(facts["onnxruntime"], tell)
    tell("TensorRT")
    facts["tensorrt"] = attempt("tensorrt", limit_s=_BUILD_LIMIT_S)
    return facts


def _machine() -> tuple[dict[str, Any], dict[str, float]]:
    """Return the machine's facts, with its sensors' own, and one reading."""
    sources, readings = open_sensors(), dict[str, float]()
    try:
        for source in sources:
            with contextlib.suppress(SensorLostError):  # of which the facts speak
                readings = source.read() | readings
        shown = {name: value for name, value in readings.items() if math.isfinite(value)}
        return dict(machine_facts(sources)), shown
    finally:
        for source in sources:
            source.close()


def _gpu(facts: dict[str, Any]) -> dict[str, Any]:
    """Say whether there is a GPU of NVIDIA's, and how one knows, even without its driver."""
    system, found = facts["system"], facts["cuda"].get("gpus") or []
    paths = [file["path"] for file in system["device_files"]]
    if found:
        why = "the driver answers"
    elif system["is_jetson"]:
        why = "the board is a Jetson"
    elif system["nvidia_on_pci"]:
        why = "it is on the PCI bus"
    elif system["kernel_driver"] or any("/nvidia" in path for path in paths):
        why = "its kernel module is loaded"
    else:
        why = None
    return {"present": why is not None, "why": why, "found": found}


def _providers(runtime: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Try what is listed; what this project knows and is not listed is missing."""
    listed = [name for name in runtime.get("listed", []) if name != _REMOTE]
    found: dict[str, Any] = {}
    for name in dict.fromkeys((*PROVIDERS, *listed)):
        if name not in listed:
            reason = "this ONNX Runtime was built without it" if listed else "no ONNX Runtime"
            found[name] = {"status": "missing", "listed": False, "reason": reason}
            continue
        tell(name)
        limit_s = _BUILD_LIMIT_S if name == "TensorrtExecutionProvider" else _LIMIT_S
        library = Path(runtime["path"]) / "capi" / LIBRARIES.get(name, "none")
        tried = attempt("provider", name, limit_s=limit_s)
        found[name] = {"listed": True} | tried | {"wants": needed(library)}
    return found
