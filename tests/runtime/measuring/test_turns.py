# SPDX-License-Identifier: Apache-2.0
"""Latency in turns: what is counted, in which order, from when, and when it ends."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring import limits, turns
from edge_imprint_runtime.measuring.limits import DEFAULT_ITERATIONS, MAX_SAMPLES, Limit
from edge_imprint_runtime.measuring.steady import WarmUp
from edge_imprint_runtime.measuring.turns import (
    Samples,
    measure,
    measure_stages,
    single_stream,
    warmed_up,
)

WARM = 40  # calls


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up of so many calls: what these calls do is nothing, and that at once."""
    monkeypatch.setattr(
        turns,
        "new_warm_up",
        lambda limit_s: WarmUp(min_samples=1, min_s=0, max_s=1e-9, max_samples=WARM),
    )


class Clock:
    """A call that takes so long by a clock of its own, which is the one that is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1_000
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now_ns)

    def takes(self, *times_ns: int) -> Callable[[], None]:
        left = list(times_ns)

        def run() -> None:
            self.now_ns += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("iterations", [1, 7, 1_000, None])
def test_every_call_but_the_warm_up_is_a_sample(short: None, iterations: int | None) -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    runs = {name: lambda name=name: count(name) for name in calls}
    found = measure(runs, iterations=iterations, batch=3)
    wanted = iterations or DEFAULT_ITERATIONS
    assert [(s.name, s.batch, len(s.samples_ns)) for s in found] == [
        ("a", 3, wanted),
        ("b", 3, wanted),
    ]
    # Beside the samples: the warm-up, and one call a turn that is not kept.
    warm = [len(s.warm_up_ns) for s in found]
    assert list(calls.values()) == [wanted + w + min(wanted, 10) for w in warm]
    for one in found:
        assert one.samples_ns.dtype == np.int64
        assert one.starts_ns is not None
        assert (one.samples_ns >= 0).all()
        assert (np.diff(one.starts_ns) >= 0).all()


def test_series_are_measured_in_turns(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of one call each, where a call is longer than a turn."""
    monkeypatch.setattr(turns, "_TURN_NS", 1)
    order: list[str] = []
    found = measure(
        {name: lambda name=name: order.append(name) for name in "abc"}, iterations=5
    )
    warm = sum(len(s.warm_up_ns) for s in found)
    assert "".join(order[warm:]) == "aabbcc" * 5


def test_a_turn_holds_many_fast_calls(short: None) -> None:
    order: list[str] = []
    found = measure(
        {name: lambda name=name: order.append(name) for name in "ab"}, iterations=50
    )
    warm = sum(len(s.warm_up_ns) for s in found)
    # ten turns of five, each after one not kept
    assert "".join(order[warm:]) == ("a" * 6 + "b" * 6) * 10


