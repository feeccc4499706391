# SPDX-License-Identifier: Apache-2.0
"""Camera frames: what Y, U and V mean, where they lie, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.errors import InputError
from edge_imprint_runtime.frames import (
    fit,
    frame_shape,
    frame_to_rgb,
    rgb_coefficients,
    rgb_to_frame,
)

# Colour bars as the recommendations' tables have them, limited levels: RGB, then Y, U, V.
BARS = {
    "bt601": [
        ((255, 255, 255), (235, 128, 128)),
        ((255, 255, 0), (210, 16, 146)),
        ((0, 255, 255), (170, 166, 16)),
        ((0, 255, 0), (145, 54, 34)),
        ((255, 0, 255), (106, 202, 222)),
        ((255, 0, 0), (81, 90, 240)),
        ((0, 0, 255), (41, 240, 110)),
        ((0, 0, 0), (16, 128, 128)),
    ],
    "bt709": [
        ((255, 255, 255), (235, 128, 128)),
        ((255, 255, 0), (219, 16, 138)),
        ((0, 255, 255), (188, 154, 16)),
        ((0, 255, 0), (173, 42, 26)),
        ((255, 0, 255), (78, 214, 230)),
        ((255, 0, 0), (63, 102, 240)),
        ((0, 0, 255), (32, 240, 118)),
        ((0, 0, 0), (16, 128, 128)),
    ],
}
KINDS = [
    Frame("nv12", 4, 6),
    Frame("nv12", 4, 6, "bt709", "full"),
    Frame("yuyv", 4, 6, "bt709"),
    Frame("yuyv", 3, 6, "bt601", "full"),
]


def one_color(frame: Frame, yuv: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return one frame full of one colour, laid out by hand."""
    made = np.empty((1, *frame_shape(frame)), np.uint8)
    if frame.format == "nv12":
        made[:, : frame.height] = yuv[0]
        made[:, frame.height :, ::2], made[:, frame.height :, 1::2] = yuv[1:]
    else:
        made[..., 0] = yuv[0]
        made[:, :, ::2, 1], made[:, :, 1::2, 1] = yuv[1:]
    return made


@pytest.mark.parametrize("matrix", BARS)
@pytest.mark.parametrize("kind", ["nv12", "yuyv"])
def test_colour_bars(matrix: str, kind: str) -> None:
    """Both ways; the tables' whole numbers are up to half a step off, which is 1 of 255."""
    frame = Frame(kind, 2, 4, matrix)
    for rgb, yuv in BARS[matrix]:
        got = frame_to_rgb(one_color(frame, yuv), frame)
        assert np.abs(got.astype(int) - rgb).max() <= 2
        painted = np.full((1, 2, 4, 3), rgb, np.uint8)
        made = rgb_to_frame(painted, frame).astype(int)
        assert np.abs(made - one_color(frame, yuv)).max() <= 1


def test_full_levels_are_those_of_jpeg() -> None:
    """Pillow's own conversion, which shares no code and computes in whole numbers."""
    frame = Frame("yuyv", 64, 128, "bt601", "full")
    yuv = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    want = np.asarray(Image.frombytes("YCbCr", (64, 64), yuv.tobytes()).convert("RGB"))
    frames = np.empty((1, 64, 128, 2), np.uint8)
    frames[0, :, :, 0] = yuv[..., 0].repeat(2, axis=1)
    frames[0, :, ::2, 1], frames[0, :, 1::2, 1] = yuv[..., 1], yuv[..., 2]
    got = frame_to_rgb(frames, frame)
    assert np.array_equal(got[:, :, ::2], got[:, :, 1::2])
    assert np.abs(got[0, :, ::2].astype(int) - want).max() <= 1


