# SPDX-License-Identifier: Apache-2.0
"""A stand-in for cuda-python's runtime API, over a GPU that is none."""

from __future__ import annotations

import ctypes
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from tests.standins.cuda_device import (
    STATUS_TEXTS,
    CaptureMode,
    CopyKind,
    Device,
    Event,
    Fault,
    Graph,
    Handle,
    Status,
    Stream,
    device_of,
)

__all__ = ["Device", "device_of", "make_runtime"]


def make_runtime(world: Any) -> types.ModuleType:
    """Make the module ``cuda.bindings.runtime``, or ``cuda.cudart``, of a world."""
    device = device_of(world)
    made = types.ModuleType("cuda.bindings.runtime")
    made.__dict__.update(
        cudaError_t=Status,
        cudaMemcpyKind=CopyKind,
        cudaStreamCaptureMode=CaptureMode,
        cudaHostAllocDefault=0,
        cudaStreamNonBlocking=1,
        cudaGetErrorString=lambda error: (Status(0), STATUS_TEXTS[error.name][1].encode()),
        cudaGetLastError=lambda: (device.last.pop(threading.get_ident(), Status(0)),),
        cudaDriverGetVersion=lambda: (Status(0), world.driver if world.devices else 0),
        cudaRuntimeGetVersion=lambda: (Status(0), world.cuda),
    )
    for home in (_Facts, _Memory, _Streams, _Graphs):
        for name, function in vars(home(device)).items():
            made.__dict__[name] = _checked(device, name, *function)
    return made


def _checked(device: Device, name: str, function: Callable[..., Any], results: int) -> Any:
    """Wrap a function as cuda-python does: a status, then what it gives; None if it failed."""
    count = function.__code__.co_argcount

    def call(*arguments: Any) -> tuple[Any, ...]:
        if len(arguments) != count:
            raise TypeError(
                f"{name}() takes exactly {count} arguments ({len(arguments)} given)"
            )
        try:
            if not device.world.devices and name != "cudaGetErrorString":
                raise Fault("cudaErrorNoDevice")
            if name != "cudaStreamEndCapture":  # which ends the record even if it fails
                device.enter(name)
            found = function(*arguments)
        except Fault as fault:
            device.last[threading.get_ident()] = fault.status
            return (fault.status, *[None] * results)
        return (Status(0), *(found if results > 1 else [found][:results]))

    call.stands_in = (function, results)  # type: ignore[attr-defined]  # for a comparison
    return call


class _Facts:
    def __init__(self, device: Device) -> None:
        world = device.world

        def properties(device_number: int) -> Any:
            if device_number >= world.devices:
                raise Fault("cudaErrorInvalidDevice")
            major, minor = world.compute_capability
            name = world.gpu_name.encode()
            return types.SimpleNamespace(
                name=name, major=major, minor=minor, totalGlobalMem=world.memory_bytes
            )

        def set_device(number: int) -> None:
            if number >= world.devices:
                raise Fault("cudaErrorInvalidDevice")
            device.current.number = number

        def memory_info() -> tuple[int, int]:
            return world.memory_bytes - device.used_bytes, world.memory_bytes

        self.cudaGetDeviceCount = (lambda: world.devices, 1)
        self.cudaGetDevice = (lambda: getattr(device.current, "number", 0), 1)
        self.cudaSetDevice = (set_device, 0)
        self.cudaGetDeviceProperties = (properties, 1)
        self.cudaMemGetInfo = (memory_info, 2)


