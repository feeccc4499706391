# SPDX-License-Identifier: Apache-2.0
"""The GPU as CUDA has it: what it is, memory, streams, events and recorded graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends.cuda_calls import Cuda
from edge_imprint_runtime.errors import DeviceError

__all__ = [
    "Cuda",
    "DeviceBuffer",
    "Event",
    "GpuFacts",
    "Graph",
    "PinnedBuffer",
    "Stream",
    "gpu_facts",
]


@dataclass(frozen=True)
class GpuFacts:
    """The GPU that a thread uses: the first, where it chose none.

    Attributes:
        name: As CUDA has it, such as ``Orin``.
        compute_capability: Such as ``8.7``.
        driver: The newest CUDA that the driver takes, such as ``12.6``.
        cuda: The CUDA that cuda-python was made with, likewise.
        memory_bytes: Of the device; on a Jetson it is the host's too.
    """

    name: str
    compute_capability: str
    driver: str
    cuda: str
    memory_bytes: int


def gpu_facts() -> GpuFacts:
    """Ask CUDA for the GPU.

    Returns:
        What it says.

    Raises:
        MissingPackageError: cuda-python is not installed.
        DeviceError: There is no GPU, or no driver that CUDA can use.
    """
    cuda = Cuda()
    cuda.call("cudaGetDeviceCount")  # the call that says best why there is none
    found = cuda.call("cudaGetDeviceProperties", cuda.call("cudaGetDevice"))
    return GpuFacts(
        name=bytes(found.name).split(b"\0")[0].decode("utf-8", "replace"),
        compute_capability=f"{found.major}.{found.minor}",
        driver=_version(cuda.call("cudaDriverGetVersion")),
        cuda=_version(cuda.call("cudaRuntimeGetVersion")),
        memory_bytes=int(found.totalGlobalMem),
    )


class DeviceBuffer:
    """Memory of the device. It frees itself, at `Cuda.sweep`, when nothing refers to it.

    Args:
        cuda: The API.
        size: Bytes.
        shape: Of what lies in it, if that stays the same.

    Attributes:
        cuda: As given, likewise ``size`` and ``shape``.
        address: Where it is; 0 once it is freed.

    Raises:
        DeviceMemoryError: The device has not enough memory.
    """

    address = 0

    def __init__(self, cuda: Cuda, size: int, shape: tuple[int, ...] = ()) -> None:
        self.cuda, self.size, self.shape = cuda, size, shape
        self.address = cuda.allocate("cudaMalloc", max(size, 1))

    def __del__(self) -> None:
        """Leave it to be freed: the collector may run while a graph is being recorded."""
        if self.address:
            self.cuda.drop(self.address)

    def free(self) -> None:
        """Free it now; once is enough."""
        address, self.address = self.address, 0
        if address:
            self.cuda.call("cudaFree", address)

    def fill(self, array: npt.NDArray[np.generic], stream: Stream) -> None:
        """Copy an array of its size, C contiguous, into it, and wait until it is there."""
        kind = self.cuda.constant("cudaMemcpyKind", "cudaMemcpyHostToDevice")
        where = (self.address, array.ctypes.data, array.nbytes)
        self.cuda.call("cudaMemcpyAsync", *where, kind, stream.stream)
        stream.synchronize()


class PinnedBuffer:
    """Page-locked memory of the host, from and to which the device copies by itself.

    Args:
        cuda: The API.
        size: Bytes.

    Attributes:
        size: As given.
        address: Where it is; 0 once it is freed.

    Raises:
        DeviceMemoryError: The host has not enough memory.
    """

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self.size, self.address = cuda, size, 0
        flags = cuda.constant("cudaHostAllocDefault")
        self.address = cuda.allocate("cudaHostAlloc", max(size, 1), flags)
        memory = (ctypes.c_uint8 * max(size, 1)).from_address(self.address)
        self._bytes: npt.NDArray[np.uint8] = np.ctypeslib.as_array(memory)

    def view(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
        """Return its first bytes as an array, not to be used once it is freed."""
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        found: npt.NDArray[np.generic] = self._bytes[:count].view(dtype).reshape(shape)
        return found

    def free(self) -> None:
        """Free it; once is enough."""
        address, self.address = self.address, 0
        if address:
            self._bytes = np.empty(0, np.uint8)
            self._cuda.call("cudaFreeHost", address)


class Stream:
    """An order of work on the device, apart from all other streams.

    Args:
        cuda: The API.

    Attributes:
        stream: cuda-python's; None once it is destroyed.
        handle: The same as a number, as TensorRT takes it.

    Raises:
        DeviceError: It can't be made.
    """

    def __init__(self, cuda: Cuda) -> None:
        # So that it does not wait for what others do on the stream 0.
        flags = cuda.constant("cudaStreamNonBlocking")
        self.stream: Any = cuda.call("cudaStreamCreateWithFlags", flags)
        self.handle = int(self.stream)
        self._cuda = cuda
        self._into = cuda.constant("cudaMemcpyKind", "cudaMemcpyHostToDevice")
        self._out = cuda.constant("cudaMemcpyKind", "cudaMemcpyDeviceToHost")

    def copy_in(self, to: DeviceBuffer, source: PinnedBuffer, size: int) -> None:
        """Start a copy of the first bytes to the device."""
        where = (to.address, source.address, size)
        self._cuda.call("cudaMemcpyAsync", *where, self._into, self.stream)

    def copy_out(self, to: PinnedBuffer, source: DeviceBuffer, size: int) -> None:
        """Start a copy of the first bytes from the device."""
        where = (to.address, source.address, size)
        self._cuda.call("cudaMemcpyAsync", *where, self._out, self.stream)

    def synchronize(self) -> None:
        """Wait until all that was started is done.

        Raises:
            DeviceError: Some of it failed.
        """
        self._cuda.call("cudaStreamSynchronize", self.stream)

    def record(self, work: Callable[[], None]) -> Graph:
        """Record work instead of doing it.

        Args:
            work: Starts it on this stream.

        Returns:
            What does it, as often as wanted.

        Raises:
            DeviceError: It can't be recorded, or could not be started.
        """
        call = self._cuda.call
        # Other threads may go on allocating; in the default mode that would end the record.
        mode = self._cuda.constant("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")
        with self._cuda.recording:
            call("cudaStreamBeginCapture", self.stream, mode)
            try:
                work()
            except BaseException:
                with contextlib.suppress(DeviceError):  # what failed first is what is told
                    call("cudaGraphDestroy", call("cudaStreamEndCapture", self.stream))
                raise
            return Graph(self._cuda, call("cudaStreamEndCapture", self.stream))

    def destroy(self) -> None:
        """Give it back; once is enough."""
        stream, self.stream = self.stream, None
        if stream is not None:
            self._cuda.call("cudaStreamDestroy", stream)


class Graph:
    """Work that was recorded, ready to be launched. Made by `Stream.record`.

    Args:
        cuda: The API.
        graph: cuda-python's graph, which this takes over.

    Raises:
        DeviceError: It can't be made ready.
    """

    def __init__(self, cuda: Cuda, graph: Any) -> None:
        self._cuda = cuda
        try:
            # cudaGraphInstantiate takes other arguments in CUDA 11 than in 12.
            self._ready: Any = cuda.call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            cuda.call("cudaGraphDestroy", graph)

    def launch(self, stream: Stream) -> None:
        """Start the work on a stream; not before it is done from the last time."""
        self._cuda.call("cudaGraphLaunch", self._ready, stream.stream)

    def destroy(self) -> None:
        """Give it back; once is enough."""
        ready, self._ready = self._ready, None
        if ready is not None:
            self._cuda.call("cudaGraphExecDestroy", ready)


class Event:
    """A point in a stream's work, and when the device came there.

    Args:
        cuda: The API.

    Raises:
        DeviceError: It can't be made.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._event: Any = cuda.call("cudaEventCreate")

    def record(self, stream: Stream) -> None:
        """Put the point behind all that was started on a stream."""
        self._cuda.call("cudaEventRecord", self._event, stream.stream)

    def since_ns(self, earlier: Event) -> int:
        """Return nanoseconds from another point to this; the device must be past both.

        CUDA's clock ticks about every 500 ns.
        """
        passed = self._cuda.call("cudaEventElapsedTime", earlier._event, self._event)
        return round(1e6 * float(passed))

    def destroy(self) -> None:
        """Give it back; once is enough."""
        event, self._event = self._event, None
        if event is not None:
            self._cuda.call("cudaEventDestroy", event)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
