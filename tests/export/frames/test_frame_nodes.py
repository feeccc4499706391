# SPDX-License-Identifier: Apache-2.0
"""What a graph makes of a camera's frame is what Pillow makes of the same picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from edge_imprint_export import fuse, save
from edge_imprint_export.frames.nodes import add_frame, check_frame
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime import Head, Preprocess, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.errors import UnsupportedOptionError
from edge_imprint_runtime.frames import frame_shape, frame_to_rgb, rgb_to_frame
from edge_imprint_runtime.images import prepare

FORMATS = ("rgb", "bgr", "nv12", "yuyv")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "linear")
OPSETS = (11, 12, 13, 17, 18, 20)
# ImageNet's usual evaluation: the short side to 256, then the middle 224 x 224.
USUAL = {"height": 224, "width": 224, "resize_height": 256, "resize_width": 256}
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def graph_of(frame: Frame, preprocess: Preprocess, opset: int = 17) -> onnx.ModelProto:
    """Return a graph of the frame's nodes alone."""
    nodes = Nodes(opset)
    assert add_frame(nodes, "images", frame, preprocess, "out") == "out"
    sides = ["N", *(side or f"side{i}" for i, side in enumerate(frame_shape(frame)))]
    values = helper.make_tensor_value_info
    out = ["N", 3, preprocess.height, preprocess.width]
    graph = helper.make_graph(
        nodes.nodes,
        "frame",
        [values("images", TensorProto.UINT8, sides)],
        [values("out", TensorProto.FLOAT, out)],
        nodes.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = max(8, helper.find_min_ir_version_for(model.opset_import))
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, frames: Bytes) -> Floats:
    (out,) = OrtRunner(to_bytes(model), "cpu").run(["out"], frames)
    return out.astype(np.float32, copy=False)


def wanted(frames: Bytes, frame: Frame, preprocess: Preprocess) -> Floats:
    """What the host makes of the same frames: (N, 3, H, W)."""
    rgb = frame_to_rgb(frames, frame)
    prepared = [prepare(Image.fromarray(picture), preprocess) for picture in rgb]
    return np.stack(prepared).transpose(0, 3, 1, 2).astype(np.float32)


def random_frames(frame: Frame, count: int = 2, seed: int = 0) -> Bytes:
    """Half of the rows are black and white, which makes filters overshoot."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, *frame_shape(frame)), np.uint8)
    frames[:, ::2] = np.where(frames[:, ::2] < 128, 0, 255)
    return frames


def picture(height: int, width: int) -> Bytes:
    """Return something like a photo, (1, height, width, 3): waves and a camera's noise."""
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(height)
    waves = [127 + 110 * np.sin(columns / (7 + c) + rows / (11 + c)) for c in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 25, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)[np.newaxis]


def agree(got: Floats, want: Floats) -> None:
    """Within one grey level everywhere: more than the promise, which is 99.9 % of pixels."""
    assert got.shape == want.shape
    assert np.array_equal(got, np.floor(got))
    assert np.abs(got - want).max() <= 1


@settings(max_examples=150)
@given(data=st.data())
def test_any_frame_of_a_given_size(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(FORMATS))
    yuv = kind in ("nv12", "yuyv")
    height = data.draw(st.integers(1, 45)) * (2 if yuv else 1)
    width = data.draw(st.integers(1, 45)) * (2 if yuv else 1)
    levels = st.sampled_from([("bt601", "limited"), ("bt709", "limited"), ("bt601", "full")])
    frame = Frame(kind, height, width, *(data.draw(levels) if yuv else ()))
    side = st.integers(1, 60)
    preprocess = Preprocess(
        data.draw(side),
        data.draw(side),
        data.draw(st.sampled_from(("crop", "stretch", "pad"))),
        data.draw(side),
        data.draw(side),
        data.draw(st.sampled_from(FILTERS)),
        mean=(0.485, 0.456, 0.406),
    )
    frames = random_frames(frame, seed=height * 100 + width)
    model = graph_of(frame, preprocess, data.draw(st.sampled_from(OPSETS)))
    agree(run(model, frames), wanted(frames, frame, preprocess))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "linear"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_camera_and_the_usual_network(kind: str, interpolation: str) -> None:
    frame = Frame(kind, 720, 1280)
    preprocess = Preprocess(**USUAL, resize="crop", interpolation=interpolation)
    frames = rgb_to_frame(picture(720, 1280), frame)
    got, want = run(graph_of(frame, preprocess), frames), wanted(frames, frame, preprocess)
    agree(got, want)
    assert (got == want).mean() > 0.999


