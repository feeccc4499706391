# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours in tiles against numpy's sort of the whole table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_imprint.embedding import nearest as module
from edge_imprint.embedding.nearest import OTHERS, Nearest, nearest_among, nearest_to

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def check(found: Nearest, rows: Float32, index: Int64, columns: Int64) -> None:
    """Compare with the whole table of cosines, in float64."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    table = unit[found.position].astype(np.float64) @ unit[columns].astype(np.float64).T
    table[found.position[:, np.newaxis] == columns] = -np.inf
    alike = index[found.position][:, np.newaxis] == index[columns]
    own = np.where(alike, table, -np.inf).max(axis=1, initial=-np.inf)
    padded = np.pad(
        np.where(alike, -np.inf, table), ((0, 0), (0, OTHERS)), constant_values=-np.inf
    )
    other = -np.sort(-padded, axis=1)[:, :OTHERS]
    np.testing.assert_allclose(found.own, own, atol=1e-5)
    np.testing.assert_allclose(found.other, other, atol=1e-5)
    # The positions are those of rows that are as near as is said.
    lookup = np.full(len(rows), -1)
    lookup[columns] = np.arange(len(columns))
    each = np.arange(len(table))
    there = found.own_at >= 0
    np.testing.assert_array_equal(there, own > -np.inf)
    at = lookup[found.own_at[there]]
    assert (index[found.own_at[there]] == index[found.position[there]]).all()
    np.testing.assert_allclose(table[each[there], at], own[there], atol=1e-5)
    for i in range(OTHERS):
        there = found.other_at[:, i] >= 0
        np.testing.assert_array_equal(there, other[:, i] > -np.inf)
        at = lookup[found.other_at[there, i]]
        assert (index[found.other_at[there, i]] != index[found.position[there]]).all()
        np.testing.assert_allclose(table[each[there], at], other[there, i], atol=1e-5)
    several = np.sort(found.other_at, axis=1)
    assert not ((several[:, 1:] == several[:, :-1]) & (several[:, 1:] >= 0)).any()


@pytest.fixture(params=[(3, 200), (512, 2**23), (5, 2**20)], ids=["tiny", "as is", "one part"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tile, loaded = request.param
    monkeypatch.setattr(module, "_TILE", tile)
    monkeypatch.setattr(module, "_LOADED_BYTES", loaded)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("classes", [1, 2, 7, 60])
def test_among_themselves(classes: int) -> None:
    rng = np.random.default_rng(classes)
    rows = rng.standard_normal((61, 5)).astype(np.float32)
    index = rng.integers(0, classes, 61)
    found = nearest_among(lambda at: rows[at], np.arange(61), index)
    np.testing.assert_array_equal(np.sort(found.position), np.arange(61))
    check(found, rows, index, np.arange(61))


@pytest.mark.usefixtures("tiles")
def test_of_some_positions() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 5)).astype(np.float32)
    index = rng.integers(0, 4, 50)
    some = np.sort(rng.permutation(50)[:23])
    check(nearest_among(lambda at: rows[at], some, index), rows, index, some)


@pytest.mark.usefixtures("tiles")
def test_to_others() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80, 5)).astype(np.float32)
    index = rng.integers(0, 4, 80)
    order = rng.permutation(80)
    reference, rest = order[:31], order[31:]
    told: list[tuple[int, int]] = []
    parts = list(
        nearest_to(
            lambda at: rows[at],
            rest,
            reference,
            index,
            progress=lambda done, total: told.append((done, total)),
        )
    )
    seen = np.concatenate([part.position for part in parts])
    np.testing.assert_array_equal(np.sort(seen), np.sort(rest))
    assert told[-1][0] == told[-1][1] == len(parts)
    for part in parts:
        check(part, rows, index, reference)


@settings(max_examples=20)
@given(
    n=st.integers(1, 40),
    classes=st.integers(1, 5),
    values=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_equal_rows(n: int, classes: int, values: int, seed: int) -> None:
    # Of few values many rows are equal: none is its own neighbour, none is there twice.
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 1 + values, (n, 3)).astype(np.float32)
    index = rng.integers(0, classes, n)
    check(nearest_among(lambda at: rows[at], np.arange(n), index), rows, index, np.arange(n))


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_cores_change_nothing(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (400, 4)).astype(np.float32) + 1  # with many ties
    index = rng.integers(0, 6, 400)
    monkeypatch.setattr(module, "_TILE", 32)
    first = nearest_among(lambda at: rows[at], np.arange(400), index)
    monkeypatch.setattr(module, "cores", lambda: cores)
    for _ in range(3):
        again = nearest_among(lambda at: rows[at], np.arange(400), index)
        for name, value in vars(first).items():
            np.testing.assert_array_equal(vars(again)[name], value)


def test_no_more_rows_than_stated_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    monkeypatch.setattr(module, "_TILE", 16)
    monkeypatch.setattr(module, "_LOADED_BYTES", 40 * 8 * 4)
    reads: list[int] = []

    def read(at: Int64) -> Float32:
        reads.append(len(at))
        return rows[at]

    index = np.zeros(300, np.int64)
    nearest_among(read, np.arange(300), index)
    list(nearest_to(read, np.arange(200), np.arange(200, 300), index))
    assert max(reads) == 32  # two tiles of 16