@pytest.mark.parametrize("matrix", [("bt601", 0.299, 0.114), ("bt709", 0.2126, 0.0722)])
@pytest.mark.parametrize("levels", [("limited", 16, 219, 224), ("full", 0, 255, 255)])
def test_the_formula_of_the_page(
    matrix: tuple[str, float, float], levels: tuple[str, int, int, int]
) -> None:
    """Kr, Kg and Kb as the recommendations define Y, U and V, one pixel at a time."""
    name, kr, kb = matrix
    kg = 1 - kr - kb
    level, black, luma_range, chroma_range = levels
    for y, u, v in [(120, 73, 187), (120, 187, 73), (60, 120, 131), (200, 140, 110)]:
        luma = (y - black) / luma_range
        red = luma + 2 * (1 - kr) * (v - 128) / chroma_range
        blue = luma + 2 * (1 - kb) * (u - 128) / chroma_range
        green = (luma - kr * red - kb * blue) / kg
        want = [min(255, max(0, int(255 * c + 0.5))) for c in (red, green, blue)]
        frame = Frame("yuyv", 1, 2, name, level)
        got = frame_to_rgb(np.array([[[[y, u], [y, v]]]], np.uint8), frame)
        assert got[0, 0].tolist() == [want] * 2


def test_what_is_out_of_range_is_cut() -> None:
    for luma, u, v, want in [
        (255, 128, 128, [255, 255, 255]),
        (0, 128, 128, [0, 0, 0]),
        (16, 255, 255, [203, 0, 255]),
        (235, 0, 0, [51, 255, 0]),
    ]:
        frames = one_color(Frame("nv12", 2, 2), (luma, u, v))
        assert frame_to_rgb(frames, Frame("nv12", 2, 2))[0, 1, 1].tolist() == want


def test_where_the_numbers_lie() -> None:
    """Each U and V serves its own pixels: 2 x 2 of them in nv12, two of a row in yuyv."""
    rgb = np.zeros((1, 4, 4, 3), np.uint8)
    rgb[0, 2:, :2] = 255, 0, 0
    y, u, v = 81, 90, 240
    nv12 = rgb_to_frame(rgb, Frame("nv12", 4, 4))[0]
    assert nv12[:4].tolist() == [[16] * 4] * 2 + [[y, y, 16, 16]] * 2
    assert nv12[4:].tolist() == [[128] * 4, [u, v, 128, 128]]
    yuyv = rgb_to_frame(rgb, Frame("yuyv", 4, 4))[0]
    assert yuyv.reshape(4, 8)[2].tolist() == [y, u, y, v, 16, 128, 16, 128]
    for frame, frames in ((Frame("nv12", 4, 4), nv12), (Frame("yuyv", 4, 4), yuyv)):
        back = frame_to_rgb(frames[np.newaxis], frame).astype(int)
        assert np.abs(back - rgb).max() <= 1