class _Memory:
    def __init__(self, device: Device) -> None:
        def host_alloc(size: int, flags: int) -> int:
            assert flags == 0
            return device.allocate("pinned", size)

        def copy(to: int, source: int, size: int, kind: CopyKind, stream: Handle) -> None:
            if not isinstance(kind, CopyKind):
                raise TypeError("kind must be a cudaMemcpyKind")
            into = kind == CopyKind.cudaMemcpyHostToDevice
            there, host = (to, source) if into else (source, to)
            if not device.holds(there, size, "device"):
                raise Fault("cudaErrorInvalidValue")
            if device.holds(host, size, "pinned"):
                device.start(stream, lambda: device.move(to, source, size, reads=there))
            elif into:  # from memory that is not page-locked, CUDA takes a copy at once
                kept = ctypes.string_at(source, size)
                held = ctypes.create_string_buffer(kept, size)
                start = ctypes.addressof(held)

                def work() -> None:
                    assert held is not None
                    device.move(to, start, size, reads=there)

                device.start(stream, work)
            else:
                device.wait(stream)
                device.move(to, source, size, reads=there)

        self.cudaMalloc = (lambda size: device.allocate("device", size), 1)
        self.cudaFree = (lambda address: device.free(address, "device"), 0)
        self.cudaHostAlloc = (host_alloc, 1)
        self.cudaFreeHost = (lambda address: device.free(address, "pinned"), 0)
        self.cudaMemcpyAsync = (copy, 0)


class _Streams:
    def __init__(self, device: Device) -> None:
        def create(flags: int) -> Stream:
            assert flags == 1
            return device.make("stream", Stream)  # type: ignore[no-any-return]

        def record(event: Handle, stream: Handle) -> None:
            found = device.find(event, Event)

            def work() -> None:
                found.at_s = time.perf_counter()

            device.start(stream, work)

        def elapsed(start: Handle, end: Handle) -> float:
            times = [device.find(event, Event).at_s for event in (start, end)]
            if None in times:
                raise Fault("cudaErrorNotReady")
            return 1e3 * (times[1] - times[0])

        self.cudaStreamCreateWithFlags = (create, 1)
        self.cudaStreamSynchronize = (lambda stream: device.wait(stream), 0)
        self.cudaStreamDestroy = (lambda stream: device.end(stream, Stream), 0)
        self.cudaEventCreate = (lambda: device.make("event", Event), 1)
        self.cudaEventRecord = (record, 0)
        self.cudaEventElapsedTime = (elapsed, 1)
        self.cudaEventDestroy = (lambda event: device.end(event, Event), 0)


class _Graphs:
    def __init__(self, device: Device) -> None:
        def begin(stream: Handle, mode: CaptureMode) -> None:
            if mode != CaptureMode.cudaStreamCaptureModeThreadLocal:
                raise NotImplementedError("only this mode is stood in for")
            found = device.find(stream, Stream)
            if found.recorded is not None:
                raise Fault("cudaErrorInvalidValue")
            found.recorded, found.recorder, found.broken = [], threading.get_ident(), False

        def end(stream: Handle) -> Graph:
            found = device.find(stream, Stream)
            if found.recorded is None or found.recorder != threading.get_ident():
                raise Fault("cudaErrorInvalidValue")
            work, found.recorded = found.recorded, None
            device.enter("cudaStreamEndCapture")
            if found.broken:
                raise Fault("cudaErrorStreamCaptureInvalidated")
            return device.make("graph", lambda number: Graph(number, work))  # type: ignore[no-any-return]

        def instantiate(graph: Handle, flags: int) -> Graph:
            assert flags == 0
            work = device.find(graph, Graph).work
            return device.make("graph exec", lambda number: Graph(number, work))  # type: ignore[no-any-return]

        def launch(graph: Handle, stream: Handle) -> None:
            for work in device.find(graph, Graph).work:
                device.start(stream, work)

        self.cudaStreamBeginCapture = (begin, 0)
        self.cudaStreamEndCapture = (end, 1)
        self.cudaGraphInstantiateWithFlags = (instantiate, 1)
        self.cudaGraphLaunch = (launch, 0)
        self.cudaGraphDestroy = (lambda graph: device.end(graph, Graph), 0)
        self.cudaGraphExecDestroy = (lambda graph: device.end(graph, Graph), 0)
