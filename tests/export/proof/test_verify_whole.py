# SPDX-License-Identifier: Apache-2.0
"""A whole verification passes the true model in every form, and finds what is amiss."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from edge_imprint_export import fuse, save
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import parse
from edge_imprint_export.precision import to_half, to_int8
from edge_imprint_export.proof.result import Whole
from edge_imprint_export.proof.whole import verify_whole
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    NoImagesError,
    ParameterError,
    UnsafeModelError,
    VerificationError,
)
from edge_imprint_runtime.images import normalize, photo_pixels
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.teaching import teach

MakeHead = Callable[..., Head]
Photos = list[tuple[Image.Image, int]]


def pictures(count: int = 20, size: tuple[int, int] = (24, 20)) -> Photos:
    """Return photos of noise in three moods, each with a class or, every fifth, none."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        mood = rng.integers(40, 216, 3)
        pixels = np.add(mood, rng.integers(-40, 40, (*size, 3))).clip(0, 255)
        image = Image.fromarray(pixels.astype(np.uint8))
        found.append((image, -1 if number % 5 == 0 else number % 3))
    return found


@pytest.fixture
def head(make_head: MakeHead) -> Head:
    return make_head()


def whole(
    path: Path, head: Head, backbone: bytes, photos: Sequence[Any] | None = None, **more: Any
) -> Whole:
    return verify_whole(path, head, backbone, pictures() if photos is None else photos, **more)


# The true model ------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    "uint8": {},
    "float32": {"input": "float32"},
    "teachable": {"teachable": True},
    "teachable, no default": {"teachable": True, "target": "jetpack-6.2"},
    "camera frames": {"input": "frame", "frame": Frame("rgb", 32, 40)},
    "nv12": {"input": "frame", "frame": Frame("nv12", 32, 40, "bt709", "full")},
    "all outputs": {"outputs": ("scores", "label", "embedding", "proxy")},
    "votes, calibrated": {"rule": {"aggregation": "mnn", "neighbors": 3, "calibrated": True}},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
def test_the_true_model_passes_in_every_way(
    tmp_path: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    options: dict[str, Any],
) -> None:
    options = dict(options)
    head = make_head(**options.pop("rule", {}))
    path = save(fuse(tiny_backbone, head, **options), tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone, batch=5).require()
    assert found.passed
    assert not found.reduced
    assert found.found.images == 20
    built_in = options == {"teachable": True}
    assert [way.inputs for way in found.ways] == ["photos", "random"] * (5 + built_in)
    assert found.notes == ()
    assert all(way.passed and way.failed is None for way in found.ways)
    assert all(way.difference <= 2e-4 for way in found.ways)
    assert [way.found.images for way in found.ways if way.found] == [
        *[20, 8] * (4 + built_in),
        *[2, 2],
    ]
    assert (found.batches.largest, found.batches.agreement) == (5, 1.0)
    assert (found.pixels is not None) == (options.get("input") == "frame")
    assert found.layers == found.worst_layers == ()
    assert found.accuracy == found.accuracy_float32
    assert found.accuracy is not None
    assert len(found.label) == len(found.difference) == len(found.margin) == 20


def test_frames_of_any_size(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead, head: Head
) -> None:
    assert head.backbone is not None
    preprocess = dataclasses.replace(head.backbone.preprocess, interpolation="linear")
    linear = make_head(backbone=dataclasses.replace(head.backbone, preprocess=preprocess))
    model = fuse(tiny_backbone, linear, input="frame", frame=Frame("bgr"))
    path = save(model, tmp_path / "m.onnx")
    photos = pictures(6) + pictures(4, (31, 45))
    found = whole(path, linear, tiny_backbone, photos).require()
    assert found.found.images == 10
    assert found.pixels is not None
    assert found.pixels.images == 10
    assert found.batches.images == 6  # those of one shape


