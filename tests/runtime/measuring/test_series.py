# SPDX-License-Identifier: Apache-2.0
"""What is said of samples: percentiles by nearest rank, and a summary."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_imprint_runtime.measuring.series import PERCENTS, Series, percent_key


def series(samples_ns: list[int], batch: int = 1) -> Series:
    return Series("a", batch, np.array(samples_ns, np.int64))


@given(
    st.lists(st.integers(1, 10**12), min_size=1, max_size=200),
    st.integers(0, 100),
)
@example([*range(1, 101)], 7)  # 7 / 100 * 100 is above 7
def test_a_percentile_is_the_nearest_rank(samples_ns: list[int], percent: int) -> None:
    value_ns = series(samples_ns).percentile_ms(percent) * 1e6
    # By its definition: the smallest sample that at least so many percent do not exceed.
    want = next(
        sample
        for sample in sorted(samples_ns)
        if 100 * sum(other <= sample for other in samples_ns) >= percent * len(samples_ns)
    )
    assert math.isclose(value_ns, want, rel_tol=1e-12)


def test_percentiles_by_hand() -> None:
    hundred = series([i * 1_000_000 for i in range(100, 0, -1)])
    assert [hundred.percentile_ms(p) for p in (0, 1, 50, 90, 99, 100)] == [
        1,
        1,
        50,
        90,
        99,
        100,
    ]
    five = series([15_000_000, 20_000_000, 35_000_000, 40_000_000, 50_000_000])
    assert [five.percentile_ms(p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    assert series([7_000_000]).percentile_ms(50) == 7


def test_a_thousandth_costs_no_rank_by_rounding() -> None:
    """99.9 * 1000 / 100 is above 999 in floats."""
    assert series([i * 1_000_000 for i in range(1, 1_001)]).percentile_ms(99.9) == 999


def test_a_summary_by_hand() -> None:
    assert series([2_000_000, 1_000_000, 6_000_000, 3_000_000], batch=8).summary() == {
        "name": "a",
        "batch": 8,
        "concurrency": 1,
        "stage": "whole",
        "clock": "host",
        "iterations": 4,
        "warm_up_iterations": 0,
        "warmed_up": True,
        "min_ms": 1.0,
        "p50_ms": 2.0,
        "p90_ms": 6.0,
        "p95_ms": 6.0,
        "p99_ms": 6.0,
        "p99_9_ms": 6.0,
        "max_ms": 6.0,
        "mean_ms": 3.0,
        "intervals_ms": {"p50": None, "p90": None, "p95": None, "p99": None, "p99_9": None},
        "throughput_images_per_s": 8 / 3e-3,
        "offered_per_s": None,
    }


def test_a_summary_holds_its_intervals_and_is_json() -> None:
    rng = np.random.default_rng(0)
    many = Series(
        "a", 1, rng.integers(900_000, 1_100_000, 5_000), warm_up_ns=(1, 2, 3), warmed_up=False
    )
    told = many.summary()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["warm_up_iterations"], told["warmed_up"]) == (3, False)
    for percent in PERCENTS:
        key = percent_key(percent)
        low, high = told["intervals_ms"][key]
        assert low <= told[f"{key}_ms"] <= high
    assert [percent_key(percent) for percent in PERCENTS] == [
        "p50",
        "p90",
        "p95",
        "p99",
        "p99_9",
    ]
    assert many.summary() == told, "the same samples give the same intervals"


def test_throughput_of_callers_that_wait() -> None:
    """Four callers, 10 ms each: 400 calls of two images a second."""
    four = Series("a", 2, np.full(100, 10_000_000, np.int64), concurrency=4)
    assert four.throughput_images_per_s() == pytest.approx(800)


def test_throughput_of_calls_that_come_by_themselves() -> None:
    """Eleven arrivals in a second, the last answered half a second later."""
    starts = np.arange(11, dtype=np.int64) * 100_000_000
    taken = np.full(11, 500_000_000, np.int64)
    offered = Series("a", 1, taken, starts, concurrency=8, offered_per_s=10.0)
    assert offered.throughput_images_per_s() == pytest.approx(11 / 1.5)
