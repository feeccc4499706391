# SPDX-License-Identifier: Apache-2.0
"""Preprocessing is that of timm, pixel by pixel: other pixels are other embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import ImageTooLargeError
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
