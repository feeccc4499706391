# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint build` with its options, from the photos to the fused model's answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint.cli import main
from edge_imprint_runtime import Head

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Command = Callable[..., tuple[str, str]]
KEYS = {
    "head",
    "labels",
    "proxies",
    "embedding_size",
    "recipe",
    "backbone",
    "backbone_weights",
    "images",
    "images_by_class",
    "proxies_by_class",
    "accuracy_by_k",
    "calibration",
    "held_out",
    "skipped",
    "notes",
    "device",
    "embed_s",
    "embedded",
    "cached",
    "duplicates",
    "duplicate_count",
    "suspects",
    "suspect_count",
    "imprint_s",
}


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return ``say(*arguments)``: in this process; what it says on stdout and stderr."""

    def run(*arguments: object) -> tuple[str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert stop.value.code == 0, said.err
        return said.out, said.err

    return run


@pytest.fixture
def build(say: Command, workshop: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return ``build(*options)``: the JSON that it prints; the head is ``tmp_path/head``."""

    def run(*options: object) -> dict[str, Any]:
        given = ["build", workshop.photos, "--backbone", workshop.backbone, *options]
        out, _ = say(*given, "--out", tmp_path / "head", "--json", "--force")
        (line,) = out.splitlines()
        facts: dict[str, Any] = json.loads(line)
        return facts

    return run


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("qi2018", "l2 mean l2 l2 max"),
        ("none fps:2 none none mnn:1:manhattan", "none fps:2 none none mnn:1:manhattan"),
        ("whiten:0.5:size=4 kmeans:3 l2 l2 max", "whiten:0.5:size=4 kmeans:3 l2 l2 max"),
    ],
)
def test_recipes(
    build: Callable[..., dict[str, Any]], tmp_path: Path, line: str, recipe: str
) -> None:
    facts = build("--recipe", line)
    assert set(facts) == KEYS
    assert facts["recipe"] == recipe == Head.load(tmp_path / "head").recipe
    assert (facts["accuracy_by_k"], facts["calibration"]) == (None, None)
    assert set(facts["proxies_by_class"]) == set(facts["labels"])
    assert sum(facts["proxies_by_class"].values()) == facts["proxies"]


