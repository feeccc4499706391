# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint evaluate`, run as a user runs it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(["cat", "dog", "owl"], 12)
    rows = rng.standard_normal((36, 5)) + 4 * np.eye(5)[np.repeat(np.arange(3), 12)]
    file = tmp_path_factory.mktemp("embeddings") / "e.npz"
    np.savez(file, embeddings=rows, labels=labels)
    return file


def test_photos(run: Run, workshop: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(
        "evaluate",
        workshop.photos,
        "--backbone",
        workshop.backbone,
        "--html",
        page,
        "--seed",
        3,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "18 images, 3 classes, 5 folds" in done.stdout
    for name in ("qi2018", "imprint, k = 5", "whitened, auto", "logistic regression"):
        assert name in done.stdout
    assert max(map(len, done.stdout.split("recommended:")[0].splitlines()[:20])) <= 100
    assert page.read_text().count("<img ") >= 12
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next:")]
    # What it says to run next does run.
    words = shlex.split(line.removeprefix("next:"))
    assert words[1:3] == ["build", str(workshop.photos)]
    assert words[-2:] == ["--seed", "3"]
    made = tmp_path / "head"
    built = run(*[str(made) if word == "HEAD" else word for word in words[1:]])
    assert built.returncode == 0, built.stderr
    assert made.is_file()


def test_json_of_photos(run: Run, workshop: Any) -> None:
    done = run("evaluate", workshop.photos, "--backbone", workshop.backbone, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["schema"] == "edge-imprint.evaluate/1"
    assert shown["images_by_class"] == {"b l u e": 6, "green": 6, "red": 6}
    assert shown["held_out"] == 18
    assert sum(map(sum, shown["confusion"])) == 18
    (command,) = shown["recommendation"]["commands"]
    assert f'--recipe "{shown["recommendation"]["recipe"]}"' in command


def test_embeddings(run: Run, embeddings: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("evaluate", embeddings, "--html", page, "--folds", 3)
    assert done.returncode == 0, done.stderr
    assert "36 images, 3 classes, 3 folds" in done.stdout
    assert "ImprintClassifier.from_recipe(" in done.stdout
    assert "<img " not in page.read_text()
    again = run("evaluate", embeddings, "--html", page)
    assert again.returncode == 1
    assert again.stderr == (
        f"error: {page} exists already; pass --force (in Python force=True) to replace it\n"
    )
    forced = run("evaluate", embeddings, "--html", page, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout)["folds"] == 5


def test_no_photo_is_written_over(run: Run, embeddings: Path) -> None:
    before = embeddings.read_bytes()
    done = run("evaluate", embeddings, "--html", embeddings, "--force")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: cannot write {embeddings}: it is what this is made from; name another file\n"
    )
    assert embeddings.read_bytes() == before


def test_wrong_use(run: Run, workshop: Any, embeddings: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[object], int, str]] = [
        (
            [workshop.photos],
            2,
            (
                "photos need a backbone: give --backbone, such as demo or timm/resnet18 "
                "(embeddings need none, but come as .npz); see 'edge-imprint evaluate --help'"
            ),
        ),
        (
            [embeddings, "--backbone", "demo"],
            2,
            "an embeddings file needs no backbone; leave out --backbone demo, or name photos",
        ),
        (
            [embeddings, "--random-weights"],
            2,
            "an embeddings file needs no backbone; leave out --random-weights, or name photos",
        ),
        (
            ["s3://bucket/photos"],
            2,
            (
                "photos need a backbone: give --backbone, such as demo or timm/resnet18 "
                "(embeddings need none, but come as .npz); see 'edge-imprint evaluate --help'"
            ),
        ),
        ([embeddings, "--folds", 1], 2, "--folds must be an integer >= 2, got 1"),
        ([embeddings, "--seed", -1], 2, "--seed must be an integer >= 0, got -1"),
        (
            [embeddings, "--device", "tpu"],
            2,
            "--device must be one of auto, cpu, cuda, got 'tpu'",
        ),
        (
            [workshop.photos, "--backbone", "demo", "--max-broken", 2],
            2,
            "--max-broken must be a share from 0 to 1, got 2.0",
        ),
        ([tmp_path / "no.npz"], 1, f"there is no embeddings file {tmp_path / 'no.npz'}"),
    ]
    for arguments, status, message in cases:
        done = run("evaluate", *arguments)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1] == f"error: {message}"


def test_a_row_that_is_no_number(run: Run, tmp_path: Path) -> None:
    rows, file = np.ones((4, 2)), tmp_path / "bad.npz"
    rows[3, 0] = np.nan
    np.savez(file, embeddings=rows, labels=[0, 0, 1, 1])
    done = run("evaluate", file)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: row 3 of the embeddings of {file} holds NaN; mend it or leave it out\n"
    )
