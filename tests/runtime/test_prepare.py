# SPDX-License-Identifier: Apache-2.0
"""Preprocessing is that of timm, pixel by pixel: other pixels are other embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import ImageTooLargeError
from edge_imprint_runtime.geometry import Span, spans
from edge_imprint_runtime.images import normalize, prepare

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[[Any], Any]
MODES = {"center": "crop", "squash": "stretch", "border": "pad"}


def noise(height: int, width: int) -> Image.Image:
    """Return a photo whose every pixel counts."""
    rng = np.random.default_rng(height * 10_000 + width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def both(
    mode: str, size: tuple[int, int], crop_pct: float, interpolation: str = "bicubic"
) -> tuple[Preprocess, list[Step]]:
    """Return our description of a timm configuration, and timm's own transforms."""
    preprocess = Preprocess(
        *size,
        resize=MODES[mode],
        resize_height=math.floor(size[0] / crop_pct),
        resize_width=math.floor(size[1] / crop_pct),
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
    )
    transform = create_transform(
        input_size=(3, *size),
        is_training=False,
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
        crop_pct=crop_pct,
        crop_mode=mode,
    )
    return preprocess, list(transform.transforms)


def check(photo: Image.Image, preprocess: Preprocess, transforms: list[Step]) -> None:
    """Compare pixels exactly, and the network's input within float32."""
    *steps, to_tensor, to_normal = transforms
    there = photo
    for step in steps:
        there = step(there)
    pixels = prepare(photo, preprocess)
    assert pixels.shape == (preprocess.height, preprocess.width, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(there))
    want = to_normal(to_tensor(there)).numpy()
    floats = normalize(pixels[np.newaxis], preprocess)
    assert floats.dtype == np.float32
    assert floats.flags.c_contiguous
    np.testing.assert_allclose(floats[0], want, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (33, 17)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 1.0, 1.2])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_timm(
    mode: str, size: tuple[int, int], crop_pct: float, interpolation: str
) -> None:
    preprocess, transforms = both(mode, size, crop_pct, interpolation)
    for height, width in [(64, 48), (48, 64), (101, 57), (31, 200), (32, 32), (5, 7), (1, 1)]:
        check(noise(height, width), preprocess, transforms)


@pytest.mark.parametrize("interpolation", ["nearest", "lanczos", "box", "hamming"])
def test_the_other_filters(interpolation: str) -> None:
    preprocess, transforms = both("center", (32, 32), 0.875, interpolation)
    check(noise(50, 71), preprocess, transforms)


@given(
    mode=st.sampled_from(list(MODES)),
    height=st.integers(16, 48),
    width=st.integers(16, 48),
    square=st.booleans(),
    crop_pct=st.floats(0.5, 1.5),
    photo_height=st.integers(16, 90),
    photo_width=st.integers(16, 90),
)
def test_any_size(
    mode: str,
    height: int,
    width: int,
    square: bool,
    crop_pct: float,
    photo_height: int,
    photo_width: int,
) -> None:
    size = (height, height if square else width)
    preprocess, transforms = both(mode, size, crop_pct)
    check(noise(photo_height, photo_width), preprocess, transforms)


def test_a_photo_far_from_square() -> None:
    """One side would round to nothing; timm refuses it, a camera's strip is still a photo."""
    for resize in ("crop", "stretch", "pad"):
        preprocess = Preprocess(32, 32, resize=resize)
        for size in ((1, 500), (500, 1)):
            assert prepare(noise(*size), preprocess).shape == (32, 32, 3)


def test_a_strip_that_would_fill_the_memory() -> None:
    """A file of a few bytes; resized to cover the box it would have 65 gigapixels."""
    strip = Image.new("RGB", (1_000_000, 1))
    with pytest.raises(ImageTooLargeError, match="too thin"):
        prepare(strip, Preprocess(256, 256, resize="crop"))
    assert prepare(strip, Preprocess(256, 256, resize="pad")).shape == (256, 256, 3)


def test_padding_is_the_mean_color() -> None:
    preprocess = Preprocess(4, 8, resize="pad", mean=(0.5, 0.25, 1.0))
    pixels = prepare(Image.new("RGB", (10, 10)), preprocess)
    assert pixels[:, :2].tolist() == [[[128, 64, 255]] * 2] * 4
    assert not pixels[:, 2:6].any()


