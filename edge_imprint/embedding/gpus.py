# SPDX-License-Identifier: Apache-2.0
"""Is there a GPU, and is what computes on it installed: found out without importing torch.

torch takes seconds to import, and a build whose embeddings are all cached needs none. So the
driver is asked by itself, and the libraries are looked for where pip puts them.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_imprint_runtime.errors import ProviderError

__all__ = ["Choice", "Gpus", "choose_device", "find_gpus"]

_DRIVER = "libcuda.so.1"
# What a CUDA build brings and a CPU build does not, as (package, file in it).
_TORCH = ("torch", "lib/libtorch_cuda.so", "torch")
_RUNTIME = ("onnxruntime", "capi/libonnxruntime_providers_cuda.so", "ONNX Runtime")


@dataclass(frozen=True)
class Gpus:
    """The GPUs that CUDA's driver shows this process.

    Attributes:
        count: How many; ``CUDA_VISIBLE_DEVICES`` hides some.
        reason: Why there is none, to follow a colon; empty where there is one.
    """

    count: int
    reason: str


@dataclass(frozen=True)
class Choice:
    """Where photos are embedded.

    Attributes:
        device: ``cpu`` or ``cuda``.
        note: A sentence about a GPU that is there and is not used; else empty.
    """

    device: str
    note: str = ""


def find_gpus() -> Gpus:
    """Ask CUDA's driver for GPUs.

    It is started in this process, which takes no memory of a GPU and some 0.1 s where there is
    one. A process that was forked afterwards can't use CUDA; processes are spawned here.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        return Gpus(0, f"no NVIDIA driver is installed ({error})")
    count = ctypes.c_int()
    try:
        status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except AttributeError:
        return Gpus(0, f"{_DRIVER} is not CUDA's driver")
    if status:
        return Gpus(0, f"the NVIDIA driver answers {_name(driver, status)}")
    return Gpus(count.value, "" if count.value else "the NVIDIA driver shows no GPU")


def choose_device(device: str, *, has_module: bool) -> Choice:
    """Choose where photos are embedded.

    Args:
        device: ``cpu``; ``cuda``; or ``auto``: CUDA where there are a GPU and a library that
            computes on it, else the CPU.
        has_module: Whether the backbone is a torch module, which torch runs on CUDA; ONNX
            Runtime's CUDA provider runs the others.

    Returns:
        The choice. That a library is installed does not tell that it starts; whoever opens it
        sees.

    Raises:
        ProviderError: CUDA is asked for and absent.
    """
    if device == "cpu":
        return Choice("cpu")
    library = _TORCH if has_module else _RUNTIME
    gpus = find_gpus()
    if gpus.count == 0:
        if device == "cuda":
            raise ProviderError(
                f"there is no CUDA device on this machine: {gpus.reason}; use --device cpu"
            )
        return Choice("cpu")
    if _installed(*library[:2]):
        return Choice("cuda")
    lacks = f"{library[2]} is installed here without its CUDA part"
    if device == "cuda":
        raise ProviderError(f"{lacks}; install a CUDA build of it, or use --device cpu")
    return Choice("cpu", f"There is a GPU here, but {lacks}: photos are embedded on the CPU.")


def _installed(package: str, file: str) -> bool:
    try:
        spec = importlib.util.find_spec(package)  # of a top-level name: imports nothing
    except ValueError:  # what is in sys.modules has no spec
        return False
    places = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(place) / file).is_file() for place in places)


def _name(driver: Any, status: int) -> str:
    """Return the driver's own name for a status, such as CUDA_ERROR_NO_DEVICE."""
    name = ctypes.c_char_p()
    if driver.cuGetErrorName(status, ctypes.byref(name)) or not name.value:
        return f"error {status}"
    return name.value.decode(errors="replace")
