# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime's messages mean; a provider with caches, notices, memory of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Model
from edge_imprint_runtime.backends import ort as ort_module
from edge_imprint_runtime.backends import ort_session
from edge_imprint_runtime.backends.cuda import Cuda, DeviceBuffer
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.backends.ort_session import choose_provider, run_error
from edge_imprint_runtime.errors import (
    DeviceError,
    DeviceMemoryError,
    EdgeImprintError,
    InputError,
    ModelFileError,
    ProviderError,
)
from tests.standins import World

CPU = "CPUExecutionProvider"


@pytest.fixture
def cpu_as_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU's provider as TensorRT's: what it is told and does not know, it skips."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(ort_session._PROVIDERS, "tensorrt", CPU)
    monkeypatch.setattr(ort_module, "TENSORRT", CPU)
    monkeypatch.setattr(ort_module, "CPU", "none")


@pytest.mark.parametrize(
    ("backend", "provider"),
    [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")],
)
def test_a_provider_that_is_not_in_this_build(backend: str, provider: str) -> None:
    with pytest.raises(ProviderError) as caught:
        choose_provider(backend, ["AzureExecutionProvider", CPU])
    assert str(caught.value) == (
        f"this ONNX Runtime has no {provider} (it has AzureExecutionProvider, {CPU}); run on "
        "the CPU, or pip uninstall onnxruntime, then pip install onnxruntime-gpu; "
        "edge-imprint doctor tells what fits this machine"
    )


# A provider that compiles --------------------------------------------------------------------


@pytest.mark.usefixtures("cpu_as_tensorrt")
def test_a_build_is_announced_before_it_begins(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    opened = ort_module.open_session

    def opening(*given: object, **options: object) -> object:
        order.append("opened")
        return opened(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ort_module, "open_session", opening)
    runner = OrtRunner(tiny_model, "tensorrt", notice=order.append)
    notice, last = order
    assert last == "opened"
    assert notice.startswith("TensorRT compiles the model now, which takes from seconds on a ")
    assert runner.notices == [notice]
    assert runner.provider == CPU


@pytest.mark.usefixtures("cpu_as_tensorrt")
def test_larger_batches_than_an_engine_takes_are_split(tiny_model: Path) -> None:
    runner = OrtRunner(tiny_model, "tensorrt", 1, notice=lambda _: None)
    assert runner.batch_limits == (1, 8)
    images = np.random.default_rng(0).integers(0, 256, (21, 16, 16, 3), np.uint8)
    found = Model(runner, "m").predict(images)
    whole = OrtRunner(tiny_model, "cpu", 1).run(["label"], images)[0]
    assert len(found) == 21
    np.testing.assert_array_equal(found.label, whole)


@pytest.mark.usefixtures("cpu_as_tensorrt")
def test_strays_are_told_of(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime can't be asked which provider has which node")
    asked = ort_module.assigned_nodes

    def with_strays(session: object) -> object:
        nodes = asked(session)
        assert nodes is not None
        return [
            ort_module.PlacedNode(n.name, n.operator, "CUDAExecutionProvider")
            if n.operator in ("ArgMax", "ReduceMax")
            else n
            for n in nodes
        ]

    monkeypatch.setattr(ort_module, "assigned_nodes", with_strays)
    runner = OrtRunner(tiny_model, "tensorrt", notice=lambda _: None)
    assert runner.placement is not None
    strays, total = runner.placement.strays, sum(runner.placement.nodes.values())
    assert runner.placement.nodes["CUDAExecutionProvider"] == len(strays) == 2
    assert runner.notices[1] == (
        f"{CPU} left 2 of {total} nodes to CUDAExecutionProvider, which is slower: "
        f"{strays[0]}, {strays[1]}"
    )


@pytest.mark.usefixtures("cpu_as_tensorrt")
def test_the_devices_memory(tiny_model: Path, newest: World) -> None:
    runner = OrtRunner(tiny_model, "tensorrt", notice=lambda _: None)
    assert runner.device_memory_bytes() == 0
    held = DeviceBuffer(Cuda(), 3_000_000)
    assert runner.device_memory_bytes() == 3_000_000
    held.free()
    assert runner.device_memory_bytes() == 0


@pytest.mark.usefixtures("cpu_as_tensorrt")
def test_memory_that_nobody_can_ask_for(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert (
        OrtRunner(tiny_model, "tensorrt", notice=lambda _: None).device_memory_bytes() is None
    )


# What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "text", "error"),
    [
        (CPU, "Failed to allocate memory for requested buffer of size 9", DeviceMemoryError),
        (CPU, "std::bad_alloc", DeviceMemoryError),
        ("CUDAExecutionProvider", "CUDA failure 2: out of memory ; GPU=0", DeviceMemoryError),
        ("CUDAExecutionProvider", "CUBLAS_STATUS_ALLOC_FAILED", DeviceMemoryError),
        ("CUDAExecutionProvider", "CUDA error cudaErrorNoKernelImageForDevice", DeviceError),
        ("CUDAExecutionProvider", "CUDNN failure 5003: EXECUTION_FAILED", DeviceError),
        ("CUDAExecutionProvider", "Got invalid dimensions for input: images", InputError),
        (CPU, "this model says cuda in the name of a node", InputError),
    ],
)
def test_what_a_message_means(provider: str, text: str, error: type[EdgeImprintError]) -> None:
    found = run_error(provider, RuntimeError(f"  {text}\n"), 7)
    assert type(found) is error
    wanted = {
        DeviceMemoryError: (
            f"{provider} has not enough memory for 7 images at a time: {text}; give fewer at "
            "a time, or free some"
        ),
        DeviceError: (
            f"{provider} failed: {text}; see what runs here with: edge-imprint doctor"
        ),
        InputError: f"ONNX Runtime could not run the model: {text}",
    }
    assert str(found) == wanted[error]


ARENA = (
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::"
    "BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
)
TEMPLATE = (
    "/src/utils.h:46 void onnxruntime::f(const std::map<int, int>&, bool) [with T = int] "
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{ARENA}Failed to allocate memory for requested buffer of size 9",
            "Failed to allocate memory for requested buffer of size 9",
        ),
        (
            f"[E] : 1 : FAIL : {TEMPLATE}bad_alloc (why) here",
            "[E] : 1 : FAIL : bad_alloc (why) here",
        ),
    ],
    ids=["function", "template"],
)
def test_a_place_in_its_source_says_nothing(text: str, words: str) -> None:
    assert str(run_error(CPU, RuntimeError(text), 0)) == (
        f"{CPU} has not enough memory for the model: {words}; give fewer at a time, or free "
        "some"
    )


def test_memory_that_really_runs_out(tiny_model: Path) -> None:
    """A process that may have little memory, and a batch that needs much."""
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from edge_imprint_runtime.backends.ort import OrtRunner\n"
        "from edge_imprint_runtime.errors import DeviceMemoryError\n"
        "runner = OrtRunner(Path(sys.argv[1]), 'cpu', 1)\n"
        "images = np.zeros((200_000, 16, 16, 3), np.uint8)\n"
        "runner.run(['label'], images[:2])\n"
        "with open('/proc/self/statm') as file:\n"
        "    now = int(file.read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 2**27, now + 2**27))\n"
        "try:\n"
        "    runner.run(['label'], images)\n"
        "except DeviceMemoryError as error:\n"
        "    print(error)\n"
        "print(runner.run(['label'], images[:2])[0].shape)\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc, to tell how much memory a process has")
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_model], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    message, after = done.stdout.splitlines()
    assert message.startswith(f"{CPU} has not enough memory for 200000 images at a time: ")
    assert message.endswith("; give fewer at a time, or free some")
    assert after == "(2,)"


def test_a_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(to_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8)))
    for source, where in ((path, str(path)), (path.read_bytes(), "the model")):
        with pytest.raises(ModelFileError) as caught:
            OrtRunner(source, "cpu")
        version = onnxruntime.__version__
        assert str(caught.value).startswith(f"ONNX Runtime {version} can't load {where}: ")
        assert "NoSuchOperator" in str(caught.value)
