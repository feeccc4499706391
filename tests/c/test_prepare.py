# SPDX-License-Identifier: Apache-2.0
"""A photo becomes the same pixels in C as in Python, which are Pillow's, one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.errors import ImageTooLargeError
from edge_imprint_runtime.geometry import spans, vertical_first
from edge_imprint_runtime.images import prepare
from tests.c import binding
from tests.c.binding import CallError, Library, OpenModel

Pixels = npt.NDArray[np.uint8]
MakeHead = Callable[..., Head]

MODES = ("crop", "stretch", "pad")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "linear")
SIZES = [(1, 1), (1, 9), (9, 1), (16, 16), (17, 23), (23, 17), (64, 64), (200, 31), (31, 200)]


@pytest.fixture(scope="module")
def opened(
    ei: Library, tmp_path_factory: pytest.TempPathFactory, tiny_backbone: bytes
) -> Iterator[Callable[[Preprocess], OpenModel]]:
    """Return a function of preprocessing: a model that has it, kept."""
    folder = tmp_path_factory.mktemp("prepare")
    kept: dict[Preprocess, OpenModel] = {}

    def make(preprocess: Preprocess) -> OpenModel:
        if preprocess not in kept:
            path = folder / "m.onnx"
            path.write_bytes(_model(tiny_backbone, preprocess))
            kept[preprocess] = ei.open(path)
        return kept[preprocess]

    yield make
    kept.clear()


def _model(tiny_backbone: bytes, preprocess: Preprocess) -> bytes:
    """Make a model of 16 x 16 pixels, however photos become these."""
    rng = np.random.default_rng(0)
    info = BackboneInfo("tiny", "packaged", "0" * 64, preprocess)
    head = Head(rng.standard_normal((2, 8)), [0, 1], ["a", "b"], recipe="-", backbone=info)
    return to_bytes(fuse(tiny_backbone, head))


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """A photo of which every pixel counts."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def wanted(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """What Python makes of it; the order of directions is that of Pillow 13 and later."""
    return prepare(Image.fromarray(pixels), preprocess)


def check(model: OpenModel, pixels: Pixels, preprocess: Preprocess, **layout: int) -> None:
    """Hold C's pixels against Pillow's.

    Before Pillow 13 columns came first always: where that differs, a level is let pass.
    """
    want, got = wanted(pixels, preprocess), model.prepare(binding.image(pixels, **layout))
    if _one_order(pixels.shape[0], pixels.shape[1], preprocess):
        assert np.array_equal(got, want)
    else:
        assert np.abs(got.astype(int) - want).max() <= 1


def _one_order(height: int, width: int, preprocess: Preprocess) -> bool:
    """Whether the Pillow at hand resizes the two directions in the order of Pillow 13."""
    rows, columns = spans(height, width, preprocess)
    less_rows, less_columns = rows.length - rows.resized, columns.length - columns.resized
    newest = less_rows > max(0, 2 * less_columns)
    return preprocess.interpolation == "linear" or newest == vertical_first(rows, columns)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("resize", MODES)
@pytest.mark.parametrize("box", [(16, 16), (18, 18), (12, 12), (20, 17), (9, 40)])
def test_pixels_are_pillows(
    opened: Callable[[Preprocess], OpenModel],
    interpolation: str,
    resize: str,
    box: tuple[int, int],
) -> None:
    preprocess = Preprocess(
        16,
        16,
        resize=resize,
        resize_height=box[0],
        resize_width=box[1],
        interpolation=interpolation,
        mean=(0.485, 0.456, 0.406),
    )
    model = opened(preprocess)
    for seed, (height, width) in enumerate(SIZES):
        check(model, noise(height, width, seed), preprocess)


@settings(max_examples=400)
@given(data=st.data())
def test_any_photo(opened: Callable[[Preprocess], OpenModel], data: st.DataObject) -> None:
    side, box = st.integers(1, 150), st.integers(1, 60)
    preprocess = Preprocess(
        16,
        16,
        resize=data.draw(st.sampled_from(MODES)),
        resize_height=data.draw(box),
        resize_width=data.draw(box),
        interpolation=data.draw(st.sampled_from(FILTERS)),
        mean=data.draw(st.tuples(*[st.floats(-1, 2)] * 3)),
    )
    photo = noise(data.draw(side), data.draw(side), data.draw(st.integers(0, 9)))
    rows, columns = spans(*photo.shape[:2], preprocess)
    model = opened(preprocess)
    if rows.resized * columns.resized <= 4_000_000:
        check(model, photo, preprocess, padding=data.draw(st.sampled_from([0, 1, 13])))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_large_photo(opened: Callable[[Preprocess], OpenModel], interpolation: str) -> None:
    preprocess = Preprocess(16, 16, "crop", 18, 18, interpolation)
    for seed, (height, width) in enumerate([(1200, 1601), (1601, 1200), (3, 2500), (2500, 3)]):
        check(opened(preprocess), noise(height, width, seed), preprocess)


@pytest.mark.parametrize("resize", MODES)
def test_colours_the_other_way_round(
    opened: Callable[[Preprocess], OpenModel], resize: str
) -> None:
    preprocess = Preprocess(16, 16, resize, 12, 20, "bicubic", mean=(0.2, 0.5, 0.9))
    pixels = noise(40, 30)
    photo = binding.image(pixels[..., ::-1], binding.BGR8, padding=2)
    assert np.array_equal(opened(preprocess).prepare(photo), wanted(pixels, preprocess))


def test_both_orders_of_directions_occur(opened: Callable[[Preprocess], OpenModel]) -> None:
    """The pixels tell them apart: else the tests above would hold nothing of the order."""
    preprocess = Preprocess(16, 16, "stretch", 16, 16, "bilinear")
    upright, wide = noise(100, 20), noise(20, 100)
    for photo in (upright, wide):
        check(opened(preprocess), photo, preprocess)
    across = np.asarray(Image.fromarray(upright).resize((16, 100), Image.Resampling.BILINEAR))
    other = np.asarray(Image.fromarray(across).resize((16, 16), Image.Resampling.BILINEAR))
    got = opened(preprocess).prepare(binding.image(upright))
    assert not np.array_equal(got, other)


@pytest.mark.parametrize("resize", MODES)
def test_a_strip_too_thin(opened: Callable[[Preprocess], OpenModel], resize: str) -> None:
    preprocess = Preprocess(16, 16, resize, 18, 18, "bicubic")
    strip = noise(1, 2_000_000)
    if resize != "crop":
        check(opened(preprocess), strip, preprocess)
        return
    with pytest.raises(ImageTooLargeError) as there:
        wanted(strip, preprocess)
    with pytest.raises(CallError) as caught:
        opened(preprocess).prepare(binding.image(strip))
    assert caught.value.status == "EI_INPUT_SIZE"
    want = str(there.value).replace("image given", "photo").replace("000,", "000")
    assert caught.value.message == want.replace(",000", "000")


def test_what_is_no_photo(
    ei: Library,
    opened: Callable[[Preprocess], OpenModel],
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
) -> None:
    model, photo = opened(Preprocess(16, 16)), noise(20, 30)

    def refused(status: str, of: OpenModel = model, room: int = 768, **change: Any) -> None:
        given = binding.image(photo)
        for name, value in change.items():
            setattr(given, name, value)
        pixels = np.zeros(768, np.uint8)
        call = ei.c.ei_prepare
        with pytest.raises(CallError) as caught:
            ei.check(call(of.handle, binding.c.byref(given), pixels.ctypes.data, room))
        assert caught.value.status == status
        assert not pixels.any()

    refused("EI_INPUT_FORMAT", format=binding.NV12)
    refused("EI_INPUT_FORMAT", format=99)
    refused("EI_INPUT_SIZE", width=0)
    refused("EI_INPUT_SIZE", height=-1)
    refused("EI_INPUT_STRIDE", stride_bytes=89)
    refused("EI_INPUT_STRIDE", stride_bytes=2**62)
    refused("EI_INVALID_ARGUMENT", data=None)
    refused("EI_INVALID_ARGUMENT", room=767)
    frame = to_bytes(fuse(tiny_backbone, make_head(), input="frame", frame=Frame("rgb", 9, 9)))
    refused("EI_INPUT_FORMAT", ei.open_buffer(frame))


def test_one_thread_is_as_good_as_another(opened: Callable[[Preprocess], OpenModel]) -> None:
    """Preparing keeps nothing: any order of photos gives the same pixels."""
    preprocess = Preprocess(16, 16, "crop", 18, 18, "lanczos")
    photos = [noise(*size, seed) for seed, size in enumerate(SIZES)]
    order = random.Random(0).choices(range(len(photos)), k=40)
    model = opened(preprocess)
    want = [wanted(photo, preprocess) for photo in photos]
    for item in order:
        assert np.array_equal(model.prepare(binding.image(photos[item])), want[item])
