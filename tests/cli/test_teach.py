# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint teach`: a class more, better, less; written beside the model, or baked."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint_runtime import Head, open_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COLOURS = {"yellow": (220, 210, 40), "white": (235, 235, 235)}


@pytest.fixture(scope="session")
def exported(run: Run, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teachable model with its head beside. Don't change them."""
    path = tmp_path_factory.mktemp("teachable") / "m.onnx"
    limits = ("--max-classes", 4, "--taught-proxies", 3)
    done = run("export", workshop.head, "--out", path, "--teachable", *limits)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy that may be taught."""
    for file in (exported, exported.with_name("m.onnx.head")):
        shutil.copy(file, tmp_path)
    return tmp_path / "m.onnx"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes that the workshop's head does not know: 6 each."""
    root = tmp_path_factory.mktemp("new")
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(6):
            rng = np.random.default_rng([len(label), number])
            pixels = np.add(colour, rng.integers(-20, 20, (24, 24, 3))).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root


def taught_here(model: Path, label: str, photos: Path) -> None:
    """Teach without the command, which takes longer."""
    opened = open_model(model, "cpu")
    opened.teach(label, sorted((photos / label).iterdir()))
    opened.save_head()


def test_a_new_class(run: Run, model: Path, photos: Path) -> None:
    before = model.read_bytes()
    done = run("teach", model, "--class", "yellow", photos / "yellow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "'yellow', a new class: 6 of 6 photos just taught are recognized",
        f"{model}.head: 4 classes",
        "  'b l u e': 6 proxies of the host",
        "  'green': 6 proxies of the host",
        "  'red': 6 proxies of the host",
        "  'yellow': 6 photos taught, 3 proxies",
    ]
    assert model.read_bytes() == before
    done = run("predict", model, photos / "yellow", "--json")
    assert {json.loads(line)["label"] for line in done.stdout.splitlines()} == {"yellow"}


def test_five_photos_and_five_more_are_ten(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    files = sorted((photos / "white").iterdir())
    other = Path(shutil.copytree(model.parent, tmp_path / "other")) / "m.onnx"
    for part in (files[3:], files[:3]):
        done = run("teach", model, "--class", "white", *part, "--json")
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "model": str(model),
        "class": "white",
        "new": False,
        "photos": 3,
        "recognized": 3,
        "head": f"{model}.head",
        "classes": [
            {
                "label": label,
                "host_proxies": 0 if label == "white" else 6,
                "taught_proxies": 3 if label == "white" else 0,
                "taught_photos": 6 if label == "white" else 0,
                "threshold": None,
            }
            for label in ("b l u e", "green", "red", "white")
        ],
    }
    done = run("teach", other, "--class", "white", photos / "white")
    assert done.returncode == 0, done.stderr
    assert Path(f"{other}.head").read_bytes() == Path(f"{model}.head").read_bytes()


def test_forgetting(run: Run, model: Path, photos: Path) -> None:
    beside = Path(f"{model}.head")
    before = beside.read_bytes()
    taught_here(model, "white", photos)
    done = run("teach", model, "--class", "white", "--forget")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "'white' is forgotten",
        f"{beside}: 3 classes",
    ]
    assert beside.read_bytes() == before
    done = run("teach", model, "--class", "white", "--forget")
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no class 'white' to forget; there are 'b l u e', 'green', 'red'\n"
    )


def test_baking(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "baked.onnx"
    command = ("teach", model, "--class", "white", photos / "white", "--bake", out)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    size = f"{out.stat().st_size / 1e3:.0f} kB"
    assert done.stdout.splitlines()[-1] == f"{out}: {size}, 4 classes"
    baked = open_model(out, "cpu")
    assert baked.labels[-1] == "white"
    assert baked.contract.graph is not None
    assert baked.contract.graph.teachable is None
    once = out.read_bytes()
    done = run("teach", model, "--bake", out)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {out} exists already; pass --force (in Python force=True) to replace it\n"
    )
    done = run("teach", model, "--bake", out, "--force", "--json")
    assert json.loads(done.stdout)["baked"] == str(out)
    assert out.read_bytes() == once
    for used in (model, Path(f"{model}.head")):
        before = used.read_bytes()
        done = run("teach", model, "--bake", used, "--force")
        assert done.returncode == 1
        assert done.stderr == (
            f"error: cannot write {used}: it is what this is made from; name another file\n"
        )
        assert used.read_bytes() == before


