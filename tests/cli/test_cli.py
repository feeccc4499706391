# SPDX-License-Identifier: Apache-2.0
"""The way from photos to answers, by the installed command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_imprint import __version__
from edge_imprint_runtime import Head, open_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = ("demo", "build", "evaluate", "backbones", "export", "check", "verify", "predict")
COMMANDS += ("teach", "inspect", "compile", "bench", "report", "cache", "doctor")


def json_lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# Help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_command(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout[done.stdout.index("Commands:") :].splitlines()[1:]
    assert tuple(line.split()[0] for line in listed) == COMMANDS
    assert done.stdout.startswith("Usage: edge-imprint ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: edge-imprint {name} ")
    for line in done.stdout.splitlines():
        if line.lstrip().startswith("--"):
            assert len(line.split("  ")) > 1, f"{name}: an option without help: {line}"


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"edge-imprint, version {__version__}\n")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edge_imprint.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'timm', 'sklearn', 'scipy', 'onnx', 'onnxruntime', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


# build and export --------------------------------------------------------------------------


def test_build_in_words_and_as_json(run: Run, workshop: Any, tmp_path: Path) -> None:
    plain, same = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arguments = ["build", workshop.photos, "--backbone", workshop.backbone, "--proxies", 2]
    done = run(*arguments, "--out", plain)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"{plain}: 3 classes, 6 proxies from 18 photos (0 skipped)\nembedded "
    )
    assert done.stdout.endswith(f"export {plain} --out MODEL.onnx\n")
    done = run(*arguments, "--out", same, "--json")
    assert done.returncode == 0, done.stderr
    (said,) = json_lines(done)
    assert said["labels"] == ["b l u e", "green", "red"]
    assert (said["images"], said["proxies"], said["embedding_size"]) == (18, 6, 8)
    assert (said["skipped"], said["device"]) == ([], "cpu")
    (assumed,) = said["notes"]
    assert "assumed: resize=crop:18x18 interpolation=bilinear size=16x16" in assumed
    assert sum(said["images_by_class"].values()) == 18
    assert (said["head"], said["backbone"]) == (str(same), workshop.backbone)
    assert said["recipe"] == "l2 kmeans:2 l2 l2 max"
    assert plain.read_bytes() == same.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [plain.name, same.name]


def test_build_options_reach_the_head(run: Run, workshop: Any, tmp_path: Path) -> None:
    arguments = ["build", workshop.photos, "--backbone", workshop.backbone, "--device", "cpu"]
    heads = []
    for number, options in enumerate((["--seed", 1], ["--seed", 2])):
        out = tmp_path / f"head-{number}"
        options += ["--recipe", "l2 random:9 l2 l2 max", "--proxies", 3]
        assert run(*arguments, "--out", out, *options).returncode == 0
        heads.append(Head.load(out))
    assert [head.recipe for head in heads] == ["l2 random:3 l2 l2 max"] * 2
    assert not np.array_equal(heads[0].proxies, heads[1].proxies)


def test_build_lists_skipped_photos(run: Run, workshop: Any, tmp_path: Path) -> None:
    data = shutil.copytree(workshop.photos, tmp_path / "data")
    (data / "red" / "0.png").write_bytes(b"no photo")
    (data / "red" / "notes.txt").touch()
    arguments = ["build", data, "--backbone", workshop.backbone, "--out", tmp_path / "head"]
    done = run(*arguments, "--max-broken", 0.1)
    assert done.returncode == 0, done.stderr
    assert "from 17 photos (1 skipped)" in done.stdout
    assert "note: 1 file is no image of a kind that is read, and was ignored\n" in done.stderr
    assert f"skipped: the image {data / 'red' / '0.png'} is corrupt" in done.stderr
    done = run(*arguments, "--max-broken", 0.1, "--json", "--force")
    (said,) = json_lines(done)
    assert len(said["skipped"]) == 1
    assert len(said["notes"]) == 3


def test_export_twice_gives_the_same_bytes(run: Run, workshop: Any, tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        done = run("export", workshop.head, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{tmp_path / name}: 15 kB, 3 classes, for ")
    data = (tmp_path / "one.onnx").read_bytes()
    assert data == (tmp_path / "two.onnx").read_bytes() == workshop.model.read_bytes()


def test_export_forms(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    done = run("export", workshop.head, "--out", out, "--input", "float32", "--embedding")
    assert done.returncode == 0, done.stderr
    model, photo = open_model(out, "cpu"), workshop.photos / "red" / "0.png"
    assert model.input_dtype == np.float32
    assert model.embed(photo).shape == (1, 8)
    plain = open_model(workshop.model, "cpu")
    np.testing.assert_allclose(
        model.predict(photo).scores, plain.predict(photo).scores, atol=1e-5
    )


def test_export_without_the_cache(run: Run, workshop: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "new cache")}
    done = run("export", workshop.head, "--out", tmp_path / "m.onnx", env=environment)
    assert done.returncode == 0, done.stderr
    assert (
        "not compared with float32: it is not known where the photos of the build are"
        in done.stderr
    )
    made, kept = (onnx.load(path) for path in (tmp_path / "m.onnx", workshop.model))
    assert made.graph == kept.graph
    assert len(list((tmp_path / "new cache" / "edge-imprint").rglob("*.onnx"))) == 1


def test_force_replaces(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (
        ["build", workshop.photos, "--backbone", workshop.backbone],
        ["export", workshop.head],
    ):
        out.write_text("old")
        done = run(*arguments, "--out", out)
        assert done.returncode == 1
        hint = "pass --force (in Python force=True) to replace it"
        assert done.stderr == f"error: {out} exists already; {hint}\n"
        assert out.read_text() == "old"
        assert run(*arguments, "--out", out, "--force").returncode == 0
        assert out.read_bytes() != b"old"
        assert list(tmp_path.iterdir()) == [out]


# predict -----------------------------------------------------------------------------------


def test_predict_in_words(run: Run, workshop: Any) -> None:
    photo = workshop.photos / "b l u e" / "3.png"
    done = run("predict", workshop.model, photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{photo}: 'b l u e' 1.0000\n"


def test_predict_a_folder_as_json(run: Run, workshop: Any) -> None:
    done = run("predict", workshop.model, workshop.photos, "--json", "--backend", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    answers = json_lines(done)
    assert len(answers) == 18
    model = open_model(workshop.model, "cpu")
    for answer in answers:
        file = Path(answer["path"])
        assert answer["label"] == file.parent.name  # it has seen these very photos
        assert model.labels[answer["index"]] == answer["label"]
        assert answer["score"] == pytest.approx(model.predict(file)[0].score, abs=1e-6)
    assert [answer["path"] for answer in answers] == sorted(a["path"] for a in answers)


def test_predict_answers_the_good_photos_among_bad_ones(
    run: Run, workshop: Any, tmp_path: Path
) -> None:
    good = workshop.photos / "red" / "1.png"
    (tmp_path / "text.png").write_text("no photo")
    paths = [tmp_path / "text.png", good, tmp_path / "gone.png", good]
    done = run("predict", workshop.model, *paths)
    assert done.returncode == 1
    assert done.stdout == f"{good}: 'red' 1.0000\n" * 2
    *each, last = done.stderr.splitlines()
    assert [line.split(str(tmp_path))[0] for line in each] == [
        "error: the image ",
        "error: cannot read the image ",
    ]
    assert last == "error: 2 of 4 photos could not be classified"
    done = run("predict", workshop.model, *paths, "--json")
    assert done.returncode == 1
    assert [sorted(answer) for answer in json_lines(done)] == [
        ["error", "path"],
        ["index", "known", "label", "nearest", "path", "probability", "proxy", "score"],
    ] * 2


ODD_NAMES = ("größe", "日本", "two\nlines", "[bold]x", "[", os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_hard_to_print(
    run: Run, workshop: Any, tmp_path: Path, encoding: str
) -> None:
    for name in ODD_NAMES:
        shutil.copyfile(workshop.photos / "red" / "0.png", tmp_path / f"{name}.png")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run("predict", workshop.model, tmp_path, "--json", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    files = {Path(answer["path"]).stem for answer in json_lines(done)}
    assert files == set(ODD_NAMES)  # each names the file on disk again
    done = run("predict", workshop.model, tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": 'red' 1.0000\n") == len(ODD_NAMES)
    odd = shutil.copyfile(workshop.model, tmp_path / "[b]ö.onnx")  # as rich marks what is bold
    assert run("inspect", odd, env=environment).returncode == 0
    done = run("bench", odd, "--iterations", 2, "--warm-up", "0.5s", env=environment)
    assert done.returncode == 0, done.stderr
    shown = "ö" if encoding == "utf-8" else r"\xf6"
    assert f"[b]{shown}.onnxonCPU" in "".join(done.stdout.split())


def test_predict_into_a_reader_that_goes_away(workshop: Any, command: Path) -> None:
    with subprocess.Popen(
        [command, "predict", workshop.model, workshop.photos],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(300) == 1


# inspect, verify ---------------------------------------------------------------------------


def test_inspect_a_model_and_a_head(run: Run, workshop: Any) -> None:
    kinds = {workshop.model: "model", workshop.head: "head"}
    for file, kind in kinds.items():
        (facts,) = json_lines(run("inspect", file, "--json"))
        assert (facts["kind"], facts["file"]) == (kind, str(file))
        assert facts["size_bytes"] == file.stat().st_size
        assert facts["labels"] == ["b l u e", "green", "red"]
        assert facts["backbone_name"] == workshop.backbone
        assert " size=16x16 " in facts["preprocess"]
        assert ("slots" in facts) == (kind == "model")
        done = run("inspect", file)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("labels             3: 'b l u e', 'green', 'red'\n")


def test_verify(run: Run, workshop: Any) -> None:
    arguments = [
        "verify",
        workshop.model,
        "--head",
        workshop.head,
        "--images",
        workshop.photos,
    ]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("18 photos: 100.00% of labels agree (0 ties), scores differ")
    (said,) = json_lines(run(*arguments, "--json"))
    assert said["passed"] is True
    assert (said["images"], said["agreement"]) == (18, 1.0)
    assert said["max_difference"] <= said["tolerance"] == 1e-4
