# SPDX-License-Identifier: Apache-2.0
"""Whether an engine fits this machine, told before TensorRT is given a byte of it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_imprint_runtime.engine.plan import plan_version
from edge_imprint_runtime.engine.sidecar import Sidecar, compile_command
from edge_imprint_runtime.errors import EngineFileError, EngineMismatchError
from edge_imprint_runtime.files import file_sha256

if TYPE_CHECKING:
    from edge_imprint_runtime.backends.cuda import GpuFacts

__all__ = ["check_fits", "check_machine", "read_engine"]

# Of one GPU, Thor: the number changed from CUDA 12 to 13.
_SAME_CAPABILITY = {"10.1": "11.0"}
# Across majors a version-compatible engine of the first may be loaded by the second.
_MAJOR_STEPS = {(8, 10), (10, 11)}
# Two GPUs of one name (all Orins are called Orin) with memories as far apart are two models.
_OTHER_MEMORY = 1.25


def check_fits(
    engine: str | os.PathLike[str],
    sidecar: Sidecar,
    *,
    tensorrt_version: Sequence[int],
    gpu: GpuFacts,
    model_path: str | os.PathLike[str] | None = None,
) -> tuple[str, ...]:
    """Refuse an engine that was not built for this machine, or of another model.

    Args:
        engine: The engine's file, which is not looked at: see `read_engine`.
        sidecar: What lies beside it.
        tensorrt_version: Of the TensorRT here, three or four numbers.
        gpu: The GPU here.
        model_path: The ONNX file it was compiled of; None: the one that the sidecar names. It
            is compared where it is there; an engine runs without it.

    Returns:
        What is different and may be: sentences, for people.

    Raises:
        EngineMismatchError: It is of another GPU, TensorRT or ONNX file.
    """
    check_machine(engine, sidecar, tensorrt_version, gpu)
    _check_model(engine, sidecar, model_path)
    notes = []
    if sidecar.driver != gpu.driver or sidecar.cuda != gpu.cuda:
        notes.append(
            f"{engine} was built with a driver for CUDA {sidecar.driver} and CUDA "
            f"{sidecar.cuda}, here are {gpu.driver} and {gpu.cuda}"
        )
    sizes = sorted((sidecar.gpu_memory_bytes, gpu.memory_bytes))
    if sizes[0] > 0 and sizes[1] > _OTHER_MEMORY * sizes[0]:
        notes.append(
            f"{engine} was built on a GPU {sidecar.gpu_name!r} with "
            f"{sidecar.gpu_memory_bytes / 1e9:.0f} GB of memory, this one has "
            f"{gpu.memory_bytes / 1e9:.0f} GB: it may be slower than one compiled here"
        )
    return tuple(notes)


def read_engine(engine: str | os.PathLike[str], sidecar: Sidecar) -> bytes:
    """Read an engine once, and hold its bytes against its sidecar.

    Args:
        engine: The engine's file.
        sidecar: What lies beside it.

    Returns:
        Its bytes, which were checked: those to be given to TensorRT.

    Raises:
        EngineFileError: The file is missing, or is not what was written.
    """
    if not os.path.isfile(engine):  # a pipe or a device would be waited for
        raise EngineFileError(f"there is no engine file {engine}")
    try:
        size_bytes, plan = os.path.getsize(engine), b""
        if size_bytes == sidecar.engine_bytes:
            plan = Path(engine).read_bytes()
    except (OSError, ValueError) as error:
        raise EngineFileError(f"cannot read {engine}: {error}") from error
    reason = ""
    if size_bytes != sidecar.engine_bytes:
        reason = f"it has {size_bytes:,} bytes instead of {sidecar.engine_bytes:,}"
    elif hashlib.sha256(plan).hexdigest() != sidecar.engine_sha256:
        reason = "its digest is another"
    if reason:
        raise EngineFileError(
            f"{engine} is not the engine that the file beside it describes ({reason}): it is "
            f"damaged, or one of both was replaced; {_again(engine, sidecar)}"
        )
    version = plan_version(plan)
    said = None if version is None else ".".join(map(str, version))
    if said is not None and said != sidecar.plan_tensorrt:
        raise EngineFileError(
            f"{engine} says of itself that TensorRT {said} made it, the file beside it "
            f"{sidecar.plan_tensorrt}; {_again(engine, sidecar)}"
        )
    return plan


def check_machine(
    engine: str | os.PathLike[str],
    sidecar: Sidecar,
    tensorrt_version: Sequence[int],
    gpu: GpuFacts,
) -> None:
    """Refuse an engine of another TensorRT or another GPU; arguments as `check_fits`.

    Args:
        engine: The engine's file.
        sidecar: What lies beside it.
        tensorrt_version: Of the TensorRT here.
        gpu: The GPU here.

    Raises:
        EngineMismatchError: It is of another.
    """
    if sidecar.platform != platform.machine():
        raise EngineMismatchError(
            f"{engine} was built on {sidecar.platform}, this machine is {platform.machine()}; "
            f"{_again(engine, sidecar)}"
        )
    _check_tensorrt(engine, sidecar, tuple(tensorrt_version))
    _check_gpu(engine, sidecar, gpu)


def _check_tensorrt(
    engine: str | os.PathLike[str], sidecar: Sidecar, here: tuple[int, ...]
) -> None:
    made = sidecar.tensorrt_version
    count = min(len(made), len(here))  # pip's TensorRT may not say its fourth number
    if made[:count] == here[:count]:
        return
    if sidecar.version_compatible:
        if (made[0] == here[0] and made[:count] < here[:count]) or (
            made[0],
            here[0],
        ) in _MAJOR_STEPS:
            return
        rule = ", and a version-compatible engine is for the same or the next major version"
    else:
        rule = ", and an engine runs with the very version that made it"
    raise EngineMismatchError(
        f"{engine} was built by TensorRT {sidecar.tensorrt}, here is "
        f"{'.'.join(map(str, here))}{rule}; {_again(engine, sidecar)}"
    )


def _check_gpu(engine: str | os.PathLike[str], sidecar: Sidecar, gpu: GpuFacts) -> None:
    made = _SAME_CAPABILITY.get(sidecar.compute_capability, sidecar.compute_capability)
    here = _SAME_CAPABILITY.get(gpu.compute_capability, gpu.compute_capability)
    if sidecar.hardware_compatible == "ampere+":
        fits = float(here) >= 8.0
    elif sidecar.hardware_compatible == "same_compute_capability":
        fits = made == here
    else:
        fits = made == here and sidecar.gpu_name == gpu.name
    if not fits:
        raise EngineMismatchError(
            f"{engine} was built for the GPU {sidecar.gpu_name!r} (compute capability "
            f"{sidecar.compute_capability}), here is {gpu.name!r} ({gpu.compute_capability}); "
            f"{_again(engine, sidecar)}"
        )


def _check_model(
    engine: str | os.PathLike[str],
    sidecar: Sidecar,
    model_path: str | os.PathLike[str] | None,
) -> None:
    path = model_path or Path(engine).parent / sidecar.model_file
    try:
        if not os.path.isfile(path):
            return
        same = os.path.getsize(path) == sidecar.model_bytes
        same = same and file_sha256(path) == sidecar.model_sha256
    except (OSError, ValueError):
        return  # not to be read is as good as not there
    if not same:
        raise EngineMismatchError(
            f"{engine} was compiled of another {path} than the one that is there now; "
            f"{_again(engine, sidecar)}"
        )


def _again(engine: str | os.PathLike[str], sidecar: Sidecar) -> str:
    command = compile_command(engine, Path(engine).parent / sidecar.model_file)
    return f"compile it here: {command}, or open it with rebuild (--rebuild)"
