# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's runner: what runs, in stages and layer by layer, and what it does closed."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.backends import LayerTime, Placement, Runner, ort_session
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.backends.ort_session import open_session
from edge_imprint_runtime.class_tensors import class_tensors
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.errors import (
    ClosedModelError,
    ParameterError,
    ProviderError,
)

MakeHead = Callable[..., Head]

CPU = "CPUExecutionProvider"
# A provider of the usual build that starts and takes no node of ours.
OTHER = "AzureExecutionProvider"
NAMES = ["scores", "label"]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)

needs_other = pytest.mark.skipif(
    OTHER not in onnxruntime.get_available_providers(),
    reason=f"this ONNX Runtime has no {OTHER}, which would take no node",
)


@pytest.fixture
def runner(tiny_model: Path) -> OrtRunner:
    return OrtRunner(tiny_model, "cpu", 1)


@pytest.fixture
def asks_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `cuda` mean a provider that starts here."""
    monkeypatch.setitem(ort_session._PROVIDERS, "cuda", OTHER)


@pytest.fixture
def away_from_host(runner: OrtRunner, monkeypatch: pytest.MonkeyPatch) -> OrtRunner:
    """A runner that takes the way of a device: values of ONNX Runtime's, bound to a run.

    The values lie in the host's memory here; all else is what CUDA gets.
    """
    monkeypatch.setattr(runner, "provider", "CUDAExecutionProvider")
    monkeypatch.setattr(runner, "_device", "cpu")
    return runner


def small(path: Path, *, batch: int | str = "N", operator: str = "Relu") -> Path:
    """Write a model of one node."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name="only")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(to_bytes(model))
    return path


