# SPDX-License-Identifier: Apache-2.0
"""The C library's answers are Python's, on models of every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.precision import to_half, to_int8
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, open_model
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.knowledge import head_beside
from tests.c import binding
from tests.c.answers import both, noise, same
from tests.c.binding import CallError, Library, Predictions, images_of

MakeHead = Callable[..., Head]
Fused = Callable[..., Path]
Array = npt.NDArray[Any]

RULES: dict[str, dict[str, Any]] = {
    "max": {},
    "cosine": {"distance": "cosine", "norm": "none"},
    "euclidean": {"distance": "euclidean"},
    "manhattan": {"distance": "manhattan"},
    "mahalanobis": {"distance": "mahalanobis"},
    "votes": {"aggregation": "mnn", "neighbors": 3},
    "weighted votes": {
        "aggregation": "mnn",
        "neighbors": 3,
        "distance": "euclidean",
        "weighting": "distance",
    },
    "mapped": {"center": True, "transform": True},
    "calibrated": {"calibrated": True},
}


@pytest.fixture
def fused(tiny_backbone: bytes, tmp_path: Path) -> Fused:
    """Return ``make(head, **options of fuse)``: the file of a fused model."""

    def make(head: Head, **options: Any) -> Path:
        path = tmp_path / "m.onnx"
        options = {"outputs": ("scores", "label", "embedding")} | options
        path.write_bytes(to_bytes(fuse(tiny_backbone, head, **options)))
        return path

    return make


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 7])
def test_pixels(ei: Library, fused: Fused, make_head: MakeHead, rule: str, count: int) -> None:
    ours, python = both(ei, fused(make_head(5, 3, **RULES[rule])))
    images = noise(count, 16, 16, 3)
    same(ours.predict(images), python.predict(images))
    assert np.array_equal(ours.embed(images), python.embed(images))


@pytest.mark.parametrize("rule", ["max", "votes", "calibrated"])
def test_which_proxy(ei: Library, fused: Fused, make_head: MakeHead, rule: str) -> None:
    outputs = ("scores", "label", "proxy")
    ours, python = both(ei, fused(make_head(5, 3, **RULES[rule]), outputs=outputs))
    images = noise(9, 16, 16, 3)
    answer = python.predict(images)
    assert answer.proxy is not None
    same(ours.predict(images), answer)


def test_some_are_known_and_some_are_not(
    ei: Library, fused: Fused, make_head: MakeHead
) -> None:
    path = fused(make_head(calibrated=True))
    embeddings = open_model(path, "cpu").embed(noise(60, 16, 16, 3))
    ours, python = both(ei, fused(make_head(calibrated=embeddings)))
    found = ours.predict(noise(60, 16, 16, 3))
    same(found, python.predict(noise(60, 16, 16, 3)))
    knows = [found[i].known for i in range(60)]
    assert 10 < sum(knows) < 50
    assert all((found[i].label == "unknown") != bool(known) for i, known in enumerate(knows))
    assert all(found[i].nearest.startswith("class ") for i in range(60))


def test_colours_the_other_way_round(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    ours, python = both(ei, fused(make_head()))
    images = noise(3, 16, 16, 3)
    bgr = np.ascontiguousarray(images[..., ::-1])
    same(ours.predict(bgr, binding.BGR8), python.predict(images))
    mixed = images_of([bgr[0], images[1], bgr[2]], binding.BGR8)
    mixed[1].format = binding.RGB8
    same(ours.predict(mixed), python.predict(images))


def test_float32(
    ei: Library, fused: Fused, make_head: MakeHead, tiny_info: BackboneInfo
) -> None:
    ours, python = both(ei, fused(make_head(), input="float32"))
    images = noise(5, 16, 16, 3)
    floats = normalize(images, tiny_info.preprocess)
    answer = python.predict(floats)
    about = ours.describe()
    assert (about["format"], about["width"], about["height"]) == (binding.FLOAT32, 16, 16)
    same(ours.predict(floats, binding.FLOAT32), answer)
    same(ours.predict(images, binding.RGB8), answer)  # normalised bit by bit alike
    same(ours.predict(np.ascontiguousarray(images[..., ::-1]), binding.BGR8), answer)
    mixed = images_of(images)
    mixed[3] = binding.image(floats[3], binding.FLOAT32)
    same(ours.predict(mixed), answer)


@pytest.mark.parametrize("backbone", [True, False])
def test_embeddings(ei: Library, make_head: MakeHead, tmp_path: Path, backbone: bool) -> None:
    head = make_head(calibrated=True, **({} if backbone else {"backbone": None}))
    path = tmp_path / "head.onnx"
    path.write_bytes(to_bytes(fuse_head(head)))
    ours, python = both(ei, path)
    rows = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    about = ours.describe()
    assert (about["format"], about["width"], about["height"]) == (binding.FLOAT32, 8, 1)
    assert not about["can_embed"]
    same(ours.predict(rows, binding.FLOAT32), python.predict(rows))
    with pytest.raises(CallError) as caught:
        ours.embed(rows, binding.FLOAT32)
    assert caught.value.message == (
        "the model has no backbone: it takes embeddings, and makes none"
    )


FRAMES = [
    Frame("rgb", 24, 40),
    Frame("bgr", 24, 40),
    Frame("nv12", 24, 40),
    Frame("yuyv", 24, 40, "bt709", "full"),
    Frame("bgr"),
    Frame("rgb"),
]


@pytest.fixture
def frame_model(
    fused: Fused, make_head: MakeHead, tiny_info: BackboneInfo
) -> Callable[[Frame], Path]:
    """Return a function of a frame: the file of a model that takes such."""

    def make(frame: Frame) -> Path:
        p = tiny_info.preprocess
        kind = "linear" if frame.any_size else p.interpolation
        sides = (p.height, p.width, "crop", p.resize_height, p.resize_width)
        preprocess = Preprocess(*sides, kind, p.mean, p.std)
        info = BackboneInfo("tiny", "packaged", tiny_info.digest, preprocess)
        return fused(make_head(backbone=info), input="frame", frame=frame)

    return make


def frames_of(frame: Frame, count: int, height: int = 24, width: int = 40) -> Array:
    """Make frames as Python's runtime takes them."""
    if frame.format == "nv12":
        return noise(count, height * 3 // 2, width)
    return noise(count, height, width, 2 if frame.format == "yuyv" else 3)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame.format}{frame.height}")
