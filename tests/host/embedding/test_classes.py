# SPDX-License-Identifier: Apache-2.0
"""Embeddings in a store, class by class: whole, drawn, or a block at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.embedding import classes as module
from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint.embedding.classes import StoredClasses, drawn_by_content
from edge_imprint.imprinting.class_source import ClassSource, is_large, whole
from edge_imprint.imprinting.sources import ByClass
from edge_imprint_runtime import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import EmbeddingError

Float32 = npt.NDArray[np.float32]
Digests = npt.NDArray[np.uint8]

SIZE = 6
INFO = BackboneInfo("demo", "random", "0" * 64, Preprocess(16, 16))


def digests_of(rows: Float32) -> Digests:
    found = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)


class Kept:
    """A store of nothing but two arrays, which counts what is read."""

    def __init__(self, rows: Float32) -> None:
        self.rows, self.largest = rows, 0
        self.at = {d.tobytes(): i for i, d in enumerate(digests_of(rows))}

    @property
    def embedding_size(self) -> int | None:
        return self.rows.shape[1] if len(self.rows) else None

    def read(self, digests: Digests) -> Float32:
        self.largest = max(self.largest, len(digests))
        return self.rows[[self.at[d.tobytes()] for d in digests]]


def some(n: int = 60, seed: int = 0) -> tuple[Float32, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, SIZE)).astype(np.float32)
    return rows, np.r_[0, 1, 2, rng.integers(0, 3, n - 3)]


def as_set(rows: Float32) -> set[bytes]:
    return {row.tobytes() for row in rows}


@pytest.mark.parametrize("shots", [None, 4])
def test_as_in_memory_where_a_class_fits(shots: int | None) -> None:
    rows, index = some()
    stored = StoredClasses(Kept(rows), digests_of(rows), index, shots=shots, seed=3)
    memory = ByClass(rows, index, shots=shots, seed=3)
    assert len(stored) == len(memory) == 3
    for c in range(3):
        assert not stored.large(c)
        assert stored[c][1] is None
        np.testing.assert_array_equal(stored[c][0], memory[c][0])
        (block,) = stored.blocks(c)
        np.testing.assert_array_equal(block[0], memory[c][0])


def test_from_a_real_store(tmp_path: Path) -> None:
    rows, index = some()
    digests = digests_of(rows)
    with EmbeddingStore(Space(INFO, "cpu fp32", "quick"), folder=tmp_path) as store:
        store.add([d.tobytes() for d in digests], rows)
        store.flush()
        source = StoredClasses(store, digests, index)
        np.testing.assert_array_equal(source[1][0], rows[index == 1])
        np.testing.assert_array_equal(source.read(np.array([5, 2, 5])), rows[[5, 2, 5]])


def test_a_large_class_is_drawn_from_and_given_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, index = some(200)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * SIZE * 4)
    kept = Kept(rows)
    source = StoredClasses(kept, digests_of(rows), index, limit_bytes=10 * SIZE * 4)
    for c in range(3):
        assert source.large(c)
        drawn, weights = source[c]
        assert weights is None
        assert drawn.shape == (10, SIZE)
        assert len(as_set(drawn)) == 10
        assert as_set(drawn) <= as_set(rows[index == c])
    assert kept.largest == 10
    blocks = [block for block, _ in source.blocks(1)]
    assert {len(block) for block in blocks[:-1]} == {7}
    np.testing.assert_array_equal(np.concatenate(blocks), rows[index == 1])
    assert kept.largest == 10  # never a class whole


def test_shots_of_a_large_class_are_not_large() -> None:
    rows, index = some(200)
    kept = Kept(rows)
    source = StoredClasses(
        kept, digests_of(rows), index, shots=8, seed=1, limit_bytes=10 * SIZE * 4
    )
    assert not source.large(0)
    assert source[0][0].shape == (8, SIZE)
    assert kept.largest == 8


def test_more_shots_than_fit() -> None:
    rows, index = some(300)
    source = StoredClasses(
        Kept(rows), digests_of(rows), index, shots=30, seed=1, limit_bytes=10 * SIZE * 4
    )
    assert source.large(0)
    assert source[0][0].shape == (10, SIZE)
    assert sum(len(block) for block, _ in source.blocks(0)) == 30


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16))
def test_a_draw_is_by_content(seed: int, order_seed: int) -> None:
    rows, index = some(90)
    order = np.random.default_rng(order_seed).permutation(90)
    limit = 10 * SIZE * 4
    one = StoredClasses(Kept(rows), digests_of(rows), index, seed=seed, limit_bytes=limit)
    two = StoredClasses(
        Kept(rows), digests_of(rows[order]), index[order], seed=seed, limit_bytes=limit
    )
    for c in range(3):
        assert as_set(one[c][0]) == as_set(two[c][0])


def test_each_photo_has_its_chance() -> None:
    rows, _ = some(20)
    digests, seen = digests_of(rows), np.zeros(20)
    for seed in range(1_000):
        drawn = drawn_by_content(digests, np.arange(20), 5, seed)
        assert (np.diff(drawn) > 0).all()
        seen[drawn] += 1
    assert 190 < seen.min() <= seen.max() < 310  # 250 on average, 14 their deviation


def test_fewer_than_asked_for_are_all() -> None:
    members = np.array([4, 2, 9])
    digests = np.zeros((10, 32), np.uint8)
    np.testing.assert_array_equal(drawn_by_content(digests, members, 3, 0), members)


def test_an_empty_store_says_what_to_do() -> None:
    rows = np.empty((0, SIZE), np.float32)
    with pytest.raises(EmbeddingError, match="the store of embeddings is empty; embed the"):
        StoredClasses(Kept(rows), digests_of(rows), np.empty(0, np.int64))


def test_any_source_can_be_read_whole() -> None:
    rows, index = some()

    class Plain:
        reads = 0

        def __len__(self) -> int:
            return 3

        def __getitem__(self, c: int) -> tuple[Float32, None]:
            self.reads += 1
            return rows[index == c], None

    plain = Plain()
    source: ClassSource = plain
    assert not is_large(source, 1)
    blocks = whole(source, 1)
    for _ in range(3):
        ((block, _),) = blocks()
        np.testing.assert_array_equal(block, rows[index == 1])
    assert plain.reads == 1
