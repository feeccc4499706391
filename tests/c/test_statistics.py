# SPDX-License-Identifier: Apache-2.0
"""The statistics of ei-bench are those of Python's bench: same samples, same figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from edge_imprint_runtime.measuring import early_stopping, shifts
from edge_imprint_runtime.measuring.blocks import BlockBootstrap, dependence, nearest_rank
from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.measuring.intervals import fewest_samples, percentile_intervals
from edge_imprint_runtime.measuring.series import PERCENTS, Series
from edge_imprint_runtime.measuring.shifts import find_drift, find_level_shifts, is_a_step
from edge_imprint_runtime.measuring.steady import WarmUp
from edge_imprint_runtime.measuring.student import (
    normal_tail,
    student_quantile,
    student_tail,
)
from tests.c.asking import Asked

Samples = npt.NDArray[np.int64]

KINDS = (
    "lognormal",
    "two modes",
    "heavy tail",
    "resembling",
    "much resembling",
    "drift",
    "step",
    "burst",
    "tail burst",
    "decay",
    "ties",
    "rising",
    "falling",
    "equal",
    "zero",
)
COUNTS = (1, 2, 7, 8, 9, 23, 36, 50, 100, 368, 1_000, 4_096)


def made(kind: str, count: int, seed: int = 0) -> Samples:
    """A series: quiet ones of several shapes, and moved ones."""
    rng, at = np.random.default_rng(seed), np.arange(count)
    noise = np.exp(0.05 * rng.standard_normal(count))
    likeness = 0.95 if kind == "much resembling" else 0.8
    walk = signal.lfilter([1], [1, -likeness], rng.standard_normal(count + 300))[300:]
    in_middle = (at >= 0.4 * count) & (at < 0.6 * count)
    values = {
        "lognormal": noise,
        "two modes": np.where(rng.random(count) < 0.3, 1.5, 1.0) * noise**0.4,
        "heavy tail": 1 + 0.3 * rng.pareto(2.0, count),
        "resembling": np.exp(0.03 * walk),
        "much resembling": np.exp(0.02 * walk),
        "drift": noise * (1 + 0.1 * at / count),
        "step": noise * np.where(at >= 0.6 * count, 1.2, 1.0),
        "burst": noise * np.where(in_middle, 1.3, 1.0),
        "tail burst": noise * np.where(in_middle & (rng.random(count) < 0.3), 4.0, 1.0),
        "decay": noise * (1 + np.exp(-at / (0.1 * count))),
        "ties": rng.integers(1, 5, count).astype(np.float64),
        "rising": 1 + at / count,
        "falling": 2 - at / count,
        "equal": np.ones(count),
        "zero": np.zeros(count),
    }[kind]
    samples: Samples = (1e6 * values).astype(np.int64)
    return samples


def recorded(count: int) -> Samples:
    """What really was measured: the time of small products, one after another."""
    import time

    a, samples = np.ones((64, 64)), np.empty(count, np.int64)
    for i in range(count):
        began = time.perf_counter_ns()
        a @ a
        samples[i] = time.perf_counter_ns() - began
    return samples


@pytest.fixture(scope="module")
def ask(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One statistics_check for all tests of this file."""
    folder = tmp_path_factory.mktemp("statistics")
    with Asked(c_build / "tests" / "statistics_check", folder) as program:
        yield program


def give(ask: Asked, samples: Samples, starts: Samples | None = None) -> None:
    ask("series", ask.file(samples), len(samples))
    if starts is not None:
        ask("starts", ask.file(starts))


def bounds(ask: Asked, samples: Samples, seed: int = 0, resamples: int = 1_000) -> Any:
    """Both sides' intervals: in C, and in Python."""
    give(ask, samples)
    in_c = ask("intervals", 0.95, resamples, seed, *PERCENTS)
    in_python = percentile_intervals(samples, PERCENTS, resamples=resamples, seed=seed)
    return in_c, [None if one is None else list(one) for one in in_python.values()]


# Percentiles and their intervals ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_and_design_are_pythons(ask: Asked, kind: str) -> None:
    for count in COUNTS:
        samples = made(kind, count)
        in_c, in_python = bounds(ask, samples, seed=count, resamples=300)
        assert in_c == in_python, count
        for percent in (99.0, 10.0):
            design = BlockBootstrap(samples, (percent,)).design[percent]
            assert ask("design", percent) == pytest.approx(design, rel=1e-9), count


