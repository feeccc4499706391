# SPDX-License-Identifier: Apache-2.0
"""Generators that choose rows, against cases worked by hand and definitions spelled out."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting import samples
from edge_imprint.imprinting.proxies import Float32, Float64, make_proxies


def rows_of(n: int, d: int = 6, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def sorted_rows(rows: npt.NDArray[np.floating]) -> list[list[float]]:
    return sorted(rows.tolist())


# Farthest points ---------------------------------------------------------------------------


def test_farthest_points_by_hand() -> None:
    # On a line, mean 4.4: 4 is nearest to it, 10 farthest from 4, then 0, then 7 or 1 or 8.
    rows = np.array([[0], [1], [4], [7], [10]], np.float32)
    made = [make_proxies(rows, "fps", k, 0)[:, 0].tolist() for k in (1, 2, 3, 4)]
    assert made == [[4], [4, 10], [4, 10, 0], [4, 10, 0, 7]]


def test_farthest_points_equally_far_are_taken_in_the_order_of_the_rows() -> None:
    rows = np.array([[0, 0], [-3, 0], [0, -3], [3, 0], [0, 3]], np.float32)
    weights = np.ones(5)
    assert samples.farthest_points(rows, weights, 3, 0).tolist() == [0, 1, 2]


def test_farthest_points_start_where_the_weight_is() -> None:
    rows = np.array([[0], [1], [10]], np.float32)
    made = make_proxies(rows, "fps", 1, 0, weights=np.array([1.0, 1.0, 50.0]))
    assert made.tolist() == [[10]]


@given(st.integers(0, 2**16))
def test_farthest_points_as_defined(seed: int) -> None:
    rows = rows_of(15, 3, seed)
    x = rows.astype(np.float64)
    chosen = [int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    for _ in range(4):
        apart = [min(((row - x[c]) ** 2).sum() for c in chosen) for row in x]
        chosen.append(int(np.argmax(apart)))
    assert samples.farthest_points(rows, np.ones(15), 5, 0).tolist() == chosen


# Largest column sums of the covariance ------------------------------------------------------


def test_cov_max_by_hand() -> None:
    # Less their own means: (-1, 1), (-2, 2), (1, -1), (0, 0); their sum is (-2, 2), and the
    # products with it 4, 8, -4, 0.
    rows = np.array([[0, 2], [1, 5], [3, 1], [9, 9]], np.float32)
    assert samples.cov_max(rows, np.ones(4), 3, 0).tolist() == [1, 0, 3]


@given(st.integers(0, 2**16))
def test_cov_max_is_numpys_covariance(seed: int) -> None:
    rows = rows_of(12, 5, seed) + np.float32(3)
    sums = np.cov(rows.astype(np.float64)).sum(axis=0)
    want = np.argsort(-sums, kind="stable")[:4]
    np.testing.assert_array_equal(samples.cov_max(rows, np.ones(12), 4, 0), want)


def test_cov_max_counts_a_weight_as_columns() -> None:
    rows, times = rows_of(10, 5), np.arange(10) % 3 + 1
    sums = np.cov(np.repeat(rows, times, axis=0).astype(np.float64)).sum(axis=0)
    first = np.cumsum(times) - times
    want = np.argsort(-sums[first], kind="stable")[:4]
    got = samples.cov_max(rows, times.astype(np.float64), 4, 0)
    np.testing.assert_array_equal(got, want)


# k-medoids -----------------------------------------------------------------------------------


def cost(rows: Float32, medoids: Float32, weights: Float64) -> float:
    x, m = rows.astype(np.float64), medoids.astype(np.float64)
    apart = np.sqrt(((x[:, np.newaxis] - m) ** 2).sum(axis=2))
    return float(weights @ apart.min(axis=1))


@given(seed=st.integers(0, 2**16), k=st.integers(1, 4), weighted=st.booleans())
def test_kmedoids_is_near_the_best_choice_there_is(seed: int, k: int, weighted: bool) -> None:
    rows = rows_of(10, 2, seed)
    weights = np.random.default_rng(seed).random(10) + 0.1 if weighted else np.ones(10)
    best = min(
        cost(rows, rows[list(chosen)], weights)
        for chosen in itertools.combinations(range(10), k)
    )
    got = make_proxies(rows, "kmedoids", k, 0, weights=weights)
    assert len(got) == k
    assert cost(rows, got, weights) <= 1.1 * best


def test_kmedoids_by_hand() -> None:
    rows = np.array([[0], [1], [2], [50], [51], [59]], np.float32)
    assert sorted_rows(make_proxies(rows, "kmedoids", 2, 0)) == [[1], [51]]
    assert make_proxies(rows, "kmedoids", 1, 0).tolist() in ([[2]], [[50]])


def test_no_single_swap_betters_the_medoids() -> None:
    rows, ones = rows_of(60, 4), np.ones(60)
    chosen = samples.kmedoids(rows, ones, 5, 0).tolist()
    now = cost(rows, rows[chosen], ones)
    for leaving, candidate in itertools.product(chosen, range(60)):
        swapped = [candidate if c == leaving else c for c in chosen]
        assert cost(rows, rows[swapped], ones) >= now * (1 - 1e-5)


def test_kmedoids_of_a_class_with_more_rows_than_candidates() -> None:
    rows = np.concatenate([rows_of(2500, 3), rows_of(2500, 3, 1) + np.float32(20)])
    made = make_proxies(rows, "kmedoids", 2, 0)
    middles = sorted(made.mean(axis=1).tolist())
    assert middles == pytest.approx([0, 20], abs=0.3)


# Random --------------------------------------------------------------------------------------


def test_random_draws_by_weight() -> None:
    rows, weights = np.arange(4, dtype=np.float32)[:, np.newaxis], np.array([1.0, 1, 2, 6])
    drawn = [int(samples.random_rows(rows, weights, 1, seed)[0]) for seed in range(4000)]
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, weights / 10, atol=0.04)


def test_random_draws_every_row_at_some_time() -> None:
    rows = rows_of(10)
    seen = {i for seed in range(50) for i in samples.random_rows(rows, np.ones(10), 3, seed)}
    assert seen == set(range(10))
