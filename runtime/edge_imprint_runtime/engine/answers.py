# SPDX-License-Identifier: Apache-2.0
"""What TensorRT means by None: an error that holds what its logger was told, and a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from edge_imprint_runtime.engine.sidecar import compile_command
from edge_imprint_runtime.errors import DeviceMemoryError, EdgeImprintError, EngineFileError

if TYPE_CHECKING:
    from edge_imprint_runtime.engine.tensorrt_api import Log, TensorRT

__all__ = ["deserialize", "memory_or"]

_Error = TypeVar("_Error", bound=EdgeImprintError)
_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "could not be allocated",
)


def memory_or(
    kind: type[_Error],
    api: TensorRT,
    log: Log,
    what: str,
    *,
    remedy: str = "",
    less: str = "give a smaller --batch or --workspace",
) -> _Error | DeviceMemoryError:
    """Make the error of a call that answered None: of memory where TensorRT speaks of it.

    Args:
        kind: The error otherwise.
        api: TensorRT.
        log: What it said.
        what: What it can't do.
        remedy: What then to do, for ``kind``.
        less: What needs less memory.
    """
    said = log.errors()
    if any(word in said.lower() for word in _OUT_OF_MEMORY):
        return DeviceMemoryError(
            f"TensorRT {api.text} {what}: {said}; free memory of the GPU, or {less}"
        )
    return kind(
        f"TensorRT {api.text} {what}: {said or 'it does not say why'}"
        + (f"; {remedy}" if remedy else "")
    )


def deserialize(
    api: TensorRT, plan: bytes, where: str, log: Log, *, version_compatible: bool = False
) -> tuple[Any, Any]:
    """Load an engine into the GPU.

    Args:
        api: TensorRT.
        plan: The engine file's bytes, which were checked: TensorRT trusts them.
        where: The file's name, for messages.
        log: Keeps what TensorRT says; must live as long as the engine.
        version_compatible: Whether the engine was built so.

    Returns:
        The runtime, which must live as long, and the engine.

    Raises:
        DeviceMemoryError: The GPU has not enough memory for it.
        EngineFileError: TensorRT does not take it; the message holds what it said.
        DeviceError: There is no GPU that it can use.
    """
    runtime = api.runtime(log)
    if version_compatible:
        api.allow_newer_engines(runtime)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise memory_or(
            EngineFileError,
            api,
            log,
            f"can't load {where}",
            remedy=f"compile it again: {compile_command(where)}",
            less="compile with a smaller --batch",
        )
    return runtime, engine