@pytest.mark.parametrize("kind", ["two modes", "much resembling", "drift", "ties"])
def test_intervals_of_many_samples(ask: Asked, kind: str) -> None:
    """As a report has them, and larger than what the processor keeps near."""
    in_c, in_python = bounds(ask, made(kind, 100_000))
    assert in_c[0] is not None
    assert in_c == in_python


def test_intervals_of_what_was_really_measured(ask: Asked) -> None:
    for count in (200, 5_000):
        in_c, in_python = bounds(ask, recorded(count))
        assert in_c == in_python


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=400), st.integers(0, 2**64 - 1))
def test_intervals_of_anything(ask: Asked, samples: list[int], seed: int) -> None:
    in_c, in_python = bounds(ask, np.array(samples, np.int64), seed, resamples=200)
    assert in_c == in_python


@given(
    st.lists(st.integers(1, 30), min_size=30, max_size=300),
    st.sampled_from([0.5, 0.9, 0.99]),
    st.lists(st.sampled_from([1.0, 25.0, 50.0, 75.0, 97.5]), min_size=1, unique=True),
)
def test_intervals_at_other_confidences(
    ask: Asked, samples: list[int], confidence: float, percents: list[float]
) -> None:
    taken = np.array(samples, np.int64)
    give(ask, taken)
    in_python = percentile_intervals(taken, percents, confidence=confidence, resamples=300)
    assert ask("intervals", confidence, 300, 0, *percents) == [
        None if one is None else list(one) for one in in_python.values()
    ]


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=300),
    st.floats(0.1, 99.9),
    st.data(),
)
def test_percentiles_are_of_the_nearest_rank(
    ask: Asked, samples: list[int], percent: float, data: st.DataObject
) -> None:
    give(ask, np.array(samples, np.int64))
    ordered = sorted(samples)
    assert ask("percentile", percent) == ordered[nearest_rank(len(samples), percent) - 1]
    rank = data.draw(st.integers(0, len(samples) - 1))
    assert ask("select", rank) == [ordered[rank], True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_of_many(ask: Asked, kind: str) -> None:
    """Sorted, reversed, equal: what makes a poor search by cuts slow."""
    samples = made(kind, 200_000)
    give(ask, samples)
    for rank in (0, 100_000, 199_999):
        assert ask("select", rank) == [int(np.sort(samples)[rank]), True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 40, 5_000])
def test_a_summary_is_that_of_a_report(ask: Asked, kind: str, count: int) -> None:
    samples = made(kind, count)
    give(ask, samples)
    in_c, in_python = ask("summary"), Series("fused", 1, samples).summary()
    assert in_c.pop("mean_ms") == pytest.approx(in_python["mean_ms"], rel=1e-12)
    assert in_c == {key: in_python[key] for key in in_c}


@pytest.mark.parametrize("percent", [50, 90, 95, 99, 99.9, 1])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_fewest_samples(ask: Asked, percent: float, confidence: float) -> None:
    assert ask("fewest", percent, confidence) == fewest_samples(percent, confidence)


@given(
    st.integers(1, 600),
    st.sampled_from(["noise", "walk", "wave", "steps", "equal", "alternating"]),
    st.integers(0, 100),
)
def test_dependence_is_told(ask: Asked, count: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "noise": rng.standard_normal(count),
        "walk": rng.standard_normal(count).cumsum(),
        "wave": np.sin(np.arange(count) / 7) + 0.1 * rng.standard_normal(count),
        "steps": np.repeat(rng.standard_normal(count), 9)[:count],
        "equal": np.full(count, 0.1),
        "alternating": (np.arange(count) % 2) + 0.01 * rng.standard_normal(count),
    }[kind]
    ask("values", ask.file(values), count)
    assert ask("dependence") == pytest.approx(dependence(values), rel=1e-7)


