# SPDX-License-Identifier: Apache-2.0
"""`ei-classify` answers frames of stdin and of named pipes, one by one, as Python would."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
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
from tests.c.shop import Done, MakeModel, Program, picture

MakeHead = Callable[..., Head]

NV12 = Frame("nv12", 24, 40, "bt709", "full")


# ------------------------------------------------------------------------------- frames --


def expected_of(model: Path, rows: npt.NDArray[np.generic]) -> list[tuple[str, float]]:
    return [(one.label, one.score) for one in open_model(model, "cpu").predict(rows)]


def answers(done: Done) -> list[tuple[str, float]]:
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["frame"] for one in told] == list(range(len(told)))
    return [(one["label"], one["score"]) for one in told]


def agree(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [label for label, _ in found] == [label for label, _ in wanted]
    assert [s for _, s in found] == pytest.approx([s for _, s in wanted], rel=1e-6, abs=1e-6)


FRAMES = [
    Frame("rgb", 24, 40),
    Frame("bgr", 24, 40),
    NV12,
    Frame("nv12", 24, 40),
    Frame("yuyv", 24, 40, "bt709", "limited"),
    Frame("yuyv", 24, 40, "bt601", "full"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.format}-{frame.levels}")
def test_frames_from_stdin(classify: Program, make_model: MakeModel, frame: Frame) -> None:
    """Into a model of such frames as they are; into one of pixels by way of RGB."""
    rows = rgb_to_frame(np.stack([picture(seed) for seed in range(5)]), frame)
    model = make_model(input="frame", frame=frame)
    wanted = expected_of(model, rows)
    assert len({label for label, _ in wanted}) > 1
    agree(answers(classify(model, "-", "--json", text=False, input=rows.tobytes())), wanted)

    model = make_model()
    preprocess = open_model(model, "cpu").contract.backbone
    assert preprocess is not None
    rgb = frame_to_rgb(rows, frame)
    pixels = np.stack([prepare(Image.fromarray(one), preprocess.preprocess) for one in rgb])
    options = ["--frame", "40x24", "--format", frame.format, "--json"]
    if frame.is_yuv:
        options.append(f"--frame-colour={frame.matrix},{frame.levels}")
    done = classify(model, "-", *options, text=False, input=rows.tobytes())
    agree(answers(done), expected_of(model, pixels))


def test_frames_for_a_model_of_any_size(
    classify: Program, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    head = make_head()
    assert head.backbone is not None
    preprocess = replace(head.backbone.preprocess, interpolation="linear")
    info = replace(head.backbone, preprocess=preprocess)
    model = tmp_path / "any.onnx"
    made = fuse(tiny_backbone, make_head(backbone=info), input="frame", frame=Frame("rgb"))
    model.write_bytes(to_bytes(made))
    frame = Frame("yuyv", 24, 40)
    rows = rgb_to_frame(np.stack([picture(seed) for seed in range(3)]), frame)
    wanted = expected_of(model, frame_to_rgb(rows, frame))
    options = ("--frame", "40x24", "--format", "yuyv", "--json")
    agree(answers(classify(model, "-", *options, text=False, input=rows.tobytes())), wanted)
    bgr = frame_to_rgb(rows, frame)[..., ::-1].tobytes()
    options = ("--frame", "40x24", "--format", "bgr", "--json")
    agree(answers(classify(model, "-", *options, text=False, input=bgr)), wanted)
    done = classify(model, "-")
    assert (done.returncode, "say with --frame" in done.stderr) == (2, True)


def test_answers_come_one_by_one(classify: Program, make_model: MakeModel) -> None:
    """The answer to a frame is there before the next one comes."""
    model = make_model(input="frame", frame=Frame("rgb", 24, 40))
    with subprocess.Popen(
        [classify.path, model, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=classify.environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(picture(number).tobytes())
            process.stdin.flush()
            assert process.stdout.readline().startswith(b"frame %d: 'class " % number)
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(300) == 0


def test_a_torn_frame_is_an_error(classify: Program, make_model: MakeModel) -> None:
    model = make_model(input="frame", frame=NV12)
    (row,) = rgb_to_frame(picture(0)[np.newaxis], NV12)
    done = classify(model, "-", text=False, input=row.tobytes() + row.tobytes()[:100])
    assert done.returncode == 1
    assert done.stdout.decode().count("\n") == 1
    assert done.stderr.decode() == (
        "error: stdin ended within frame 1: 100 of 1440 bytes came; write whole frames of "
        "40 x 24 nv12, or say otherwise with --frame and --format\n"
    )
    done = classify(model, "-", text=False, input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = classify(model, "-", "--count", 1, text=False, input=row.tobytes() * 3)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)


def test_writers_that_follow_at_once_lose_nothing(
    classify: Program, make_model: MakeModel, tmp_path: Path
) -> None:
    """One may begin while the program sees that the one before left."""
    model = make_model(input="frame", frame=Frame("rgb", 24, 40))
    pipe, frame, count = tmp_path / "frames", picture(1).tobytes(), 3_000
    os.mkfifo(pipe)
    with subprocess.Popen(
        [classify.path, model, "--pipe", pipe, "--count", str(count)],
        stdout=subprocess.PIPE,
        env=classify.environment,
    ) as process:
        stop = threading.Timer(300, process.kill)
        stop.start()
        assert process.stdout is not None
        for number in range(count):
            pipe.write_bytes(frame)  # when it has just answered, and looks for more
            assert process.stdout.readline().startswith(b"frame %d: " % number)
        assert process.wait(300) == 0
        stop.cancel()


def test_a_named_pipe_outlives_its_writers(
    classify: Program, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(input="frame", frame=Frame("rgb", 24, 40))
    pipe, frame = tmp_path / "frames", picture(1).tobytes()
    with subprocess.Popen(
        [classify.path, model, "--pipe", pipe, "--count", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=classify.environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        stop = threading.Timer(300, process.kill)
        stop.start()
        while not pipe.exists():  # the program makes it
            assert process.poll() is None
        assert process.stdout is not None
        pipe.write_bytes(frame * 2)
        assert process.stdout.readline().startswith("frame 0: ")
        assert process.stdout.readline().startswith("frame 1: ")
        pipe.write_bytes(frame[:1000])
        assert f"{pipe} ended within frame 2: 1000 of 2880 bytes" in process.stderr.readline()
        pipe.write_bytes(frame * 2)
        assert process.stdout.readline().startswith("frame 2: ")
        assert process.stdout.readline().startswith("frame 3: ")
        assert process.wait(300) == 0
        stop.cancel()
    done = classify(model, "--pipe", model)
    assert done.returncode == 1
    assert "is no named pipe; name one, or a path where one can be made" in done.stderr
    done = classify(model, "--pipe", tmp_path / "no" / "pipe")
    assert done.returncode == 1
    assert "cannot make the pipe" in done.stderr


def test_frames_that_the_model_does_not_take(classify: Program, make_model: MakeModel) -> None:
    model = make_model(input="frame", frame=NV12)
    for options, message in (
        (("--format", "yuyv"), "the model takes frames of nv12, not of yuyv"),
        (("--frame", "80x24"), "the model takes frames of 40 x 24 pixels, not of 80 x 24"),
        (
            ("--frame-colour", "full"),
            "the model says itself what the colours of its frames are",
        ),
    ):
        done = classify(model, "-", *options)
        assert (done.returncode, done.stderr) == (
            2,
            f"error: {message}; see 'ei-classify --help'\n",
        )
