# SPDX-License-Identifier: Apache-2.0
"""`ei-classify --camera` on a stand-in for a driver, and on a camera where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.frames import frame_to_rgb, rgb_to_frame
from edge_imprint_runtime.images import prepare
from tests.c.shop import Done, Program, picture

MakeHead = Callable[..., Head]

FOURCC = {"yuyv": "YUYV", "nv12": "NV12", "rgb": "RGB3", "bgr": "BGR3"}
FULL_RANGE, BT709 = 1, 2  # of linux/videodev2.h: quantization, ycbcr_enc


@pytest.fixture
def model(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(to_bytes(fuse(tiny_backbone, make_head())))
    return path


@pytest.fixture
def camera(classify: Program, c_build: Path, tmp_path: Path) -> Callable[..., Done]:
    """Return ``camera(model, rows, frame, *options, padding=0, fails="")``: what is said."""

    def run(
        model: Path,
        rows: npt.NDArray[np.uint8],
        frame: Frame,
        *options: object,
        padding: int = 0,
        fails: str = "",
    ) -> Done:
        lines = rows.reshape(len(rows), rows.shape[1], -1)
        padded = np.pad(lines, ((0, 0), (0, 0), (0, padding)))
        (tmp_path / "frames").write_bytes(padded.tobytes())
        stride, size = padded.shape[2], padded[0].size
        form = f"{FOURCC[frame.format]} {frame.width} {frame.height} {stride} {size}"
        form += f" {FULL_RANGE if frame.levels == 'full' else 2}"
        form += f" {BT709 if frame.matrix == 'bt709' else 1}"
        environment = {
            "LD_PRELOAD": str(c_build / "tests" / "libcamera_standin.so"),
            "STANDIN_FRAMES": str(tmp_path / "frames"),
            "STANDIN_FORM": form,
            "STANDIN_FAILS": fails,
        }
        command = (model, "--camera", "/dev/standin", "--json", *options)
        return classify(*command, env=classify.environment | environment)

    return run


FRAMES = [
    Frame("yuyv", 24, 40),
    Frame("yuyv", 24, 40, "bt709", "full"),
    Frame("nv12", 24, 40, "bt709", "limited"),
    Frame("rgb", 24, 40),
    Frame("bgr", 24, 40),
]


@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: f"{f.format}-{f.matrix}-{f.levels}")
def test_frames_of_a_camera(
    camera: Callable[..., Done], model: Path, frame: Frame, padding: int
) -> None:
    """Its size, format, colours and padding are the driver's; the damaged one is left out."""
    rows = rgb_to_frame(np.stack([picture(seed) for seed in range(5)]), frame)
    opened = open_model(model, "cpu")
    assert opened.contract.backbone is not None
    recipe = opened.contract.backbone.preprocess
    rgb = [Image.fromarray(one) for one in frame_to_rgb(rows, frame)]
    wanted = opened.predict(np.stack([prepare(one, recipe) for one in rgb]))
    done = camera(model, rows, frame, "--count", 5, padding=padding)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["frame"] for one in told] == list(range(5))
    assert [one["label"] for one in told] == [one.label for one in wanted]
    scores = [one.score for one in wanted]
    assert [one["score"] for one in told] == pytest.approx(scores, rel=1e-6, abs=1e-6)


def test_a_camera_for_a_model_of_its_frames(
    camera: Callable[..., Done],
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
) -> None:
    frame, path = Frame("nv12", 24, 40), tmp_path / "frame.onnx"
    path.write_bytes(to_bytes(fuse(tiny_backbone, make_head(), input="frame", frame=frame)))
    rows = rgb_to_frame(np.stack([picture(seed) for seed in range(3)]), frame)
    wanted = [one.label for one in open_model(path, "cpu").predict(rows)]
    for padding in (0, 8):
        done = camera(path, rows, frame, "--count", 3, padding=padding)
        assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == wanted
    done = camera(path, rows, Frame("yuyv", 24, 40), "--count", 3)
    assert done.returncode == 1
    assert (
        "the camera /dev/standin delivers no nv12; v4l2-ctl --list-formats-ext" in done.stderr
    )
    done = camera(path, rows, Frame("nv12", 48, 80), "--count", 3)
    assert done.returncode == 1
    assert "delivers 80 x 48 pixels, not 40 x 24; v4l2-ctl" in done.stderr


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("QUERYCAP", "cannot ask what it is: Input/output error"),
        ("capture", "is no camera that streams; v4l2-ctl --list-devices shows them"),
        ("G_FMT", "cannot ask its format: Input/output error"),
        ("S_FMT", "delivers no frames of YUYV, NV12, RGB or BGR; v4l2-ctl"),
        ("REQBUFS", "cannot get buffers: Input/output error"),
        ("QUERYBUF", "cannot get buffers: Input/output error"),
        ("QBUF", "cannot get buffers: Input/output error"),
        ("STREAMON", "cannot start it: Input/output error"),
        ("DQBUF", "cannot read a frame: Input/output error"),
        ("short", "gave less than a frame"),
    ],
)
def test_a_camera_that_fails(
    camera: Callable[..., Done], model: Path, fails: str, message: str
) -> None:
    rows = picture(0)[np.newaxis]
    done = camera(model, rows, Frame("rgb", 24, 40), "--count", 1, fails=fails)
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_camera_that_is_pulled_out(camera: Callable[..., Done], model: Path) -> None:
    rows = np.stack([picture(0), picture(1)])
    done = camera(model, rows, Frame("rgb", 24, 40))
    assert done.returncode == 1
    assert done.stdout.count("\n") == 2
    assert "the camera /dev/standin: cannot read a frame: No such device" in done.stderr


def test_a_real_camera(classify: Program, model: Path) -> None:
    """Whatever the first camera delivers is answered."""
    if not Path("/dev/video0").exists():
        pytest.skip("needs a camera at /dev/video0 (or the kernel's vivid or v4l2loopback)")
    done = classify(model, "--camera", "/dev/video0", "--count", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 3
