# SPDX-License-Identifier: Apache-2.0
"""Sessions of the C runtime: ONNX Runtime found, opened, proven on its provider, and run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Teachable
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.class_tensors import class_tensors
from tests.c.ort_tools import Starter

MakeHead = Callable[..., Head]

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
OUTPUTS = {
    "scores": (np.float32, (2, 3)),
    "label": (np.int32, (2,)),
    "embedding": (np.float32, (2, 8)),
}


@pytest.fixture
def start(c_build: Path, ort_library: Path, tmp_path: Path) -> Starter:
    return Starter(c_build, ort_library, tmp_path)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> str:
    return str(tiny_model)


# Running ----------------------------------------------------------------------------------


def test_a_model_runs_as_in_python(start: Starter, model: str, tmp_path: Path) -> None:
    wanted = OrtRunner(Path(model), "cpu").run(list(OUTPUTS), PIXELS)
    with start() as program:
        for how in ("open", "memory"):
            status, about = program.ask(how, model)
            assert status == "EI_OK: "
            provider, *library, max_batch = about.split()
            assert (provider, library[0], max_batch) == (
                "CPUExecutionProvider",
                "onnxruntime",
                "0",
            )
            found = program.run(tmp_path, {"images": PIXELS}, OUTPUTS)
            assert isinstance(found, dict)
            for array, name in zip(wanted, OUTPUTS, strict=True):
                np.testing.assert_array_equal(found[name], array)
            assert program.ask("close") == ["EI_OK: "]


def test_ports(start: Starter, model: str) -> None:
    with start() as program:
        program.ask("open", model)
        assert program.ask("ports") == [
            "input images 1 -1 16 16 3",
            "output scores 0 -1 3",
            "output label 2 -1",
            "output embedding 0 -1 8",
        ]


@pytest.mark.parametrize("form", ["default", "input"])
def test_a_teachable_model_takes_its_classes(
    start: Starter, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path, form: str
) -> None:
    """Initializers that may be replaced are bound as inputs are; unbound they stay."""
    options = {"teachable": Teachable(form, 8, 2)}
    head, other = make_head(), make_head(seed=3)
    fused = to_bytes(fuse(tiny_backbone, head, **options))  # type: ignore[arg-type]
    (tmp_path / "m.onnx").write_bytes(fused)
    runner = OrtRunner(fused, "cpu")
    slots = int(runner.metadata["edge_imprint.slots"])
    with start() as program:
        status, _ = program.ask("open", tmp_path / "m.onnx")
        assert status == "EI_OK: "
        kind = "default" if form == "default" else "input"
        ports = [line.split()[1] for line in program.ask("ports") if line.startswith(kind)]
        given = {n: t.values for n, t in class_tensors(other, slots).items()}
        assert {name for name in ports if name != "images"} == set(given)
        outputs = {"scores": OUTPUTS["scores"]}
        for tensors in (given, {}) if form == "default" else (given,):
            found = program.run(tmp_path, {"images": PIXELS, **tensors}, outputs)
            assert isinstance(found, dict)
            (wanted,) = runner.run(["scores"], PIXELS, tensors)
            np.testing.assert_array_equal(found["scores"], wanted)


def test_ports_that_no_model_of_ours_has(start: Starter, tmp_path: Path) -> None:
    """Nine sides, text, a sequence; a batch that is fixed."""
    value = helper.make_tensor_value_info
    inputs = [
        value("a", TensorProto.FLOAT, [4, 2]),
        value("many", TensorProto.FLOAT, [1] * 9),
        value("text", TensorProto.STRING, [1]),
    ]
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "a"], ["s"]),
        helper.make_node("Identity", ["many"], ["many_out"]),
        helper.make_node("Identity", ["text"], ["text_out"]),
    ]
    outputs = [
        sequence,
        value("many_out", TensorProto.FLOAT, [1] * 9),
        value("text_out", TensorProto.STRING, [1]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with start() as program:
        status, about = program.ask("open", path)
        assert status == "EI_OK: "
        assert about.endswith(" 4")
        assert program.ask("ports") == [
            "input a 0 4 2",
            "input many 3",
            "input text 3 1",
            "output s 3",
            "output many_out 3",
            "output text_out 3 1",
        ]


def test_a_run_that_fails(start: Starter, model: str, tmp_path: Path) -> None:
    wrong = np.zeros((2, 8, 16, 3), np.uint8)
    with start() as program:
        program.ask("open", model)
        found = program.run(tmp_path, {"images": wrong}, OUTPUTS)
        assert isinstance(found, str)
        assert found.startswith("EI_RUN_FAILED: ONNX Runtime could not run the model: ")
        assert "images" in found
        assert ".cc:" not in found
        minus = program.ask("run", f"images=-2x16x16x3={tmp_path}/input0", "--")
        assert minus[-1].startswith("EI_INVALID_ARGUMENT: a tensor of that shape")
        assert isinstance(program.run(tmp_path, {"images": PIXELS}, OUTPUTS), dict)


def test_a_node_that_fails_prints_nothing(start: Starter, tmp_path: Path) -> None:
    """ONNX Runtime logs it as an error, which goes nowhere but into our sentence."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [2, 2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with start() as program:  # its end holds stderr to be empty
        assert program.ask("open", tmp_path / "m.onnx")[0] == "EI_OK: "
        given = {"x": np.zeros(3, np.float32)}
        found = program.run(tmp_path, given, {"y": (np.float32, (2, 2))})
    assert isinstance(found, str)
    assert found.startswith("EI_RUN_FAILED: ONNX Runtime could not run the model: ")
    assert "Reshape" in found


