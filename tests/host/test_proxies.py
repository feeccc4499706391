# SPDX-License-Identifier: Apache-2.0
"""One checklist for every registered generator: a new one gets it by being registered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from edge_imprint.proxies import GENERATORS, Float32, make_proxies

K = 4
# How many proxies each gives for 30 distinct rows and k = 4.
COUNTS = {"mean": 1, "kmeans": K, "random": K, "all": 30}

every_generator = pytest.mark.parametrize("generation", sorted(GENERATORS))


def rows_of(n: int, d: int = 6, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def sorted_rows(rows: Float32) -> list[list[float]]:
    return sorted(rows.tolist())


def test_a_count_is_stated_for_every_generator() -> None:
    assert set(COUNTS) == set(GENERATORS)


@every_generator
def test_shape_type_and_finite(generation: str) -> None:
    made = make_proxies(rows_of(30), generation, K, 0)
    assert made.shape == (COUNTS[generation], 6)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()


@every_generator
def test_same_seed_same_bytes(generation: str) -> None:
    rows = rows_of(30)
    assert (
        make_proxies(rows, generation, K, 7).tobytes()
        == make_proxies(rows.copy(), generation, K, 7).tobytes()
    )


def test_another_seed_draws_others() -> None:
    rows = rows_of(100)
    assert not np.array_equal(
        make_proxies(rows, "random", K, 0), make_proxies(rows, "random", K, 1)
    )


@every_generator
@settings(max_examples=15, deadline=None)
@given(order_seed=st.integers(0, 2**16), data_seed=st.integers(0, 2**16))
def test_order_of_rows_decides_nothing(
    generation: str, order_seed: int, data_seed: int
) -> None:
    rows = rows_of(25, seed=data_seed)
    order = np.random.default_rng(order_seed).permutation(25)
    assert (
        make_proxies(rows, generation, K, 0).tobytes()
        == make_proxies(rows[order], generation, K, 0).tobytes()
    )


@every_generator
def test_one_row_is_its_own_proxy(generation: str) -> None:
    row = rows_of(1)
    np.testing.assert_array_equal(make_proxies(row, generation, K, 0), row)


@every_generator
def test_one_row_many_times(generation: str) -> None:
    rows = np.repeat(rows_of(1), 9, axis=0)
    made = make_proxies(rows, generation, K, 0)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made, rows[: len(made)], rtol=1e-6)


@every_generator
def test_fewer_distinct_rows_than_k(generation: str) -> None:
    rows = np.tile(rows_of(3), (5, 1))  # 15 rows, 3 of them distinct; k = 10
    made = make_proxies(rows, generation, 10, 0)
    assert np.isfinite(made).all()
    assert 1 <= len(made) <= len(rows)
    if generation == "kmeans":
        assert sorted_rows(made) == sorted_rows(rows[:3])


@every_generator
@pytest.mark.parametrize("k", [1, 5, 6, 1_000_000])
def test_k_up_to_far_above_n(generation: str, k: int) -> None:
    rows = rows_of(5)
    made = make_proxies(rows, generation, k, 0)
    assert len(made) == {"mean": 1, "all": 5}.get(generation, min(k, 5))
    if generation == "all" or (generation != "mean" and k >= 5):
        assert sorted_rows(made) == sorted_rows(rows)


@every_generator
def test_input_is_left_untouched(generation: str) -> None:
    rows = rows_of(30)
    before = rows.copy()
    make_proxies(rows, generation, K, 0)
    np.testing.assert_array_equal(rows, before)


@every_generator
def test_any_memory_layout_gives_the_same(generation: str) -> None:
    rows = rows_of(30)
    strided = np.asfortranarray(np.repeat(rows, 2, axis=0))[::2]
    assert (
        make_proxies(strided, generation, K, 0).tobytes()
        == make_proxies(rows, generation, K, 0).tobytes()
    )


@every_generator
def test_a_read_only_input_is_fine(generation: str) -> None:
    rows = rows_of(30)
    rows.flags.writeable = False
    assert len(make_proxies(rows, generation, K, 0)) == COUNTS[generation]


def test_kmeans_of_rows_a_last_bit_apart_is_quiet_and_without_doubles() -> None:
    # The same photo saved twice: distinct rows, yet fewer clusters than k.
    rows = np.tile(rows_of(3), (10, 1))
    for number, row in enumerate(rows):
        row[number % 6] = np.nextafter(row[number % 6], np.float32(9))
    for distinct in (rows, rows_of(30) * np.float32(1e-30)):
        made = make_proxies(distinct, "kmeans", 10, 0)
        assert 1 <= len(made) == len(np.unique(made, axis=0)) <= 10
        assert np.isfinite(made).all()


def test_mean_is_the_mean_in_double_precision() -> None:
    rows = rows_of(1000) + np.float32(1000)
    want = rows.astype(np.float64).mean(axis=0)
    np.testing.assert_array_equal(make_proxies(rows, "mean", 1, 0)[0], want.astype(np.float32))


def test_random_takes_distinct_rows_of_the_class() -> None:
    rows = rows_of(50)
    made = make_proxies(rows, "random", 20, 0)
    known = {row.tobytes() for row in rows}
    assert len({row.tobytes() for row in made} & known) == 20


def inertia(rows: Float32, centres: Float32) -> float:
    apart = ((rows[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
    return float(apart.min(axis=1).sum())


def test_kmeans_finds_the_modes_of_a_class() -> None:
    modes = rows_of(8, d=16, seed=3) * 10
    rows = (np.repeat(modes, 40, axis=0) + rows_of(320, d=16)).astype(np.float32)
    made = make_proxies(rows, "kmeans", 8, 0)
    best = KMeans(8, n_init=10, random_state=1).fit(rows).inertia_
    assert inertia(rows, made) <= best * 1.01


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_inertia_without_structure(seed: int) -> None:
    rows = rows_of(300, d=16, seed=seed)
    best = KMeans(20, n_init=10, random_state=1).fit(rows).inertia_
    assert inertia(rows, make_proxies(rows, "kmeans", 20, seed)) <= best * 1.05
