# SPDX-License-Identifier: Apache-2.0
"""Models that take something else than pixels at the network's size, or answer more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Model, Preprocess, open_model
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.errors import (
    HeadMismatchError,
    InputError,
    ModelFileError,
    OutputMissingError,
)
from edge_imprint_runtime.frames import rgb_to_frame
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.teaching import teach

MakeHead = Callable[..., Head]

FRAMES = [
    Frame("rgb", 24, 40),
    Frame("bgr", 24, 40),
    Frame("nv12", 24, 40),
    Frame("yuyv", 24, 40, "bt709", "full"),
]


def photo(height: int = 24, width: int = 40, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    found: npt.NDArray[np.uint8] = np.asarray(coarse.resize((width, height)))
    return found


# Embeddings --------------------------------------------------------------------------------


@pytest.fixture
def head_model(make_head: MakeHead, tmp_path: Path) -> Callable[..., Model]:
    """Return a function of a head: the model of that head alone, opened."""

    def make(head: Head, **options: object) -> Model:
        path = tmp_path / "head.onnx"
        path.write_bytes(to_bytes(fuse_head(head, **options)))  # type: ignore[arg-type]
        if "teachable" in options:
            head.save(head_beside(path), force=True)
        return open_model(path, "cpu")

    return make


@pytest.mark.parametrize("with_backbone", [True, False])
def test_a_head_alone_takes_embeddings(
    head_model: Callable[..., Model], make_head: MakeHead, with_backbone: bool
) -> None:
    head = make_head() if with_backbone else make_head(backbone=None)
    model = head_model(head)
    rows = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    assert model.input_shape == (8,)
    assert model.input_dtype == np.float32
    np.testing.assert_allclose(model.predict(rows).scores, head.scores(rows), atol=1e-5)
    assert model.predict(rows[0])[0].index == head.predict(rows[:1])[0]


def test_a_head_alone_takes_no_photos(
    head_model: Callable[..., Model], make_head: MakeHead
) -> None:
    model = head_model(make_head())
    message = (
        "the model has no backbone and takes embeddings, not photos: give it float32 of shape "
        "(N, 8)"
    )
    for call in (model.predict, model.prepare):
        with pytest.raises(InputError) as caught:
            call([Image.fromarray(photo())])
        assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        model.predict(np.zeros((2, 7), np.float32))
    assert str(caught.value) == (
        "images must be float32 of shape (N, 8) with N >= 1, got float32 (2, 7)"
    )
    with pytest.raises(OutputMissingError) as missing:
        model.embed(np.zeros((1, 8), np.float32))
    assert str(missing.value) == (
        "the model has no backbone: it takes embeddings, and makes none"
    )


def test_a_head_alone_is_taught_embeddings(
    head_model: Callable[..., Model], make_head: MakeHead, tmp_path: Path
) -> None:
    head = make_head(backbone=None)
    model = head_model(head, teachable=Teachable())
    rows = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    taught = model.teach("new", rows)
    assert np.array_equal(taught.proxies, teach(head, "new", rows).proxies)
    np.testing.assert_allclose(model.predict(rows).scores, taught.scores(rows), atol=1e-5)
    make_head().save(head_beside(tmp_path / "head.onnx"), force=True)
    with pytest.raises(HeadMismatchError, match="made with another backbone"):
        open_model(tmp_path / "head.onnx")


# Camera frames -----------------------------------------------------------------------------


@pytest.fixture
def frame_model(
    tiny_backbone: bytes, make_head: MakeHead, tiny_info: BackboneInfo, tmp_path: Path
) -> Callable[[Frame], Model]:
    """Return a function of a frame: a model that takes such frames, opened."""

    def make(frame: Frame) -> Model:
        p = tiny_info.preprocess
        kind = "linear" if frame.any_size else p.interpolation
        sides = (p.height, p.width, "crop", p.resize_height, p.resize_width)
        preprocess = Preprocess(*sides, kind, p.mean, p.std)
        info = BackboneInfo("tiny", "packaged", tiny_info.digest, preprocess)
        model = fuse(
            tiny_backbone,
            make_head(backbone=info),
            input="frame",
            frame=frame,
            teachable=Teachable(),
        )
        path = tmp_path / "frame.onnx"
        path.write_bytes(to_bytes(model))
        make_head(backbone=info).save(head_beside(path), force=True)
        return open_model(path, "cpu")

    return make


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.format)
def test_a_photo_of_a_frames_size_is_a_frame(
    frame_model: Callable[[Frame], Model], frame: Frame, tmp_path: Path
) -> None:
    model, pixels = frame_model(frame), photo()
    frames = rgb_to_frame(pixels[np.newaxis], frame)
    assert model.input_shape == frames.shape[1:]
    assert model.input_dtype == np.uint8
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    given = [tmp_path / "photo.png", Image.fromarray(pixels), frames, frames[0]]
    answers = [model.predict(form) for form in given]
    assert all(np.array_equal(answer.scores, answers[0].scores) for answer in answers)
    assert np.array_equal(model.prepare(given[:2]), np.concatenate([frames, frames]))  # type: ignore[arg-type]
    taught = model.teach("new", given[:1])  # type: ignore[arg-type]
    assert np.array_equal(taught.samples, model.embed(frames))  # type: ignore[arg-type]
    assert model.predict(frames)[0].label == "new"


def test_a_photo_of_another_size_is_no_frame(frame_model: Callable[[Frame], Model]) -> None:
    model = frame_model(FRAMES[0])
    with pytest.raises(InputError) as caught:
        model.predict([Image.fromarray(photo()), Image.fromarray(photo(24, 41))])
    assert str(caught.value) == (
        "the model takes camera frames of 40 x 24 pixels, a photo has 41 x 24; give photos of "
        "that size, or export with --input uint8"
    )
    with pytest.raises(InputError) as caught:
        model.predict(np.zeros((1, 40, 24, 3), np.uint8))
    assert str(caught.value) == (
        "images must be uint8 of shape (N, 24, 40, 3) with N >= 1, got uint8 (1, 40, 24, 3); "
        "prepare photos with Model.prepare"
    )
    with pytest.raises(InputError, match=r"got uint8 \(0, 24, 40, 3\)"):
        model.predict([])


def test_frames_of_any_size(frame_model: Callable[[Frame], Model]) -> None:
    model = frame_model(Frame("bgr"))
    assert model.input_shape == (0, 0, 3)
    for height, width in ((24, 40), (31, 17)):
        pixels = photo(height, width)
        bgr = np.ascontiguousarray(pixels[np.newaxis, ..., ::-1])
        answer = model.predict(Image.fromarray(pixels))
        assert np.array_equal(answer.scores, model.predict(bgr).scores)
        assert len(model.predict([Image.fromarray(pixels)] * 3)) == 3
    with pytest.raises(InputError) as caught:
        model.predict([Image.fromarray(photo(24, 40)), Image.fromarray(photo(31, 17))])
    assert str(caught.value) == (
        "the model takes frames of any size, but those of one call must have one size; give "
        "photos one by one"
    )
    with pytest.raises(InputError, match=r"of shape \(N, any, any, 3\) with N >= 1"):
        model.predict(np.zeros((1, 0, 40, 3), np.uint8))


def test_a_graph_that_takes_other_frames_than_it_says(
    frame_model: Callable[[Frame], Model], tmp_path: Path
) -> None:
    frame_model(FRAMES[0])
    data = (tmp_path / "frame.onnx").read_bytes()
    assert b"frame rgb 24x40" in data
    (tmp_path / "frame.onnx").write_bytes(data.replace(b"rgb 24x40", b"rgb 40x24"))
    with pytest.raises(ModelFileError) as caught:
        open_model(tmp_path / "frame.onnx")
    assert str(caught.value) == (
        f"{tmp_path / 'frame.onnx'}: the graph's input is tensor(uint8) ['N', 24, 40, 3], its "
        "metadata say tensor(uint8) [40, 24, 3]; export the model again"
    )


# More answers ------------------------------------------------------------------------------


def test_the_nearest_proxy_on_request(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    head, path = make_head(4, 5), tmp_path / "m.onnx"
    outputs = ("scores", "label", "embedding", "proxy")
    path.write_bytes(to_bytes(fuse(tiny_backbone, head, outputs=outputs)))
    model = open_model(path, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    answer = model.predict(images)
    similarity = head.comparison().similarity(model.embed(images))
    assert answer.proxy is not None
    assert np.array_equal(answer.proxy, similarity.argmax(axis=1))
    assert answer[3].proxy == int(answer.proxy[3])
    assert type(answer[3].proxy) is int


def test_without_it_there_is_none(tiny_model: Path) -> None:
    answer = open_model(tiny_model, "cpu").predict(np.zeros((1, 16, 16, 3), np.uint8))
    assert answer.proxy is None
    assert answer[0].proxy is None