def test_whitened(build: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    facts = build("--recipe", "whitened", "--proxies", 3)
    head = Head.load(tmp_path / "head")
    share = float(head.recipe.split()[0].removeprefix("whiten:"))
    assert head.recipe == facts["recipe"] == f"whiten:{share} kmeans:3 l2 l2 max"
    assert (head.transform is None) == (share == 1)


def test_shots(build: Callable[..., dict[str, Any]]) -> None:
    facts = build("--shots", 2, "--recipe", "l2 all l2 l2 max")
    assert (facts["images"], facts["proxies"]) == (6, 6)
    assert set(facts["images_by_class"].values()) == {2}


def test_proxies_auto(
    build: Callable[..., dict[str, Any]], say: Command, workshop: Any, tmp_path: Path
) -> None:
    facts = build("--proxies", "auto")
    assert list(facts["accuracy_by_k"]) == ["1", "2", "5"]
    assert all(0 <= accuracy <= 1 for accuracy in facts["accuracy_by_k"].values())
    assert facts["recipe"] == "l2 kmeans:auto l2 l2 max"
    given = ["build", workshop.photos, "--backbone", workshop.backbone, "--proxies", "auto"]
    out, err = say(*given, "--out", tmp_path / "words")
    ks = facts["proxies_by_class"].values()
    said = f"proxies a class, chosen on held-out photos: {min(ks)} to {max(ks)} ("
    assert out.splitlines()[1].startswith(said)
    assert "choosing proxies ..." in err
    assert (tmp_path / "words").read_bytes() == (tmp_path / "head").read_bytes()


def test_a_calibrated_model_says_unknown(
    build: Callable[..., dict[str, Any]], say: Command, workshop: Any, tmp_path: Path
) -> None:
    facts = build("--calibrate", "--false-alarm", 0.1, "--proxies", 2)
    assert sorted(facts["calibration"]) == [
        "accuracy",
        "auroc",
        "confidence",
        "detected",
        "false_alarm",
        "temperature",
        "threshold",
    ]
    head = Head.load(tmp_path / "head")
    assert facts["calibration"]["temperature"] == head.temperature
    assert head.threshold is not None
    assert facts["calibration"]["threshold"] == head.threshold.tolist()
    model = tmp_path / "model.onnx"
    say("export", tmp_path / "head", "--out", model)
    photo, other = workshop.photos / "red" / "0.png", tmp_path / "other.png"
    board = np.kron(np.indices((6, 6)).sum(axis=0) % 2 * 255, np.ones((4, 4)))
    Image.fromarray(board.astype(np.uint8)).save(other)
    out, _ = say("predict", model, photo, other)
    first, second = out.splitlines()
    assert first.startswith(f"{photo}: 'red' ")
    assert second.startswith(f"{other}: unknown (nearest '")
    out, _ = say("predict", model, photo, other, "--json")
    seen, strange = (json.loads(line) for line in out.splitlines())
    assert (seen["label"], seen["known"], seen["nearest"]) == ("red", True, "red")
    assert (strange["label"], strange["known"]) == ("unknown", False)
    assert strange["nearest"] in facts["labels"]
    assert 0 < strange["probability"] <= seen["probability"] <= 1


def test_calibration_in_words(say: Command, workshop: Any, tmp_path: Path) -> None:
    given = ["build", workshop.photos, "--backbone", workshop.backbone, "--calibrate"]
    out, err = say(*given, "--out", tmp_path / "head")
    lines = out.splitlines()
    assert lines[1].startswith("calibrated on held-out photos: ")
    assert lines[1].endswith("% called unknown")
    assert lines[2].startswith("photos of a class left out: ")
    assert ", AUROC " in lines[2]
    assert "holding out photos ..." in err


def test_the_backbones_own_classes_stay(say: Command, workshop: Any, tmp_path: Path) -> None:
    given = ["--backbone", "timm/test_resnet", "--random-weights", "--keep-classes"]
    out, err = say("build", workshop.photos, *given, "--out", tmp_path / "head", "--json")
    facts = json.loads(out)
    assert len(facts["labels"]) == 1003
    assert len(facts["proxies_by_class"]) == 1003
    assert any("1000 classes of the backbone were kept" in note for note in facts["notes"])
    assert "note: 1000 classes of the backbone were kept" in err


def test_by_the_installed_command(run: Run, workshop: Any, tmp_path: Path) -> None:
    data = shutil.copytree(workshop.photos, tmp_path / "data")
    out = tmp_path / "head"
    done = run(
        "build", data, "--backbone", workshop.backbone, "--out", out, "--recipe", "whitened",
        "--proxies", "auto", "--shots", 5, "--calibrate", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts) == KEYS
    assert facts["images"] == 15
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "head"]


def test_photos_to_look_at_are_told_and_used(run: Run, workshop: Any, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    shutil.copytree(workshop.photos, data)
    shutil.copy(data / "red" / "0.png", data / "red" / "again.png")
    shutil.copy(data / "red" / "1.png", data / "green" / "red.png")
    done = run(
        *("build", data, "--backbone", workshop.backbone),
        *("--out", tmp_path / "head"),
    )
    assert done.returncode == 0, done.stderr
    assert "from 20 photos (0 skipped)" in done.stdout
    told = done.stdout + done.stderr
    assert f"{data / 'green' / 'red.png'} (green) is a copy of" in told
    assert "to look at: 2 pairs of copies or near-duplicates, 1 suspect of" in told


def test_false_alarm_is_for_calibrate(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "head"
    options = ["--backbone", "demo", "--out", out, "--false-alarm", "0.1"]
    done = run("build", workshop.photos, *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: --false-alarm is for --calibrate; give both, or neither; "
        "see 'edge-imprint build --help'"
    )
    assert not out.exists()
