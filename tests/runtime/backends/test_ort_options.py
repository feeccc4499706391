# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime's TensorRT provider is told: caches, shapes, and no precision."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess
from edge_imprint_runtime.backends import say_notice
from edge_imprint_runtime.backends.ort_options import (
    CUDA,
    TENSORRT,
    shape_ranges,
    start_list,
    tensorrt_setup,
)
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.errors import OutputWriteError

MakeHead = Callable[..., Head]
MakeModel = Callable[..., Path]

LIBRARY = "onnxruntime 1.23.2"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-imprint" / "tensorrt-provider"


@pytest.fixture
def make_model(
    tiny_backbone: bytes, tiny_info: BackboneInfo, make_head: MakeHead, tmp_path: Path
) -> MakeModel:
    """Return a function of `fuse`'s options: a model's file."""
    preprocess = Preprocess(16, 16, interpolation="linear")
    info = replace(tiny_info, preprocess=preprocess)

    def make(name: str = "m.onnx", *, seed: int = 0, **options: object) -> Path:
        head = make_head(seed=seed, backbone=info)
        model = fuse(tiny_backbone, head, **options)  # type: ignore[arg-type]
        path = tmp_path / name
        path.write_bytes(to_bytes(model))
        return path

    return make


def bare(*shapes: list[int | str]) -> bytes:
    """Return a model that says nothing of itself, with such inputs."""
    inputs = [
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape)
        for i, shape in enumerate(shapes)
    ]
    names = [value.name for value in inputs]
    graph = helper.make_graph(
        [helper.make_node("Max", names, ["y"])],
        "bare",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return to_bytes(helper.make_model(graph, ir_version=8))


# Shapes --------------------------------------------------------------------------------------


def test_shapes_of_a_model(make_model: MakeModel) -> None:
    expected = {"images": ((1, 16, 16, 3), (1, 16, 16, 3), (8, 16, 16, 3))}
    path = make_model()
    assert shape_ranges(path) == shape_ranges(path.read_bytes()) == expected
    assert shape_ranges(make_model(teachable=Teachable("default", 8))) == expected


def test_shapes_of_a_teachable_model(make_model: MakeModel) -> None:
    ranges = shape_ranges(make_model(teachable=Teachable("input", 8, 2)))
    assert ranges is not None
    assert next(iter(ranges)) == "images"
    assert ranges["proxies"] == ((8, 4), (8, 12), (8, 32))


def test_shapes_that_nothing_bounds(make_model: MakeModel) -> None:
    assert shape_ranges(make_model(input="frame", frame=Frame("rgb"))) is None
    growing = make_model(teachable=Teachable("default", 8))
    assert shape_ranges(growing, with_defaults=True) is None


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([["N", 3]], {"x0": ((1, 3), (1, 3), (8, 3))}),
        ([[4, 3]], {"x0": ((4, 3), (4, 3), (4, 3))}),
        ([["N", 3], [1, 3]], {"x0": ((1, 3), (1, 3), (8, 3)), "x1": ((1, 3),) * 3}),
        ([["N", "D"]], None),
        ([["N", 3], ["M", 3]], None),
    ],
)
def test_shapes_of_a_model_without_a_contract(
    shapes: list[list[int | str]], expected: object
) -> None:
    assert shape_ranges(bare(*shapes)) == expected


# TensorRT ------------------------------------------------------------------------------------


def test_tensorrt_keeps_what_it_compiles(make_model: MakeModel, cache: Path) -> None:
    setup = tensorrt_setup(make_model(), LIBRARY)
    (folder,) = cache.iterdir()
    assert setup.folder == folder
    assert folder.name.endswith("-onnxruntime-1.23.2")
    assert setup.options == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": "images:1x16x16x3",
        "trt_profile_opt_shapes": "images:1x16x16x3",
        "trt_profile_max_shapes": "images:8x16x16x3",
    }
    assert setup.max_batch == 8


def test_precision_is_in_the_graph_alone(make_model: MakeModel) -> None:
    setup = tensorrt_setup(make_model(precision="fp16"), LIBRARY)
    assert not [name for name in setup.options if "fp16" in name or "int8" in name]


def test_tensorrt_is_told_how_classes_may_grow(make_model: MakeModel) -> None:
    options = tensorrt_setup(make_model(teachable=Teachable("input", 8, 2)), LIBRARY).options
    assert options["trt_profile_min_shapes"] == "images:1x16x16x3,proxies:8x4"
    assert options["trt_profile_opt_shapes"] == "images:1x16x16x3,proxies:8x12"
    assert options["trt_profile_max_shapes"] == "images:8x16x16x3,proxies:8x32"


@pytest.mark.parametrize(
    "options",
    [
        {"input": "frame", "frame": Frame("rgb")},
        {"teachable": Teachable("default", 8)},
    ],
    ids=["frames of any size", "classes with a default"],
)
def test_tensorrt_compiles_again_where_nothing_bounds_it(
    make_model: MakeModel, options: dict[str, object]
) -> None:
    setup = tensorrt_setup(make_model(**options), LIBRARY)
    assert setup.max_batch is None
    assert not [name for name in setup.options if "profile" in name]
    assert setup.first_run_notice() == (
        "TensorRT compiles the model now, which takes from seconds on a large GPU to ten "
        "minutes on a Jetson, again for each new size of its input; the engine is kept in "
        f"{setup.folder}"
    )


def test_a_build_is_told_of_once(make_model: MakeModel) -> None:
    path = make_model()
    setup = tensorrt_setup(path, LIBRARY)
    assert setup.first_run_notice() == (
        "TensorRT compiles the model now, which takes from seconds on a large GPU to ten "
        f"minutes on a Jetson; the engine is kept in {setup.folder}"
    )
    (setup.folder / "TensorrtExecutionProvider_TRTKernel_0_sm87.engine").write_bytes(b"x")
    assert tensorrt_setup(path, LIBRARY).first_run_notice() is None


def test_no_engine_is_taken_for_another_model(make_model: MakeModel) -> None:
    """ONNX Runtime finds an engine by the graph's form, and weights are none of it."""
    path = make_model()
    folders = {
        tensorrt_setup(path, LIBRARY).folder,
        tensorrt_setup(path, "onnxruntime 1.31.1").folder,
        tensorrt_setup(make_model("other.onnx", seed=1), LIBRARY).folder,
    }
    assert len(folders) == 3
    assert tensorrt_setup(path.read_bytes(), LIBRARY).folder in folders


def test_a_cache_that_cannot_be_written(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputWriteError) as caught:
        tensorrt_setup(make_model(), LIBRARY)
    text = str(caught.value)
    assert text.startswith(f"cannot make the folder {tmp_path / 'file'}{os.sep}")
    assert text.endswith(
        " for TensorRT's engines: Not a directory; set XDG_CACHE_HOME to a folder that can "
        "be written"
    )


def test_behind_tensorrt_stands_cuda(make_model: MakeModel) -> None:
    setup = tensorrt_setup(make_model(), LIBRARY)
    assert start_list(TENSORRT, setup, [TENSORRT, CUDA, "CPUExecutionProvider"]) == [
        (TENSORRT, setup.options),
        CUDA,
    ]
    assert start_list(TENSORRT, setup, [TENSORRT]) == [(TENSORRT, setup.options)]
    assert start_list(CUDA, None, [TENSORRT, CUDA]) == [CUDA]


def test_a_notice_is_never_lost(caplog: pytest.LogCaptureFixture) -> None:
    say_notice("a build of 100% begins")
    assert caplog.record_tuples == [
        ("edge_imprint_runtime", logging.WARNING, "a build of 100% begins")
    ]