@pytest.mark.parametrize("padding", [0, 1, 24])
def test_frames(
    ei: Library, frame_model: Callable[[Frame], Path], frame: Frame, padding: int
) -> None:
    ours, python = both(ei, frame_model(frame))
    about, form = ours.describe(), binding.FORMATS[frame.format]
    assert (about["format"], about["width"], about["height"]) == (
        form,
        frame.width,
        frame.height,
    )
    found = Predictions(ei)
    for sides in [(24, 40), (30, 52)] if frame.any_size else [(24, 40)]:
        for count in (1, 3):
            frames = frames_of(frame, count, *sides)
            given = images_of(frames, form, padding)
            same(ours.predict(given, again=found), python.predict(frames))


def test_chroma_elsewhere(ei: Library, frame_model: Callable[[Frame], Path]) -> None:
    ours, python = both(ei, frame_model(FRAMES[2]))
    frames = frames_of(FRAMES[2], 2)
    given = images_of(frames, binding.NV12)
    planes = [np.ascontiguousarray(frame[24:]) for frame in frames]
    for one, plane in zip(given, planes, strict=True):
        one.chroma = plane.ctypes.data
    same(ours.predict(given), python.predict(frames))
    for position, one in enumerate(given):  # where it lies anyhow
        one.chroma = one.data + 24 * 40
        assert np.array_equal(frames[position][24:], planes[position])
    same(ours.predict(given), python.predict(frames))


