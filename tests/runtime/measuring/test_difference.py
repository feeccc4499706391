# SPDX-License-Identifier: Apache-2.0
"""Whether one thing is slower: as often wrong as it says, and it sees what there is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.difference import compare

Samples = npt.NDArray[np.int64]


def run(
    rng: np.random.Generator, count: int, likeness: float = 0.0, factor: float = 1.0
) -> Samples:
    noise = np.sqrt(1 - likeness**2) * rng.standard_normal(count + 300)
    values = signal.lfilter([1], [1, -likeness], noise)[300:]
    return (1e6 * factor * np.exp(0.05 * values)).astype(np.int64)


@pytest.mark.parametrize(("likeness", "count"), [(0.0, 200), (0.5, 500), (0.8, 1_000)])
def test_what_is_the_same_is_seldom_called_different(likeness: float, count: int) -> None:
    """5 % of 200 is 10; above 21 by chance once in two thousand times."""
    rng = np.random.default_rng(21)
    found = [
        compare(run(rng, count, likeness), run(rng, count, likeness), resamples=400, seed=i)
        for i in range(200)
    ]
    assert sum(difference.significant for difference in found) <= 21
    for difference in found:
        low, high = difference.interval
        assert difference.significant == (not low <= 1 <= high)
        assert low <= difference.ratio <= high


@pytest.mark.parametrize(("likeness", "count"), [(0.0, 500), (0.8, 3_000)])
def test_five_percent_are_seen(likeness: float, count: int) -> None:
    rng = np.random.default_rng(22)
    found = [
        compare(run(rng, count, likeness), run(rng, count, likeness, 1.05), resamples=400)
        for _ in range(40)
    ]
    assert sum(difference.significant for difference in found) >= 36
    assert sum(d.interval[0] <= 1.05 <= d.interval[1] for d in found) >= 33
    assert all(difference.p_value < 0.05 for difference in found if difference.significant)


def test_either_way_round() -> None:
    rng = np.random.default_rng(23)
    a, b = run(rng, 1_000), run(rng, 1_000, factor=1.1)
    there, back = compare(a, b), compare(b, a)
    assert there.ratio == pytest.approx(1 / back.ratio, rel=1e-12)
    assert there.interval[0] == pytest.approx(1 / back.interval[1], rel=0.01)
    assert there.significant
    assert back.significant
    assert there.ratio > 1 > back.ratio
    assert there.runs == (1, 1)


def test_the_same_samples_are_the_same() -> None:
    a = run(np.random.default_rng(24), 1_000)
    same = compare(a, a)
    assert same.ratio == 1
    assert not same.significant
    assert same.p_value > 0.5
    assert compare(np.full(50, 7), np.full(50, 7)).p_value == 1
    apart = compare(np.full(50, 100), np.full(50, 105))
    assert (apart.ratio, *apart.interval) == pytest.approx((1.05, 1.05, 1.05))
    assert apart.significant


def test_another_percentile() -> None:
    rng = np.random.default_rng(25)
    a, b = run(rng, 4_000), run(rng, 4_000)
    b[rng.random(4_000) < 0.15] *= 3
    assert compare(a, b, percent=90).ratio > 2
    assert compare(a, b).ratio < 1.05


def test_runs_are_the_samples_where_there_are_several() -> None:
    """Runs that differ by 3 % among themselves: within one run nothing of that is seen."""
    rng = np.random.default_rng(26)

    def side() -> list[Samples]:
        return [run(rng, 300, factor=float(np.exp(0.03 * g))) for g in rng.standard_normal(4)]

    pairs = [(side(), side()) for _ in range(60)]
    several = [compare(a, b, resamples=200) for a, b in pairs]
    single = [compare(a[0], b[0], resamples=200) for a, b in pairs]
    assert sum(difference.significant for difference in several) <= 9
    assert sum(difference.significant for difference in single) >= 25
    assert several[0].runs == (4, 4)
    one = [compare(a, b[0], resamples=200) for a, b in pairs]
    assert sum(difference.significant for difference in one) <= 9
    assert one[0].runs == (4, 1)


def test_several_runs_see_what_there_is() -> None:
    rng = np.random.default_rng(27)
    a = [run(rng, 300, factor=1 + 0.003 * i) for i in range(3)]
    b = [run(rng, 300, factor=1.1 + 0.003 * i) for i in range(3)]
    found = compare(a, b)
    assert found.significant
    assert found.interval[0] < 1.1 < found.interval[1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_samples_decide_nothing(count: int) -> None:
    a, b = np.arange(100, 100 + count), np.arange(200, 200 + count)
    found = compare(a, b)
    assert (found.significant, found.p_value) == (False, 1.0)
    low, high = found.interval
    assert low - 1e-9 <= found.ratio <= high + 1e-9


def test_no_samples() -> None:
    some, none = np.arange(1, 50), np.array([], np.int64)
    for a, b in ((some, none), (none, some), ([], some), ([some, none], some)):
        with pytest.raises(
            ParameterError, match=r"^there are no samples to compare; measure both sides$"
        ):
            compare(a, b)


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_an_impossible_percentile(percent: float) -> None:
    with pytest.raises(ParameterError, match=f"^percent must be .*100, got {percent}$"):
        compare(np.arange(1, 50), np.arange(1, 50), percent=percent)
