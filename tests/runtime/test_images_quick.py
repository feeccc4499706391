# SPDX-License-Identifier: Apache-2.0
"""The quick ways to a photo's pixels: how far from the exact one, and never another photo."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    ParameterError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import (
    MAX_IMAGE_PIXELS,
    Readable,
    decode_photo,
    open_image,
    photo_image,
    photo_pixels,
)
from edge_imprint_runtime.quick import DECODES, averages, check_decode, draft
from tests.standins.scenes import scene

Pixels = npt.NDArray[np.uint8]

CROP = Preprocess(
    32, 32, resize="crop", resize_height=36, resize_width=36, interpolation="bicubic"
)
# What docs/data.md states: levels of 255.
MAX_WITHOUT_DRAFT, MEAN_WITHOUT_DRAFT = 2, 0.2


class Bounds(NamedTuple):
    """How far from the exact pixels, levels of 255."""

    most: int
    mean: float
    mean_of_noise: float


BOUNDS = {"quick": Bounds(32, 2.0, 6.0), "draft": Bounds(112, 10.0, 24.0)}
# Turned the wrong way, or begun a pixel too early, scenes differ more.
TURNED = {"quick": 2.0, "draft": 3.0}


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def both(data: bytes, preprocess: Preprocess, decode: str) -> npt.NDArray[np.int64]:
    """Return the differences of the quick pixels from the exact ones."""
    exact = decode_photo(data, preprocess, name="x")
    quick = decode_photo(data, preprocess, name="x", decode=decode)
    assert exact.shape == quick.shape == (preprocess.height, preprocess.width, 3)
    assert exact.dtype == quick.dtype == np.uint8
    return np.abs(exact.astype(np.int64) - quick)


preprocesses = st.builds(
    lambda mode, size, more, name: Preprocess(
        *size,
        resize=mode,
        resize_height=size[0] + more[0] * (mode == "crop"),
        resize_width=size[1] + more[1] * (mode == "crop"),
        interpolation=name,
        mean=(0.5, 0.4, 0.3),
    ),
    st.sampled_from(["crop", "stretch", "pad"]),
    st.tuples(st.integers(8, 120), st.integers(8, 120)),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.sampled_from(["bilinear", "bicubic", "lanczos", "hamming"]),
)


@pytest.mark.parametrize("decode", BOUNDS)
@given(
    preprocess=preprocesses,
    height=st.integers(2, 300),
    width=st.integers(2, 300),
    seed=st.integers(0, 99),
)
def test_the_part_that_is_kept_is_resized_as_the_whole_is(
    decode: str, preprocess: Preprocess, height: int, width: int, seed: int
) -> None:
    """On noise, the worst there is: only the box's float32 roundings show."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    exact = photo_pixels(image, preprocess).astype(int)
    difference = np.abs(exact - photo_pixels(image, preprocess, decode=decode))
    assert difference.max() <= MAX_WITHOUT_DRAFT
    assert difference.mean() <= MEAN_WITHOUT_DRAFT


@pytest.mark.parametrize("decode", BOUNDS)
@pytest.mark.parametrize("interpolation", ["nearest", "box", "linear"])
def test_filters_that_pick_pixels_are_exact(interpolation: str, decode: str) -> None:
    """A pixel more or less is another picture there, so that nothing is quicker."""
    preprocess = Preprocess(
        20, 20, resize="crop", resize_height=24, resize_width=24, interpolation=interpolation
    )
    assert not averages(preprocess)
    for height, width in ((300, 400), (90, 61), (10, 12)):
        data = jpeg(Image.fromarray(scene(height, width, 1)))
        assert both(data, preprocess, decode).max() == 0


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "hamming"])
@pytest.mark.parametrize(
    ("decode", "sizes", "bounds"),
    [
        # Two pixels stay for each one, or hardly more; 1/2, 1/4 and 1/8.
        (
            "quick",
            [
                (128, 160),
                (129, 161),
                (255, 641),
                (640, 255),
                (257, 320),
                (512, 640),
                (700, 900),
            ],
            BOUNDS["quick"],
        ),
        # One, or hardly more: there the ways differ most.
        (
            "draft",
            [(64, 80), (65, 81), (128, 160), (129, 161), (256, 320)],
            BOUNDS["draft"],
        ),
        # One and a half.
        ("draft", [(96, 120), (193, 241), (640, 255), (384, 480)], Bounds(48, 3.0, 10.0)),
        # Two, which only a photo at 1/8 has: of others a smaller one would do.
        ("draft", [(512, 640), (513, 641), (700, 900)], Bounds(24, 1.0, 2.0)),
    ],
    ids=["quick", "draft, one", "draft, one and a half", "draft, two"],
)
def test_a_large_jpeg_is_decoded_small_within_the_stated_levels(
    resize: str, interpolation: str, decode: str, sizes: list[tuple[int, int]], bounds: Bounds
) -> None:
    preprocess = Preprocess(
        32, 40, resize=resize, resize_height=32, resize_width=40, interpolation=interpolation
    )
    for seed, (height, width) in enumerate(sizes):
        image = Image.fromarray(scene(height, width, seed))
        difference = both(jpeg(image), preprocess, decode)
        assert 0 < difference.max() <= bounds.most
        assert difference.mean() <= bounds.mean
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        difference = both(jpeg(Image.fromarray(noise)), preprocess, decode)
        assert difference.max() <= bounds.most
        assert difference.mean() <= bounds.mean_of_noise


