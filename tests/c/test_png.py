# SPDX-License-Identifier: Apache-2.0
"""PNGs decoded in C: in every form the pixels that Pillow gives them; bad ones refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.errors import (
    ImageTooLargeError,
)
from tests.c.photo_reader import (
    Reader,
    part,
    png,
    same,
)


@pytest.fixture(scope="module")
def reader(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(c_build / "tests" / "photo_check", tmp_path_factory.mktemp("photos"))
    yield made
    made.close()


# ---------------------------------------------------------------------------------- PNG --


KINDS = [(depth, 0) for depth in (1, 2, 4, 8, 16)] + [(depth, 3) for depth in (1, 2, 4, 8)]
KINDS += [(depth, kind) for kind in (2, 4, 6) for depth in (8, 16)]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@given(data=st.data(), form=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_every_form_of_png(
    reader: Reader, data: st.DataObject, form: tuple[int, int], seed: int
) -> None:
    depth, kind = form
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(seed)
    stride = -(-width * CHANNELS[kind] * depth // 8)
    filters = rng.integers(0, 5, height)
    rows = b"".join(bytes([f]) + rng.bytes(stride) for f in filters)
    before = b""
    if kind == 3:
        before += part(b"PLTE", rng.bytes(3 * data.draw(st.integers(1, 2**depth))))
    if data.draw(st.booleans()):
        clear = {0: struct.pack(">H", rng.integers(256)), 2: rng.bytes(6)}
        clear[3] = rng.bytes(data.draw(st.integers(1, len(before) // 3)) if before else 1)
        if kind in clear:
            before += part(b"tRNS", clear[kind])
    if data.draw(st.booleans()):
        before = part(b"gAMA", struct.pack(">I", 100000)) + before  # told, and not applied
    same(reader.read_bytes(png(width, height, depth, kind, rows, before=before)))


def test_one_transparent_colour(reader: Reader) -> None:
    rows = b"\0\1\2\3\4"
    for clear in (b"\0\1", b"\1\1", b"\0\x09"):
        same(reader.read_bytes(png(4, 1, 8, 0, rows, before=part(b"tRNS", clear))))
    for clear in (b"\0\1", b"\0\0", b"\0\x55", b"\0\xff"):
        for depth, row in ((1, b"\0\xa0"), (2, b"\0\x1b"), (4, b"\0\x01\xf5")):
            same(reader.read_bytes(png(4, 1, depth, 0, row, before=part(b"tRNS", clear))))
    colour = part(b"tRNS", b"\0\1\0\2\0\3")
    same(reader.read_bytes(png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", before=colour)))
    sixteen = b"\0" + bytes([1, 9, 2, 9, 3, 9, 4, 0, 5, 0, 6, 0])
    same(reader.read_bytes(png(2, 1, 16, 2, sixteen, before=colour)))
    same(reader.read_bytes(png(2, 1, 16, 0, b"\0\0\1\2\3", before=part(b"tRNS", b"\0\1"))))


def test_every_transparency_on_white(reader: Reader) -> None:
    rows = b"".join(
        b"\0" + bytes(value for colour in range(256) for value in (colour, alpha))
        for alpha in range(256)
    )
    same(reader.read_bytes(png(256, 256, 8, 4, rows)))


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_an_interlaced_png(reader: Reader, depth: int) -> None:
    # Seven passes, each a picture of its own; Pillow can't write them.
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
    passes += ((1, 0, 2, 2), (0, 1, 1, 2))
    image = np.random.default_rng(0).integers(0, 2**depth, (13, 11))
    rows = b""
    for left, top, right, down in passes:
        for row in image[top::down, left::right]:
            bits = "".join(f"{value:0{depth}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            if bits:
                rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    data = bytearray(png(11, 13, depth, 0, rows))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    found = reader.read_bytes(bytes(data))
    same(found)
    assert not isinstance(found[0], tuple)
    assert np.array_equal(found[0][..., 0], image * (255 // (2**depth - 1)))


EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x02\0\0\0\0\0\0"


def test_what_the_exif_of_a_png_says(reader: Reader) -> None:
    hexed = (
        b"Raw profile type exif\0\nexif\n 32\n" + (b"Exif\0\0" + EXIF).hex().encode() + b"\n"
    )
    keyword, _, text = hexed.partition(b"\0")
    little = b"II*\0\x08\0\0\0\1\0\x12\x01\4\0\1\0\0\0\3\0\0\0\0\0\0\0"
    turned = []
    for before, after in (
        (part(b"eXIf", EXIF), b""),
        (b"", part(b"eXIf", EXIF)),
        (part(b"eXIf", b"Exif\0\0" + EXIF), b""),
        (part(b"eXIf", little), b""),
        (part(b"eXIf", EXIF[:22]), b""),
        (part(b"tEXt", hexed), b""),
        (part(b"zTXt", keyword + b"\0\0" + zlib.compress(text)), b""),
        (part(b"eXIf", EXIF[:16]), b""),
        (part(b"eXIf", b""), b""),
        (part(b"zTXt", keyword + b"\0\0garbage"), b""),
        (part(b"eXIf", b"garbage!"), b""),
        (part(b"eXIf", b"MM"), b""),
    ):
        found = reader.read_bytes(
            png(2, 2, 8, 0, b"\0\5\6\0\7\x08", before=before, after=after)
        )
        same(found)
        turned.append(isinstance(found[0], tuple) or found[0][0, 0, 0] != 5)
    assert turned == [True] * 7 + [False] * 3 + [True] * 2


def test_damaged_pngs(reader: Reader) -> None:
    good = png(3, 2, 8, 0, b"\0\1\2\3\0\4\5\6", before=part(b"tEXt", b"key\0text"))
    text = good.index(b"tEXt")
    verdicts = []
    # Pillow takes these: the rows are there without a checksum, or the last one is black.
    taken = (good[:-16], good[:-20], png(3, 2, 8, 0, b"\0\1\2\3"))
    for data in (
        good[:-12],  # no IEND
        good[:-16],  # nor the checksum of the pixels
        good[:-20],
        good[:60],
        good[:41],
        good[:33],
        good[:20],
        good[:8],
        good[: text + 5] + b"X" + good[text + 6 :],  # a checksum that does not fit
        good[:-12] + b"more of this, which is no chunk",
        png(3, 2, 8, 0, b"\0\1\2\3"),
        png(3, 2, 8, 0, b"\0\1\2\3\0\4\5\6and more"),
        png(3, 2, 3, 0, b"\0\1\2\3\0\4\5\6"),
        png(0, 2, 8, 0, b"\0\0"),
        png(3, 2, 8, 5, b"\0\1\2\3\0\4\5\6"),
    ):
        found = reader.read_bytes(data)
        if data not in taken:
            same(found)
        verdicts.append(isinstance(found[0], tuple))
    assert verdicts.count(False) == 3, verdicts


def test_a_png_of_too_many_pixels(reader: Reader) -> None:
    for width, height in ((20_000, 20_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        found = reader.read_bytes(png(width, height, 8, 0, b"\0"))
        assert isinstance(found[0], tuple)
        assert found[0][0] is ImageTooLargeError
        same(found)


def test_a_long_strip_is_no_bomb(reader: Reader) -> None:
    same(reader.read_bytes(png(2_000_000, 1, 8, 0, b"\0" + bytes(2_000_000))))
