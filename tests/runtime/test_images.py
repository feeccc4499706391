# SPDX-License-Identifier: Apache-2.0
"""Real image files of every kind become upright RGB, or an error of their own."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_runtime.errors import (
    BrokenImageError,
    EdgeImprintError,
    ImageTooLargeError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import MAX_IMAGE_PIXELS, open_image

NOBODY = 65_534
Pixels = npt.NDArray[np.uint8]


def photo(height: int = 20, width: int = 30, channels: int = 3) -> Pixels:
    """Return smooth colours that differ at every corner, which JPEG keeps."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    layers = [255 * x, 255 * y, 200 * (1 - x), 255 * (x + y) / 2]
    return np.stack(layers[:channels], axis=2).round().astype(np.uint8)


def read(path: Path) -> Pixels:
    """Read with `open_image`; what comes must be RGB."""
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def png_header(width: int, height: int) -> bytes:
    """Return a grey PNG that claims a size, with almost no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tiff", {}, 0),
        ("a.ppm", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.jpg", {"quality": 95}, 12),
        ("a.webp", {"quality": 95}, 12),
        ("a.png.but.called.jpg", {"format": "PNG"}, 0),
    ],
)
def test_rgb_of_every_format(
    tmp_path: Path, name: str, options: dict[str, object], tolerance: int
) -> None:
    path = tmp_path / name
    Image.fromarray(photo()).save(path, **options)
    assert np.abs(read(path).astype(int) - photo()).max() <= tolerance


def test_grey(tmp_path: Path) -> None:
    grey = photo()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), np.stack([grey] * 3, axis=2))


def test_black_and_white(tmp_path: Path) -> None:
    bits = photo()[:, :, 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[:, :, 1], 255 * bits)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    pixels = photo(channels=4)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    color, alpha = np.split(np.asarray(image).astype(float), [-1], axis=2)
    want = (color * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(read(tmp_path / "a.png") - want).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_color_is_white(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / name, transparency=1)
    assert read(tmp_path / name).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_an_opaque_palette(tmp_path: Path) -> None:
    image = Image.fromarray(photo()).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(photo()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - photo()).max() <= 12


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bits(tmp_path: Path, name: str) -> None:
    """The upper half of the bits, not a clip to white as Pillow's own conversion does."""
    values = np.array([[0, 255, 257, 32_896, 65_534, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert read(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 128, 254, 255]


def test_floating_point_pixels_have_no_range(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BrokenImageError, match="save it with 8 or 16 bits"):
        open_image(tmp_path / "a.tiff")


# What a viewer does with the stored pixels, by EXIF's orientation.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = UPRIGHT[orientation](photo())
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), upright)
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - upright).max() <= 12


def test_exif_orientation_of_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = photo()[:, :, 0]
    Image.fromarray(stored.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png")[:, :, 0], UPRIGHT[6](stored))


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0", b"II*\0\x08\0\0\0\xff\xff"])
def test_a_photo_with_damaged_exif_is_usable(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert read(tmp_path / "a.jpg").shape == photo().shape


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_the_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert (read(tmp_path / name) == [255, 0, 0]).all()


def encoded(kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(photo()).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.8, 0.5, 0.1])
def test_truncated(tmp_path: Path, kind: str, share: float) -> None:
    data = encoded(kind)
    (tmp_path / "a").write_bytes(data[: int(share * len(data))])
    with pytest.raises(BrokenImageError, match="is corrupt, truncated or no image") as caught:
        open_image(tmp_path / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_no_truncation_gives_a_part_of_the_photo(tmp_path: Path, kind: str) -> None:
    """A checksum or a trailer may be missing, never a pixel."""
    data, path = encoded(kind), tmp_path / "a"
    path.write_bytes(data)
    whole = read(path)
    for size in range(len(data) - 1, 0, -max(1, len(data) // 150)):
        path.write_bytes(data[:size])
        try:
            assert np.array_equal(read(path), whole)
        except BrokenImageError:
            continue


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"a text\nof two lines\n", b"<svg/>", b"%PDF-1.7"]
)
def test_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(BrokenImageError, match=r"a\.jpg is corrupt, truncated or no image"):
        open_image(tmp_path / "a.jpg")


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_any_damage_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        assert open_image(path).mode == "RGB"
    except EdgeImprintError as error:
        assert str(error)


@pytest.mark.parametrize("name", ["missing.jpg", ".", "x" * 300, "a\0b", "missing/a.jpg"])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableImageError, match="cannot read the image"):
        open_image(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(UnreadableImageError, match="Permission denied"):
            open_image(path)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_decompression_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """Also where the host program has lifted Pillow's own limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    (tmp_path / "a.png").write_bytes(png_header(60_000, 60_000))
    with pytest.raises(ImageTooLargeError, match=f"the limit is {MAX_IMAGE_PIXELS:,}"):
        open_image(tmp_path / "a.png")


def test_a_large_photo_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the size where Pillow warns and the one where it refuses, photos are read."""
    (tmp_path / "header.png").write_bytes(png_header(10_000, 10_000))
    with pytest.raises(BrokenImageError, match="truncated"):
        open_image(tmp_path / "header.png")
    Image.fromarray(photo(20, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(tmp_path / "a.png"):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read(tmp_path / "a.png"), photo(20, 30))