def test_one_photo_that_cannot_be_read_and_nothing_is_taught(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    beside = Path(f"{model}.head")
    before = beside.read_bytes()
    done = run("teach", model, "--class", "white", photos / "white", tmp_path / "text.png")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any("text.png is corrupt, truncated or no image" in line for line in lines)
    assert lines[-1] == (
        "error: 1 of 7 photos can't be read, and nothing was taught; leave them out"
    )
    assert beside.read_bytes() == before


def test_limits_and_other_models(run: Run, model: Path, photos: Path, workshop: Any) -> None:
    given = ("--class", "white", photos / "white")
    taught_here(model, "yellow", photos)
    for arguments, status, message in (
        (
            (model, *given),
            2,
            (
                "the model holds 4 classes and knows 4; forget one, or export it again with a "
                "higher --max-classes"
            ),
        ),
        (
            (model, "--class", "red", photos / "white", "--proxies", 4),
            2,
            (
                "the model has room for 3 taught proxies a class, got proxies=4; "
                "give fewer, or export it again with a higher --taught-proxies"
            ),
        ),
        (
            (workshop.model, *given),
            1,
            (
                f"{workshop.model} was exported without --teachable, "
                "so that its classes can't change; export it again with it"
            ),
        ),
    ):
        done = run("teach", *arguments)
        assert done.returncode == status
        assert done.stderr.splitlines()[-1] == f"error: {message}"
    Path(f"{model}.head").unlink()
    done = run("teach", model, *given)
    assert done.returncode == 1
    assert done.stderr == (
        "error: teaching starts from the head beside the model, and there is no file "
        f"{model}.head; copy it from where the model was exported\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the class with --class NAME"),
        (("a.png",), "name the class with --class NAME"),
        (("--class", "x"), "name photos, or folders of photos, of the class"),
        (("--class", "x", "--forget", "a.png"), "--forget takes no photos and no --proxies"),
        (("--bake", "b.onnx", "a.png"), "name the class with --class NAME"),
    ],
)
def test_wrong_use(run: Run, model: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("teach", model, *arguments)
    assert done.returncode == 2
    assert done.stderr == f"error: {message}; see 'edge-imprint teach --help'\n"


def test_a_full_disk_leaves_the_head_as_it_was(run: Run, model: Path, photos: Path) -> None:
    beside = Path(f"{model}.head")
    before, files = beside.read_bytes(), sorted(model.parent.iterdir())
    done = run(
        "teach",
        model,
        "--class",
        "white",
        photos / "white",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: cannot write {beside}: file too large"
    assert beside.read_bytes() == before
    assert sorted(model.parent.iterdir()) == files


def test_without_onnx_and_torch(model: Path, photos: Path) -> None:
    """As on a device: teaching works, baking says what it lacks before anything is taught."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['onnx', 'torch', 'sklearn', 'timm'])\n"
        "from edge_imprint.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["teach", model, "--class", "white", photos / "white"]
    beside = Path(f"{model}.head")
    before = beside.read_bytes()
    for more in (["--bake", model.with_name("baked.onnx")], []):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, *more],
            capture_output=True,
            text=True,
            check=False,
        )
        if more:
            assert done.returncode == 1
            assert done.stderr == (
                "error: --bake needs the package 'onnx', which is not installed here; "
                "run: pip install 'edge-imprint[demo]'\n"
            )
            assert beside.read_bytes() == before
    assert done.returncode == 0, done.stderr
    assert Head.load(beside).labels[-1] == "white"
