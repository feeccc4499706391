# SPDX-License-Identifier: Apache-2.0
"""A shard gives back what was written, or is refused; never anything else."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edge_imprint.embedding.cache.shards import (
    DamagedShardError,
    embedding_count,
    open_shard,
    write_shard,
)

SPACE = bytes(range(16))

# Any bits: NaN of any kind, infinities and subnormals come back as they were.
any_rows = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(np.uint32, shape)
)


def keys_of(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 32), np.uint8)


def written(folder: Path, count: int = 5, size: int = 3) -> Path:
    rows = np.arange(count * size, dtype=np.float32).reshape(count, size)
    return write_shard(folder, SPACE, keys_of(count), [rows]).path


@given(any_rows, st.integers(1, 4))
def test_what_is_written_comes_back(bits: npt.NDArray[np.uint32], parts: int) -> None:
    rows, keys = bits.view(np.float32), keys_of(len(bits))
    with tempfile.TemporaryDirectory() as name:
        blocks = [block for block in np.array_split(rows, parts) if len(block)]
        made = write_shard(Path(name), SPACE, keys, blocks)
        assert list(Path(name).iterdir()) == [made.path]
        shard, found = open_shard(made.path, SPACE)
        assert (shard.count, shard.size) == rows.shape
        assert not shard.verified
        shard.verify()
        assert shard.verified
        np.testing.assert_array_equal(found, keys)
        np.testing.assert_array_equal(shard.keys(), keys)
        order = np.random.default_rng(0).permutation(len(rows))
        np.testing.assert_array_equal(shard.rows(order).view(np.uint32), bits[order])
        assert embedding_count(made.path) == len(rows)


def test_the_layout_is_the_one_written_down(tmp_path: Path) -> None:
    rows = np.array([[1.5, -2.0], [0.0, 3.25], [7.0, 8.0]], "<f4")
    path = write_shard(tmp_path, SPACE, keys_of(3), [rows]).path
    head = b"EIEMBED\n" + struct.pack("<IIQ", 1, 2, 3) + SPACE + bytes(24)
    head += keys_of(3).tobytes()
    sums = sha256(head).digest() + sha256(rows.tobytes()).digest()
    assert path.read_bytes() == head + rows.tobytes() + sums


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    short = tmp_path / "short.shard"
    for length in range(len(whole)):
        short.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            open_shard(short, SPACE)
    short.write_bytes(whole + b"\0")
    with pytest.raises(DamagedShardError, match="its length is not what it says"):
        open_shard(short, SPACE)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(DamagedShardError):
            open_shard(path, SPACE)[0].verify()


def hostile() -> Iterator[tuple[str, bytes]]:
    yield from {
        "magic": struct.pack("<8sIIQ", b"EIDIGST\n", 1, 3, 5),
        "version": struct.pack("<8sIIQ", b"EIEMBED\n", 2, 3, 5),
        "no rows": struct.pack("<8sIIQ", b"EIEMBED\n", 1, 3, 0),
        "no columns": struct.pack("<8sIIQ", b"EIEMBED\n", 1, 0, 5),
        "2**60 rows": struct.pack("<8sIIQ", b"EIEMBED\n", 1, 3, 2**60),
        "all ones": struct.pack("<8sIIQ", b"EIEMBED\n", 1, 2**32 - 1, 2**64 - 1),
        "wraps to its length": struct.pack("<8sIIQ", b"EIEMBED\n", 1, 2**30, 2**62),
    }.items()


@pytest.mark.parametrize(("name", "head"), list(hostile()))
def test_a_hostile_header_asks_for_no_memory(tmp_path: Path, name: str, head: bytes) -> None:
    path = written(tmp_path)
    path.write_bytes(head + path.read_bytes()[len(head) :])
    with pytest.raises(DamagedShardError):
        open_shard(path, SPACE)
    assert embedding_count(path) < path.stat().st_size


def test_a_shard_of_another_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedShardError, match="belongs to another space"):
        open_shard(written(tmp_path), bytes(16))


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[npt.NDArray[np.float32]]:
        yield np.zeros((2, 3), np.float32)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_shard(tmp_path, SPACE, keys_of(4), blocks())
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        written(tmp_path / "none")


def test_a_count_that_can_not_be_read_is_none(tmp_path: Path) -> None:
    assert embedding_count(tmp_path / "none.shard") == 0
    (tmp_path / "a.shard").write_bytes(b"EIEMBED\n")
    assert embedding_count(tmp_path / "a.shard") == 0


def test_a_vanished_shard_is_an_oserror(tmp_path: Path) -> None:
    path = written(tmp_path)
    shard, _ = open_shard(path, SPACE)
    path.unlink()
    for call in (shard.verify, shard.keys, lambda: shard.rows(np.arange(1))):
        with pytest.raises(FileNotFoundError):
            call()