def test_prepare_leaves_the_photo_as_it_is() -> None:
    photo = noise(32, 32)
    before = photo.tobytes()
    for resize in ("crop", "stretch", "pad"):
        pixels = prepare(photo, Preprocess(32, 32, resize=resize))
        assert pixels.tobytes() == before
    assert photo.tobytes() == before


def test_normalize_by_hand() -> None:
    preprocess = Preprocess(1, 2, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 0.1))
    pixels = np.array([[[[0, 51, 255], [255, 102, 0]]]], np.uint8)
    want = [[[[-1.0, 1.0]], [[0.2, 0.4]], [[0.0, -10.0]]]]
    np.testing.assert_allclose(normalize(pixels, preprocess), want, rtol=1e-6)


def linear_side(side: int, size: int, scale: Fraction) -> tuple[int, int, int, int]:
    """Say of one side what docs/frames.md says, in fractions: start, length, made, before."""
    if size * scale <= side:
        length = math.ceil(size * scale)
        return (side - length) // 2, length, size, 0
    made = min(size, max(1, math.floor(side / scale + Fraction(1, 2))))
    return 0, side, made, (size - made) // 2


def linear_oracle(photo: Image.Image, p: Preprocess) -> npt.NDArray[np.float64]:
    """Interpolate pixel by pixel, before rounding."""
    pixels = np.asarray(photo).astype(float)
    rows, columns = (
        Fraction(photo.height, p.resize_height),
        Fraction(photo.width, p.resize_width),
    )
    if p.resize != "stretch":
        rows = columns = (min if p.resize == "crop" else max)(rows, columns)
    top, height, made_rows, before = linear_side(photo.height, p.height, rows)
    left, width, made_columns, beside = linear_side(photo.width, p.width, columns)
    fill = [round(255 * value) if p.resize == "pad" else 0 for value in p.mean]
    out = np.tile(np.array(fill, float), (p.height, p.width, 1))
    for i in range(made_rows):
        y = min(max((i + 0.5) * height / made_rows - 0.5, 0), height - 1)
        for j in range(made_columns):
            x = min(max((j + 0.5) * width / made_columns - 0.5, 0), width - 1)
            near = 0.0
            for row, share in ((int(y), 1 - y % 1), (min(int(y) + 1, height - 1), y % 1)):
                line = pixels[top + row]
                after = min(int(x) + 1, width - 1)
                near += share * (
                    (1 - x % 1) * line[left + int(x)] + x % 1 * line[left + after]
                )
            out[before + i, beside + j] = near
    return out


@given(
    resize=st.sampled_from(["crop", "stretch", "pad"]),
    sides=st.tuples(*[st.integers(1, 14)] * 4),
    photo=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_linear(resize: str, sides: tuple[int, int, int, int], photo: tuple[int, int]) -> None:
    preprocess = Preprocess(
        sides[0], sides[1], resize, sides[2], sides[3], "linear", mean=MEAN
    )
    pixels = prepare(noise(*photo), preprocess)
    assert pixels.shape == (*sides[:2], 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - linear_oracle(noise(*photo), preprocess)).max() <= 0.5 + 1e-9


@given(height=st.integers(8, 60), width=st.integers(8, 60), more=st.integers(0, 40))
def test_linear_enlarges_as_bilinear_does(height: int, width: int, more: int) -> None:
    """Where nothing is thrown away there is nothing to antialias."""
    photo = noise(height, width)
    size = height + more, width + 2 * more
    linear = prepare(photo, Preprocess(*size, interpolation="linear"))
    bilinear = prepare(photo, Preprocess(*size, interpolation="bilinear"))
    assert np.abs(linear.astype(int) - bilinear).max() <= 1
    assert np.array_equal(linear, np.asarray(photo)) or more


def test_linear_of_a_camera_s_frame() -> None:
    """1280 x 720 to 224 by way of 256: the middle 630 x 630, every 2.8th pixel."""
    rows, columns = spans(720, 1280, Preprocess(224, 224, "crop", 256, 256, "linear"))
    assert rows == Span(45, 630, 224, 0)
    assert columns == Span(325, 630, 224, 0)


def test_linear_takes_strips_that_others_refuse() -> None:
    strip = Image.new("RGB", (1_000_000, 1), (7, 8, 9))
    pixels = prepare(strip, Preprocess(256, 256, resize="crop", interpolation="linear"))
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[7, 8, 9]]
