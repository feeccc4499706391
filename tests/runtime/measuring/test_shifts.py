# SPDX-License-Identifier: Apache-2.0
"""Drift and level shifts: quiet series are left alone, moved ones are found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal

from edge_imprint_runtime.measuring.shifts import (
    Drift,
    find_drift,
    find_level_shifts,
    is_a_step,
)

Samples = npt.NDArray[np.int64]


def quiet(kind: str, rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    if kind == "lognormal":
        return np.exp(0.05 * rng.standard_normal(count))
    if kind == "resembling":
        noise = 0.6 * rng.standard_normal(count + 300)
        return np.exp(0.05 * signal.lfilter([1], [1, -0.8], noise)[300:])
    if kind == "bimodal":
        return np.where(rng.random(count) < 0.5, 1.5, 1.0) * np.exp(
            0.02 * rng.standard_normal(count)
        )
    return 1 + 0.3 * rng.pareto(2.0, count)


def in_ns(values: npt.NDArray[np.float64]) -> Samples:
    return (1e6 * values).astype(np.int64)


@pytest.mark.parametrize("kind", ["lognormal", "resembling", "bimodal", "heavy tail"])
@pytest.mark.parametrize("count", [50, 300, 5_000])
def test_quiet_runs_are_left_alone(kind: str, count: int) -> None:
    """One in a hundred may drift, one in 500 shift; of 100, five and three are many."""
    rng = np.random.default_rng(11)
    runs = [in_ns(quiet(kind, rng, count)) for _ in range(100)]
    assert sum(find_drift(run).found for run in runs) <= 5
    assert sum(bool(find_level_shifts(run)) for run in runs) <= 3


@pytest.mark.parametrize("kind", ["lognormal", "resembling", "bimodal", "heavy tail"])
def test_drift_is_found(kind: str) -> None:
    rng, count = np.random.default_rng(12), 3_000
    slope = 1 + 0.12 * np.arange(count) / count
    found = [find_drift(in_ns(quiet(kind, rng, count) * slope)) for _ in range(20)]
    least = 10 if kind == "bimodal" else 18  # half of it here, half there: medians jump
    assert sum(drift.found for drift in found) >= least
    if kind != "bimodal":
        assert np.median([drift.change_percent for drift in found]) == pytest.approx(12, abs=2)


@pytest.mark.parametrize("kind", ["lognormal", "resembling", "heavy tail"])
def test_a_step_is_found_where_it_is(kind: str) -> None:
    rng, count = np.random.default_rng(13), 2_000
    step = np.where(np.arange(count) >= 1_200, 1.15, 1.0)
    for _ in range(10):
        samples = in_ns(quiet(kind, rng, count) * step)
        shift = find_level_shifts(samples)[0]
        assert shift.percent == 50
        assert abs(shift.first - 1_200) <= 100
        assert shift.last == count
        assert shift.change_percent == pytest.approx(15, abs=5)
        assert is_a_step(samples, shift)


def test_a_burst_is_found_where_it_is() -> None:
    rng = np.random.default_rng(14)
    at = np.arange(2_000)
    samples = in_ns(
        quiet("lognormal", rng, 2_000) * np.where((at >= 800) & (at < 1_200), 1.3, 1)
    )
    (shift,) = find_level_shifts(samples)
    assert abs(shift.first - 800) <= 64
    assert abs(shift.last - 1_200) <= 64
    assert shift.change_percent == pytest.approx(30, abs=3)
    assert not find_drift(samples).found


def test_a_first_stretch_at_another_level_is_told_by_its_end() -> None:
    at = np.arange(1_000)
    samples = in_ns(
        quiet("lognormal", np.random.default_rng(0), 1_000) * np.where(at < 300, 2, 1)
    )
    (shift,) = find_level_shifts(samples)
    assert abs(shift.first - 300) <= 32
    assert shift.last == 1_000
    assert shift.change_percent == pytest.approx(-50, abs=2)


def test_of_two_bursts_one_is_found_for_certain() -> None:
    at = np.arange(4_000)
    factor = np.ones(4_000)
    factor[(at >= 800) & (at < 1_300)] = 1.5
    factor[(at >= 2_600) & (at < 3_000)] = 1.8
    found = find_level_shifts(
        in_ns(quiet("lognormal", np.random.default_rng(1), 4_000) * factor)
    )
    assert {abs(shift.first - at) <= 64 for shift in found for at in (800, 2_600)} >= {True}


def test_what_hits_some_runs_moves_the_90th_percentile() -> None:
    """A neighbour that takes every fourth run's processor away leaves the median alone."""
    rng, at = np.random.default_rng(2), np.arange(3_000)
    hit = (at >= 1_500) & (rng.random(3_000) < 0.25)
    samples = in_ns(quiet("lognormal", rng, 3_000) * np.where(hit, 4.0, 1.0))
    shift = find_level_shifts(samples)[0]
    assert shift.percent == 90
    assert abs(shift.first - 1_500) <= 100
    assert shift.change_percent > 100


def test_small_changes_do_not_matter() -> None:
    """Of 100,000 samples, 1 % is significant."""
    rng, at = np.random.default_rng(3), np.arange(100_000)
    values = quiet("lognormal", rng, len(at))
    sloped = find_drift(in_ns(values * (1 + 0.01 * at / len(at))))
    assert sloped.p_value < 0.01
    assert not sloped.found
    assert find_level_shifts(in_ns(values * np.where(at > 50_000, 1.01, 1.0))) == ()


def test_a_slope_is_no_step() -> None:
    rng = np.random.default_rng(4)
    samples = in_ns(quiet("lognormal", rng, 3_000) * np.linspace(1, 1.5, 3_000))
    assert find_drift(samples).found
    shifts = find_level_shifts(samples)
    assert not shifts or not is_a_step(samples, shifts[0])


def test_drift_is_by_the_clock() -> None:
    """Half of the samples in the last tenth of the time: the line follows the times."""
    times = np.concatenate([np.linspace(0, 9, 500), np.linspace(9, 10, 500)])
    rng = np.random.default_rng(5)
    samples = in_ns(quiet("lognormal", rng, 1_000) * np.exp(0.03 * times))
    drift = find_drift(samples, (times * 1e9).astype(np.int64))
    assert drift.found
    assert drift.change_percent == pytest.approx(100 * np.expm1(0.3), abs=5)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_too_few_samples_tell_nothing(count: int) -> None:
    samples = np.arange(1, count + 1, dtype=np.int64) * 1_000_000
    assert find_drift(samples) == Drift(0.0, 1.0, False)
    assert find_level_shifts(samples) == ()


@pytest.mark.parametrize("value", [0, 7])
def test_equal_samples(value: int) -> None:
    samples = np.full(500, value, np.int64)
    assert not find_drift(samples, np.zeros(500, np.int64)).found
    assert find_level_shifts(samples) == ()