@pytest.mark.parametrize("form", ["default", "input"])
def test_teachable(ei: Library, fused: Fused, make_head: MakeHead, form: str) -> None:
    head = make_head(calibrated=True)
    path = fused(head, teachable=Teachable(form, 6, 3))
    make_head(5, 2, seed=4, calibrated=True).save(head_beside(path), force=True)
    ours, python = both(ei, path)
    images = noise(6, 16, 16, 3)
    same(ours.predict(images), python.predict(images))
    assert ours.labels == python.labels
    ours.teach("new", images[:3])
    python.teach("new", images[:3])
    assert ours.labels == (*make_head(5).labels, "new")
    same(ours.predict(images), python.predict(images), exact=False)
    ours.save_head()
    written = head_beside(path).read_bytes()
    python.save_head()
    assert written == head_beside(path).read_bytes()
    ours.forget("class 2")
    python.forget("class 2")
    same(ours.predict(images), python.predict(images), exact=False)
    ours.load_head()
    assert "class 2" in ours.labels


def test_a_teachable_model_of_embeddings(
    ei: Library, make_head: MakeHead, tmp_path: Path
) -> None:
    head, path = make_head(backbone=None), tmp_path / "head.onnx"
    path.write_bytes(to_bytes(fuse_head(head, teachable=Teachable())))
    head.save(head_beside(path))
    ours, python = both(ei, path)
    rows = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    ours.teach("new", rows, binding.FLOAT32)
    python.teach("new", rows)
    same(ours.predict(rows, binding.FLOAT32), python.predict(rows), exact=False)
    ours.teach_embeddings("other", rows[:2])
    assert ours.labels[-2:] == ("new", "other")


def test_without_a_head_file_the_models_own_classes(
    ei: Library, fused: Fused, make_head: MakeHead, tmp_path: Path
) -> None:
    path = fused(make_head(), teachable=Teachable())
    other, images = make_head(6, seed=9), noise(4, 16, 16, 3)
    other.save(head_beside(path))
    own = ei.open(path, head="")
    assert own.labels == make_head().labels
    with pytest.raises(CallError) as caught:
        own.teach("new", images)
    assert caught.value.status == "EI_HEAD_FILE"
    found = own.predict(images)
    own.load_head()
    assert own.labels == other.labels
    python = open_model(path, "cpu")
    same(own.predict(images, again=found), python.predict(images))
    elsewhere = tmp_path / "elsewhere.head"
    make_head(4, seed=3).save(elsewhere)
    assert len(ei.open(path, head=elsewhere).labels) == 4


def test_from_memory(ei: Library, fused: Fused, make_head: MakeHead, tmp_path: Path) -> None:
    path = fused(make_head(), teachable=Teachable())
    make_head(5, seed=2).save(head_beside(path))
    model = ei.open_buffer(path.read_bytes())
    images = noise(4, 16, 16, 3)
    assert model.labels == make_head().labels  # no head is looked for
    same(model.predict(images), open_model(fused(make_head()), "cpu").predict(images))
    model.load_head(head_beside(path))
    assert len(model.labels) == 5
    for call in (model.save_head, model.load_head):
        with pytest.raises(CallError) as caught:
            call()
        assert caught.value.status == "EI_INVALID_ARGUMENT"
    model.save_head(tmp_path / "saved.head")
    assert (tmp_path / "saved.head").read_bytes() == head_beside(path).read_bytes()


@pytest.mark.parametrize("precision", ["fp16", "int8", "exact"])
def test_smaller_models(
    ei: Library, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path, precision: str
) -> None:
    graph = onnx.load_from_string(tiny_backbone)
    path = tmp_path / "m.onnx"
    if precision == "fp16":
        graph = to_half(graph)
    elif precision == "int8":
        rows = np.random.default_rng(3).standard_normal((20, 3, 16, 16)).astype(np.float32)
        graph = to_int8(graph, [rows], dialect="onnxruntime")
    kind = "fp32" if precision == "exact" else precision
    outputs = ("scores", "label", "embedding")
    head = make_head(20, 3)
    made = fuse(graph, head, precision=kind, head_precision=precision, outputs=outputs)
    path.write_bytes(to_bytes(made))
    ours, python = both(ei, path)
    assert ours.describe()["precision"] == kind
    images = noise(5, 16, 16, 3)
    same(ours.predict(images), python.predict(images))
    assert np.array_equal(ours.embed(images), python.embed(images))
