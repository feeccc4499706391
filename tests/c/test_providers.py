# SPDX-License-Identifier: Apache-2.0
"""GPU providers: what they are told, and the proof that they took the model.

There is no GPU here: an ONNX Runtime between ours and the real one claims to have them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.c.ort_tools import CUDA, TENSORRT, Starter

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
OUTPUTS = {"scores": (np.float32, (2, 3)), "label": (np.int32, (2,))}


@pytest.fixture
def start(c_build: Path, ort_library: Path, tmp_path: Path) -> Starter:
    return Starter(c_build, ort_library, tmp_path)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> str:
    return str(tiny_model)


@pytest.mark.parametrize(("number", "provider"), [("1", CUDA), ("2", TENSORRT)])
def test_a_provider_that_is_not_built_in(
    start: Starter, model: str, number: str, provider: str
) -> None:
    with start(EI_TEST_PROVIDER=number) as program:
        (status,) = program.ask("open", model)
    assert status.startswith("EI_PROVIDER: this ONNX Runtime (onnxruntime ")
    assert f") has no {provider} (it has " in status
    assert "CPUExecutionProvider" in status


def test_a_provider_that_does_not_exist(start: Starter, model: str) -> None:
    for number in ("3", "-1"):
        with start(EI_TEST_PROVIDER=number) as program:
            (status,) = program.ask("open", model)
        assert status == f"EI_INVALID_ARGUMENT: there is no provider {number}"


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_took_the_model(
    start: Starter, model: str, tmp_path: Path, provider: str
) -> None:
    with start.on_gpu(provider, EI_FAKE_TOOK=provider) as program:
        status, about = program.ask("open", model)
        assert status == "EI_OK: "
        assert about.split()[0] == provider
        assert isinstance(program.run(tmp_path, {"images": PIXELS}, OUTPUTS), dict)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_left_the_model_to_others(
    start: Starter, model: str, tmp_path: Path, provider: str
) -> None:
    with start.on_gpu(provider) as program:
        (status,) = program.ask("open", model)
    assert status.startswith(f"EI_PROVIDER: {provider} took none of the model's ")
    assert not list((tmp_path / "temporary").iterdir())


def test_what_tensorrt_is_told(
    start: Starter, model: str, tmp_path: Path, ort_library: Path
) -> None:
    """As Python tells it, its engines apart for each model and each ONNX Runtime."""
    profile = "images:2x16x16x3"
    version = ort_library.name.removeprefix("libonnxruntime.so.")
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()[:32]
    folder = tmp_path / "cache" / "tensorrt-provider" / f"{digest}-onnxruntime-{version}"
    wanted = [
        "device_id=0",
        "trt_engine_cache_enable=1",
        f"trt_engine_cache_path={folder}",
        "trt_timing_cache_enable=1",
        f"trt_timing_cache_path={folder}",
        f"trt_profile_min_shapes={profile}",
        f"trt_profile_opt_shapes={profile}",
        f"trt_profile_max_shapes={profile}",
        "device_id=0",  # CUDA's, behind it
    ]
    for how in ("open", "memory"):
        with start.on_gpu(TENSORRT, EI_FAKE_TOOK=TENSORRT, EI_TEST_OPTIMUM=profile) as program:
            assert program.ask(how, model)[0] == "EI_OK: "
        assert (tmp_path / "told").read_text().splitlines() == wanted
        (tmp_path / "told").unlink()
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("variables", "below"),
    [
        ({"XDG_CACHE_HOME": "HERE/x", "HOME": "HERE/h"}, "x/edge-imprint"),
        ({"XDG_CACHE_HOME": "", "HOME": "HERE/h"}, "h/.cache/edge-imprint"),
    ],
)
def test_where_engines_are_kept(
    start: Starter, model: str, tmp_path: Path, variables: dict[str, str], below: str
) -> None:
    given = {name: text.replace("HERE", str(tmp_path)) for name, text in variables.items()}
    with start.on_gpu(TENSORRT, EI_FAKE_TOOK=TENSORRT, EI_TEST_CACHE="", **given) as program:
        assert program.ask("open", model)[0] == "EI_OK: "
    (_,) = (tmp_path / below / "tensorrt-provider").iterdir()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"EI_TEST_CACHE": "/dev/null/x"},
            "cannot make the folder /dev/null/x/tensorrt-provider/",
        ),
        (
            {"EI_TEST_CACHE": "", "XDG_CACHE_HOME": "", "HOME": ""},
            "there is no folder for TensorRT's engines; ",
        ),
        ({"EI_TEST_CACHE": "/" + "x" * 5000}, "the name of the cache_folder is too long"),
        ({"TMPDIR": "/no/such/folder"}, "cannot make a folder in /no/such/folder, where "),
        ({"TMPDIR": "/" + "x" * 5000}, "the name in TMPDIR is too long"),
    ],
)
def test_folders_that_can_t_be_made(
    start: Starter, model: str, tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    with start.on_gpu(TENSORRT, **variables) as program:
        (status,) = program.ask("open", model)
    assert status.startswith(f"EI_WRITE_FAILED: {sentence}")


def test_without_a_folder_for_what_is_temporary(start: Starter, model: str) -> None:
    with start.on_gpu(CUDA, EI_FAKE_TOOK=CUDA, TMPDIR="") as program:
        assert program.ask("open", model)[0] == "EI_OK: "


def test_a_model_that_can_t_be_read_for_its_digest(start: Starter, tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "gone", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with start.on_gpu(TENSORRT) as program:
            (status,) = program.ask("open", path)
        assert status == f"EI_FILE_MISSING: cannot read {path}: {why}"


def test_a_trace_that_is_not_there(start: Starter, model: str) -> None:
    with start.on_gpu(CUDA, EI_FAKE_TOOK="") as program:
        (status,) = program.ask("open", model)
    assert status.startswith("EI_PROVIDER: there is no file ")


def test_what_was_logged_is_told(start: Starter, model: str) -> None:
    """ONNX Runtime tells some reasons in its log alone."""
    log = "Failed to load library libcudnn.so.9"
    with start.on_gpu(CUDA, EI_FAKE_LOG=log, EI_FAIL_WORDS="CUDA is not there") as program:
        assert program.ask("fail", "9") == []
        statuses = []
        for number in range(5, 20):
            program.ask("fail", str(number))
            statuses += program.ask("open", model)
    wanted = f"EI_PROVIDER: {CUDA} did not start: CUDA is not there: {log}; or run on the CPU"
    assert wanted in statuses


def test_frames_of_any_size_are_not_proven(start: Starter, tmp_path: Path) -> None:
    """Nobody knows a shape to try; as in Python, where ONNX Runtime can't be asked."""
    value = helper.make_tensor_value_info
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N", "H", "W"])],
        [value("y", TensorProto.FLOAT, ["N", "H", "W"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    with start.on_gpu(CUDA) as program:
        assert program.ask("open", path)[0] == "EI_OK: "
    optimum = {"EI_TEST_OPTIMUM": "other:1,x:1x4x4"}
    with start.on_gpu(CUDA, **optimum) as program:
        assert program.ask("open", path)[0].startswith("EI_PROVIDER: ")


def test_a_model_that_only_asks_for_shapes(start: Starter, tmp_path: Path) -> None:
    """Shapes stay on the CPU on purpose: that is no stray."""
    value = helper.make_tensor_value_info
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("Shape", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("y", TensorProto.INT64, [2])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    with start.on_gpu(CUDA) as program:
        assert program.ask("open", path)[0] == "EI_OK: "
