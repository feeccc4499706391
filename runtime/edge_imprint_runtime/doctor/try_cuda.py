# SPDX-License-Identifier: Apache-2.0
"""Runs in a child: NVIDIA's driver, asked without any package: is there a GPU that answers?"""

from __future__ import annotations

import ctypes
from typing import Any

from edge_imprint_runtime.doctor.child import Tell

__all__ = ["DRIVER_INSUFFICIENT", "look"]

DRIVER_INSUFFICIENT = 35
"""What CUDA's runtime answers where the driver is older than it, or missing."""

_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability


def look(tell: Tell, runtime: str) -> dict[str, Any]:
    """Ask the driver, then CUDA's runtime library through it.

    Args:
        tell: Told of each stage.
        runtime: The path of a libcudart; "" where none was found.

    Returns:
        ``driver_cuda`` (the newest CUDA that the driver takes, such as 13.0), ``gpus`` with
        ``name``, ``compute_capability`` and ``memory_bytes``, ``runtime_status``.
    """
    tell("driver library")
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        found = {"status": "missing", "reason": f"no NVIDIA driver: {error}"}
        return found | _through_runtime(tell, runtime)
    tell("driver")
    status = driver.cuInit(0)
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    facts: dict[str, Any] = {"driver_cuda": _dotted(version.value), "gpus": []}
    if status:
        reason = f"the driver answers {_name(driver, status)}"
        return {"status": "fails", "reason": reason} | facts | _through_runtime(tell, runtime)
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    facts["gpus"] = [_gpu(driver, number) for number in range(count.value)]
    facts |= _through_runtime(tell, runtime)
    if not facts["gpus"]:
        return {"status": "fails", "reason": "the driver sees no GPU"} | facts
    if facts.get("runtime_status"):
        reason = f"CUDA's runtime answers with error {facts['runtime_status']}"
        return {"status": "fails", "reason": reason} | facts
    return {"status": "runs"} | facts


def _gpu(driver: Any, number: int) -> dict[str, Any]:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": ".".join(capability),
        "memory_bytes": memory.value,
    }


def _through_runtime(tell: Tell, path: str) -> dict[str, Any]:
    if not path:
        return {}
    tell("CUDA runtime")
    try:
        runtime = ctypes.CDLL(path)
    except OSError as error:
        return {"runtime_reason": str(error)}
    version, count = ctypes.c_int(), ctypes.c_int()
    runtime.cudaRuntimeGetVersion(ctypes.byref(version))
    status = runtime.cudaGetDeviceCount(ctypes.byref(count))
    return {"runtime_cuda": _dotted(version.value), "runtime_status": status}


def _name(driver: Any, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(text))
    return f"{(text.value or b'an unknown error').decode()} ({status})"


def _dotted(version: int) -> str | None:
    return f"{version // 1000}.{version % 1000 // 10}" if version else None