@pytest.mark.parametrize("kind", ["rgb", "nv12"])
def test_an_upright_frame_is_resized_in_pillows_order(kind: str) -> None:
    """It loses far more rows than columns: Pillow 13 and its forerunners differ here."""
    frame = Frame(kind, 400, 100)
    preprocess = Preprocess(64, 64, "stretch", interpolation="lanczos")
    frames = random_frames(frame, 1)
    got, want = run(graph_of(frame, preprocess), frames), wanted(frames, frame, preprocess)
    agree(got, want)
    assert (got == want).mean() > 0.999


@settings(max_examples=100)
@given(data=st.data())
def test_frames_of_any_size(data: st.DataObject) -> None:
    frame = Frame(data.draw(st.sampled_from(("rgb", "bgr"))))
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    preprocess = Preprocess(
        height,
        width,
        data.draw(st.sampled_from(("crop", "stretch"))),
        height + data.draw(st.integers(0, 30)),
        width + data.draw(st.integers(0, 30)),
        "linear",
    )
    model = graph_of(frame, preprocess, data.draw(st.sampled_from(OPSETS)))
    side = st.integers(1, 200)
    shape = (2, data.draw(side), data.draw(side), 3)
    frames = np.random.default_rng(shape[1]).integers(0, 256, shape, np.uint8)
    agree(run(model, frames), wanted(frames, frame, preprocess))


def test_one_session_for_all_sizes() -> None:
    """Of odd and even sides, upright and lying, larger and smaller than the network's."""
    preprocess = Preprocess(**USUAL, resize="crop", interpolation="linear")
    runner = OrtRunner(to_bytes(graph_of(Frame("rgb"), preprocess)), "cpu")
    same = total = 0
    for height, width in [(720, 1280), (1281, 721), (301, 299), (97, 143), (1, 700)]:
        frames = picture(height, width)
        (got,) = runner.run(["out"], frames)
        want = wanted(frames, Frame("rgb"), preprocess)
        agree(got.astype(np.float32), want)
        same, total = same + int((got == want).sum()), total + want.size
    assert same / total > 0.999


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_the_reference_evaluator_says_the_same(kind: str, resize: str) -> None:
    frame = Frame(kind, 34, 50)
    preprocess = Preprocess(20, 24, resize, 22, 28, "bicubic", mean=(0.485, 0.456, 0.406))
    frames = random_frames(frame)
    model = graph_of(frame, preprocess)
    (got,) = ReferenceEvaluator(model).run(None, {"images": frames})
    agree(got, wanted(frames, frame, preprocess))


def test_the_reference_evaluator_says_the_same_of_any_size() -> None:
    frame, preprocess = Frame("bgr"), Preprocess(20, 24, "crop", 22, 28, "linear")
    frames = np.random.default_rng(2).integers(0, 256, (2, 37, 53, 3), np.uint8)
    with warnings.catch_warnings():
        # The evaluator's Resize lets numpy warn of its own roundings.
        warnings.simplefilter("ignore", RuntimeWarning)
        (got,) = ReferenceEvaluator(graph_of(frame, preprocess)).run(None, {"images": frames})
    agree(got, wanted(frames, frame, preprocess))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_of_frames_decides_as_the_model_of_photos(
    tiny_backbone: bytes, make_head: Callable[..., Head], tmp_path: Path, kind: str
) -> None:
    """The whole way: the same picture as a photo on the host and as a frame on the device."""
    frame, head = Frame(kind, 96, 128), make_head(5, 3)
    rgb = np.concatenate([np.roll(picture(96, 128), 9 * i, axis=2) for i in range(8)])
    frames = rgb_to_frame(rgb, frame)
    photos = [Image.fromarray(seen) for seen in frame_to_rgb(frames, frame)]
    host = open_model(save(fuse(tiny_backbone, head), tmp_path / "photos.onnx"))
    model = fuse(tiny_backbone, head, input="frame", frame=frame)
    device = open_model(save(model, tmp_path / "frames.onnx"))
    want, got = host.predict(photos), device.predict(frames)
    assert got.label.tolist() == want.label.tolist()
    np.testing.assert_allclose(got.scores, want.scores, rtol=0, atol=1e-3)
    given = [Image.fromarray(each) for each in rgb]
    assert np.array_equal(device.predict(given).scores, got.scores)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_frame_s_pixels_do_not_depend_on_its_neighbours(kind: str) -> None:
    frame, preprocess = Frame(kind, 96, 160), Preprocess(56, 56, "crop", 64, 64, "bicubic")
    model = graph_of(frame, preprocess)
    frames = random_frames(frame, 3)
    apart = [run(model, frames[i : i + 1]) for i in range(3)]
    assert np.array_equal(run(model, frames), np.concatenate(apart))


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_of_the_network_s_own_size_are_not_resized(kind: str) -> None:
    frame, preprocess = Frame(kind, 24, 32), Preprocess(24, 32, interpolation="lanczos")
    frames, model = random_frames(frame), graph_of(frame, preprocess)
    want = frame_to_rgb(frames, frame).transpose(0, 3, 1, 2)
    assert np.array_equal(run(model, frames), want)
    kinds = [node.op_type for node in model.graph.node]
    if kind in ("rgb", "bgr"):
        assert kinds == ["Cast", "Transpose", "Gather"][: 2 + (kind == "bgr")]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("size", [(720, 1280), (0, 0)])
