# SPDX-License-Identifier: Apache-2.0
"""Intervals of percentiles: they hold the truth as often as they say."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from edge_imprint_runtime.measuring.blocks import dependence
from edge_imprint_runtime.measuring.intervals import fewest_samples, percentile_intervals

Make = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


def lognormal(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return np.exp(0.1 * rng.standard_normal(count))


def resembling(likeness: float) -> Make:
    def make(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        noise = np.sqrt(1 - likeness**2) * rng.standard_normal(count + 300)
        return np.exp(0.05 * signal.lfilter([1], [1, -likeness], noise)[300:])

    return make


def bimodal(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    mode = np.where(rng.random(count) < 0.3, 1.5, 1.0)
    return mode * np.exp(0.02 * rng.standard_normal(count))


def heavy(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return 1 + 0.3 * rng.pareto(2.0, count)


def truth(make: Make, percent: float) -> float:
    if make is lognormal:
        return float(np.exp(0.1 * stats.norm.ppf(percent / 100)))
    if make is heavy:
        return 1 + 0.3 * float((1 - percent / 100) ** -0.5 - 1)
    if make is bimodal:  # 70 % about 1, 30 % about 1.5, far apart
        share = percent / 100
        if share < 0.7:
            return float(np.exp(0.02 * stats.norm.ppf(share / 0.7)))
        return 1.5 * float(np.exp(0.02 * stats.norm.ppf((share - 0.7) / 0.3)))
    return float(np.exp(0.05 * stats.norm.ppf(percent / 100)))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lognormal, 100),
        (lognormal, 1_000),
        (bimodal, 1_000),
        (heavy, 1_000),
        (resembling(0.5), 1_000),
        (resembling(0.8), 2_000),
    ],
    ids=["few", "lognormal", "bimodal", "heavy tail", "resembling", "much resembling"],
)
def test_they_hold_the_truth(make: Make, count: int) -> None:
    """95 % of 200 runs is 190; below 178 (89 %) by chance once in ten thousand times."""
    rng = np.random.default_rng(7)
    held = dict.fromkeys((50.0, 90.0, 99.0), 0)
    given_ = dict.fromkeys(held, 0)
    for run in range(200):
        samples = (1e6 * make(rng, count)).astype(np.int64)
        found = percentile_intervals(samples, tuple(held), resamples=300, seed=run)
        for percent, bound in found.items():
            if bound is not None:
                given_[percent] += 1
                held[percent] += bound[0] <= 1e6 * truth(make, percent) <= bound[1]
    for percent, count_given in given_.items():
        if count_given >= 150:
            assert held[percent] >= 0.89 * count_given, (percent, held, given_)
    assert given_[50.0] == 200


def test_they_are_no_wider_than_needed() -> None:
    """Of independent samples: as wide as the order statistics that bound the median."""
    rng = np.random.default_rng(0)
    samples = np.sort((1e6 * lognormal(rng, 2_000)).astype(np.int64))
    low, high = percentile_intervals(rng.permutation(samples), (50.0,))[50.0] or (0, 0)
    width = np.searchsorted(samples, high) - np.searchsorted(samples, low)
    exact = 2 * 1.96 * np.sqrt(2_000) / 2
    assert 0.9 * exact < width < 1.3 * exact


def test_neighbours_that_resemble_each_other_widen_them() -> None:
    samples = (1e6 * resembling(0.95)(np.random.default_rng(0), 5_000)).astype(np.int64)
    mixed = np.random.default_rng(1).permutation(samples)
    low, high = percentile_intervals(samples, (50.0,))[50.0] or (0, 0)
    mixed_low, mixed_high = percentile_intervals(mixed, (50.0,))[50.0] or (0, 0)
    # A share above the median of a process with likeness 0.95 scatters some 5 times more.
    assert high - low > 2.5 * (mixed_high - mixed_low)


@pytest.mark.parametrize(
    ("percent", "fewest"), [(50, 6), (90, 36), (95, 72), (99, 368), (99.9, 3_688), (1, 368)]
)
def test_the_fewest_samples_that_bound_a_percentile(percent: float, fewest: int) -> None:
    assert fewest_samples(percent) == fewest
    share = max(percent, 100 - percent) / 100
    assert 1 - share**fewest >= 0.975 > 1 - share ** (fewest - 1)


def test_too_few_samples_bound_nothing() -> None:
    samples = np.arange(1, 101, dtype=np.int64)
    found = percentile_intervals(np.random.default_rng(0).permutation(samples), PERCENTS)
    assert [percent for percent, bound in found.items() if bound is None] == [99.0, 99.9]
    assert percentile_intervals(samples[:5], PERCENTS) == dict.fromkeys(PERCENTS)
    assert percentile_intervals(samples[:1], PERCENTS) == dict.fromkeys(PERCENTS)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=300), st.integers(0, 3))
def test_they_are_samples_about_the_percentile(samples: list[int], seed: int) -> None:
    taken = np.array(samples, np.int64)
    ordered = np.sort(taken)
    found = percentile_intervals(taken, PERCENTS, resamples=200, seed=seed)
    for percent, bound in found.items():
        if bound is not None:
            seen = ordered[int(np.ceil(round(percent * len(ordered) / 100, 6))) - 1]
            assert {*bound} <= {*samples}
            assert bound[0] <= seen <= bound[1]
    assert found == percentile_intervals(taken, PERCENTS, resamples=200, seed=seed)


def test_equal_samples() -> None:
    found = percentile_intervals(np.full(5_000, 7, np.int64), PERCENTS)
    assert found == dict.fromkeys(PERCENTS, (7, 7))


def test_memory_is_bounded() -> None:
    samples = np.random.default_rng(0).integers(10**6, 2 * 10**6, 300_000)
    tracemalloc.start()
    try:
        percentile_intervals(samples, PERCENTS, resamples=1_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_dependence_is_told() -> None:
    rng = np.random.default_rng(3)
    length, factor = dependence(rng.standard_normal(5_000))
    assert length < 3
    assert factor < 1.2
    noise = rng.standard_normal(20_000)
    length, factor = dependence(signal.lfilter([1], [1, -0.8], noise))
    # Of a mean of such a process, the variance is (1 + 0.8) / (1 - 0.8) = 9 times as large.
    assert 6 < factor < 12
    assert 20 < length < 200
    assert dependence(np.full(100, 3.0)) == (1.0, 1.0)
