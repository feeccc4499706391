# SPDX-License-Identifier: Apache-2.0
"""CUDA's runtime API through cuda-python, every call checked: the one place that imports it.

cuda-python has two homes: ``cuda.bindings.runtime``, and ``cuda.cudart`` before 12.6. Both
return a tuple that starts with a status.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from edge_imprint_runtime.errors import DeviceError, DeviceMemoryError, MissingPackageError

__all__ = ["Cuda"]

_OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
# There is nothing to run on; all else is about a call.
_NO_GPU = (
    "cudaErrorInsufficientDriver",
    "cudaErrorNoDevice",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorSystemNotReady",
    "cudaErrorCompatNotSupportedOnDevice",
    "cudaErrorInitializationError",
)
# After these every call of the process fails with the same.
_STICKY = (
    "cudaErrorAssert",
    "cudaErrorECCUncorrectable",
    "cudaErrorHardwareStackError",
    "cudaErrorIllegalAddress",
    "cudaErrorIllegalInstruction",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorMisalignedAddress",
)


class Cuda:
    """CUDA's runtime API, every call checked.

    Raises:
        MissingPackageError: cuda-python is not installed.
        DeviceError: It is, and can't be loaded.
    """

    def __init__(self) -> None:
        self._runtime = _load()
        self._dropped: deque[int] = deque()  # what is to be freed at the next `sweep`
        self.recording = threading.Lock()  # held while a stream's work is recorded

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the API.

        Args:
            name: Such as ``cudaStreamSynchronize``.
            arguments: What it takes.

        Returns:
            What it gives beside its status: None, one value, or a list of them.

        Raises:
            DeviceMemoryError: The device, or the host, has not enough memory.
            DeviceError: It failed otherwise.
        """
        try:
            status, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # cuda-python 11 and 12 without a driver
            raise DeviceError(
                f"no GPU can be used: {name} says {error}; install NVIDIA's driver, or run "
                "on the CPU"
            ) from error
        if status != 0:
            raise self._failed(name, status)
        if len(values) == 1:
            return values[0]
        return values or None

    def constant(self, *names: str) -> Any:
        """Return a constant, or an enum's member, by name: numbers are not to be relied on."""
        found = self._runtime
        for name in names:
            found = getattr(found, name)
        return found

    def memory(self) -> tuple[int, int]:
        """Return how many bytes of the device are free, and how many there are."""
        free, total = self.call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, name: str, size: int, *arguments: Any) -> int:
        """Call a function that allocates.

        Args:
            name: ``cudaMalloc`` or ``cudaHostAlloc``.
            size: Bytes, at least 1.
            arguments: What it takes besides.

        Returns:
            The address.

        Raises:
            DeviceMemoryError: There is not so much; the message says how much was asked.
            DeviceError: It failed otherwise.
        """
        try:
            return int(self.call(name, size, *arguments))
        except DeviceMemoryError as error:
            where = "the GPU" if name == "cudaMalloc" else "the host, page-locked for the GPU,"
            raise self.no_room(where, size) from error

    def no_room(self, where: str, size: int) -> DeviceMemoryError:
        """Make the error that says how much was asked for, and how much is free."""
        try:
            free, total = (_size(count) for count in self.memory())
        except DeviceError:
            free = total = "an unknown part"
        return DeviceMemoryError(
            f"there is no room for {_size(size)} on {where} where {free} of {total} of its "
            "memory are free; end what else uses the GPU, or compile for smaller batches"
        )

    def drop(self, address: int) -> None:
        """Note memory to be freed by `sweep`; unlike that, it may be called at any time."""
        self._dropped.append(address)

    def sweep(self) -> None:
        """Free what was dropped, but while a stream records: cudaFree waits for the device."""
        if not self._dropped or not self.recording.acquire(blocking=False):
            return
        try:
            while self._dropped:
                self.call("cudaFree", self._dropped.popleft())
        finally:
            self.recording.release()

    @contextlib.contextmanager
    def on(self, device: int) -> Iterator[None]:
        """Use a device in this thread, which may have chosen another, for a block."""
        before = self.call("cudaGetDevice")
        if before == device:
            yield
            return
        self.call("cudaSetDevice", device)
        try:
            yield
        finally:
            self.call("cudaSetDevice", before)

    def _failed(self, name: str, status: Any) -> DeviceError:
        text = f"{name} says {status.name} ({self._explain(status)})"
        # It is kept by the thread, and a library's next look at it would find our error.
        with contextlib.suppress(RuntimeError):
            self._runtime.cudaGetLastError()
        if status.name in _NO_GPU:
            return DeviceError(
                f"no GPU can be used: {text}; install or update NVIDIA's driver, or run on "
                "the CPU"
            )
        if status.name == _OUT_OF_MEMORY:
            return DeviceMemoryError(
                f"the GPU's memory is full: {text}; end what else uses it"
            )
        if status.name in _STICKY:
            return DeviceError(f"the GPU failed: {text}; start the program again")
        return DeviceError(f"the GPU failed: {text}; open the model again")

    def _explain(self, status: Any) -> str:
        try:
            _, text = self._runtime.cudaGetErrorString(status)
        except RuntimeError:
            return "no text"
        return bytes(text).decode("utf-8", "replace")


def _load() -> Any:
    try:
        try:
            import cuda.bindings.runtime as runtime
        except ModuleNotFoundError:
            import cuda.cudart as runtime
    except ModuleNotFoundError as error:
        raise MissingPackageError("cuda-python", "using the GPU", "tensorrt") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(
            f"the package 'cuda-python' can't be loaded: {error}; install it again: "
            "pip install 'edge-imprint[tensorrt]'"
        ) from error
    return runtime


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
