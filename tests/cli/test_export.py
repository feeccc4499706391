# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint export`: its options, what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_imprint_runtime import open_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def exported(run: Run, workshop: Any, out: Path, *options: object) -> dict[str, Any]:
    done = run("export", workshop.head, "--out", out, "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_prints_what_it_found(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    done = run("export", workshop.head, "--out", out)
    assert done.returncode == 0
    first, proof, following = done.stdout.splitlines()
    assert first.startswith(f"{out}: ")
    assert first.endswith("3 classes, for portable")
    assert proof.startswith(
        "beside float32, on 18 photos of the build: 100.00% of labels agree"
    )
    assert following.startswith("next: ")
    seen = "note: compared on photos that the head has seen; build with --hold-out 0.1 to "
    few = "note: compared on 18 photos only, which shows little; give more with --images"
    assert done.stderr.splitlines()[-2:] == [seen + "compare on others", few]


def test_json(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    found = exported(run, workshop, out, "--precision", "fp16", "--images", workshop.photos)
    assert found["model"] == str(out)
    assert found["head"] is None
    assert found["size_bytes"] == out.stat().st_size
    assert found["proof"]["photos"] == 18
    assert found["proof"]["agreement"] == 1.0
    facts = json.loads(run("inspect", out, "--json").stdout)
    assert facts["precision"] == "fp16"
    assert facts["note_proof"].startswith("photos=18 source=build agreement=1.0000 ")


def test_outputs(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    exported(
        run, workshop, out, "--outputs", "scores,label,proxy", "--embedding", "--no-proof"
    )
    names = [value.name for value in onnx.load(out).graph.output]
    assert sorted(names) == ["embedding", "label", "proxy", "scores"]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (["--frame", "rgb:40x30"], (30, 40, 3)),
        (["--frame", "bgr:40x30"], (30, 40, 3)),
        (["--frame", "nv12:40x30", "--frame-colour", "bt709,full"], (45, 40)),
        (["--frame", "yuyv:40x30"], (30, 40, 2)),
    ],
)
def test_frames(
    run: Run, workshop: Any, tmp_path: Path, options: list[str], shape: tuple[int, ...]
) -> None:
    out = tmp_path / "m.onnx"
    found = exported(run, workshop, out, "--input", "frame", *options)
    assert found["proof"]["agreement"] == 1.0
    model = open_model(out)
    assert model.input_shape == shape
    assert len(model.predict(np.zeros((1, *shape), np.uint8))) == 1


def test_teachable_limits(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    found = exported(
        run, workshop, out, "--teachable", "--max-classes", 9, "--taught-proxies", 2
    )
    assert found["head"] == f"{out}.head"
    assert json.loads(run("inspect", out, "--json").stdout)["teachable"] == "default 9 2"


def test_every_target(run: Run, workshop: Any, tmp_path: Path) -> None:
    for name in ("jetpack-5.1", "jetpack-6.2", "tensorrt-11", "onnxruntime"):
        out = tmp_path / f"{name}.onnx"
        assert exported(run, workshop, out, "--target", name)["proof"]["agreement"] == 1.0
        checked = run("check", out, "--target", name)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "jetpack-4"], "there is no target 'jetpack-4'"),
        (
            ["--precision", "bf16"],
            "--precision must be 'fp32' or 'fp16' or 'int8', got 'bf16'",
        ),
        (
            ["--head-precision", "fp8"],
            "--head-precision must be 'fp32' or 'fp16' or 'int8' or",
        ),
        (["--frame", "rgb:any"], "--frame and --frame-colour are for --input frame"),
        (
            ["--input", "frame", "--frame", "rgb:0"],
            "must be rgb, bgr, nv12 or yuyv and a size",
        ),
        (
            ["--input", "frame", "--frame", "nv12:40x30", "--frame-colour", "bt2020,full"],
            "Invalid value for --frame or --frame-colour: frame matrix must be 'bt601' or",
        ),
        (["--input", "frame", "--frame", "nv12:41x30"], "has pixels in pairs, got 30x41"),
        (["--input", "frame"], "--input frame needs --frame, what the camera delivers"),
        (["--input", "frame", "--frame", "bgr:any"], "can be resized by 'linear' only"),
        (
            ["--input", "frame", "--frame", "rgb:0x0"],
            "must be rgb, bgr, nv12 or yuyv and a size",
        ),
        (["--input", "frame", "--frame", "nv12:any"], "frames of any size are rgb or bgr"),
        (
            ["--input", "frame", "--frame", "rgb:100000x9"],
            "frame width must be an integer from 1",
        ),
        (["--no-proof", "--min-agreement", "1"], "--no-proof compares nothing; leave out"),
        (
            ["--part", "backbone", "--outputs", "scores,label,proxy"],
            "has one output, embedding",
        ),
        (
            ["--teachable", "--max-classes", "2"],
            "the head has 3 classes, more than --max-classes 2",
        ),
        (["--max-classes", "5"], "--max-classes and --taught-proxies are for --teachable"),
        (["--outputs", "scores,label,known"], "the head is not calibrated"),
        (["--outputs", "label"], "outputs must hold 'scores' and 'label'"),
        (["--min-agreement", "2"], "--min-agreement must be a share from 0 to 1, got 2.0"),
        (["--images", "absent"], "there is no folder or file absent"),
        (["--part", "neck"], "part must be 'all' or 'backbone' or 'head', got 'neck'"),
    ],
)
def test_refusals(
    run: Run, workshop: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "m.onnx"
    done = run("export", workshop.head, "--out", out, *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()
