# SPDX-License-Identifier: Apache-2.0
"""The index finds what a dictionary would find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.embedding.cache.index import Index, Loose

# Few first words and few second ones, so that nearly all of them meet.
key = st.tuples(st.integers(0, 3), st.integers(0, 3))
shards = st.lists(st.lists(key, min_size=1, max_size=6), max_size=6)


def packed(keys: list[tuple[int, int]]) -> npt.NDArray[np.uint8]:
    words = [(first << 60, second << 56, 0, 0) for first, second in keys]
    return np.array(words, "<u8").reshape(-1, 4).view(np.uint8)


def loose(count: int) -> Loose:
    return Loose(np.zeros((count, 2), np.float32))


@given(shards, st.sets(st.integers(0, 5)), st.booleans())
def test_it_finds_what_a_dictionary_finds(
    held: list[list[tuple[int, int]]], removed: set[int], asked: bool
) -> None:
    index = Index()
    for keys in held:
        index.add(loose(len(keys)), packed(keys))
        if asked:  # sorted now, and again after the next
            index.find(packed([(0, 0)]))
    left = [number for number in range(len(held)) if number not in removed]
    index.remove(*(number for number in removed if number < len(held)))
    assert sorted(index.shards) == left
    assert len(index) == sum(len(held[number]) for number in left)
    every = [(first, second) for first in range(4) for second in range(4)]
    shard, row = index.find(packed(every))
    for wanted, number, position in zip(every, shard.tolist(), row.tolist(), strict=True):
        if number < 0:
            assert not any(wanted in held[one] for one in left)
        else:
            assert number in left
            assert held[number][position] == wanted


def test_of_nothing_nothing_is_found() -> None:
    index = Index()
    shard, _ = index.find(packed([(1, 1)]))
    assert shard.tolist() == [-1]
    assert index.find(np.empty((0, 32), np.uint8))[0].shape == (0,)


def test_a_number_is_never_used_again() -> None:
    index = Index()
    index.add(loose(1), packed([(0, 0)]))
    index.remove(0)
    index.add(loose(1), packed([(0, 1)]))
    assert list(index.shards) == [1]


def test_random_digests() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (5000, 32), np.uint8)
    index = Index()
    for part in np.array_split(keys, 7):
        index.add(loose(len(part)), part)
    order = rng.permutation(5000)
    shard, row = index.find(keys[order])
    starts = np.cumsum([0, *(len(part) for part in np.array_split(keys, 7))])
    np.testing.assert_array_equal(starts[shard] + row, order)
    assert (index.find(keys ^ 1)[0] == -1).all()
