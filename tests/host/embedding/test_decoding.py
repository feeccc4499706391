# SPDX-License-Identifier: Apache-2.0
"""Photos in a chunk: each is good, with its digest and pixels, or has a sentence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint.embedding.decoding import decode_chunk, read_photo
from edge_imprint.photos import Location, Member, Remote
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import (
    ImageTooLargeError,
    ParameterError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import photo_pixels
from edge_imprint_runtime.quick import DECODES

P = Preprocess(16, 16, resize="crop", resize_height=18, resize_width=18)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(4):
        made.append(tmp_path / f"{i}.jpg")
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(made[-1])
    return made


@pytest.mark.parametrize("decode", DECODES)
def test_good_ones_lie_without_gaps(photos: list[Path], decode: str) -> None:
    torn = photos[1].read_bytes()[:200]
    photos[1].write_bytes(torn)
    photos.insert(2, photos[0].with_name("missing.jpg"))
    pixels, seen = np.zeros((6, 16, 16, 3), np.uint8), list[int]()
    chunk = decode_chunk(photos, P, pixels, decode=decode, at=seen.append)
    assert chunk.good == (0, 3, 4)
    for row, position in enumerate(chunk.good):
        photo = photos[position]
        np.testing.assert_array_equal(pixels[row], photo_pixels(photo, P, decode=decode))
        assert chunk.digests[row] == hashlib.sha256(photo.read_bytes()).digest()
    assert not pixels[3:].any()
    assert seen == [0, 1, 2, 3, 4]
    (torn_at, torn_text), (missing_at, missing_text) = chunk.problems
    assert (torn_at, missing_at) == (1, 2)
    assert torn_text.startswith(f"the image {photos[1]} is corrupt, truncated or no image")
    assert missing_text == f"cannot read the image {photos[2]}: No such file or directory"


def test_a_member_of_a_shard(photos: list[Path], tmp_path: Path) -> None:
    data = photos[0].read_bytes()
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"x" * 512 + data)
    whole, short = Member(shard, "a.jpg", 512, len(data)), Member(shard, "b.jpg", 512, 2**20)
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    chunk = decode_chunk([short, whole], P, pixels, decode="exact")
    assert chunk.good == (1,)
    np.testing.assert_array_equal(pixels[0], photo_pixels(photos[0], P))
    assert chunk.problems[0][1].startswith(f"cannot read the image {shard}:b.jpg: ")


def test_photos_in_an_object_store(photos: list[Path]) -> None:
    stored: list[Location] = [Remote(photo.as_uri()) for photo in photos]
    stored.insert(1, Remote(photos[0].with_name("gone.jpg").as_uri()))
    stored.insert(2, photos[3])
    pixels = np.zeros((6, 16, 16, 3), np.uint8)
    chunk = decode_chunk(stored, P, pixels, decode="exact")
    assert chunk.good == (0, 2, 3, 4, 5)
    for row, i in enumerate((0, 3, 1, 2, 3)):
        np.testing.assert_array_equal(pixels[row], photo_pixels(photos[i], P))
        assert chunk.digests[row] == hashlib.sha256(photos[i].read_bytes()).digest()
    assert chunk.problems[0][1].startswith(f"cannot read the image {stored[1]}: ")


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)  # nobody writes into it: a read would wait
    with pytest.raises(UnreadableImageError) as caught:
        read_photo(pipe)
    assert str(caught.value) == f"cannot read the image {pipe}: no regular file"
    with pytest.raises(UnreadableImageError) as caught:
        read_photo(tmp_path)
    assert str(caught.value) == f"cannot read the image {tmp_path}: Is a directory"


def test_a_file_too_large_to_be_a_photo(tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with open(huge, "wb") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no room
    with pytest.raises(ImageTooLargeError) as caught:
        read_photo(huge)
    assert str(caught.value) == (
        f"the image {huge} has 1,073,741,825 bytes, the limit is 1,073,741,824; "
        "make it smaller or take it out"
    )


def test_too_little_memory_is_the_photos_problem() -> None:
    class Large:
        def __str__(self) -> str:
            return "large.jpg"

        def read_bytes(self) -> bytes:
            raise MemoryError

    photo: Any = Large()
    chunk = decode_chunk([photo], P, np.zeros((1, 16, 16, 3), np.uint8), decode="quick")
    assert chunk.problems == ((0, "the image large.jpg does not fit into memory"),)


def test_a_way_to_decode_that_is_none_is_no_fault_of_the_photos(photos: list[Path]) -> None:
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    with pytest.raises(ParameterError, match="decode must be one of exact, quick, draft"):
        decode_chunk(photos, P, pixels, decode="fast")
