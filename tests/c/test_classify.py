# SPDX-License-Identifier: Apache-2.0
"""`ei-classify` says of photos what `edge-imprint predict` says, and answers frames."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.contract import Frame
from tests.c.shop import PYTHON, Done, MakeModel, Program, picture, python

MakeHead = Callable[..., Head]

NV12 = Frame("nv12", 24, 40, "bt709", "full")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: JPEG, PNG and PPM, turned, grey, transparent, one in a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for seed, name in enumerate(("a.jpg", "b.png", "c.ppm", "more/d.jpeg")):
        Image.fromarray(picture(seed, 30 + seed, 37)).save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(5)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(picture(6)).convert("L").save(folder / "grey.png")
    Image.fromarray(np.dstack([picture(7), picture(8)[..., :1]])).save(folder / "alpha.png")
    return folder


def close(in_c: Done, expected: Done) -> None:
    """Hold lines of JSON against Python's: all equal, numbers to float32's rounding."""
    assert in_c.returncode == expected.returncode, in_c.stderr
    ours = [json.loads(line) for line in in_c.stdout.splitlines()]
    theirs = [json.loads(line) for line in expected.stdout.splitlines()]
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert list(one) == list(other)  # the same keys in the same order
        for key in ("score", "probability"):
            if isinstance(other.get(key), float):
                assert one.pop(key) == pytest.approx(other.pop(key), rel=1e-6, abs=1e-6)
        assert one == other


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("form", ["uint8", "float32"])
def test_photos_as_python_classifies_them(
    classify: Program, photos: Path, make_model: MakeModel, calibrated: bool, form: str
) -> None:
    outputs = ("scores", "label") if calibrated else ("scores", "label", "proxy")
    model = make_model(calibrated, input=form, outputs=outputs)
    close(classify(model, photos, "--json"), python("predict", model, photos, "--json"))
    done, expected = classify(model, photos), python("predict", model, photos)
    assert done.stdout == expected.stdout
    assert not done.stderr
    if calibrated:
        assert "unknown (nearest 'class" in done.stdout


def test_photos_for_a_model_of_frames(
    classify: Program, photos: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    for seed in range(3):
        Image.fromarray(picture(seed)).save(tmp_path / f"{seed}.png")
    for frame in (Frame("rgb", 24, 40), Frame("bgr", 24, 40), NV12, Frame("yuyv", 24, 40)):
        model = make_model(input="frame", frame=frame)
        close(
            classify(model, tmp_path, "--json"), python("predict", model, tmp_path, "--json")
        )
    done, expected = classify(model, photos), python("predict", model, photos)
    assert done.returncode == expected.returncode == 1
    assert done.stderr == expected.stderr  # of each what is wrong with its size


def test_what_is_broken_is_told_and_the_others_go_on(
    classify: Program, photos: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model()
    (tmp_path / "text.png").write_text("no image")
    files = [photos / "a.jpg", tmp_path / "text.png", tmp_path / "gone.png", photos / "b.png"]
    done, expected = classify(model, *files), python("predict", model, *files)
    assert done.returncode == expected.returncode == 1
    assert done.stdout == expected.stdout
    ours, theirs = done.stderr.splitlines(), expected.stderr.splitlines()
    assert len(ours) == 3
    assert ours[1:] == theirs[1:]
    assert ours[0] == (
        f"error: the image {tmp_path}/text.png is corrupt, truncated or no image "
        "(no JPEG, PNG or PPM file); replace it or take it out"
    )
    done = classify(model, *files, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(one)[1] for one in told] == ["label", "error", "error", "label"]
    assert told[2] == {
        "path": str(files[2]),
        "error": f"cannot read the image {files[2]}: No such file or directory",
    }


def test_the_nearest_classes(classify: Program, photos: Path, make_model: MakeModel) -> None:
    model = make_model(True)
    found = open_model(model, "cpu").predict(photos / "a.jpg")
    order = np.argsort(-found.scores[0], kind="stable")
    assert found.probability is not None
    (line,) = classify(model, photos / "a.jpg", "--json", "--top", 2).stdout.splitlines()
    top = json.loads(line)["top"]
    assert [one["index"] for one in top] == order[:2].tolist()
    assert [one["label"] for one in top] == [found.labels[i] for i in order[:2]]
    probabilities = found.probability[0, order[:2]]
    assert [one["probability"] for one in top] == pytest.approx(probabilities, abs=1e-6)
    (line,) = classify(model, photos / "a.jpg", "--top", 99).stdout.splitlines()
    second, third = (f"'{found.labels[i]}' {found.scores[0, i]:.4f}" for i in order[1:])
    assert line.endswith(f", {second}, {third}")


NAMES = ["it's", "both ' and \"", "a\\b", "Äpfel 苹果 🍎", "soft\u00adhyphen\u200b"]


def test_odd_names(
    classify: Program, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    """Quotes, line ends, bytes that are no UTF-8: shown as Python shows them."""
    files = []
    for seed, name in enumerate(
        (b"a b.png", b"it's\n.png", b"\xff\xfe.png", "ü.png".encode())
    ):
        files.append(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        Image.fromarray(picture(seed)).save(files[-1])
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    for name in NAMES:
        head = make_head(2, 1)
        head = Head(head.proxies, head.class_index, [name, name * 2], backbone=head.backbone)
        model = tmp_path / "m.onnx"
        model.write_bytes(to_bytes(fuse(tiny_backbone, head)))
        done = classify(model, *files, text=False)
        command = [PYTHON, "predict", model, *files]
        expected = subprocess.run(command, capture_output=True, env=environment, check=True)
        assert done.stdout == expected.stdout
        done = classify(model, *files, "--json", text=False)
        ours = [json.loads(line) for line in done.stdout.decode().splitlines()]
        assert [one["path"] for one in ours] == files
        assert {one["label"] for one in ours} <= {name, name * 2}
    done = classify(model, tmp_path / "line\nend.png")
    assert len(done.stderr.splitlines()) == 2


# -------------------------------------------------------------------------------- wrong --


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the model"),
        (("M",), "name photos, or folders of photos"),
        (("M", "-", "--pipe", "x"), "name photos, or -, or --pipe, or --camera"),
        (("M", "a.png", "--camera", "x"), "name photos, or -, or --pipe, or --camera"),
        (("M", "a.png", "-"), "name photos, or -, or --pipe, or --camera"),
        (("M", "-", "a.png"), "name photos, or -, or --pipe, or --camera"),
        (
            ("M", "a.png", "--frame", "4x4"),
            "--frame, --format, --frame-colour and --count are",
        ),
        (("M", "-"), "say with --frame WIDTHxHEIGHT how large the frames are"),
        (
            ("M", "-", "--frame", "5x4", "--format", "yuyv"),
            "frames of yuyv have even sides, not",
        ),
        (
            ("M", "-", "--frame", "4x5", "--format", "nv12"),
            "frames of nv12 have even sides, not",
        ),
        (
            ("M", "-", "--frame", "4"),
            "--frame must be a size such as 640x480, each side from 1",
        ),
        (
            ("M", "-", "--frame", "0x4"),
            "--frame must be a size such as 640x480, each side from",
        ),
        (("M", "-", "--frame", "4x8193"), "--frame must be a size such as 640x480, each side"),
        (("M", "-", "--format", "mjpg"), "--format must be one of rgb, bgr, nv12, yuyv, got"),
        (("M", "-", "--frame-colour", "bt2020"), "--frame-colour must be bt601 or bt709, and"),
        (("M", "a.png", "--top", "0"), "--top must be a whole number from 1 to 1000, got '0'"),
        (("M", "a.png", "--threads", "-1"), "--threads must be a whole number from 0 to 1024"),
        (
            ("M", "a.png", "--threads", "1e3"),
            "--threads must be a whole number from 0 to 1024",
        ),
        (("M", "a.png", "--threads"), "--threads wants a value: --threads N"),
        (("M", "a.png", "--provider", "gpu"), "--provider must be one of cpu, cuda, tensorrt"),
        (("M", "a.png", "--json=1"), "--json takes no value"),
        (("M", "a.png", "--jsn"), "there is no option '--jsn'"),
        (("M", "a.png", "-j"), "there is no option '-j'"),
    ],
)
def test_wrong_use(
    classify: Program, make_model: MakeModel, arguments: tuple[str, ...], message: str
) -> None:
    model = make_model() if "M" in arguments else None
    done = classify(*(model if word == "M" else word for word in arguments))
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.endswith("; see 'ei-classify --help'\n")
    assert done.stderr.count("\n") == 1


def test_a_model_of_embeddings(
    classify: Program, make_head: MakeHead, photos: Path, tmp_path: Path
) -> None:
    model = tmp_path / "head.onnx"
    model.write_bytes(to_bytes(fuse_head(make_head())))
    done, expected = (
        classify(model, photos / "a.jpg"),
        python("predict", model, photos / "a.jpg"),
    )
    assert done.returncode == expected.returncode == 1
    assert done.stderr == expected.stderr
    done = classify(model, "-")
    assert done.returncode == 1
    assert "takes embeddings, not frames" in done.stderr


def test_models_that_do_not_open(classify: Program, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_text("no model")
    for name in ("gone", "garbage"):
        done = classify(tmp_path / name, photos)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert str(tmp_path / name) in done.stderr


def test_options_of_running(
    classify: Program, make_model: MakeModel, photos: Path, ort_library: Path, tmp_path: Path
) -> None:
    model, photo = make_model(), photos / "a.jpg"
    good = classify(model, photo).stdout
    bare = {key: value for key, value in classify.environment.items() if "ONNX" not in key}
    done = classify("--threads=1", "--library", ort_library, model, "--", photo, env=bare)
    assert (done.returncode, done.stdout) == (0, good), done.stderr
    done = classify(model, photo, "--library", tmp_path / "gone.so")
    assert done.returncode == 1
    assert str(tmp_path / "gone.so") in done.stderr
    done = classify(model, photo, "--provider", "cuda")
    assert done.returncode == 1
    assert "CUDA" in done.stderr


def test_help_and_version(classify: Program) -> None:
    done = classify("--version")
    assert (done.returncode, done.stdout) == (0, "ei-classify 0.1.0\n")
    for option in ("--help", "-h"):
        done = classify(option)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: ei-classify [OPTIONS] MODEL")
        assert max(map(len, done.stdout.splitlines())) <= 95
        assert not done.stderr


def test_answers_that_cannot_be_written(
    classify: Program, make_model: MakeModel, photos: Path
) -> None:
    with open("/dev/full", "w") as full:
        done = classify(
            make_model(), photos, capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the answers: No space left on device\n"


def test_a_camera_that_is_none(
    classify: Program, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model()
    for device, message in (
        (
            tmp_path / "video0",
            (
                "the camera {}: cannot open it: No such file or directory; "
                "v4l2-ctl --list-devices shows the cameras"
            ),
        ),
        (
            "/dev/null",
            "{} is no camera that streams; v4l2-ctl --list-devices shows them",
        ),
    ):
        done = classify(model, "--camera", device)
        assert done.returncode == 1
        assert done.stderr == f"error: {message.format(device)}\n"