def test_shared_colour_is_the_mean() -> None:
    rgb = np.array([[[[255, 0, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255]]]], np.uint8)
    frame = Frame("nv12", 2, 2)
    full = [rgb_to_frame(np.full((1, 2, 2, 3), rgb[0, i // 2, i % 2], np.uint8), frame)
            for i in range(4)]  # fmt: skip
    mean = np.mean([made[0, 2].astype(float) for made in full], axis=0)
    assert np.abs(rgb_to_frame(rgb, frame)[0, 2] - mean).max() <= 1


@given(
    frame=st.sampled_from(KINDS),
    count=st.integers(1, 3),
    seed=st.integers(0, 1_000),
)
def test_there_and_back(frame: Frame, count: int, seed: int) -> None:
    """Pixels that share a colour come back within what 8 bits of Y, U and V can hold."""
    blocks = (2 if frame.format == "nv12" else 1, 2)
    rng = np.random.default_rng(seed)
    small = rng.integers(
        0, 256, (count, frame.height // blocks[0], frame.width // blocks[1], 3), np.uint8
    )
    rgb = small.repeat(blocks[0], axis=1).repeat(blocks[1], axis=2)
    frames = rgb_to_frame(rgb, frame)
    assert frames.shape == (count, *frame_shape(frame))
    assert frames.dtype == np.uint8
    back = frame_to_rgb(frames, frame)
    assert back.shape == rgb.shape
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - rgb).max() <= 3


def test_bgr_is_rgb_turned() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    for frame in (Frame("bgr", 3, 5), Frame("bgr")):
        turned = rgb_to_frame(rgb, frame)
        assert np.array_equal(turned[..., 0], rgb[..., 2])
        assert np.array_equal(frame_to_rgb(turned, frame), rgb)
    for frame in (Frame("rgb", 3, 5), Frame("rgb")):
        assert np.array_equal(frame_to_rgb(rgb_to_frame(rgb, frame), frame), rgb)


def test_shapes() -> None:
    assert frame_shape(Frame("rgb", 720, 1280)) == (720, 1280, 3)
    assert frame_shape(Frame("bgr", 5, 7)) == (5, 7, 3)
    assert frame_shape(Frame("rgb")) == (0, 0, 3)
    assert frame_shape(Frame("nv12", 720, 1280)) == (1080, 1280)
    assert frame_shape(Frame("yuyv", 720, 1280)) == (720, 1280, 2)


def test_grey_has_no_colour() -> None:
    """The chroma's columns cancel at 128, and white is white."""
    for frame in KINDS:
        gain, chroma, offset = rgb_coefficients(frame)
        white = 235 if frame.levels == "limited" else 255
        grey = gain * white + chroma @ [128, 128] + offset
        np.testing.assert_allclose(grey, 255, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "frame", "shape"),
    [
        ((100, 50), Frame("rgb", 40, 40), (40, 40)),
        ((50, 100), Frame("nv12", 40, 60), (40, 60)),
        ((30, 20), Frame("yuyv", 60, 60), (60, 60)),
    ],
)
def test_fit(size: tuple[int, int], frame: Frame, shape: tuple[int, int]) -> None:
    """Covered and cut about the centre: a cross stays in the middle, nothing is padded."""
    width, height = size
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[height // 2 - 1 : height // 2 + 1] = 0
    made = np.asarray(fit(Image.fromarray(pixels), frame))
    assert made.shape == (*shape, 3)
    assert np.array_equal(made, made[::-1])
    assert np.array_equal(made, made[:, ::-1])
    assert made[shape[0] // 2].max() < 128
    assert made[0].min() > 240


def test_fit_of_what_fits() -> None:
    image = Image.new("RGB", (64, 48))
    assert fit(image, Frame("rgb", 48, 64)) is image
    assert fit(image, Frame("bgr")) is image


@pytest.mark.parametrize(
    ("array", "frame", "message"),
    [
        (
            np.zeros((1, 4, 6, 3), np.uint8),
            Frame("nv12", 4, 6),
            (
                "a camera frame of format nv12 must be uint8 of shape (N, 6, 6), "
                "got uint8 (1, 4, 6, 3)"
            ),
        ),
        (
            np.zeros((1, 4, 6, 3), np.float32),
            Frame("rgb"),
            (
                "a camera frame of format rgb must be uint8 of shape (N, any, any, 3), "
                "got float32 (1, 4, 6, 3)"
            ),
        ),
        (
            np.zeros((4, 6, 2), np.uint8),
            Frame("yuyv", 4, 6),
            (
                "a camera frame of format yuyv must be uint8 of shape (N, 4, 6, 2), "
                "got uint8 (4, 6, 2)"
            ),
        ),
    ],
)
def test_frames_of_another_form(
    array: npt.NDArray[np.generic], frame: Frame, message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        frame_to_rgb(array, frame)  # type: ignore[arg-type]


def test_pictures_of_another_size() -> None:
    message = (
        "an RGB picture for a camera frame must be uint8 of shape (N, 4, 6, 3), "
        "got uint8 (1, 4, 8, 3)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        rgb_to_frame(np.zeros((1, 4, 8, 3), np.uint8), Frame("nv12", 4, 6))
