# SPDX-License-Identifier: Apache-2.0
"""Mishaps of a new user that once went through without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint.demo import run_demo
from edge_imprint_runtime.errors import OutputExistsError

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def own(workshop: Any, tmp_path: Path) -> dict[str, Path]:
    """Copies that may be harmed."""
    files = {"head": workshop.head, "model": workshop.model}
    files["backbone"] = Path(workshop.backbone.removeprefix("onnx:"))
    copies = {name: Path(shutil.copy(file, tmp_path / name)) for name, file in files.items()}
    copies["backbone"] = copies["backbone"].rename(tmp_path / "backbone.onnx")
    return copies


def test_force_never_replaces_an_input(run: Run, workshop: Any, own: dict[str, Path]) -> None:
    manifest = own["head"].parent / "photos.csv"
    lines = [f"{file},{file.parent.name}\n" for file in workshop.photos.glob("*/*.png")]
    manifest.write_text("path,label\n" + "".join(lines))
    backbone = f"onnx:{own['backbone']}"
    head = own["head"].parent / "own.head"
    done = run("build", manifest, "--backbone", backbone, "--out", head)
    assert done.returncode == 0, done.stderr
    for out, arguments in (
        (own["head"], ["export", own["head"]]),
        (own["backbone"], ["export", head]),
        (own["model"], ["bench", own["model"], "--iterations", 5, "--warm-up", "0.5s"]),
        (manifest, ["build", manifest, "--backbone", backbone]),
        (own["backbone"], ["build", workshop.photos, "--backbone", backbone]),
    ):
        before = out.read_bytes()
        done = run(*arguments, "--out", out, "--force")
        assert done.returncode == 1, arguments
        assert done.stderr.splitlines()[-1] == (
            f"error: cannot write {out}: it is what this is made from; name another file"
        )
        assert out.read_bytes() == before


def test_force_never_replaces_a_photo(run: Run, workshop: Any, tmp_path: Path) -> None:
    data = shutil.copytree(workshop.photos, tmp_path / "data")
    photo = next(data.glob("*/*.png"))
    manifest, shard = tmp_path / "photos.csv", tmp_path / "photos-0.tar"
    lines = [f"{file},{file.parent.name}\n" for file in data.glob("*/*.png")]
    manifest.write_text("path,label\n" + "".join(lines))
    with tarfile.open(shard, "w") as tar:
        tar.add(data, "data")
    backbone = ["--backbone", workshop.backbone, "--force"]
    for out, arguments in (
        (photo, ["build", data, "--out"]),
        (photo, ["build", manifest, "--out"]),
        (photo, ["evaluate", data, "--html"]),
        (shard, ["build", f"{tmp_path}/photos-*.tar", "--out"]),
        (shard, ["evaluate", shard.parent, "--html"]),
    ):
        if out == shard:
            shutil.rmtree(data, ignore_errors=True)
        before = out.read_bytes()
        done = run(*arguments, out, *backbone)
        assert done.returncode == 1, arguments
        assert done.stderr.splitlines()[-1] == (
            f"error: cannot write {out}: it is what this is made from; name another file"
        )
        assert out.read_bytes() == before
    head = tmp_path / "own.head"
    for _ in range(2):  # beside the data it may be, and be replaced
        done = run("build", tmp_path, "--out", head, *backbone)
        assert done.returncode == 0, done.stderr


def test_a_class_that_vanishes_is_named(run: Run, workshop: Any, tmp_path: Path) -> None:
    data = shutil.copytree(workshop.photos, tmp_path / "data")
    (data / "iphone").mkdir()
    (data / "iphone" / "1.HEIC").write_bytes(b"heic")
    (data / "empty").mkdir()
    shutil.copy(data / "red" / "0.png", data / "stray.png")
    done = run("build", data, "--backbone", workshop.backbone, "--out", tmp_path / "h")
    assert done.returncode == 0, done.stderr
    assert "no class, for want of images of a known kind: 'empty', 'iphone'" in done.stderr
    assert "1 images lie outside the class folders and were left out" in done.stderr


def test_the_folder_above_train_and_test(run: Run, workshop: Any, tmp_path: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(workshop.photos, tmp_path / "data" / part)
    arguments = ["--backbone", workshop.backbone, "--out", tmp_path / "h"]
    done = run("build", tmp_path / "data", *arguments)
    assert "the classes are 'test', 'train', whose photos lie in subfolders" in done.stderr
    done = run("build", tmp_path / "data" / "train", *arguments, "--force")
    assert "subfolders" not in done.stderr


def test_a_moved_backbone_can_be_named(
    run: Run, workshop: Any, own: dict[str, Path], tmp_path: Path
) -> None:
    head, gone = tmp_path / "h", own["backbone"]
    run("build", workshop.photos, "--backbone", f"onnx:{gone}", "--out", head)
    moved = gone.rename(tmp_path / "moved.onnx")
    cold = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cold")}
    done = run("export", head, "--out", tmp_path / "m.onnx", env=cold)
    assert (done.returncode, str(gone) in done.stderr) == (1, True)
    arguments = ["export", head, "--backbone", f"onnx:{moved}", "--out", tmp_path / "m.onnx"]
    assert run(*arguments, env=cold).returncode == 0
    done = run("export", head, "--weights", moved, "--out", tmp_path / "n.onnx")
    assert "was built with the own weights" in done.stderr
    assert done.returncode == 2


def test_a_preprocessing_of_ones_own(run: Run, workshop: Any, tmp_path: Path) -> None:
    line = "resize=stretch:16x16 interpolation=box size=16x16 mean=0.0,0.0,0.0 std=1.0,1.0,1.0"
    arguments = ["build", workshop.photos, "--backbone", workshop.backbone]
    done = run(*arguments, "--out", tmp_path / "h", "--preprocess", line)
    assert done.returncode == 0, done.stderr
    assert "assumed" not in done.stderr
    assert line in run("inspect", tmp_path / "h").stdout
    done = run(*arguments, "--out", tmp_path / "i", "--preprocess", "mean=1")
    assert "preprocess must read 'resize=..." in done.stderr


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf", "2"])
def test_a_tolerance_that_is_none(run: Run, workshop: Any, tolerance: str) -> None:
    arguments = ["--head", workshop.head, "--images", workshop.photos]
    done = run("verify", workshop.model, *arguments, "--tolerance", tolerance)
    assert done.returncode == 2
    assert "tolerance must be a number from 0 to 1" in done.stderr


def test_swapped_files_and_mistyped_commands(run: Run, workshop: Any) -> None:
    photo = next(workshop.photos.glob("*/*.png"))
    assert "is a head, not a model" in run("predict", workshop.head, photo).stderr
    assert (
        "a head is what 'edge-imprint build' writes"
        in run("verify", workshop.model, "--head", workshop.model, "--images", photo).stderr
    )
    assert "did you mean 'build'?" in run("biuld").stderr
    done = run("build", workshop.photos, "--backbone", "b.onnx", "--out", "x")
    assert "nearest: onnx:b.onnx" in done.stderr


def test_nothing_is_reported_to_anyone(workshop: Any, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry keeps a device id in the cache folder; here it must not."""
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    code = f"import edge_imprint_runtime as r; r.open_model({str(workshop.model)!r})"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**env, "XDG_CACHE_HOME": str(tmp_path)}
    )
    assert list(tmp_path.iterdir()) == []


def test_the_demo_replaces_only_a_demo(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds other files than a demo's"):
        run_demo(tmp_path, lambda step, done, total: None)
    assert (tmp_path / "report.html").read_text() == "mine"
