# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint verify`: what it prints, its page, and how it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from edge_imprint_runtime import open_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def arguments(workshop: Any, model: Path | None = None) -> list[object]:
    return [
        "verify",
        model or workshop.model,
        "--head",
        workshop.head,
        "--images",
        workshop.photos,
    ]


def test_it_prints_every_way(run: Run, workshop: Any) -> None:
    done = run(*arguments(workshop), "--batch", 4, env={"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("18 photos: 100.00% of labels agree (0 ties), scores differ by")
    assert lines[1] == "right: 100.00% (float32: 100.00%)"
    for level in ("disable", "basic", "extended", "all"):
        assert done.stdout.count(f"ONNX Runtime ({level})") == 2
    assert done.stdout.count("ONNX's evaluator") == 2
    assert lines[-1].startswith("4 photos in batches of 1 to 4: 100.00% of labels as alone")
    assert set(done.stderr.splitlines()) == {"comparing ...", "other ways to run it ..."}


def test_json(run: Run, workshop: Any) -> None:
    done = run(*arguments(workshop), "--json", "--reference", 0)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert (found["images"], found["agreement"], found["accuracy"]) == (18, 1.0, 1.0)
    assert (found["precision"], found["min_agreement"]) == ("fp32", None)
    assert len(found["ways"]) == 8
    assert all(way["passed"] for way in found["ways"])
    assert found["layers"] == []


def test_one_photo_or_one_folder_knows_its_class(run: Run, workshop: Any) -> None:
    photo = next((workshop.photos / "red").glob("*.png"))
    for images, count in ((photo, 1), (photo.parent, 6)):
        words = ["verify", workshop.model, "--head", workshop.head, "--images", images]
        found = json.loads(run(*words, "--json", "--reference", 0).stdout)
        assert found["images"] == count
        assert found["accuracy"] == (None if images == photo else 1.0)


@pytest.fixture(scope="module")
def half(run: Run, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("half") / "m.onnx"
    done = run("export", workshop.head, "--out", out, "--precision", "fp16")
    assert done.returncode == 0, done.stderr
    return out


def test_a_reduced_model_shows_its_layers(
    run: Run, workshop: Any, half: Path, tmp_path: Path
) -> None:
    page = tmp_path / "p.html"
    done = run(*arguments(workshop, half), "--html", page)
    assert done.returncode == 0, done.stderr
    assert "layers that cost most" in done.stdout
    assert "not asked" in done.stdout
    text = page.read_text()
    assert "Does m.onnx decide as its head?" in text
    assert "Where the difference arises" in text
    done = run(*arguments(workshop, half), "--html", page)
    assert done.returncode == 1
    assert f"{page} exists already; pass --force" in done.stderr
    assert run(*arguments(workshop, half), "--html", page, "--force").returncode == 0
    assert page.read_text() == text  # equal inputs, equal bytes


def test_a_page_is_written_of_what_failed_too(run: Run, workshop: Any, tmp_path: Path) -> None:
    model = onnx.load(workshop.model)
    proxies = next(t for t in model.graph.initializer if t.name == "proxies")
    values = numpy_helper.to_array(proxies)[:, ::-1]
    proxies.CopyFrom(numpy_helper.from_array(values.copy(), "proxies"))
    onnx.save(model, tmp_path / "m.onnx")
    words = arguments(workshop, tmp_path / "m.onnx")
    done = run(*words, "--html", tmp_path / "p.html")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: the model does not decide as its head: "
    )
    assert "FAILED" in (tmp_path / "p.html").read_text()
    found = json.loads(run(*words, "--json").stdout)
    assert found["passed"] is False
    assert found["agreement"] < 1


@pytest.fixture(scope="module")
def teachable(run: Run, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teachable model, its head beside. Don't change them."""
    out = tmp_path_factory.mktemp("teachable") / "m.onnx"
    done = run("export", workshop.head, "--out", out, "--teachable")
    assert done.returncode == 0, done.stderr
    return out


def test_a_teachable_model_tells_its_head(
    run: Run, workshop: Any, teachable: Path, tmp_path: Path
) -> None:
    done = run(*arguments(workshop, teachable), "--reference", 0, env={"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"run with the head {workshop.head}"
    assert done.stdout.count("built-in classes") == 2
    assert "note:" not in done.stderr
    model = Path(shutil.copy(teachable, tmp_path))
    beside = tmp_path / "m.onnx.head"
    shutil.copy(f"{teachable}.head", beside)
    opened = open_model(model, "cpu")
    opened.forget("green")
    opened.save_head()
    done = run(*arguments(workshop, model), "--reference", 0, "--json")
    assert done.returncode == 0, done.stderr
    told = (
        f"{beside} is another head than the one given; the model was run with the one given, "
        "and opens with that beside it"
    )
    assert f"note: {told}" in done.stderr.splitlines()
    found = json.loads(done.stdout)
    assert (found["head"], found["notes"]) == (str(workshop.head), [told])


def test_built_in_classes_are_verified_too(
    run: Run, workshop: Any, teachable: Path, tmp_path: Path
) -> None:
    model = onnx.load(teachable)
    proxies = next(t for t in model.graph.initializer if t.name == "proxies")
    values = numpy_helper.to_array(proxies)[:, ::-1]
    proxies.CopyFrom(numpy_helper.from_array(values.copy(), "proxies"))
    onnx.save(model, tmp_path / "m.onnx")
    shutil.copy(f"{teachable}.head", tmp_path)
    done = run(*arguments(workshop, tmp_path / "m.onnx"), "--reference", 0)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].startswith("18 photos: 100.00% of labels agree")
    assert done.stderr.splitlines()[-1].startswith(
        "error: run with built-in classes on photos inputs, the model does not decide as its "
        "head: "
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch", 0], "--batch must be a number from 1 to 64, got 0"),
        (["--reference", 9], "--reference must be a number from 0 to 8, got 9"),
        (["--min-agreement", 2], "--min-agreement must be a number from 0 to 1, got 2.0"),
    ],
)
def test_wrong_use(run: Run, workshop: Any, options: list[object], said: str) -> None:
    done = run(*arguments(workshop), *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {said}"


def test_the_page_replaces_no_input(run: Run, workshop: Any, tmp_path: Path) -> None:
    model = shutil.copy(workshop.model, tmp_path / "m.onnx")
    done = run(*arguments(workshop, model), "--html", model, "--force")
    assert done.returncode == 1
    assert "it is what this is made from; name another file" in done.stderr
    assert model.read_bytes() == workshop.model.read_bytes()


def test_a_hostile_file_is_refused(run: Run, workshop: Any, tmp_path: Path) -> None:
    model = onnx.load(workshop.model)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    done = run(*arguments(workshop, tmp_path / "m.onnx"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path / 'm.onnx'} keeps the numbers of {tensor.name!r} in another file "
        "('../secret'), and a model is one file; export it again"
    )
