# SPDX-License-Identifier: Apache-2.0
"""What CUDA or TensorRT refuse while an engine is opened, run or closed is told, and freed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.errors import (
    ClosedModelError,
    DeviceError,
    DeviceMemoryError,
    EngineFileError,
    MissingPackageError,
)
from tests.standins import World
from tests.standins.cuda_runtime import Device, device_of

MakeForm = Callable[[str], Any]
UNKNOWN = "cudaErrorUnknown"


def gone(device: Device) -> bool:
    """Whether all was given back, that of caught errors too."""
    gc.collect()
    return device.live == {}


def told(call: str) -> str:
    """Return how a call of CUDA's, or of TensorRT's, that fails is told."""
    if call.startswith("cuda"):
        what = f"the GPU failed: {call} says cudaErrorUnknown (unknown error)"
        return f"{what}; open the model again"
    return f"TensorRT's {call} failed: Cuda failure: cudaErrorUnknown; open the model again"


# Opening ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "cudaGetDevice",
        "cudaStreamCreateWithFlags",
        "cudaMalloc",
        "cudaHostAlloc",
        "set_input_shape",
        "set_tensor_address",
    ],
)
@pytest.mark.parametrize("skip", [0, 1])
def test_opening(newest: World, make_form: MakeForm, call: str, skip: int) -> None:
    engine, device = make_form("input").engine(newest), device_of(newest)
    device.fail(call, UNKNOWN, skip=skip)
    if call == "cudaStreamCreateWithFlags" and skip:
        TrtRunner(engine).close()  # one is all it needs
        assert gone(device)
        return
    with pytest.raises(DeviceError) as caught:
        TrtRunner(engine)
    assert type(caught.value) is DeviceError
    assert str(caught.value) == told(call)
    del caught
    assert gone(device)


@pytest.mark.parametrize("skip", range(3))
@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_opening_with_too_little_memory(
    newest: World, make_form: MakeForm, call: str, skip: int
) -> None:
    engine, device = make_form("plain").engine(newest), device_of(newest)
    device.fail(call, "cudaErrorMemoryAllocation", skip=skip)
    with pytest.raises(DeviceMemoryError) as caught:
        TrtRunner(engine)
    size = ("6.0 KiB", "96 bytes", "32 bytes")[skip]  # images, scores, label: for 8
    where = "the GPU" if call == "cudaMalloc" else "the host, page-locked for the GPU,"
    assert str(caught.value).startswith(
        f"there is no room for {size} on {where} where 8.0 GiB"
    )
    del caught
    assert gone(device)


def test_a_context_that_does_not_fit(world: World, make_form: MakeForm) -> None:
    form, device = make_form("plain"), device_of(world)
    engine = form.engine(world)
    world.memory_bytes = engine.stat().st_size + 1000
    with pytest.raises(DeviceMemoryError) as caught:
        TrtRunner(engine)
    free = world.memory_bytes - form.path.stat().st_size
    assert str(caught.value) == (
        f"there is no room for 4.0 KiB on the GPU where {free / 1024:.1f} KiB of "
        f"{world.memory_bytes / 1024:.1f} KiB of its memory are free; end what else uses the "
        "GPU, or compile for smaller batches"
    )
    del caught
    assert gone(device)


def test_a_context_that_tensorrt_does_not_make(world: World, make_form: MakeForm) -> None:
    engine, device = make_form("plain").engine(world), device_of(world)
    world.faults["create_execution_context"] = "Error Code 1: Myelin (no kernel image)"
    with pytest.raises(DeviceError) as caught:
        TrtRunner(engine)
    assert type(caught.value) is DeviceError
    assert str(caught.value) == (
        "TensorRT's create_execution_context failed: Error Code 1: Myelin (no kernel image); "
        "open the model again"
    )
    del caught
    assert gone(device)


def test_no_gpu(newest: World, make_form: MakeForm) -> None:
    engine = make_form("plain").engine(newest)
    newest.devices = 0
    with pytest.raises(DeviceError) as caught:
        TrtRunner(engine)
    assert str(caught.value) == (
        "no GPU can be used: cudaGetDeviceCount says cudaErrorNoDevice (no CUDA-capable "
        "device is detected); install or update NVIDIA's driver, or run on the CPU"
    )


@pytest.mark.parametrize("package", ["tensorrt", "cuda"])
def test_a_package_that_is_missing(
    newest: World, make_form: MakeForm, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    engine = make_form("plain").engine(newest)
    for name in ("tensorrt",) if package == "tensorrt" else ("cuda.bindings.runtime", "cuda"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingPackageError, match="pip install 'edge-imprint"):
        TrtRunner(engine)


# Engine and sidecar that contradict each other ---------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "inputs",
            {"pixels": (("N", 16, 16, 3), "tensor(uint8)")},
            "the engine has the input images, the sidecar does not",
        ),
        (
            "outputs",
            {"scores": (("N", 3), "tensor(float)")},
            "the engine has the output embedding, the sidecar does not",
        ),
        (
            "inputs",
            {"images": (("N", 16, 16, 3), "tensor(float)")},
            "the engine has images as tensor(uint8), the sidecar has it as tensor(float)",
        ),
        (
            "inputs",
            {"images": (("N", 15, 16, 3), "tensor(uint8)")},
            "the engine has images of shape [-1, 16, 16, 3], the sidecar has ['N', 15, 16, 3]",
        ),
        (
            "inputs",
            {"images": (("N", 16, 16), "tensor(uint8)")},
            "the engine has images of shape [-1, 16, 16, 3], the sidecar has ['N', 16, 16]",
        ),
        (
            "profile",
            {"images": ((1, 16, 16, 3), (1, 16, 16, 3), (9, 16, 16, 3))},
            (
                "the engine takes images from [1, 16, 16, 3] to [8, 16, 16, 3], the sidecar "
                "has [1, 16, 16, 3] to [9, 16, 16, 3]"
            ),
        ),
    ],
)
def test_contradictions(
    world: World, make_form: MakeForm, field: str, value: Any, message: str
) -> None:
    changed = {field: value}
    if field == "inputs":  # of a sidecar each input has a profile
        shape = (1, 16, 16, 3)
        changed["profile"] = dict.fromkeys(value, (shape, shape, (8, 16, 16, 3)))
    engine = make_form("plain").engine(world, **changed)
    with pytest.raises(EngineFileError) as caught:
        TrtRunner(engine)
    assert str(caught.value) == (
        f"{engine} and the sidecar beside it contradict each other: {message}; compile the "
        "model again"
    )
    del caught
    assert gone(device_of(world))


def test_an_output_that_the_sidecar_alone_has(newest: World, make_form: MakeForm) -> None:
    form = make_form("calibrated")
    outputs = {
        "scores": (("N", 4), "tensor(float)"),
        "label": (("N",), "tensor(int32)"),
        "known": (("N",), "tensor(int32)"),
        "probability": (("N", 4), "tensor(float)"),
        "proxy": (("N",), "tensor(int32)"),
    }
    engine = form.engine(newest, outputs=outputs)
    with pytest.raises(EngineFileError) as caught:
        TrtRunner(engine)
    assert "the sidecar has the output proxy, the engine does not" in str(caught.value)


# Holding and running ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "cudaGetDevice",
        "cudaStreamCreateWithFlags",
        "cudaMalloc",
        "cudaMemcpyAsync",
        "cudaStreamSynchronize",
    ],
)
def test_holding(newest: World, make_form: MakeForm, call: str) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest))
    count = len(device.live)
    device.fail(call, UNKNOWN, times=1)
    with pytest.raises(DeviceError) as caught:
        runner.hold(form.tensors)
    assert str(caught.value) == told(call)
    del caught
    gc.collect()
    runner.hold({})
    assert len(device.live) == count
    found = runner.run(["scores"], form.images(1), runner.hold(form.tensors))[0]
    assert np.allclose(found, form.expected(form.images(1))[0], atol=1e-6)
    runner.close()
    assert gone(device)


PLAIN = ["cudaGetDevice", "cudaMemcpyAsync", "cudaStreamSynchronize", "execute_async_v3"]
GRAPH = [
    "cudaStreamBeginCapture",
    "cudaStreamEndCapture",
    "cudaGraphInstantiateWithFlags",
    "cudaGraphDestroy",
    "cudaGraphLaunch",
]
STAGES = ["cudaEventCreate", "cudaEventRecord", "cudaEventElapsedTime"]
LAYERS = ["create_execution_context", "report_to_profiler", "cudaStreamSynchronize"]


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize(
    ("how", "call"),
    [
        *[("run", call) for call in PLAIN],
        *[("graph", call) for call in GRAPH],
        *[("stages", call) for call in PLAIN + STAGES],
        *[("layers", call) for call in LAYERS],
    ],
)
def test_a_run_that_fails_is_told_and_the_next_one_goes_well(
    newest: World, make_form: MakeForm, how: str, call: str, skip: int
) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest), cuda_graph=how == "graph")
    held, images = runner.hold(form.tensors), form.images(2)
    calls: dict[str, Callable[[], Any]] = {
        "run": lambda: runner.run(["scores", "label"], images, held)[0],
        "graph": lambda: runner.run(["scores", "label"], images, held)[0],
        "stages": lambda: runner.run_stages(["scores", "label"], images, held)[0][0],
        "layers": lambda: runner.layers(images, held, runs=2),
    }
    device.fail(call, UNKNOWN, skip=skip, times=1)
    caught = None
    for _ in range(3):  # with a skip, a call that a run makes once fails in the second
        try:
            calls[how]()
        except DeviceError as error:
            caught = (type(error), str(error))
            break
    device.heal()
    if caught is not None:
        recorded = GRAPH[:4]
        message = told(call)
        if call in recorded:
            what = message.rpartition("; ")[0]
            message = (
                f"the engine can't be recorded as a CUDA graph: {what}; open it without "
                "cuda_graph"
            )
        if call == "create_execution_context":
            assert "on the GPU where" in caught[1] or caught[1] == message
        else:
            assert caught == (DeviceError, message)
    else:
        assert skip  # a record is made once
        assert call in (*GRAPH[:4], "cudaGetDevice")
    again = runner.run(["scores"], images, held)[0]
    assert np.allclose(again, form.expected(images)[0], rtol=0, atol=1e-6)
    runner.close()
    if call != "cudaGraphDestroy":  # which leaves what it can't destroy
        assert gone(device)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_gpu_that_fails_for_good_hangs_nothing(
    world: World, make_form: MakeForm, cuda_graph: bool
) -> None:
    form, device = make_form("input"), device_of(world)
    runner = TrtRunner(form.engine(world), cuda_graph=cuda_graph)
    held, images = runner.hold(form.tensors), form.images(1)
    runner.run(["scores"], images, held)
    device.fail("kernel", "cudaErrorIllegalAddress")
    with pytest.raises(DeviceError) as caught:
        runner.run(["scores"], images, held)
    assert str(caught.value) == (
        "the GPU failed: cudaStreamSynchronize says cudaErrorIllegalAddress (an illegal "
        "memory access was encountered); start the program again"
    )
    with pytest.raises(DeviceError, match="says cudaErrorIllegalAddress"):
        runner.run(["scores"], images, held)
    runner.close()
    runner.close()
    with pytest.raises(ClosedModelError):
        runner.run(["scores"], images, held)


@pytest.mark.parametrize(
    "call",
    [
        "cudaStreamSynchronize",
        "cudaFree",
        "cudaFreeHost",
        "cudaEventDestroy",
        "cudaGraphExecDestroy",
        "cudaStreamDestroy",
    ],
)
def test_closing_goes_on_where_a_part_of_it_fails(
    newest: World, make_form: MakeForm, call: str
) -> None:
    form, device = make_form("input"), device_of(newest)
    runner = TrtRunner(form.engine(newest), cuda_graph=True)
    held = runner.hold(form.tensors)
    runner.run_stages(["scores"], form.images(1), held)
    device.fail(call, UNKNOWN)
    runner.close()
    left = {kind for kind, _ in device.live.values()}
    left -= {"scratch", "weights"}  # a graph that can't be destroyed holds the stand-in's
    kinds = {"cudaFree": "device", "cudaFreeHost": "pinned", "cudaEventDestroy": "event"}
    kinds |= {"cudaGraphExecDestroy": "graph exec", "cudaStreamDestroy": "stream"}
    assert left == ({kinds[call]} if call in kinds else set())


def test_a_profiler_that_is_told_nothing(newest: World, make_form: MakeForm) -> None:
    form = make_form("plain")
    runner = TrtRunner(form.engine(newest))
    newest.faults["report_layer_time"] = "yes"
    with pytest.raises(DeviceError, match=r"TensorRT timed no layer \(the inspector names: "):
        runner.layers(form.images(1))
    runner.close()
