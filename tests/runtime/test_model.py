# SPDX-License-Identifier: Apache-2.0
"""A model on a device: all it needs from the one file, and no answer from a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Model, Prediction, Predictions, Preprocess, open_model
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ContractKeyError,
    ContractValueError,
    ContractVersionError,
    EdgeImprintError,
    InputError,
    LabelCountError,
    ModelFileError,
    NoContractError,
    OutputMissingError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import normalize, prepare

MakeHead = Callable[..., Head]
Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return open_model(tiny_model, "cpu", threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three photo files of three sizes and formats."""
    rng = np.random.default_rng(3)
    paths = []
    for name, size in (("a.png", (30, 20)), ("b.webp", (16, 16)), ("c.bmp", (50, 61))):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        paths.append(tmp_path / name)
        Image.fromarray(pixels).save(paths[-1], lossless=True)
    return paths


@pytest.fixture
def edited(tiny_model: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Return a function that writes the tiny model anew, after an edit."""

    def edit(change: Edit) -> Path:
        proto = onnx.load(tiny_model)
        change(proto)
        path = tmp_path / "edited.onnx"
        path.write_bytes(to_bytes(proto))
        return path

    return edit


def set_metadata(key: str, value: str | None) -> Edit:
    def change(proto: onnx.ModelProto) -> None:
        kept = {p.key: p.value for p in proto.metadata_props if p.key != f"edge_imprint.{key}"}
        new = {} if value is None else {f"edge_imprint.{key}": value}
        helper.set_model_props(proto, kept | new)

    return change


def equal(a: Predictions, b: Predictions) -> bool:
    return np.array_equal(a.label, b.label) and bool(
        np.allclose(a.scores, b.scores, rtol=0, atol=1e-6)
    )


def test_all_from_the_one_file(model: Model, make_head: MakeHead) -> None:
    head = make_head()
    assert model.labels == head.labels
    assert model.contract.backbone == head.backbone
    assert model.contract.rule == head.rule
    assert model.input_shape == (16, 16, 3)
    assert model.input_dtype == np.uint8
    assert model.provider == "CPUExecutionProvider"


def test_a_photo_is_the_same_in_each_form(
    model: Model, photos: list[Path], tiny_preprocess: Preprocess
) -> None:
    for path in photos:
        with Image.open(path) as image:
            pixels = prepare(image.convert("RGB"), tiny_preprocess)
            answers = [model.predict(image)]
        answers += [model.predict(form) for form in (path, str(path), [path])]
        answers += [model.predict(pixels), model.predict(pixels[np.newaxis])]
        assert all(len(answer) == 1 for answer in answers)
        assert all(equal(answer, answers[0]) for answer in answers)


def test_a_batch_is_its_photos_one_by_one(model: Model, photos: list[Path]) -> None:
    with Image.open(photos[2]) as image:
        batch = model.predict([photos[0], str(photos[1]), image])
    assert len(batch) == 3
    for number, path in enumerate(photos):
        one = model.predict(path)
        assert one[0].label == batch[number].label
        np.testing.assert_allclose(batch.scores[number], one.scores[0], rtol=0, atol=1e-6)


def test_predictions_are_a_sequence(model: Model, photos: list[Path]) -> None:
    answers = model.predict(photos)
    assert answers.scores.shape == (3, 3)
    assert answers.scores.dtype == np.float32
    assert answers.label.shape == (3,)
    assert answers.label.dtype == np.int32
    items = list(answers)
    assert len(items) == len(answers) == 3
    assert items == [answers[0], answers[1], answers[-1]]
    assert items[::-1] == list(reversed(answers))
    assert items[1] in answers
    for row, item in zip(answers.scores, items, strict=True):
        name, index = model.labels[row.argmax()], int(row.argmax())
        assert item == Prediction(name, index, row.max(), nearest=name)
        assert [type(value) for value in (item.index, item.score)] == [int, float]
    with pytest.raises(IndexError):
        answers[3]


def test_the_float32_form_takes_normalized_images(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path, model: Model, photos: list[Path]
) -> None:
    fused = fuse(tiny_backbone, make_head(), input="float32")
    (tmp_path / "float32.onnx").write_bytes(to_bytes(fused))
    other = open_model(tmp_path / "float32.onnx")
    assert other.input_shape == (3, 16, 16)
    assert other.input_dtype == np.float32
    assert equal(other.predict(photos), model.predict(photos))
    pixels = np.asarray(model.prepare(photos), np.uint8)
    assert model.contract.backbone is not None
    floats = normalize(pixels, model.contract.backbone.preprocess)
    assert np.array_equal(other.prepare(photos), floats)
    assert equal(other.predict(floats), model.predict(pixels))
    with pytest.raises(InputError, match=r"must be float32 of shape \(N, 3, 16, 16\)"):
        other.predict(pixels)


def test_embed(model: Model, make_head: MakeHead, photos: list[Path]) -> None:
    embeddings = model.embed(photos)
    assert embeddings.shape == (3, 8)
    assert embeddings.dtype == np.float32
    scores = make_head().scores(embeddings)
    np.testing.assert_allclose(model.predict(photos).scores, scores, rtol=0, atol=1e-5)


def test_embed_without_the_output(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(fuse(tiny_backbone, make_head())))
    with pytest.raises(OutputMissingError, match="--embedding"):
        open_model(tmp_path / "m.onnx").embed(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((1, 16, 16, 3), np.int64),
        np.zeros((1, 16, 16, 3), bool),
        np.zeros((1, 3, 16, 16), np.uint8),
        np.zeros((1, 17, 16, 3), np.uint8),
        np.zeros((16, 16), np.uint8),
        np.zeros((0, 16, 16, 3), np.uint8),
        np.zeros((1, 1, 16, 16, 3), np.uint8),
        np.array(1, np.uint8),
        [],
    ],
)
def test_images_that_are_none(model: Model, images: npt.NDArray[np.uint8]) -> None:
    for call in (model.predict, model.embed):
        with pytest.raises(
            InputError, match=r"images must be uint8 of shape \(N, 16, 16, 3\)"
        ):
            call(images)


@pytest.mark.parametrize("item", [np.zeros((16, 16, 3), np.uint8), None, 7, b"a.png"])
def test_items_that_are_no_photos(model: Model, photos: list[Path], item: object) -> None:
    for call in (model.predict, model.embed, model.prepare):
        with pytest.raises(InputError, match="a photo must be a path or a Pillow image, got"):
            call([photos[0], item])  # type: ignore[list-item]


def test_photos_that_cannot_be_read(model: Model, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(BrokenImageError, match=r"text\.jpg"):
        model.predict([photos[0], tmp_path / "text.jpg"])
    with pytest.raises(UnreadableImageError, match=r"missing\.jpg"):
        model.predict([*photos, tmp_path / "missing.jpg"])


def test_files_that_are_no_model(tmp_path: Path, tiny_model: Path) -> None:
    whole = tiny_model.read_bytes()
    for name, data in (
        ("text", b"no model"),
        ("empty", b""),
        ("half", whole[: len(whole) // 2]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelFileError, match=name) as caught:
            open_model(tmp_path / name)
        assert "\n" not in str(caught.value)
    for path in (tmp_path / "missing.onnx", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(ModelFileError, match="there is no model file"):
            open_model(path)
    with pytest.raises(ModelFileError, match="is a folder; name a model file"):
        open_model(tmp_path)


def test_a_model_of_another_tool(tmp_path: Path, tiny_backbone: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_backbone)
    with pytest.raises(NoContractError, match=r"m\.onnx carries no edge-imprint metadata"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("version", "2", ContractVersionError),
        ("version", None, ContractVersionError),
        ("slots", None, ContractKeyError),
        ("novelty", "1", ContractKeyError),
        ("labels", "a, b, c", ContractValueError),
        ("labels", '["a","b"]', LabelCountError),
        ("labels", '["a","b","c","d"]', LabelCountError),
        ("input", "float32 NCHW RGB", ModelFileError),
        (
            "preprocess",
            "resize=crop:32x32 interpolation=bilinear size=32x32 mean=0,0,0 std=1,1,1",
            ModelFileError,
        ),
    ],
)
def test_metadata_that_do_not_fit_the_graph(
    edited: Callable[[Edit], Path], key: str, value: str | None, error: type[EdgeImprintError]
) -> None:
    with pytest.raises(error, match=r"edited\.onnx"):
        open_model(edited(set_metadata(key, value)))


@pytest.mark.parametrize("name", ["scores", "label"])
def test_a_graph_without_an_output(edited: Callable[[Edit], Path], name: str) -> None:
    def drop(proto: onnx.ModelProto) -> None:
        kept = [value for value in proto.graph.output if value.name != name]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)

    with pytest.raises(ModelFileError, match=f"no output '{name}'"):
        open_model(edited(drop))


def test_a_pillow_image_is_treated_as_its_file(model: Model, tmp_path: Path) -> None:
    """Transparency, 16 bits and EXIF rotation: the answer is that for the path."""
    rng = np.random.default_rng(3)
    rgba = Image.fromarray(rng.integers(0, 256, (24, 40, 4), np.uint8), "RGBA")
    rgba.save(tmp_path / "rgba.png")
    deep = rng.integers(0, 65536, (24, 40)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    turned, exif = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    for name in ("rgba.png", "deep.png", "turned.png"):
        with Image.open(tmp_path / name) as image:
            opened = model.prepare([image])
        assert np.array_equal(opened, model.prepare([tmp_path / name])), name
