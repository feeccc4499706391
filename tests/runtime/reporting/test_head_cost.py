# SPDX-License-Identifier: Apache-2.0
"""What a head costs, and when that is not to be relied upon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_imprint_runtime.reporting.head_cost import head_costs, several_modes
from edge_imprint_runtime.reporting.schema import Report
from tests.report_example import (
    example_series,
    latencies,
    smallest_report,
    with_series,
)

Save = Callable[..., Report]


def test_what_the_head_costs(save: Save) -> None:
    base = smallest_report()
    found = head_costs(
        save(
            with_series(
                base,
                example_series("fused", 2_000, 2.2, seed=1),
                example_series("backbone only", 2_000, 2.0, seed=2),
                example_series("fused", 500, 2.0, batch=8, seed=3),
                example_series("backbone only", 500, 2.0, batch=8, seed=4),
                example_series("fused", 500, 2.0, batch=4),
            )
        )
    )
    assert [cost.doubt for cost in found] == ["", ""]
    assert [cost.batch for cost in found] == [1, 8]
    one, eight = found
    assert one.shown
    assert one.ms == pytest.approx(0.2, abs=0.02)
    assert one.bounds_ms[0] < one.ms < one.bounds_ms[1]
    assert one.text == (
        f"+{one.ms:.4f} ms (+{one.bounds_ms[0]:.4f} to +{one.bounds_ms[1]:.4f}), "
        f"{100 * (one.ratio - 1):.1f} % of the backbone"
    )
    assert not eight.shown
    assert eight.text.startswith("none shown: ")
    assert eight.bounds_ms[0] < 0 < eight.bounds_ms[1]


def test_a_report_without_both_has_none(save: Save) -> None:
    assert head_costs(save(smallest_report())) == ()


def test_of_an_unstable_run_it_is_marked(save: Save) -> None:
    made = with_series(
        smallest_report(stable=False),
        example_series("fused", 500, 2.2, seed=1),
        example_series("backbone only", 500, 2.0, seed=2),
    )
    (cost,) = head_costs(save(made))
    assert cost.doubt == "the run is not stable"
    assert cost.text.endswith(" % of the backbone; NOT reliable: the run is not stable")


def test_of_times_around_two_values_it_is_marked(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = np.concatenate([latencies(250, 2.0), latencies(250, 2.6, seed=1)])
    with monkeypatch.context() as patch:
        patch.setattr("tests.report_example.latencies", lambda count, *_: halves[:count])
        fused = example_series("fused", 500, 2.3)
    bare = example_series("backbone only", 500, 2.0, seed=2)
    (cost,) = head_costs(save(with_series(smallest_report(), fused, bare)))
    assert (
        cost.doubt == "times gather around several values, between which the median may jump"
    )


@pytest.mark.parametrize("count", [100, 300, 5_000])
def test_one_mode_is_not_seen_as_two(count: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        drifting = latencies(count, 2.0, seed) * np.linspace(1, 1.2, count)
        coarse = 1_000 * rng.normal(20, 1.5, count).round()
        skewed = 1e6 * rng.lognormal(0, 0.3, count)
        for samples in (latencies(count, 2.0, seed), drifting, coarse, skewed):
            assert not several_modes(samples.astype(np.int64))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_two_modes_are_seen(share: float) -> None:
    low = round(1_000 * share)
    for seed in range(30):
        parts = latencies(low, 2.0, seed), latencies(1_000 - low, 2.5, seed + 1)
        assert several_modes(np.concatenate(parts))


def test_a_tail_and_a_constant_are_no_mode() -> None:
    tail = np.concatenate([latencies(900, 2.0), latencies(100, 9.0)])
    assert not several_modes(tail)
    assert not several_modes(np.full(500, 1_000))
    assert not several_modes(np.array([1, 2] * 40))
