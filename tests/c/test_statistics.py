# SPDX-License-Identifier: Apache-2.0
"""The statistics of ei-bench are those of Python's bench: same samples, same figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from edge_imprint_runtime.measuring import early_stopping
from edge_imprint_runtime.measuring.blocks import BlockBootstrap, dependence, nearest_rank
from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.measuring.intervals import fewest_samples, percentile_intervals
from edge_imprint_runtime.measuring.series import PERCENTS, Series
from edge_imprint_runtime.measuring.student import (
    normal_tail,
    student_quantile,
    student_tail,
)
from tests.c.asking import Asked
from tests.c.samples import COUNTS, KINDS, Samples, give, made, recorded


@pytest.fixture(scope="module")
def ask(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One statistics_check for all tests of this file."""
    folder = tmp_path_factory.mktemp("statistics")
    with Asked(c_build / "tests" / "statistics_check", folder) as program:
        yield program


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
def test_the_nearest_rank_and_what_lies_there(
    ask: Asked, samples: list[int], percent: float, data: st.DataObject
) -> None:
    give(ask, np.array(samples, np.int64))
    ordered = sorted(samples)
    assert ask("rank", percent) == nearest_rank(len(samples), percent)
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
