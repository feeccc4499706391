# SPDX-License-Identifier: Apache-2.0
"""Is there a GPU, and is what computes on it installed: found out without importing torch.

torch takes seconds to import, and a build whose embeddings are all cached needs none. So the
driver is asked by itself, and the libraries are looked for where pip puts them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_imprint_runtime.errors import ProviderError

__all__ = ["Choice", "Gpus", "check_cuda", "choose_device", "find_gpus"]

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
        cuda: The newest CUDA that the driver takes, such as (13, 2); (0, 0) if there is none.
    """

    count: int
    reason: str
    cuda: tuple[int, int] = (0, 0)


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
    count, version = ctypes.c_int(), ctypes.c_int()
    try:
        status = (
            driver.cuInit(0)
            or driver.cuDeviceGetCount(ctypes.byref(count))
            or driver.cuDriverGetVersion(ctypes.byref(version))
        )
    except AttributeError:
        return Gpus(0, f"{_DRIVER} is not CUDA's driver")
    if status:
        return Gpus(0, f"the NVIDIA driver answers {_name(driver, status)}")
    cuda = (version.value // 1000, version.value % 1000 // 10)
    return Gpus(count.value, "" if count.value else "the NVIDIA driver shows no GPU", cuda)


def check_cuda(device: str) -> None:
    """Refuse ``cuda`` where there is no GPU, before a backbone is loaded for it.

    Raises:
        ProviderError: CUDA is asked for and absent.
    """
    if device == "cuda" and (gpus := find_gpus()).count == 0:
        raise _absent(gpus)


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
    gpus = find_gpus()
    if gpus.count == 0:
        if device == "cuda":
            raise _absent(gpus)
        return Choice("cpu")
    lacks, cure = _lacks(has_module, gpus)
    if not lacks:
        return Choice("cuda")
    if device == "cuda":
        raise ProviderError(f"{lacks}; {cure}, or use --device cpu")
    return Choice("cpu", f"There is a GPU here, but {lacks}: photos are embedded on the CPU.")


def _absent(gpus: Gpus) -> ProviderError:
    return ProviderError(
        f"there is no CUDA device on this machine: {gpus.reason}; use --device cpu"
    )


def _lacks(has_module: bool, gpus: Gpus) -> tuple[str, str]:
    """Say what the library that would embed lacks, and the cure; nothing where it may do."""
    package, file, name = _TORCH if has_module else _RUNTIME
    home = _home(package)
    if home is None or not (home / file).is_file():
        return f"{name} is installed here without its CUDA part", "install a CUDA build of it"
    if has_module and (built := _torch_cuda(home)) and built[0] > gpus.cuda[0]:
        # Within a major version an older driver does.
        have, want = (".".join(map(str, version)) for version in (gpus.cuda, built))
        reason = f"the NVIDIA driver takes CUDA up to {have}, and torch is built for {want}"
        return reason, "update the driver, or install an older torch"
    return "", ""


def _home(package: str) -> Path | None:
    """Return where a package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # what is in sys.modules has no spec
        return None
    places = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(places))) if places else None


def _torch_cuda(home: Path) -> tuple[int, int] | None:
    """Read the CUDA that torch is built for off its version.py."""
    try:
        text = (home / "version.py").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*= *['\"](\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def _name(driver: Any, status: int) -> str:
    """Return the driver's own name for a status, such as CUDA_ERROR_NO_DEVICE."""
    name = ctypes.c_char_p()
    if driver.cuGetErrorName(status, ctypes.byref(name)) or not name.value:
        return f"error {status}"
    return name.value.decode(errors="replace")
