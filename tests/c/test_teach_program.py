# SPDX-License-Identifier: Apache-2.0
"""`ei-teach` writes the head that `edge-imprint teach` writes, and says the same of it."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.shop import Done, Program, python

MakeHead = Callable[..., Head]

COLOURS = {"yellow": (220, 210, 40), "white": (235, 235, 235)}


@pytest.fixture(scope="module")
def teach(c_build: Path, ort_library: Path) -> Program:
    return Program(c_build / "ei-teach", ort_library)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two new classes, 6 each, of a camera frame's size."""
    root = tmp_path_factory.mktemp("new")
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(6):
            rng = np.random.default_rng([len(label), number])
            pixels = np.add(colour, rng.integers(-20, 20, (24, 40, 3))).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root


@pytest.fixture
def make_model(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> Callable[..., Path]:
    """Return ``make(calibrated=False, form="default", **fuse's options)``: a path."""

    def make(calibrated: bool = False, form: str = "default", **options: Any) -> Path:
        head = make_head(3, 6, calibrated=calibrated)
        path = tmp_path / "m.onnx"
        made = fuse(tiny_backbone, head, teachable=Teachable(form, 5, 3), **options)
        path.write_bytes(to_bytes(made))
        head.save(head_beside(path), force=True)
        return path

    return make


def twin(model: Path) -> Path:
    """Copy a model and its head, for Python."""
    folder = model.parent / "python"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (model, head_beside(model)):
        shutil.copy(file, folder)
    return folder / model.name


def both(teach: Program, model: Path, *arguments: object) -> tuple[Done, Done, Path]:
    """Run C and Python on a model and its twin; C names the twin as Python does."""
    other = twin(model)
    done = teach(model, *arguments)
    expected = python("teach", other, *arguments)
    done.stdout = done.stdout.replace(str(model), str(other))
    done.stderr = done.stderr.replace(str(model), str(other))
    return done, expected, other


def near(one: Path, other: Path) -> None:
    """Hold two head files equal; embeddings of two runs may differ in the last bit."""
    ours, theirs = Head.load(one), Head.load(other)
    assert ours.labels == theirs.labels
    assert ours.class_index.tolist() == theirs.class_index.tolist()
    np.testing.assert_allclose(ours.proxies, theirs.proxies, atol=1e-5)
    assert (ours.threshold is None) == (theirs.threshold is None)
    if ours.threshold is not None and theirs.threshold is not None:
        np.testing.assert_allclose(ours.threshold, theirs.threshold, atol=1e-5)


FORMS: list[dict[str, Any]] = [
    {},
    {"calibrated": True},
    {"form": "input"},
    {"input": "float32"},
    {"input": "frame", "frame": Frame("rgb", 24, 40)},
    {"input": "frame", "frame": Frame("nv12", 24, 40)},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_teaching_as_python_teaches(
    teach: Program, make_model: Callable[..., Path], photos: Path, form: dict[str, Any]
) -> None:
    model = make_model(**form)
    for arguments in (
        ("--class", "yellow", photos / "yellow"),
        ("--class", "class 1", photos / "white" / "0.png", photos / "white" / "3.png"),
        ("--class", "white", photos / "white", "--proxies", 1),
        ("--class", "yellow", "--forget"),
    ):
        before = model.read_bytes()
        done, expected, other = both(teach, model, *arguments, "--json")
        assert done.returncode == expected.returncode == 0, done.stderr
        assert not done.stderr
        ours, theirs = json.loads(done.stdout), json.loads(expected.stdout)
        assert list(ours) == list(theirs)
        for one, two in zip(ours["classes"], theirs["classes"], strict=True):
            threshold = two.pop("threshold")
            assert one.pop("threshold") == pytest.approx(threshold, abs=1e-5)
        assert ours == theirs
        near(head_beside(model), head_beside(other))
        assert model.read_bytes() == before
    assert open_model(model, "cpu").labels[-1] == "white"


def test_what_it_says_is_what_python_says(
    teach: Program, make_model: Callable[..., Path], photos: Path
) -> None:
    model = make_model()
    for arguments in (("--class", "it's", photos / "yellow"), ("--class", "it's", "--forget")):
        done, expected, _ = both(teach, model, *arguments)
        assert done.returncode == expected.returncode == 0, done.stderr
        assert done.stdout == expected.stdout


def test_of_many_classes_the_one_that_changed(
    teach: Program, tiny_backbone: bytes, make_head: MakeHead, photos: Path, tmp_path: Path
) -> None:
    head, model = make_head(30, 1), tmp_path / "m.onnx"
    model.write_bytes(
        to_bytes(fuse(tiny_backbone, head, teachable=Teachable("default", 40, 2)))
    )
    head.save(head_beside(model))
    done, expected, _ = both(teach, model, "--class", "white", photos / "white")
    assert done.stdout == expected.stdout
    assert done.stdout.splitlines()[-1] == "  and 30 more"


def test_five_photos_and_five_more_are_ten(
    teach: Program, make_model: Callable[..., Path], photos: Path
) -> None:
    files = sorted((photos / "white").iterdir())
    model = make_model()
    other = twin(model)
    for part in (files[3:], files[:3]):
        assert teach(model, "--class", "white", *part).returncode == 0
    assert teach(other, "--class", "white", photos / "white").returncode == 0
    assert head_beside(model).read_bytes() == head_beside(other).read_bytes()
    taught = head_beside(model).read_bytes()
    assert teach(model, "--class", "white", files[0]).returncode == 0  # it is known already
    assert head_beside(model).read_bytes() == taught


def test_forgetting_leaves_what_was_before(
    teach: Program, make_model: Callable[..., Path], photos: Path
) -> None:
    model = make_model()
    before = head_beside(model).read_bytes()
    assert teach(model, "--class", "white", photos / "white").returncode == 0
    assert head_beside(model).read_bytes() != before
    assert teach(model, "--class", "white", "--forget").returncode == 0
    assert head_beside(model).read_bytes() == before
    done, expected, _ = both(teach, model, "--class", "white", "--forget")
    assert done.returncode == expected.returncode == 2
    assert "'white'" in done.stderr


def test_one_photo_that_cannot_be_read_and_nothing_is_taught(
    teach: Program, make_model: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    model = make_model()
    before = head_beside(model).read_bytes()
    done = teach(model, "--class", "white", photos / "white", tmp_path / "text.png")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert "text.png is corrupt, truncated or no image" in first
    assert last == "error: 1 of 7 photos can't be read, and nothing was taught; leave them out"
    assert head_beside(model).read_bytes() == before


def test_a_head_of_another_name(
    teach: Program, make_model: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    model, other = make_model(), tmp_path / "other.head"
    shutil.copy(head_beside(model), other)
    before = other.read_bytes()
    done = teach(model, "--class", "white", photos / "white", "--head", other, "--json")
    assert json.loads(done.stdout)["head"] == str(other)
    assert head_beside(model).read_bytes() == before != other.read_bytes()


def test_what_can_not_be_taught(
    teach: Program,
    make_model: Callable[..., Path],
    photos: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
) -> None:
    given = ("--class", "white", photos / "white")
    model = make_model()
    done, expected, _ = both(teach, model, *given[:2], photos / "white", "--proxies", 4)
    assert done.returncode == expected.returncode == 2
    for label in ("one", "two"):
        assert teach(model, "--class", label, photos / "yellow").returncode == 0
    done, expected, _ = both(teach, model, *given)
    assert done.returncode == expected.returncode == 2
    head_beside(model).unlink()
    done = teach(model, *given)
    assert done.returncode == 1
    assert done.stderr == (
        "error: teaching starts from the head beside the model, and there is no file "
        f"{model}.head; copy it from where the model was exported\n"
    )
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(to_bytes(fuse(tiny_backbone, make_head())))
    done, expected = teach(plain, *given), python("teach", plain, *given)
    assert done.returncode == expected.returncode == 1
    assert done.stderr == expected.stderr


def test_a_folder_without_photos(
    teach: Program, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done, expected, _ = both(teach, make_model(), "--class", "x", tmp_path / "empty")
    assert done.returncode == expected.returncode == 1
    assert done.stderr == expected.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("M",), "name the class with --class NAME"),
        (("M", "a.png"), "name the class with --class NAME"),
        (("M", "--class", "x"), "name photos, or folders of photos, of the class"),
        (("M", "--class", "x", "--forget", "a.png"), "--forget takes no photos and no"),
        (("M", "--class", "x", "--forget", "--proxies", "2"), "--forget takes no photos and"),
        (("M", "--class", "x", "a.png", "--proxies", "0"), "--proxies must be a whole number"),
        ((), "name the model"),
    ],
)
def test_wrong_use(teach: Program, arguments: tuple[str, ...], message: str) -> None:
    done = teach(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.endswith("; see 'ei-teach --help'\n")


def test_a_full_disk_leaves_the_head_as_it_was(
    teach: Program, make_model: Callable[..., Path], photos: Path
) -> None:
    model = make_model()
    before, files = head_beside(model).read_bytes(), sorted(model.parent.iterdir())
    done = teach(
        model,
        "--class",
        "white",
        photos / "white",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write {head_beside(model)}: ")
    assert head_beside(model).read_bytes() == before
    assert sorted(model.parent.iterdir()) == files
