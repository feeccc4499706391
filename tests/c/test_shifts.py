# SPDX-License-Identifier: Apache-2.0
"""Drift, level shifts and the end of a warm-up in ei-bench are those of Python's bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.measuring import shifts
from edge_imprint_runtime.measuring.shifts import find_drift, find_level_shifts, is_a_step
from edge_imprint_runtime.measuring.steady import WarmUp
from tests.c.asking import Asked
from tests.c.samples import COUNTS, KINDS, Samples, give, made


@pytest.fixture(scope="module")
def ask(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One statistics_check for all tests of this file."""
    folder = tmp_path_factory.mktemp("statistics")
    with Asked(c_build / "tests" / "statistics_check", folder) as program:
        yield program


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