def assert_equal(a: list[Any], b: list[Any]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


# What it is --------------------------------------------------------------------------------


def test_it_is_a_runner(runner: OrtRunner) -> None:
    whole: Runner = runner
    assert whole.provider == CPU
    assert whole.library == f"onnxruntime {onnxruntime.__version__}"
    assert whole.threads == 1
    assert whole.batch_limits == (1, None)
    assert whole.device_memory_bytes() is None
    assert runner.notices == []


def test_all_nodes_are_counted(runner: OrtRunner) -> None:
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime can't be asked which provider has which node")
    assert runner.placement is not None
    (count,) = runner.placement.nodes.values()
    assert count > 15
    assert runner.placement == Placement(CPU, {CPU: count}, ())


def test_a_batch_that_the_file_fixes(tmp_path: Path) -> None:
    fixed = OrtRunner(small(tmp_path / "m.onnx", batch=4), "cpu")
    assert fixed.batch_limits == (4, 4)
    assert OrtRunner(small(tmp_path / "n.onnx"), "cpu").batch_limits == (1, None)


# Stages ------------------------------------------------------------------------------------


def test_on_the_cpu_there_is_one_stage(runner: OrtRunner) -> None:
    found, stages = runner.run_stages(NAMES, PIXELS)
    assert_equal(found, runner.run(NAMES, PIXELS))
    assert stages.keys() == {"compute"}
    assert 0 < stages["compute"] < 60_000_000_000


def test_elsewhere_there_are_three(away_from_host: OrtRunner, tiny_model: Path) -> None:
    found, stages = away_from_host.run_stages(NAMES, PIXELS)
    assert_equal(found, OrtRunner(tiny_model, "cpu", 1).run(NAMES, PIXELS))
    assert list(stages) == ["copy_in", "compute", "copy_out"]
    assert min(stages.values()) > 0


def test_images_in_any_order_of_memory(away_from_host: OrtRunner, tiny_model: Path) -> None:
    turned = np.ascontiguousarray(PIXELS[..., ::-1])[..., ::-1]
    assert not turned.flags.c_contiguous
    expected = OrtRunner(tiny_model, "cpu", 1).run(NAMES, PIXELS)
    assert_equal(away_from_host.run(NAMES, turned), expected)
    assert_equal(away_from_host.run_stages(NAMES, turned)[0], expected)


def test_held_arrays_go_in_once(
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, path = make_head(), tmp_path / "m.onnx"
    model = fuse(tiny_backbone, head, teachable=Teachable("input", 8))
    path.write_bytes(to_bytes(model))
    runner = OrtRunner(path, "cpu", 1)
    slots = open_slots(runner)
    arrays = {name: t.values for name, t in class_tensors(head, slots).items()}
    expected = runner.run(NAMES, PIXELS, runner.hold(arrays))
    monkeypatch.setattr(runner, "provider", "CUDAExecutionProvider")
    monkeypatch.setattr(runner, "_device", "cpu")
    held = runner.hold(arrays)
    assert {type(value).__name__ for value in held.values()} == {"OrtValue"}
    assert_equal(runner.run(NAMES, PIXELS, held), expected)
    assert_equal(runner.run_stages(NAMES, PIXELS, held)[0], expected)


def open_slots(runner: OrtRunner) -> int:
    return int(runner.metadata["edge_imprint.slots"])


# Layers ------------------------------------------------------------------------------------


def test_layers(runner: OrtRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    layers = runner.layers(PIXELS, runs=3)
    assert all(type(layer) is LayerTime for layer in layers)
    assert {layer.kind for layer in layers} >= {"Conv", "MatMul", "ArgMax"}
    assert [layer.mean_ns for layer in layers] == sorted(
        (layer.mean_ns for layer in layers), reverse=True
    )
    assert 0 < sum(layer.mean_ns for layer in layers) < 60e9
    assert any("conv0" in layer.name for layer in layers)
    assert list(tmp_path.iterdir()) == []
    assert_equal(runner.run(NAMES, PIXELS), runner.run(NAMES, PIXELS))


def test_layers_that_cannot_be_had(
    tiny_model: Path, away_from_host: OrtRunner, caplog: pytest.LogCaptureFixture
) -> None:
    assert OrtRunner(tiny_model.read_bytes(), "cpu").layers(PIXELS) == []
    assert away_from_host.layers(PIXELS) == []
    told = (
        "ONNX Runtime does not tell how long a layer takes on CUDA; compile an engine for "
        "that: edge-imprint compile"
    )
    assert away_from_host.notices == [told]
    assert caplog.record_tuples == [("edge_imprint_runtime", logging.WARNING, told)]
    with pytest.raises(ParameterError) as caught:
        away_from_host.layers(PIXELS, runs=0)
    assert str(caught.value) == "runs must be an integer >= 1, got 0"


# Closing -----------------------------------------------------------------------------------


def test_a_closed_runner(runner: OrtRunner) -> None:
    runner.close()
    runner.close()
    calls: tuple[Callable[[], object], ...] = (
        lambda: runner.run(NAMES, PIXELS),
        lambda: runner.run_stages(NAMES, PIXELS),
        lambda: runner.layers(PIXELS),
    )
    for call in calls:
        with pytest.raises(ClosedModelError) as caught:
            call()
        assert str(caught.value) == "the model was closed; open it again"
    assert runner.device_memory_bytes() is None


def test_closing_lets_calls_end(tiny_model: Path) -> None:
    """Threads that run while another closes either answer rightly, or say it is closed."""
    expected = OrtRunner(tiny_model, "cpu", 1).run(NAMES, PIXELS)
    for _ in range(20):
        runner = OrtRunner(tiny_model, "cpu", 1)
        failed: list[object] = []
        begun = threading.Barrier(5)

        def call(
            runner: OrtRunner = runner,
            failed: list[object] = failed,
            begun: threading.Barrier = begun,
        ) -> None:
            begun.wait(120)
            try:
                while True:
                    assert_equal(runner.run(NAMES, PIXELS), expected)
            except ClosedModelError:
                pass
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait(120)
        runner.close()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        assert failed == []


def test_many_threads_answer_as_one(tiny_model: Path) -> None:
    with open_model(tiny_model, "cpu", threads=1) as model:
        images = np.random.default_rng(1).integers(0, 256, (20, 1, 16, 16, 3), np.uint8)
        serial = [model.predict(image) for image in images]
        wrong: list[int] = []

        def call(seed: int) -> None:
            for number in np.random.default_rng(seed).integers(0, 20, 300):
                answer = model.predict(images[number])
                if answer.scores.tobytes() != serial[number].scores.tobytes():
                    wrong.append(int(number))

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


# The provider asked for --------------------------------------------------------------------


@needs_other
@pytest.mark.usefixtures("asks_other")
@pytest.mark.parametrize("can_ask", [True, False])
def test_a_provider_that_starts_and_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_ask: bool
) -> None:
    """ONNX Runtime calls it the session's first provider, and runs all on the CPU."""
    path = small(tmp_path / "m.onnx")
    session = open_session(onnxruntime, path, OTHER)
    assert session.get_providers()[0] == OTHER
    asking = "get_provider_graph_assignment_info"
    if can_ask and not hasattr(onnxruntime.InferenceSession, asking):
        pytest.skip("this ONNX Runtime can't be asked which provider has which node")
    if not can_ask:  # as before 1.24: it is read in the trace of a run
        owner = next(c for c in onnxruntime.InferenceSession.__mro__ if asking in vars(c))
        monkeypatch.delattr(owner, asking)
    with pytest.raises(ProviderError) as caught:
        OrtRunner(path, "cuda")
    assert str(caught.value) == (
        f"{OTHER} took none of the model's nodes, {CPU} would run Relu only; "
        "choose the backend that can run it"
    )


@needs_other
@pytest.mark.usefixtures("asks_other")
@pytest.mark.parametrize(
    ("kind", "told"),
    [("FLOAT16", True), ("BOOL", True), ("DOUBLE", True), ("UINT16", True), ("STRING", False)],
)
def test_before_1_24_an_input_of_any_type_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: bool
) -> None:
    """Text alone can't be made up: then nobody says which provider has which node."""
    asking = "get_provider_graph_assignment_info"
    for owner in onnxruntime.InferenceSession.__mro__:
        if asking in vars(owner):
            monkeypatch.delattr(owner, asking)
    number = getattr(TensorProto, kind)
    sides = ["N", 4]
    graph = helper.make_graph(
        [helper.make_node("Shape", ["x"], ["y"])],
        "typed",
        [helper.make_tensor_value_info("x", number, sides)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    runner = OrtRunner(path, "cuda")
    if told:
        assert runner.placement == Placement(OTHER, {CPU: 1})
    else:
        assert runner.placement is None


def test_no_retry_on_another_provider(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What fails when a session is made is told, not tried again on the CPU and printed."""

    class Old(onnxruntime.InferenceSession):  # type: ignore[misc]
        """As releases before 1.23 are: the argument is taken and not heeded."""

        def __init__(self, path: str, options: Any, *, providers: Any, **_: Any) -> None:
            super().__init__(path, options, providers=providers, enable_fallback=1)

        def _create_inference_session(self, providers: Any, *_: Any, **__: Any) -> None:
            made.append(list(providers))
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    class Module:
        InferenceSession = Old

        def __getattr__(self, name: str) -> Any:
            return getattr(onnxruntime, name)

    made: list[list[str]] = []
    with pytest.raises(ProviderError) as caught:
        open_session(Module(), small(tmp_path / "m.onnx"), "CUDAExecutionProvider")
    assert str(caught.value) == (
        "CUDAExecutionProvider did not start: CUDA failure 100: no CUDA-capable device is "
        "detected; or run on the CPU"
    )
    assert made == [["CUDAExecutionProvider"]]
    assert capfd.readouterr().out == ""


def test_a_session_runs_on_after_it_was_traced(tmp_path: Path) -> None:
    session = open_session(
        onnxruntime, small(tmp_path / "m.onnx"), CPU, trace=tmp_path / "run"
    )
    x = np.array([[-1, 0, 1, 2]], np.float32)
    session.run(None, {"x": x})
    trace = Path(session.end_profiling())
    before = trace.read_bytes()
    assert any(event["name"] == "only_kernel_time" for event in json.loads(before))
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [[0, 0, 1, 2]])
    assert trace.read_bytes() == before