def test_samples_and_starts_are_those_of_the_clock(short: None, clock: Clock) -> None:
    (found,) = measure({"a": clock.takes(7)}, iterations=20, began_ns=900)
    assert found.samples_ns.tolist() == [7] * 20
    assert found.starts_ns is not None
    first = found.starts_ns[0]
    # From the begin: what the clock showed, the warm-up, and the first call, not kept.
    assert first == 100 + 7 * len(found.warm_up_ns) + 7
    # Of ten turns of two, each begins after a call that is not kept.
    assert (found.starts_ns - first).tolist() == [7 * (n + n // 2) for n in range(20)]


def test_a_slower_thing_takes_longer() -> None:
    small, large = (np.random.default_rng(0).standard_normal((n, n)) for n in (2, 200))
    fast, slow = measure(
        {"fast": lambda: small @ small, "slow": lambda: large @ large},
        iterations=40,
        warm_up_s=0.2,
    )
    assert fast.percentile_ms(50) < slow.percentile_ms(50)


def test_a_duration_is_held(short: None) -> None:
    told: list[tuple[int, int]] = []
    runs = {"a": lambda: sum(range(1_000)), "b": lambda: None}
    a, b = measure(runs, duration_s=0.15, progress=lambda *at: told.append(at))
    assert len(a.samples_ns) == len(b.samples_ns) > 100
    assert a.samples_ns.sum() + b.samples_ns.sum() >= 0.02 * 1e9
    assert told[-1] == (150, 150)
    assert told == sorted(told)


def test_progress_ends_at_the_total(short: None) -> None:
    told: list[tuple[int, int]] = []
    measure({"a": lambda: None}, iterations=30, progress=lambda *at: told.append(at))
    assert told[-1] == (30, 30)
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ({"iterations": -1}, "iterations must be an integer >= 1, got -1"),
        (
            {"iterations": MAX_SAMPLES + 1},
            f"iterations must be at most {MAX_SAMPLES}, got {MAX_SAMPLES + 1}",
        ),
        ({"duration_s": 0.0}, "duration must be above 0 s and at most a day, got 0.0"),
        ({"duration_s": -1.0}, "duration must be above 0 s and at most a day, got -1.0"),
        (
            {"duration_s": 86_401.0},
            "duration must be above 0 s and at most a day, got 86401.0",
        ),
        ({"duration_s": math.nan}, "duration must be above 0 s and at most a day, got nan"),
        ({"duration_s": math.inf}, "duration must be above 0 s and at most a day, got inf"),
        ({"iterations": 10, "duration_s": 1.0}, "give iterations or duration, not both"),
        ({"warm_up_s": 0.0}, "warm-up must be above 0 s and at most an hour, got 0.0"),
        ({"warm_up_s": 3_601.0}, "warm-up must be above 0 s and at most an hour, got 3601.0"),
        ({"warm_up_s": math.nan}, "warm-up must be above 0 s and at most an hour, got nan"),
    ],
)
def test_impossible_limits(given: dict[str, float], said: str) -> None:
    def never() -> None:
        pytest.fail("it was run")

    with pytest.raises(ParameterError) as caught:
        measure({"a": never}, **given)  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_a_series_ends_at_its_most_samples(
    short: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SAMPLES", 300)
    (found,) = measure({"a": clock.takes(1_000)}, duration_s=1)
    assert len(found.samples_ns) == 300


def test_a_warm_up_lasts_until_it_is_steady(clock: Clock) -> None:
    """Ten slow calls, as of a clock that is yet to rise, and then all alike."""
    warm = warmed_up(clock.takes(*[90_000_000] * 10, 10_000_000), 30)
    assert warm.steady
    assert list(warm.warm_up_ns[:10]) == [90_000_000] * 10
    # The calls that are alike fill the half that is looked at.
    assert list(warm.warm_up_ns).count(10_000_000) >= 10
    assert not len(warm.taken_ns)
    assert warm.slowest_ns() == 10_000_000


def test_a_warm_up_that_never_ends_is_cut_off_and_said(clock: Clock) -> None:
    times = [int(20_000_000 * 0.995**n) for n in range(1_000)]  # faster and faster
    warm = warmed_up(clock.takes(*times), 2)
    assert not warm.steady
    assert 2e9 <= sum(warm.warm_up_ns) < 2.1e9
    found = warm.series("a", 1, 0)
    assert not found.warmed_up
    assert list(found.warm_up_ns) == list(warm.warm_up_ns)


def test_the_collector_runs_but_sees_what_is_new_only() -> None:
    frozen: list[int] = []
    seen: list[bool] = []

    def run() -> None:
        frozen.append(gc.get_freeze_count())
        seen.append(gc.isenabled())

    if before := gc.get_freeze_count():
        pytest.skip(f"{before} objects are frozen already, and stay so")
    measure({"a": run}, iterations=3, warm_up_s=0.01)
    assert all(seen)
    assert min(frozen) > before
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError):
        measure({"a": lambda: 1 // 0}, iterations=3)
    assert gc.get_freeze_count() == 0
    gc.freeze()  # the program's own wish
    try:
        frozen_by_it = gc.get_freeze_count()
        measure({"a": run}, iterations=3, warm_up_s=0.01)
        assert gc.get_freeze_count() > frozen_by_it / 2
    finally:
        gc.unfreeze()


def test_taking_a_sample_costs_next_to_nothing() -> None:
    samples = Samples()
    start = time.thread_time_ns()  # what it takes itself, whatever else the machine does
    samples.take(list, 20_000)
    each_ns = (time.thread_time_ns() - start) / 20_000
    # Between two clock readings lies the call alone; what is around it is not counted, and
    # must not be so long that it cools a cache. Some 0.3 us; the limit leaves room for a
    # machine that does other things too.
    assert each_ns < 20_000
    assert np.median(samples.taken_ns) < 5_000


def test_stages_are_series_of_their_own(short: None, clock: Clock) -> None:
    def run() -> dict[str, int]:
        clock.now_ns += 60
        return {"copy_in": 10, "compute": 40, "copy_out": 5, "compute_gpu": 38}

    told: list[tuple[int, int]] = []
    found = measure_stages(
        "fused", run, batch=8, iterations=12, progress=lambda *at: told.append(at), began_ns=0
    )
    assert [(s.name, s.batch, s.stage, s.clock) for s in found] == [
        ("fused", 8, "copy_in", "host"),
        ("fused", 8, "compute", "host"),
        ("fused", 8, "copy_out", "host"),
        ("fused", 8, "compute_gpu", "cuda_events"),
    ]
    assert [s.samples_ns.tolist() for s in found] == [[n] * 12 for n in (10, 40, 5, 38)]
    for one in found:
        assert one.starts_ns is not None
        assert (np.diff(one.starts_ns) == 60).all()
    assert told[-1] == (12, 12)


def test_a_single_stream_counts_what_lies_between_calls(short: None, clock: Clock) -> None:
    """The next query is due when the one before is complete: the latencies fill the time."""
    found = single_stream("fused", clock.takes(1_000), queries=64, duration_s=1e-4, began_ns=0)
    assert found.starts_ns is not None
    ends = found.starts_ns + found.samples_ns
    assert (found.starts_ns[1:] == ends[:-1]).all()
    assert len(found.samples_ns) == 128  # two chunks: 64 queries were too short
    assert ends[-1] - found.starts_ns[0] >= 1e5


def test_a_single_stream_needs_both_time_and_queries(short: None, clock: Clock) -> None:
    found = single_stream("fused", clock.takes(10_000_000), queries=64, duration_s=0.05)
    assert len(found.samples_ns) >= 64
    found = single_stream("fused", clock.takes(10_000_000), queries=64, duration_s=3)
    assert found.samples_ns.sum() >= 3e9


def test_a_single_stream_ends_when_a_series_is_full(
    short: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of 20 us has more queries in 600 s than a report holds."""
    monkeypatch.setattr(turns, "MAX_SAMPLES", 1_000)
    found = single_stream("fused", clock.takes(20_000), queries=64, duration_s=600)
    assert len(found.samples_ns) == 1_000


def test_a_limit_tells_samples_or_milliseconds() -> None:
    told: list[tuple[int, int]] = []
    Limit(10).told(lambda *at: told.append(at), 12, 99)
    Limit(10, 2.0).told(lambda *at: told.append(at), 12, 1_500_000_000)
    Limit(10, 2.0).told(None, 12, 1_500_000_000)
    assert told == [(10, 10), (1_500, 2_000)]