def test_what_every_target_reads(kind: str, opset: int, size: tuple[int, int]) -> None:
    """uint8 meets one Cast, nothing else; no operator that a target refuses or misreads."""
    if size == (0, 0) and kind in ("nv12", "yuyv"):
        return  # such frames have a size
    frame = Frame(kind, *size)
    preprocess = Preprocess(
        **USUAL, resize="crop", interpolation="linear" if frame.any_size else "bicubic"
    )
    graph = graph_of(frame, preprocess, opset).graph
    readers = [node.op_type for node in graph.node if "images" in node.input]
    assert readers == ["Cast"]
    kinds = {node.op_type for node in graph.node}
    plain = {"Cast", "Slice", "Transpose", "Concat", "Add", "Floor", "Gather"}
    given_size = {"MatMul", "Clip", "Reshape", "Mul"}
    any_size = {"Shape", "Mul", "Div", "Sub", "Min", "Less", "Where", "Resize"}
    assert kinds <= plain | (any_size if frame.any_size else given_size)
    for node in graph.node:
        if node.op_type == "Resize":
            names = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            assert names == {
                "mode": b"linear",
                "coordinate_transformation_mode": b"half_pixel",
            }


@pytest.mark.parametrize("kind", FORMATS)
def test_a_graph_without_loose_ends(kind: str) -> None:
    frame, preprocess = Frame(kind, 240, 320), Preprocess(56, 56, "pad", 64, 64, "bicubic")
    graph = graph_of(frame, preprocess).graph
    used = {name for node in graph.node for name in node.input}
    made = {name for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    assert used == (made - {"out"}) | constants | {"images"}
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert to_bytes(graph_of(frame, preprocess)) == to_bytes(graph_of(frame, preprocess))


def test_the_weights_of_a_camera_s_frame_stay_small() -> None:
    preprocess = Preprocess(**USUAL, resize="crop", interpolation="bicubic")
    assert len(to_bytes(graph_of(Frame("rgb", 1080, 1920), preprocess))) < 400_000


def test_padding_has_its_colour() -> None:
    frame = Frame("rgb", 10, 20)
    preprocess = Preprocess(16, 16, "pad", mean=(0.5, 0.25, 1.0), interpolation="bicubic")
    got = run(graph_of(frame, preprocess), np.zeros((1, 10, 20, 3), np.uint8))
    assert got[0, :, 0, 0].tolist() == [128, 64, 255]
    assert not got[0, :, 4:12].any()
    black = Preprocess(16, 16, "crop", 8, 8, interpolation="bicubic")
    got = run(graph_of(frame, black), np.full((1, 10, 20, 3), 200, np.uint8))
    assert np.unique(got[0, :, 4:12]).tolist() == [200]
    assert not got[0, :, :4].any()


def test_frames_of_any_size_need_linear() -> None:
    with pytest.raises(UnsupportedOptionError) as error:
        check_frame(Frame("rgb"), Preprocess(224, 224, "crop", 256, 256, "bicubic"))
    assert str(error.value) == (
        "frames of any size can be resized by 'linear' only, not by 'bicubic'; "
        "build the head with --interpolation linear, or name the frame's size"
    )


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(224, 224, "pad", interpolation="linear"),
        Preprocess(224, 224, "crop", 200, 256, interpolation="linear"),
        Preprocess(224, 224, "stretch", 256, 200, interpolation="linear"),
    ],
)
def test_frames_of_any_size_are_not_padded(preprocess: Preprocess) -> None:
    with pytest.raises(UnsupportedOptionError) as error:
        add_frame(Nodes(17), "images", Frame("rgb"), preprocess, "out")
    assert str(error.value) == (
        "frames of any size can't be padded, and this head's preprocessing may pad; "
        "name the frame's size, or build the head with a box that covers the network's input"
    )
    check_frame(Frame("rgb", 480, 640), preprocess)
