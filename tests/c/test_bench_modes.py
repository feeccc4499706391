# SPDX-License-Identifier: Apache-2.0
"""What ei-bench measures: series, modes of load, cold starts, models of every form."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_imprint_export import fuse, fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Frame, Head, Teachable
from edge_imprint_runtime.files import write_atomic
from tests.c.benching import QUICK, Bench


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: bytes) -> Path:
    """A backbone alone: no labels, no contract, and a fixed name of its output."""
    model = onnx.load_from_string(tiny_backbone)
    before = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["embedding" if name == before else name for name in node.output]
    model.graph.output[0].name = "embedding"
    out = tmp_path_factory.mktemp("part") / "backbone.onnx"
    out.write_bytes(model.SerializeToString())
    return out


@pytest.fixture(scope="session")
def camera(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: bytes,
    tiny_info: Any,
    make_head: Callable[..., Head],
) -> Callable[[Frame], Path]:
    """Return a function of a frame's form: a model that takes such frames."""
    preprocess = replace(tiny_info.preprocess, interpolation="linear")
    info = replace(tiny_info, preprocess=preprocess)
    folder = tmp_path_factory.mktemp("camera")

    def make(frame: Frame) -> Path:
        head = make_head(backbone=info)
        model = fuse(tiny_backbone, head, input="frame", frame=frame)
        name = f"{frame.format}-{frame.height}.onnx"
        return write_atomic(folder / name, to_bytes(model), force=True)

    return make


def test_a_duration(bench: Bench, tiny_model: Path) -> None:
    start = time.monotonic()
    said = bench.report(tiny_model, "--duration", "0.005m")
    assert time.monotonic() - start >= 0.3
    assert said["method"]["duration_s"] == pytest.approx(0.3)
    assert said["method"]["iterations"] is None
    assert said["series"][0]["iterations"] == said["series"][1]["iterations"] > 20


def test_threads_that_call_at_once(bench: Bench, tiny_model: Path) -> None:
    said = bench.report(tiny_model, "--concurrency", 3, "--iterations", 60)
    (series,) = said["series"]
    assert (series["name"], series["concurrency"], series["iterations"]) == ("fused", 3, 60)
    assert said["method"]["mode"] == "concurrent"
    assert series["throughput_images_per_s"] == pytest.approx(3 / series["mean_ms"] * 1e3)
    said = bench.report(tiny_model, "--concurrency", 2, "--duration", "0.2s")
    assert said["series"][0]["iterations"] > 20


def test_calls_that_arrive_at_a_rate(bench: Bench, tiny_model: Path) -> None:
    said = bench.report(tiny_model, "--rate", "100/s", "--iterations", 60, "--concurrency", 2)
    (series,) = said["series"]
    assert (series["offered_per_s"], series["iterations"]) == (100, 60)
    gaps = np.diff(series["starts_ns"])
    assert gaps.mean() == pytest.approx(1e7, rel=0.5)
    assert "backlog" in [one["code"] for one in said["verdict"]["findings"]]
    said = bench.report(tiny_model, "--rate", "50%", "--iterations", 300)
    closed, offered = said["series"]
    assert closed["offered_per_s"] is None
    share = offered["offered_per_s"] / closed["throughput_images_per_s"]
    assert share == pytest.approx(0.5)


def test_more_calls_than_can_be_answered(bench: Bench, tiny_model: Path) -> None:
    # Calls of a length that no pause of the machine makes ten times as long on average.
    done = bench(tiny_model, "--rate", "1000%", "--iterations", 300, "--batch", 64, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "batch 64 - UNSTABLE, see below\n" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "are more than" in line]
    assert line.startswith("unstable: ")
    assert line.endswith("give a lower --rate")


def test_mlperfs_single_stream(bench: Bench, tiny_model: Path) -> None:
    said = bench.report(tiny_model, "--mlperf", "--duration", "0.3s")
    (series,), found = said["series"], said["mlperf"]
    assert found["queries"] == series["iterations"] >= 64
    assert (found["valid"], found["needed_queries"]) == (False, 64)
    assert found["suggested_queries"] == 24_576
    assert found["duration_s"] >= 0.3  # to the last answer, whatever time it is by then
    ends = np.add(series["starts_ns"], series["samples_ns"])
    # A query is due when the one before is complete, but where progress was told.
    assert np.mean(ends[:-1] == series["starts_ns"][1:]) > 0.9
    done = bench(tiny_model, "--mlperf", "--iterations", 5, *QUICK)
    assert "MLPerf single stream: none" in done.stdout
    assert "it had 5 queries, and 64 are the least" in done.stdout


def test_cold_starts_are_fresh_processes(bench: Bench, tiny_model: Path) -> None:
    found = bench.report(tiny_model, "--iterations", 20, "--cold", 3)["cold_start"]
    assert len(found["runs_ms"]) == 3
    assert found["p50_ms"] == sorted(found["runs_ms"])[1]
    assert all(2 < one < 60_000 for one in found["runs_ms"])


def test_a_cold_start_that_fails_is_a_finding(
    bench: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copy(tiny_model, tmp_path / "m.onnx"))
    arguments = [model, "--duration", "3s", "--cold", "2", *QUICK, "--json"]
    with bench.start(*arguments) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("measuring batch 1")
        model.unlink()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said["cold_start"] is None
    (found,) = [f for f in said["verdict"]["findings"] if f["code"] == "cold_start_failed"]
    assert "a fresh process came to no label: error: " in found["text"]
    assert not found["severe"]