@pytest.mark.parametrize(
    ("decode", "height", "width", "shrunk"),
    [
        ("quick", 143, 143, 1),  # 36 pixels are resized to: twice that after halving takes 144
        ("quick", 144, 144, 2),
        ("quick", 144, 10_000, 2),  # the shorter side decides
        ("quick", 287, 300, 2),
        ("quick", 288, 300, 4),
        ("quick", 576, 700, 8),
        ("quick", 5000, 5000, 8),
        ("draft", 71, 71, 1),  # as many after halving take 72
        ("draft", 72, 72, 2),
        ("draft", 72, 10_000, 2),
        ("draft", 143, 150, 2),
        ("draft", 144, 150, 4),
        ("draft", 287, 300, 4),
        ("draft", 288, 350, 8),
        ("draft", 5000, 5000, 8),
        ("exact", 5000, 5000, 1),
    ],
)
def test_enough_pixels_stay_for_each_one(
    decode: str, height: int, width: int, shrunk: int
) -> None:
    with Image.open(BytesIO(jpeg(Image.new("RGB", (width, height))))) as image:
        assert draft(image, CROP, decode) == (width, height, shrunk)
        assert image.size == (-(-width // shrunk), -(-height // shrunk))


@pytest.mark.parametrize("decode", BOUNDS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(400, 260), (393, 265), (396, 401)])
def test_a_turned_jpeg_is_turned_all_the_same(
    size: tuple[int, int], orientation: int, decode: str
) -> None:
    """Sides that 8 does not divide end within a pixel, which a turned photo begins with."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Not square after the resize, so that sides taken for each other would show.
    preprocess = Preprocess(24, 40, resize_height=24, resize_width=40)
    data = jpeg(Image.fromarray(scene(*size, orientation)), exif=exif)
    assert both(data, preprocess, decode).mean() <= TURNED[decode]


@pytest.mark.parametrize("decode", BOUNDS)
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_grey_or_cmyk_jpeg(mode: str, decode: str) -> None:
    data = jpeg(Image.fromarray(scene(500, 400, 3)).convert(mode))
    difference = both(data, CROP, decode)
    assert 0 < difference.max() <= BOUNDS[decode].most
    assert difference.mean() <= BOUNDS[decode].mean


@pytest.mark.parametrize(("decode", "shrunk"), [("quick", 4), ("draft", 8)])
def test_the_first_of_a_phone_s_pair_of_photos(
    tmp_path: Path, decode: str, shrunk: int
) -> None:
    """Phones write MPO, a JPEG with a second one behind it, and call it .jpg."""
    first, second = (Image.fromarray(scene(400, 500, seed)) for seed in (1, 2))
    file = tmp_path / "phone.jpg"
    first.save(file, "MPO", save_all=True, append_images=[second], quality=90)
    with Image.open(file) as image:
        assert image.format == "MPO"
        assert draft(image, CROP, decode)[2] == shrunk
    difference = both(file.read_bytes(), CROP, decode)
    assert difference.mean() <= BOUNDS[decode].mean


@pytest.mark.parametrize("decode", BOUNDS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_other_kinds_are_decoded_whole(kind: str, decode: str) -> None:
    file = BytesIO()
    Image.fromarray(scene(300, 400, 5)).save(file, kind)
    assert both(file.getvalue(), CROP, decode).max() <= MAX_WITHOUT_DRAFT


# Whatever the way, the same photo is the same photo ------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Bytes that have a name: what a tar member or an object in a store is."""

    name: str
    data: bytes | None

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        if self.data is None:
            raise OSError("the store is gone")
        return self.data


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF"])
def test_a_path_bytes_and_a_readable_give_the_same_bits(
    tmp_path: Path, kind: str, decode: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "photo"
    Image.fromarray(scene(200, 333, 8)).save(file, kind, exif=exif)
    data = file.read_bytes()
    want = photo_pixels(file, CROP, decode=decode)
    assert isinstance(file, Readable)
    for got in (
        photo_pixels(str(file), CROP, decode=decode),
        photo_pixels(Stored("x", data), CROP, decode=decode),
        decode_photo(data, CROP, name="x", decode=decode),
    ):
        assert np.array_equal(got, want)
    assert np.array_equal(np.asarray(photo_image(Stored("x", data))), open_image(file))
    if decode == "exact":
        with Image.open(file) as image:
            assert np.array_equal(photo_pixels(image, CROP), want)


def test_ways_to_decode() -> None:
    for decode in ("exact", "quick", "draft"):
        check_decode(decode)
    image = Image.fromarray(scene(60, 50, 1))
    for ask in (
        lambda: check_decode("fast"),
        lambda: photo_pixels(image, CROP, decode="fast"),
        lambda: decode_photo(jpeg(image), CROP, name="x", decode="fast"),
    ):
        with pytest.raises(ParameterError) as caught:
            ask()
        assert str(caught.value) == "decode must be one of exact, quick, draft, got 'fast'"


def test_the_draft_of_a_photo_is_another_than_the_quick_one() -> None:
    """640x480 for 224 pixels: whole on the one way, halved on the other."""
    preprocess = Preprocess(224, 224, resize="crop", resize_height=235, resize_width=235)
    data = jpeg(Image.fromarray(scene(480, 640, 3)))
    assert both(data, preprocess, "quick").max() <= MAX_WITHOUT_DRAFT
    assert both(data, preprocess, "draft").max() > MAX_WITHOUT_DRAFT


def test_threads_that_decode_leave_the_warnings_of_others_be() -> None:
    """Each photo here makes Pillow warn; what was asked of warnings holds again afterwards."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + bytes(30)  # nine entries claimed, two there
    data = jpeg(Image.fromarray(scene(90, 80, 1)), exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(BytesIO(data)) as image:
            image.getexif()
        assert caught
    before = list(warnings.filters)
    want = decode_photo(data, CROP, name="x", decode="draft")

    def decode(_: int) -> bool:
        return np.array_equal(decode_photo(data, CROP, name="x", decode="draft"), want)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decode, range(400)))
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="still told"):
        warnings.warn("still told", stacklevel=1)


def test_an_image_given_is_left_as_it_is() -> None:
    image = Image.fromarray(scene(60, 50, 1))
    before = np.array(image)
    photo_pixels(image, CROP)
    photo_pixels(image, CROP, decode="quick")
    photo_pixels(image, CROP, decode="draft")
    assert np.array_equal(np.asarray(image), before)


def test_what_open_image_gives_outlives_its_file(tmp_path: Path) -> None:
    for kind in ("PNG", "TIFF", "JPEG"):
        file = tmp_path / "photo"
        Image.fromarray(scene(40, 30, 2)).save(file, kind)
        image = open_image(file)
        want = np.array(image)
        file.write_bytes(b"")
        assert np.array_equal(np.asarray(image.crop((0, 0, 30, 40))), want)


# Broken -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", DECODES)
def test_a_readable_that_cannot_be_read(decode: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        photo_pixels(Stored("s3://b/1.jpg", None), CROP, decode=decode)
    assert str(caught.value) == "cannot read the image s3://b/1.jpg: the store is gone"


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9])
def test_a_jpeg_cut_short_is_broken_on_all_ways(kept: float, decode: str) -> None:
    data = jpeg(Image.fromarray(scene(600, 800, 4)))
    with pytest.raises(BrokenImageError, match=r"^the image bin:7 is corrupt, truncated"):
        decode_photo(data[: int(len(data) * kept)], CROP, name="bin:7", decode=decode)


@pytest.mark.parametrize("decode", DECODES)
def test_a_bomb_is_refused_by_its_whole_size(decode: str) -> None:
    """Decoded at an eighth it would pass; it is refused as on the exact way."""
    data = bytearray(jpeg(Image.new("L", (64, 64))))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = (13_400).to_bytes(2, "big") * 2
    assert MAX_IMAGE_PIXELS < 13_400**2
    with pytest.raises(ImageTooLargeError, match="the image x has"):
        decode_photo(bytes(data), CROP, name="x", decode=decode)


@pytest.mark.parametrize("decode", DECODES)
def test_a_strip_is_refused(decode: str) -> None:
    data = jpeg(Image.new("RGB", (60_000, 1)))
    crop = Preprocess(224, 224, resize="crop", resize_height=256, resize_width=256)
    with pytest.raises(ImageTooLargeError) as caught:
        decode_photo(data, crop, name="x", decode=decode)
    assert str(caught.value) == (
        "the image x of 60000 x 1 pixels is too thin: resized, it would have "
        "15,360,000 x 256 pixels; cut it or take it out"
    )