def test_dependence_of_many(ask: Asked) -> None:
    """A transform of more points than stay near the processor."""
    values = signal.lfilter([1], [1, -0.9], np.random.default_rng(0).standard_normal(150_001))
    ask("values", ask.file(values), len(values))
    assert ask("dependence") == pytest.approx(dependence(values), rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_is_pythons(ask: Asked, kind: str) -> None:
    for counts in ((1, 3), (5, 100), (60, 80), (1_000, 900), (4_096, 4_096)):
        a, b = made(kind, counts[0]), made("lognormal", counts[1], seed=1)
        want = compare(a, b)
        give(ask, a)
        in_c = ask("compare", ask.file(b), len(b))
        assert in_c == pytest.approx([want.ratio, *want.interval], rel=1e-9), counts


# Drift, level shifts, warm-up ------------------------------------------------------------


def told(shift: shifts.LevelShift, samples: Samples) -> list[Any]:
    return [
        shift.first,
        shift.last,
        shift.percent,
        shift.before_ns,
        shift.level_ns,
        pytest.approx(shift.change_percent),
        pytest.approx(shift.p_value, rel=1e-9),
        is_a_step(samples, shift),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_drift_and_shifts_are_pythons(ask: Asked, kind: str) -> None:
    found_any = False
    for count in (0, *COUNTS):
        for seed in range(2):
            samples = made(kind, count, seed)
            starts = np.cumsum(samples) + 1_000 * np.arange(count)
            give(ask, samples)
            for at in (None, starts):
                if at is not None:
                    ask("starts", ask.file(at))
                drift = find_drift(samples, at)
                in_c = ask("drift", 3, 0.01)
                assert in_c[0] == pytest.approx(drift.change_percent, rel=1e-9, abs=1e-9)
                assert in_c[1] == pytest.approx(drift.p_value, rel=1e-6)
                assert in_c[2] == drift.found
            for limits in ((5.0, 20.0, 0.002), (0.1, 0.1, 0.5)):
                names = ("least_percent", "least_tail_percent", "alpha")
                found = find_level_shifts(samples, **dict(zip(names, limits, strict=True)))
                found_any |= bool(found)
                in_c = ask("shifts", *limits)
                assert in_c == [told(shift, samples) for shift in found]
    assert found_any or kind in ("equal", "zero")


@given(st.lists(st.integers(0, 2_000), max_size=250))
def test_drift_and_shifts_of_anything(ask: Asked, samples: list[int]) -> None:
    taken = np.array(samples, np.int64)
    give(ask, taken)
    drift, in_c = find_drift(taken), ask("drift", 3, 0.01)
    assert in_c[0] == pytest.approx(drift.change_percent, rel=1e-9, abs=1e-9)
    assert in_c[1] == pytest.approx(drift.p_value, rel=0.02)  # ties hang on the last bit
    found = find_level_shifts(taken, alpha=0.3, least_percent=1.0)
    assert ask("shifts", 1, 20, 0.3) == [told(shift, taken) for shift in found]


def test_drift_where_time_stands_still(ask: Asked) -> None:
    samples, times = made("drift", 500), np.zeros(500, np.int64)
    give(ask, samples, times)
    drift = find_drift(samples, times)
    assert ask("drift", 3, 0.01) == [0.0, pytest.approx(drift.p_value), False]


@pytest.mark.parametrize("count", shifts._STRETCHES)
def test_the_null_distribution_is_of_the_same_shuffles(ask: Asked, count: int) -> None:
    assert ask("heights", count) == shifts._null_heights(count).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "limits",
    [
        (24, 0.0, 1e6, 2_000_000, 1),
        (24, 0.5, 30.0, 2_000_000, 1),
        (24, 0.1, 0.3, 2_000_000, 1),
        (1, 0.0, 30.0, 1_500, 1),
        (5, 0.02, 2.0, 10_000, 4),
    ],
)
def test_a_warm_up_ends_where_pythons_does(
    ask: Asked, kind: str, limits: tuple[int, float, float, int, int]
) -> None:
    names = ("min_samples", "min_s", "max_s", "max_samples", "callers")
    for each_ns in (1, 40):
        samples = made(kind, 3_000) * each_ns
        warm_up = WarmUp(**dict(zip(names, limits, strict=True)))  # type: ignore[arg-type]
        for sample in samples.tolist():
            if warm_up.over:
                break
            warm_up.add(sample)
        give(ask, samples)
        in_python = [len(warm_up.samples_ns), warm_up.over, warm_up.steady, True]
        assert ask("warm_up", *limits) == in_python


def test_a_warm_up_of_what_takes_no_time(ask: Asked) -> None:
    give(ask, np.full(100_000, 100, np.int64))
    count, over, steady, kept = ask("warm_up", 24, 0.5, 30.0, 2_000_000, 1)
    assert (over, steady, kept) == (True, True, True)
    assert 50_000 <= count <= 100_000


def test_the_limits_of_a_warm_up(ask: Asked) -> None:
    assert ask("limits", 30, 1) == [24, 500_000_000, 30_000_000_000, 2_000_000]
    assert ask("limits", 0.2, 4) == [24, 800_000_000, 800_000_000, 2_000_000]
    assert ask("limits", 1e300, 1)[2] == int(9e18)


# MLPerf, random numbers, distributions ---------------------------------------------------


@settings(max_examples=200)
@given(
    st.integers(1, 300_000),
    st.sampled_from([50.0, 90.0, 95.0, 97.0, 99.0, 99.9]),
    st.sampled_from([0.1, 0.8, 0.9, 0.99, 0.9999]),
)
def test_early_stopping_is_pythons(
    ask: Asked, queries: int, percent: float, confidence: float
) -> None:
    over = early_stopping.most_over_latency(queries, percent, confidence)
    assert ask("over", queries, percent, confidence) == over
    assert ask("needed", percent, confidence) == [
        early_stopping.needed_queries(percent, confidence),
        early_stopping.suggested_queries(percent, confidence),
    ]


@pytest.mark.parametrize(
    ("queries", "discarded"), [(201, 9), (79_944, 7_796), (4_776_846, 476_158)]
)
def test_what_the_load_generator_discards(ask: Asked, queries: int, discarded: int) -> None:
    assert ask("over", queries, 90, 0.99) - 1 == discarded


@pytest.mark.parametrize("count", [0, 1, 63, 64, 100, 5_000])
@pytest.mark.parametrize("kind", ["lognormal", "ties", "equal"])
def test_the_estimate_is_pythons(ask: Asked, kind: str, count: int) -> None:
    samples = made(kind, count)
    give(ask, samples)
    want = early_stopping.estimate(samples)
    assert ask("early", 90, 0.99) == [
        want.queries,
        want.over_latency,
        want.discarded,
        want.estimate_ns,
        want.needed_queries,
        want.suggested_queries,
    ]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**32))