@pytest.mark.parametrize("form", ["rgb", "bgr", "nv12", "yuyv"])
def test_frames_of_a_camera(bench: Bench, camera: Callable[[Frame], Path], form: str) -> None:
    said = bench.report(camera(Frame(form, 32, 48)), "--iterations", 20, "--batch", 2)
    assert [s["name"] for s in said["series"]] == ["fused", "backbone only"]
    assert said["model"]["input"] == "frame"


def test_frames_of_any_size(bench: Bench, camera: Callable[[Frame], Path]) -> None:
    model = camera(Frame("rgb"))
    options = ["--frame-size", "40x30", "--iterations", 20, "--cold", 1]
    assert len(bench.report(model, *options)["series"]) == 2
    done = bench(model, *QUICK)
    assert done.returncode == 2
    assert "say of which it is measured, such as --frame-size 1280x720" in done.stderr
    done = bench(model, "--frame-size", "8192x8192", "--batch", 4096, *QUICK)
    assert done.returncode == 1
    assert "more than half of the memory; give a smaller --batch" in done.stderr
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    batch = math.ceil(whole / 2 / (3 * 1024**2) / 200)  # 200 of 256 threads have room
    many = ["--frame-size", "1024x1024", "--batch", batch, "--concurrency", 256]
    done = bench(model, *many, *QUICK)
    assert done.returncode == 1
    assert "half of the memory; give a smaller --batch or --concurrency" in done.stderr


def test_a_model_of_embeddings(
    bench: Bench, make_head: Callable[..., Head], tmp_path: Path
) -> None:
    model = fuse_head(make_head(backbone=None))
    path = write_atomic(tmp_path / "head.onnx", to_bytes(model))
    said = bench.report(path, "--iterations", 20, "--batch", 4)
    assert [s["name"] for s in said["series"]] == ["head"]
    assert said["model"]["backbone"] is None


def test_backbones_beside_a_head(
    bench: Bench, make_head: Callable[..., Head], backbone: Path, tmp_path: Path
) -> None:
    """The first is the backbone, as in Python; a second has its own name."""
    path = write_atomic(tmp_path / "head.onnx", to_bytes(fuse_head(make_head(backbone=None))))
    second = shutil.copy(backbone, tmp_path / "second.onnx")
    beside = ["--beside", backbone, "--beside", second]
    said = bench.report(path, *beside, "--iterations", 20)
    names = [s["name"] for s in said["series"]]
    assert names == ["head", "backbone only", "second.onnx"]


@pytest.mark.parametrize("form", ["default", "input"])
def test_a_teachable_model_with_its_head(
    bench: Bench,
    tiny_backbone: bytes,
    make_head: Callable[..., Head],
    tmp_path: Path,
    form: str,
) -> None:
    head = make_head()
    model = fuse(tiny_backbone, head, teachable=Teachable(form, 8, 2))
    path = write_atomic(tmp_path / "shop.onnx", to_bytes(model))
    beside = write_atomic(tmp_path / "shop.onnx.head", head.to_bytes())
    said = bench.report(path, "--iterations", 20, "--stages", "--cold", 1)
    assert [s["name"] for s in said["series"]] == ["fused", "backbone only", "fused"]
    assert said["model"]["classes"] == 3
    assert said["cold_start"] is not None
    done = bench(path, "--out", beside, "--force")
    assert done.returncode == 1
    assert "it is what this is made from; name another file" in done.stderr


def test_a_backbone_alone(bench: Bench, backbone: Path) -> None:
    said = bench.report(backbone, "--iterations", 20)
    assert [s["name"] for s in said["series"]] == ["backbone only"]
    assert (said["model"]["precision"], said["model"]["classes"]) == (None, None)
    for option, why in (
        (["--cold", 1], "a cold start ends with a label"),
        (["--stages"], "--stages is for models on the CPU here"),
    ):
        done = bench(backbone, *option, *QUICK)
        assert done.returncode == 2
        assert why in done.stderr


def test_a_model_of_a_fixed_batch(bench: Bench, tiny_model: Path, tmp_path: Path) -> None:
    """What is above it runs in parts, what is below is padded: also without the head."""
    model = onnx.load(tiny_model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 2
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    said = bench.report(path, "--batch", "1,2,5", "--iterations", 20)
    names = ["fused", "backbone only"]
    assert [(s["name"], s["batch"]) for s in said["series"]] == [
        (name, batch) for batch in (1, 2, 5) for name in names
    ]
    done = bench(path, "--stages", "--batch", 3, *QUICK)
    assert done.returncode == 2
    assert "stages are those of one run, which takes at most 2 images here" in done.stderr


def test_another_onnx_file_is_not_measured(bench: Bench, tmp_path: Path) -> None:
    make = onnx.helper.make_tensor_value_info
    values = [make(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, tmp_path / "m")
    done = bench(tmp_path / "m", *QUICK)
    assert (done.returncode, done.stdout) == (1, "")
    assert "carries no edge-imprint metadata" in done.stderr


def test_another_model_beside_it(
    bench: Bench, tiny_model: Path, backbone: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(tiny_model, tmp_path / "other.onnx"))
    beside = ["--beside", other, "--beside", backbone]
    said = bench.report(tiny_model, *beside, "--iterations", 20)
    names = [s["name"] for s in said["series"]]
    assert names == ["fused", "backbone only", "other.onnx", "backbone.onnx"]
    (tmp_path / "b").mkdir()
    again = shutil.copy(tiny_model, tmp_path / "b" / "other.onnx")
    said = bench.report(tiny_model, "--beside", other, "--beside", again, "--iterations", 20)
    assert [s["name"] for s in said["series"]][2:] == [str(other), str(again)]
    done = bench(tiny_model, "--beside", other, "--beside", other)
    assert done.returncode == 2
    assert "two things are measured under one name" in done.stderr