@pytest.mark.parametrize("change", ["operator", "nothing"])
def test_what_onnx_runtime_can_t_load(start: Starter, tmp_path: Path, change: str) -> None:
    path = tmp_path / "m.onnx"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [value], [out])
    path.write_bytes(
        helper.make_model(graph).SerializeToString() if change == "operator" else b"\x08\x08"
    )
    with start() as program:
        for how in ("open", "memory"):
            (status,) = program.ask(how, path)
            assert status.startswith("EI_MODEL_FILE: onnxruntime ")
            assert " can't load the model: " in status


def test_an_open_session_uses_so_many_threads(start: Starter, model: str) -> None:
    """One thread is the caller's own: the pool has none more."""
    counts = []
    for threads in ("1", "4"):
        with start(EI_TEST_THREADS=threads) as program:
            program.ask("open", model)
            tasks = Path(f"/proc/{program.process_id}/task")
            counts.append(len(list(tasks.iterdir())))
    assert counts[1] - counts[0] == 3


# Which ONNX Runtime -----------------------------------------------------------------------

WANTED = (
    "install ONNX Runtime 1.16 or newer, or name its libonnxruntime.so in "
    "EDGE_IMPRINT_ONNXRUNTIME"
)


def test_no_such_library(start: Starter, model: str) -> None:
    with start(EI_TEST_LIBRARY="/no/such/libonnxruntime.so") as program:
        (status,) = program.ask("open", model)
    assert status == (
        "EI_LIBRARY_MISSING: cannot open ONNX Runtime: /no/such/libonnxruntime.so: cannot "
        f"open shared object file: No such file or directory; {WANTED}"
    )


def test_a_file_that_is_no_library(start: Starter, model: str) -> None:
    with start(EI_TEST_LIBRARY=model) as program:
        (status,) = program.ask("open", model)
    assert status.startswith("EI_LIBRARY_MISSING: cannot open ONNX Runtime: ")


def test_a_library_that_is_no_onnx_runtime(start: Starter, model: str) -> None:
    with start(EI_TEST_LIBRARY="libm.so.6") as program:
        (status,) = program.ask("open", model)
    assert status == (
        f"EI_LIBRARY_MISSING: libm.so.6 is no ONNX Runtime: it has no OrtGetApiBase; {WANTED}"
    )


def test_an_onnx_runtime_without_a_base(start: Starter, model: str) -> None:
    with start.failing(EI_FAKE_NO_BASE="1") as program:
        (status,) = program.ask("open", model)
    assert status.startswith("EI_LIBRARY_MISSING: ")


@pytest.mark.parametrize("version", ["1.15.1", "1.8", "0.99.0", "x"])
def test_an_onnx_runtime_that_is_too_old(
    start: Starter, c_build: Path, model: str, version: str
) -> None:
    with start.failing(EI_FAKE_VERSION=version) as program:
        (status,) = program.ask("open", model)
    library = c_build / "tests" / "libfailing_ort.so"
    assert status == (
        f"EI_LIBRARY_TOO_OLD: {library} is ONNX Runtime {version}, and 1.16 is needed; "
        f"{WANTED}"
    )


@pytest.mark.parametrize("version", ["1.16.0", "1.99", "2.0.0-dev"])
def test_an_onnx_runtime_that_is_new_enough(start: Starter, model: str, version: str) -> None:
    with start.failing(EI_FAKE_VERSION=version) as program:
        status, about = program.ask("open", model)
    assert status == "EI_OK: "
    assert about == f"CPUExecutionProvider onnxruntime {version} 0"


def test_an_onnx_runtime_without_the_table(start: Starter, model: str) -> None:
    with start.failing(EI_FAKE_NO_TABLE="1", EI_FAKE_VERSION="1.16.3") as program:
        (status,) = program.ask("open", model)
    assert status.startswith("EI_LIBRARY_TOO_OLD: ")


def test_the_environment_names_the_library(
    start: Starter, ort_library: Path, model: str, tmp_path: Path
) -> None:
    """What the options name comes first, then $EDGE_IMPRINT_ONNXRUNTIME, then the system's."""
    variable = "EDGE_IMPRINT_ONNXRUNTIME"
    with start(EI_TEST_LIBRARY="", **{variable: str(ort_library)}) as program:
        assert program.ask("open", model)[0] == "EI_OK: "
    with start(**{variable: "/no/such.so"}) as program:
        assert program.ask("open", model)[0] == "EI_OK: "
    (tmp_path / "libonnxruntime.so.1").symlink_to(ort_library)
    with start(EI_TEST_LIBRARY="", LD_LIBRARY_PATH=str(tmp_path), **{variable: ""}) as program:
        assert program.ask("open", model)[0] == "EI_OK: "


def test_without_any_library(start: Starter, model: str) -> None:
    with start(EI_TEST_LIBRARY="", EDGE_IMPRINT_ONNXRUNTIME="") as program:
        status, *_ = program.ask("open", model)
    if status == "EI_OK: ":
        pytest.skip("this system has an ONNX Runtime of its own")
    assert status.startswith("EI_LIBRARY_MISSING: cannot open ONNX Runtime: libonnxruntime.so")


@pytest.mark.parametrize(("given", "wanted"), [(None, "1"), ("0", "0")])
def test_nothing_is_reported_unless_the_owner_wants_it(
    start: Starter, model: str, given: str | None, wanted: str
) -> None:
    name = "ORT_DISABLE_TELEMETRY"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(name, raising=False)
        with start(**({} if given is None else {name: given})) as program:
            assert program.ask("environment", name) == [given or ""]
            program.ask("open", model)
            assert program.ask("environment", name) == [wanted]