def test_a_model_that_takes_embeddings(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    path = save(fuse_head(head), tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone).require()
    assert found.graph.input == "embedding"
    assert found.found.max_difference < 1e-6


def test_one_photo_and_one_class(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead
) -> None:
    head = make_head(1)
    path = save(fuse(tiny_backbone, head), tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone, pictures(1), reference=0).require()
    assert len(found.ways) == 8
    assert (found.batches.largest, found.accuracy) == (1, None)


def test_the_same_again(tmp_path: Path, tiny_backbone: bytes, head: Head) -> None:
    path = save(fuse(tiny_backbone, head), tmp_path / "m.onnx")
    one = whole(path, head, tiny_backbone)
    other = verify_whole(path, head, parse(tiny_backbone, "tiny"), pictures())
    assert json.dumps(one.summary()) == json.dumps(other.summary())


def test_photos_that_can_not_be_read_are_named(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    path = save(fuse(tiny_backbone, head), tmp_path / "m.onnx")
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos = [(tmp_path / "broken.png", 0), *pictures(3), (tmp_path / "gone.png", 1)]
    steps: list[tuple[str, int, int]] = []
    found = whole(path, head, tiny_backbone, photos, progress=lambda *step: steps.append(step))
    assert found.rows == (1, 2, 3)
    assert len(found.skipped) == 2
    assert "broken.png" in found.skipped[0]
    assert steps[:5] == [("comparing", done, 5) for done in range(1, 6)]
    assert steps[-1] == ("other ways to run it", 10, 10)
    with pytest.raises(NoImagesError, match="none of the photos can be read; name others"):
        whole(path, head, tiny_backbone, photos[:1])


# A teachable model: the head given, the one beside, and its own classes ----------------------


def reversed_proxies(path: Path) -> None:
    """Reverse the columns of the built-in proxies, where they are."""
    model = onnx.load(path)
    proxies = next(t for t in model.graph.initializer if t.name == "proxies")
    values = numpy_helper.to_array(proxies)[:, ::-1].copy()
    proxies.CopyFrom(numpy_helper.from_array(values, "proxies"))
    onnx.save(model, path)


def test_built_in_classes_that_are_wrong_are_found(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    path = save(fuse(tiny_backbone, head, teachable=True), tmp_path / "m.onnx")
    head.save(head_beside(path))
    assert whole(path, head, tiny_backbone, reference=0).require().notes == ()
    reversed_proxies(path)
    steps: list[tuple[str, int, int]] = []
    found = whole(
        path, head, tiny_backbone, reference=0, progress=lambda *step: steps.append(step)
    )
    assert found.agrees  # with the head fed in nothing is amiss
    verdicts = [(way.name, way.passed) for way in found.ways]
    assert verdicts[-2:] == [("built-in classes", False)] * 2
    assert all(passed for _, passed in verdicts[:-2])
    assert steps[-1] == ("other ways to run it", 10, 10)
    with pytest.raises(VerificationError) as caught:
        found.require()
    assert str(caught.value) == (
        "run with built-in classes on photos inputs, the model does not decide as its head: "
        f"{found.ways[-2].reason()}; export it again"
    )


def test_another_head_than_the_one_beside_is_told(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    path = save(fuse(tiny_backbone, head, teachable=True), tmp_path / "m.onnx")
    beside = head_beside(path)
    teach(head, "new", np.ones((1, 8), np.float32)).save(beside)
    found = whole(path, head, tiny_backbone, reference=0).require()
    told = (
        f"{beside} is another head than the one given; the model was run with the one given, "
        "and opens with that beside it"
    )
    assert found.notes == (told,)
    assert found.summary()["notes"] == [told]
    assert [way.name for way in found.ways][-2:] == ["built-in classes"] * 2
    beside.write_bytes(b"no head")
    assert whole(path, head, tiny_backbone, reference=0).notes == (told,)


def test_nothing_is_asked_of_built_in_classes_that_the_head_is_not_of(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    path = save(fuse(tiny_backbone, head, teachable=True), tmp_path / "m.onnx")
    row = np.full((1, 8), 0.5, np.float32)
    more, better = teach(head, "new", row), teach(head, "class 0", row)
    found = whole(path, more, tiny_backbone, reference=0).require()
    assert len(found.ways) == 8
    (told,) = found.notes
    assert told == (
        "the model's built-in classes are others than the head's, and were not run; verify it "
        "with the head that it was exported from, too"
    )
    anew = head.replaced(notes=[("build", "photos=9")])
    for other in (better, anew):
        found = whole(path, other, tiny_backbone, reference=0).require()
        assert [way.passed for way in found.ways] == [True] * 8 + [None] * 2
        (told,) = found.notes
        assert told == (
            "the head was taught, or built anew, since the export: nothing is asked of the "
            "model's built-in classes; verify it with the head that it was exported from, too"
        )
    path = save(
        fuse(tiny_backbone, head, teachable=True, target="jetpack-6.2"), tmp_path / "i.onnx"
    )
    found = whole(path, more, tiny_backbone, reference=0).require()
    assert (len(found.ways), found.notes) == (8, ())  # it holds no classes


# Less than float32 ---------------------------------------------------------------------------


def reduced(tiny_backbone: bytes, head: Head, precision: str, head_precision: str) -> Any:
    graph = parse(tiny_backbone, "tiny")
    if precision == "fp16":
        graph = to_half(graph)
    if precision == "int8":
        assert head.backbone is not None
        p = head.backbone.preprocess
        graph = to_int8(graph, [normalize(photo_pixels(i, p)[None], p) for i, _ in pictures()])
    return fuse(graph, head, precision=precision, head_precision=head_precision)


@pytest.mark.parametrize(
    ("precision", "head_precision"),
    [
        ("fp16", "fp32"),
        ("int8", "fp32"),
        ("fp32", "int8"),
        ("int8", "exact"),
        ("fp16", "fp16"),
    ],
)
def test_a_reduced_model_is_asked_for_labels(
    tmp_path: Path, tiny_backbone: bytes, head: Head, precision: str, head_precision: str
) -> None:
    path = save(reduced(tiny_backbone, head, precision, head_precision), tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone, min_agreement=0.8).require()
    assert found.reduced
    assert (found.graph.precision, found.graph.head_precision) == (precision, head_precision)
    assert 1e-6 < found.found.max_difference < 0.1
    asked = {way.inputs: way.passed for way in found.ways if way.failed is None}
    assert asked == {"photos": True, "random": None}
    assert bool(found.layers) == (precision != "fp32")
    assert sorted(found.layers, key=lambda x: -x.added) == list(found.worst_layers)
    if found.layers:
        assert found.layers[0].op == "Conv"  # from pixels to embedding
        assert 1e-5 < found.layers[-1].error < 0.2


def test_a_budget_that_is_not_kept_names_the_layers(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    model = reduced(tiny_backbone, head, "fp16", "fp32")
    bias = next(t for t in model.graph.initializer if t.name.endswith("conv1.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[:] = values[::-1] * 40
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    path = save(model, tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone)
    assert found.found.agreement < 0.99
    with pytest.raises(VerificationError) as caught:
        found.require()
    share = f"{found.found.agreement:.2%}"
    assert str(caught.value).startswith(
        f"the model decides as float32 does on {share} of 20 photos, less than the 99.00% "
        "asked for; the layers that cost most: backbone/conv1"
    )
    assert str(caught.value).endswith("; export it with more precision")
    assert whole(path, head, tiny_backbone, min_agreement=0).agrees


# What is amiss -------------------------------------------------------------------------------


def test_a_number_changed_is_found(tmp_path: Path, tiny_backbone: bytes, head: Head) -> None:
    model = fuse(tiny_backbone, head)
    proxies = next(t for t in model.graph.initializer if t.name == "proxies")
    values = numpy_helper.to_array(proxies).copy()
    values.flat[0] += 1
    proxies.CopyFrom(numpy_helper.from_array(values, "proxies"))
    found = whole(save(model, tmp_path / "m.onnx"), head, tiny_backbone)
    assert not found.passed
    assert not any(way.passed for way in found.ways)
    with pytest.raises(VerificationError, match="the model does not decide as its head: "):
        found.require()


def batch_mates(model: onnx.ModelProto) -> None:
    """Make scores depend on who is in the batch, by nothing where an image is alone."""
    made = next(node for node in model.graph.node if "scores" in node.output)
    made.output[list(made.output).index("scores")] = "own"
    for node in model.graph.node:
        node.input[:] = ["own" if name == "scores" else name for name in node.input]
    nodes = [
        helper.make_node("ReduceMean", ["own"], ["mates"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["own", "mates"], ["off"]),
        helper.make_node("Sub", ["own", "off"], ["scores"]),
    ]
    model.graph.node.extend(nodes)


def test_an_answer_that_depends_on_the_batch_is_found(
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    model = fuse(tiny_backbone, head)
    batch_mates(model)
    path = save(model, tmp_path / "m.onnx")
    found = whole(path, head, tiny_backbone, pictures(3), batch=3)
    assert not found.batches.passed
    alone = dataclasses.replace(
        found, found=dataclasses.replace(found.found, agreement=1.0, max_difference=0.0)
    )
    with pytest.raises(
        VerificationError, match=r"in batches of up to 3 the model answers other"
    ):
        alone.require()


def test_each_cause_has_its_sentence(tmp_path: Path, tiny_backbone: bytes, head: Head) -> None:
    model = fuse(tiny_backbone, head, input="frame", frame=Frame("rgb", 32, 40))
    found = whole(save(model, tmp_path / "m.onnx"), head, tiny_backbone)
    way = found.ways[3]
    assert way.found is not None
    wrong = dataclasses.replace(
        way, passed=False, found=dataclasses.replace(way.found, max_difference=0.5)
    )
    failed = dataclasses.replace(way, passed=False, found=None, failed="it broke")
    told = (
        "run with ONNX Runtime (basic) on random inputs, the model does not decide as its head"
    )
    for ways, reason in (
        ((wrong,), "100.00% of 8 labels agree, scores differ by up to 0.5"),
        ((failed,), "it broke"),
    ):
        with pytest.raises(VerificationError) as caught:
            dataclasses.replace(found, ways=ways).require()
        assert str(caught.value) == f"{told}: {reason}; export it again"
    assert found.pixels is not None
    far = dataclasses.replace(found.pixels, within_one=0.9, passed=False)
    with pytest.raises(VerificationError) as caught:
        dataclasses.replace(found, pixels=far).require()
    assert str(caught.value) == (
        "90.000% of the pixels that the model makes of camera frames are within one grey "
        "level of Pillow's, less than the 99.9 % that must be; export it again"
    )


def test_pixels_of_another_filter_are_found(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead, head: Head
) -> None:
    """The contract says one filter, the graph has another."""
    assert head.backbone is not None
    preprocess = dataclasses.replace(head.backbone.preprocess, interpolation="nearest")
    other = make_head(backbone=dataclasses.replace(head.backbone, preprocess=preprocess))
    options: dict[str, Any] = {"input": "frame", "frame": Frame("rgb", 64, 80)}
    model = fuse(tiny_backbone, other, **options)
    said = {p.key: p.value for p in fuse(tiny_backbone, head, **options).metadata_props}
    helper.set_model_props(model, said)
    photos = pictures(4, (64, 80))
    found = whole(save(model, tmp_path / "m.onnx"), head, tiny_backbone, photos)
    assert found.pixels is not None
    assert not found.pixels.passed
    assert found.pixels.within_one < 0.9
    assert not found.passed


def test_what_can_not_be_verified(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead, head: Head
) -> None:
    path = save(fuse(tiny_backbone, head), tmp_path / "m.onnx")
    with pytest.raises(
        BackboneMismatchError, match="verify a model with the head it came from"
    ):
        whole(path, make_head(4), tiny_backbone)
    for name, value, limits in (
        ("tolerance", -1.0, "0 to 1"),
        ("min_agreement", 1.5, "0 to 1"),
        ("batch", 0, "1 to 64"),
        ("batch", 65, "1 to 64"),
        ("reference", 9, "0 to 8"),
    ):
        with pytest.raises(ParameterError) as caught:
            whole(path, head, tiny_backbone, **{name: value})
        assert str(caught.value) == f"{name} must be a number from {limits}, got {value}"
    path.write_bytes(b"\x08\x08" + path.read_bytes() + b"\x3a\x05\x2a\x03\x0a\x01\x05")
    with pytest.raises(UnsafeModelError):
        whole(path, head, tiny_backbone)
