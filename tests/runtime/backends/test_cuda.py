# SPDX-License-Identifier: Apache-2.0
"""CUDA's runtime API: the real cuda-python's calls, and what is made of its answers."""

from __future__ import annotations

import gc
import re
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.bindings import runtime as real

from edge_imprint_runtime.backends.cuda import (
    Cuda,
    DeviceBuffer,
    Event,
    GpuFacts,
    PinnedBuffer,
    Stream,
    gpu_facts,
)
from edge_imprint_runtime.errors import DeviceError, DeviceMemoryError, MissingPackageError
from tests.standins import World
from tests.standins.cuda_runtime import Device, device_of, make_runtime


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine whose cuda-python is the stand-in."""
    made = World()
    put(monkeypatch, "cuda.bindings.runtime", make_runtime(made))
    return made


@pytest.fixture
def device(world: World) -> Iterator[Device]:
    """Its GPU; a test must give all back, and must not have used it wrongly."""
    found = device_of(world)
    yield found
    assert found.violations == []


def put(monkeypatch: pytest.MonkeyPatch, name: str, found: types.ModuleType | None) -> None:
    """Let ``cuda`` be nothing but one module, or be missing."""
    for gone in [n for n in sys.modules if n == "cuda" or n.startswith("cuda.")]:
        monkeypatch.delitem(sys.modules, gone)
    if found is None:
        monkeypatch.setitem(sys.modules, "cuda", None)
        return
    parent: types.ModuleType | None = None
    *packages, _ = name.split(".")
    for i, part in enumerate(packages):
        package = types.ModuleType(".".join(packages[: i + 1]))
        package.__path__ = []
        monkeypatch.setitem(sys.modules, package.__name__, package)
        if parent is not None:
            setattr(parent, part, package)
        parent = package
    monkeypatch.setitem(sys.modules, name, found)
    setattr(parent, name.rpartition(".")[2], found)


# The GPU that is here ---------------------------------------------------------------------


def test_the_real_module_without_a_driver() -> None:
    status, count = real.cudaGetDeviceCount()
    if int(status) == 0 and count:
        facts = gpu_facts()
        assert re.fullmatch(r"\d+\.\d", facts.compute_capability)
        assert facts.name
        assert facts.memory_bytes > 2**28
        return
    with pytest.raises(DeviceError) as caught:
        gpu_facts()
    assert type(caught.value) is DeviceError
    assert str(caught.value) == (
        f"no GPU can be used: cudaGetDeviceCount says {status.name} "
        f"({real.cudaGetErrorString(status)[1].decode()}); install or update NVIDIA's driver, "
        "or run on the CPU"
    )
    with pytest.raises(DeviceError, match=r"no GPU can be used: cudaMalloc says \w+ \("):
        DeviceBuffer(Cuda(), 10)


@pytest.mark.gpu
def test_a_round_trip_through_the_real_device() -> None:
    cuda = Cuda()
    stream, rows = Stream(cuda), np.arange(1000, dtype=np.float32)
    there, back = DeviceBuffer(cuda, rows.nbytes), PinnedBuffer(cuda, rows.nbytes)
    there.fill(rows, stream)
    first, last = Event(cuda), Event(cuda)
    first.record(stream)
    stream.copy_out(back, there, rows.nbytes)
    last.record(stream)
    stream.synchronize()
    assert np.array_equal(back.view(np.float32, (1000,)), rows)
    assert 0 < last.since_ns(first) < 10**9
    graph = stream.record(lambda: stream.copy_out(back, there, rows.nbytes))
    back.view(np.float32, (1000,))[:] = 0
    graph.launch(stream)
    stream.synchronize()
    assert np.array_equal(back.view(np.float32, (1000,)), rows)
    for gone in (graph.destroy, first.destroy, last.destroy, back.free, there.free):
        gone()
    stream.destroy()


# Facts and where the package is -----------------------------------------------------------


@pytest.mark.parametrize("home", ["cuda.bindings.runtime", "cuda.cudart"])
def test_facts_from_either_home(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    world = World(gpu_name="Orin", compute_capability=(8, 7), driver=12060, cuda=11080)
    put(monkeypatch, home, make_runtime(world))
    assert gpu_facts() == GpuFacts("Orin", "8.7", "12.6", "11.8", 8 * 2**30)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, "", None)
    with pytest.raises(MissingPackageError) as caught:
        gpu_facts()
    assert str(caught.value) == (
        "using the GPU needs the package 'cuda-python', which is not installed here; run: "
        "pip install 'edge-imprint[tensorrt]'"
    )


def test_a_package_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in sys.modules if n == "cuda" or n.startswith("cuda.")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "__init__.py").write_text("raise ImportError('libfoo.so.1: gone')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError) as caught:
        Cuda()
    assert str(caught.value) == (
        "the package 'cuda-python' can't be loaded: libfoo.so.1: gone; install it again: "
        "pip install 'edge-imprint[tensorrt]'"
    )


def test_no_driver_as_cuda_python_12_has_it(device: Device) -> None:
    device.fail("cudaGetDeviceCount", RuntimeError("Failed to dlopen libcuda.so.1"))
    with pytest.raises(DeviceError) as caught:
        gpu_facts()
    assert str(caught.value) == (
        "no GPU can be used: cudaGetDeviceCount says Failed to dlopen libcuda.so.1; install "
        "NVIDIA's driver, or run on the CPU"
    )


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, "cuda.bindings.runtime", make_runtime(World(devices=0)))
    with pytest.raises(DeviceError) as caught:
        gpu_facts()
    assert str(caught.value) == (
        "no GPU can be used: cudaGetDeviceCount says cudaErrorNoDevice (no CUDA-capable "
        "device is detected); install or update NVIDIA's driver, or run on the CPU"
    )


# What fails -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "begin", "end"),
    [
        ("cudaErrorUnknown", DeviceError, "the GPU failed", "open the model again"),
        ("cudaErrorIllegalAddress", DeviceError, "the GPU failed", "start the program again"),
        (
            "cudaErrorMemoryAllocation",
            DeviceMemoryError,
            "the GPU's memory is full",
            "end what else uses it",
        ),
    ],
)
def test_a_call_that_fails(
    device: Device, status: str, kind: type[Exception], begin: str, end: str
) -> None:
    stream = Stream(Cuda())
    device.fail("cudaStreamSynchronize", status)
    with pytest.raises(DeviceError) as caught:
        stream.synchronize()
    assert type(caught.value) is kind
    text = real.cudaGetErrorString(getattr(real.cudaError_t, status))[1].decode()
    assert str(caught.value) == f"{begin}: cudaStreamSynchronize says {status} ({text}); {end}"
    assert device.last == {}  # the thread's last error was taken back


@pytest.mark.parametrize(
    ("make", "call", "where"),
    [
        (DeviceBuffer, "cudaMalloc", "the GPU"),
        (PinnedBuffer, "cudaHostAlloc", "the host, page-locked for the GPU,"),
    ],
)
def test_out_of_memory_says_how_much(
    world: World, device: Device, make: Any, call: str, where: str
) -> None:
    cuda = Cuda()
    device.fail(call, "cudaErrorMemoryAllocation")
    message = (
        f"there is no room for 1.5 MiB on {where} where 8.0 GiB of 8.0 GiB of its memory are "
        "free; end what else uses the GPU, or compile for smaller batches"
    )
    with pytest.raises(DeviceMemoryError) as caught:
        make(cuda, 3 * 2**19)
    assert str(caught.value) == message
    device.fail("cudaMemGetInfo", "cudaErrorUnknown")
    with pytest.raises(DeviceMemoryError, match="where an unknown part of an unknown part of"):
        make(cuda, 3 * 2**19)
    assert device.live == {}


def test_more_memory_than_there_is(world: World, device: Device) -> None:
    world.memory_bytes = 2000
    cuda = Cuda()
    first = DeviceBuffer(cuda, 1500)
    with pytest.raises(
        DeviceMemoryError, match=r"no room for 501 bytes on the GPU where 500 by"
    ):
        DeviceBuffer(cuda, 501)
    first.free()
    DeviceBuffer(cuda, 501).free()
    assert device.live == {}


# Memory, streams, graphs ------------------------------------------------------------------


def test_what_is_dropped_is_freed_at_the_next_sweep(device: Device) -> None:
    cuda = Cuda()
    buffer = DeviceBuffer(cuda, 16)
    address = buffer.address
    del buffer
    gc.collect()
    assert address in device.live
    cuda.sweep()
    assert device.live == {}
    assert device.calls["cudaFree"] == 1
    cuda.sweep()
    again = DeviceBuffer(cuda, 16)
    again.free()
    again.free()
    del again
    cuda.sweep()
    assert device.calls["cudaFree"] == 2


def test_nothing_is_swept_while_a_stream_records(device: Device) -> None:
    cuda = Cuda()
    stream = Stream(cuda)

    def work() -> None:
        DeviceBuffer.__del__(kept)
        kept.address = 0
        cuda.sweep()  # cudaFree would end the record

    kept = DeviceBuffer(cuda, 16)
    graph = stream.record(work)
    assert device.calls["cudaFree"] == 0
    cuda.sweep()
    assert device.calls["cudaFree"] == 1
    graph.destroy()
    stream.destroy()
    assert device.live == {}


def test_a_round_trip(device: Device) -> None:
    cuda = Cuda()
    stream, rows = Stream(cuda), np.arange(12, dtype=np.float32).reshape(3, 4)
    there, pinned = (
        DeviceBuffer(cuda, rows.nbytes, rows.shape),
        PinnedBuffer(cuda, 2 * rows.nbytes),
    )
    there.fill(rows, stream)
    view = pinned.view(np.float32, (3, 4))
    stream.copy_out(pinned, there, rows.nbytes)
    assert not np.array_equal(view, rows)  # not before it is waited for
    stream.synchronize()
    assert np.array_equal(view, rows)
    view[:] = -rows
    graph = stream.record(lambda: stream.copy_in(there, pinned, rows.nbytes))
    stream.copy_out(pinned, there, rows.nbytes)
    stream.synchronize()
    assert np.array_equal(view, rows)  # what was recorded was not done
    view[:] = -rows
    graph.launch(stream)
    stream.synchronize()
    assert np.array_equal(device.read(there.address, (3, 4), np.float32), -rows)
    first, last = Event(cuda), Event(cuda)
    first.record(stream)
    last.record(stream)
    with pytest.raises(DeviceError, match="cudaErrorNotReady"):
        last.since_ns(first)
    stream.synchronize()
    assert last.since_ns(first) >= 0
    for _ in range(2):  # once is enough, twice does no harm
        for gone in (graph.destroy, first.destroy, last.destroy, there.free, pinned.free):
            gone()
        stream.destroy()
    assert device.live == {}


@pytest.mark.parametrize(
    "call",
    [
        "cudaStreamBeginCapture",
        "cudaStreamEndCapture",
        "cudaGraphInstantiateWithFlags",
        "cudaGraphDestroy",
    ],
)
def test_a_record_that_fails(device: Device, call: str) -> None:
    cuda = Cuda()
    stream = Stream(cuda)
    device.fail(call, "cudaErrorUnknown", times=1)
    with pytest.raises(DeviceError, match=f"^the GPU failed: {call} says cudaErrorUnknown"):
        stream.record(lambda: None)
    assert {kind for kind, _ in device.live.values()} <= {"stream", "graph", "graph exec"}
    assert not cuda.recording.locked()


def test_work_that_fails_while_it_is_recorded_ends_the_record(device: Device) -> None:
    cuda = Cuda()
    stream = Stream(cuda)

    def allocate() -> None:
        DeviceBuffer(cuda, 10)

    with pytest.raises(DeviceError, match="cudaMalloc says cudaErrorStreamCaptureUnsupported"):
        stream.record(allocate)
    stream.synchronize()
    graph = stream.record(lambda: None)
    graph.destroy()
    stream.destroy()
    assert device.live == {}


def test_a_device_for_a_block(world: World, device: Device) -> None:
    world.devices = 2
    cuda = Cuda()
    with cuda.on(0):
        assert device.calls["cudaSetDevice"] == 0
    cuda.call("cudaSetDevice", 1)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(cuda.call("cudaGetDevice")))
    thread.start()
    thread.join()
    with pytest.raises(ZeroDivisionError), cuda.on(0):
        seen.append(cuda.call("cudaGetDevice"))
        raise ZeroDivisionError
    assert [*seen, cuda.call("cudaGetDevice")] == [0, 0, 1]