def test_random_numbers_are_numpys(ask: Asked, seed: int, below: int) -> None:
    want = np.random.default_rng(seed).integers(0, below, 40)
    assert ask("below", seed, below, 40) == want.tolist()
    assert ask("share", seed, 40) == np.random.default_rng(seed).random(40).tolist()


def test_arrivals_are_exponential(ask: Asked) -> None:
    drawn = np.concatenate([ask("exponential", seed, 2_000) for seed in range(5)])
    assert stats.kstest(drawn, "expon").pvalue > 0.001
    assert (drawn >= 0).all()


@given(
    st.floats(-8, 8), st.floats(0.5, 2e6), st.floats(0.001, 0.999).filter(lambda p: p != 0.5)
)
def test_distributions_are_pythons(
    ask: Asked, t: float, freedom: float, probability: float
) -> None:
    # The gamma functions of large numbers differ in so many digits.
    tail = pytest.approx(student_tail(abs(t), freedom), rel=1e-7, abs=1e-12)
    quantile = pytest.approx(student_quantile(probability, freedom), rel=1e-7, abs=1e-12)
    normal = pytest.approx(normal_tail(t), rel=1e-12)
    assert ask("student", t, freedom, probability) == [normal, tail, quantile]


# When memory runs out --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("percentile", 90),
        ("intervals", 0.95, 50, 0, *PERCENTS),
        ("design", 99),
        ("dependence",),
        ("summary",),
        ("drift", 3, 0.01),
        ("shifts", 5, 20, 0.002),
        ("warm_up", 24, 0, 10, 2_000_000, 1),
        ("early", 90, 0.99),
    ],
    ids=lambda command: command[0],
)
def test_each_allocation_may_fail(ask: Asked, command: tuple[object, ...]) -> None:
    """Each in turn: the error is told. A build with sanitizers sees leaks here, too."""
    samples = made("step", 2_000)
    give(ask, samples)
    ask("values", ask.file(samples.astype(np.float64)), len(samples))
    want, failed = ask(*command), 0
    for at in range(1, 100):
        ask("fail_at", at)
        answer = ask(*command)
        if answer == want:
            break
        assert answer == {"failed": "this one was asked to fail"}
        failed += 1
    ask("fail_at", 0)
    assert 0 < failed < 99
    assert ask(*command) == want


def test_python_and_c_round_ranks_alike() -> None:
    """What the C code takes for Python's round(x, 6): whole ranks stay whole."""
    for count in range(1, 20_000, 7):
        for percent in PERCENTS:
            exact = percent * count / 100
            assert math.ceil(round(exact, 6)) == math.ceil(np.rint(exact * 1e6) / 1e6)
