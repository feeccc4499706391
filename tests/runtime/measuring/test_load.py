# SPDX-License-Identifier: Apache-2.0
"""Load: arrivals follow their law, a stall is felt by all who came, callers are counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring import load
from edge_imprint_runtime.measuring.limits import Limit
from edge_imprint_runtime.measuring.load import closed_loop, offered_load, poisson_arrivals
from edge_imprint_runtime.measuring.steady import WarmUp

MS = 1_000_000


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        load,
        "new_warm_up",
        lambda limit_s, callers: WarmUp(min_samples=1, min_s=0, max_s=1e-9, max_samples=8),
    )


def exponential_distance(gaps: Any) -> float:
    """Kolmogorov's distance from the exponential law of mean 1, by its definition."""
    ordered = np.sort(gaps)
    law = 1 - np.exp(-ordered)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max((steps[1:] - law).max(), (law - steps[:-1]).max()))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rate_per_s", [0.5, 20.0, 5_000.0])
def test_arrivals_are_a_poisson_process(rate_per_s: float, seed: int) -> None:
    arrivals = poisson_arrivals(rate_per_s, Limit(20_000), seed=seed)
    assert len(arrivals) == 20_000
    assert arrivals.dtype == np.int64
    gaps = np.diff(arrivals, prepend=0) * rate_per_s / 1e9
    # At the 1 % level the distance is below 1.63 / sqrt(n); even or normal gaps fail by far.
    assert exponential_distance(gaps) < 1.63 / 20_000**0.5
    assert exponential_distance(np.ones(20_000)) > 0.3
    # Independent: a gap says nothing of the next one.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03
    # And so the counts of equal spans have a variance that is their mean.
    counts = np.histogram(arrivals, bins=500)[0]
    assert 0.8 < counts.var() / counts.mean() < 1.2


def test_arrivals_are_those_of_the_seed() -> None:
    first, again, other = (poisson_arrivals(50, Limit(100), seed=s) for s in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


@given(st.floats(0.1, 1e4), st.floats(0.01, 20), st.integers(0, 1_000))
def test_arrivals_for_a_duration(rate_per_s: float, duration_s: float, seed: int) -> None:
    arrivals = poisson_arrivals(rate_per_s, Limit(10**6, duration_s), seed=seed)
    assert (np.diff(arrivals) >= 0).all()
    if len(arrivals) > 1:
        assert arrivals[-1] <= duration_s * 1e9
    wanted = rate_per_s * duration_s
    assert abs(len(arrivals) - wanted) <= 6 * wanted**0.5 + 2


def test_arrivals_for_a_duration_are_no_more_than_a_series_takes() -> None:
    arrivals = poisson_arrivals(1e6, Limit(1_000, 100.0))
    assert len(arrivals) == 1_000
    assert arrivals[-1] < 5_000_000


@pytest.mark.parametrize(
    ("rate_per_s", "limit", "said"),
    [
        (0.0, Limit(10), "rate must be above 0 and at most 1000000 a second, got 0.0"),
        (-1.0, Limit(10), "rate must be above 0 and at most 1000000 a second, got -1.0"),
        (
            float("nan"),
            Limit(10),
            "rate must be above 0 and at most 1000000 a second, got nan",
        ),
        (2e6, Limit(10), "rate must be above 0 and at most 1000000 a second, got 2000000.0"),
    ],
)
def test_impossible_rates(rate_per_s: float, limit: Limit, said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        poisson_arrivals(rate_per_s, limit)
    assert str(caught.value) == said


class Clock:
    """Time that passes where one waits, and nowhere else, whatever else the machine does."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += max(int(seconds * 1e9), 50_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a single caller: two would wait one after the other."""
    made = Clock()
    monkeypatch.setattr(load, "time", made)
    return made


def test_a_stall_is_felt_by_all_who_came(short: None, clock: Clock) -> None:
    """No coordinated omission: one call of 0.4 s makes a third of 1.2 s of calls slow."""
    calls = [0]

    def stalls_once() -> None:
        calls[0] += 1
        clock.sleep(0.4 if calls[0] == 40 else 0.001)

    found = offered_load("a", [stalls_once], 100, duration_s=1.2)
    waited_ms = found.series.samples_ns / MS
    # In a closed loop one sample would be slow; here all that came meanwhile are.
    slow = (waited_ms > 50).sum()
    assert slow > 20
    assert 390 < waited_ms.max() < 410
    assert found.backlog_max > 20
    assert found.unserved == 0
    closed_calls, calls[0] = 120, 0
    closed = closed_loop("a", [stalls_once], iterations=closed_calls)
    assert (closed.samples_ns / MS > 50).sum() == 1


def test_a_latency_counts_from_the_arrival(short: None) -> None:
    began_ns = time.perf_counter_ns()
    found = offered_load(
        "a", [lambda: time.sleep(0.002)], 100, iterations=50, seed=5, began_ns=began_ns
    )
    arrivals = poisson_arrivals(100, Limit(50), seed=5)
    starts = found.series.starts_ns
    assert starts is not None
    # The starts are the arrivals as drawn, whatever the calls did.
    assert (starts - starts[0]).tolist() == (arrivals - arrivals[0]).tolist()
    assert starts[0] > 0
    assert (found.series.samples_ns >= 2 * MS).all()
    assert found.series.offered_per_s == 100
    assert found.arrivals == 50


def test_an_overload_is_seen_and_ends(short: None) -> None:
    start = time.monotonic()
    told: list[tuple[int, int]] = []
    found = offered_load(
        "a",
        [lambda: time.sleep(0.05)] * 2,
        4_000,  # a hundred times as many as they can do
        duration_s=0.5,
        progress=lambda *at: told.append(at),
    )
    # It gives up after 1.5 s, on a loaded machine some more: not the 50 s of all calls.
    assert time.monotonic() - start < 25
    assert found.overloaded
    assert found.unserved > 1_000
    assert len(found.series.samples_ns) == found.arrivals - found.unserved
    assert found.backlog_end > 1_000
    assert found.busy_share > 0.5
    assert told
    assert told == sorted(told)


def test_a_light_load_is_none(short: None, clock: Clock) -> None:
    found = offered_load("a", [lambda: clock.sleep(0.001)], 30, duration_s=0.6)
    assert found.overloaded is False
    assert found.unserved == 0
    assert found.backlog_end <= 2
    assert 0 < found.busy_share < 0.1


@pytest.mark.parametrize("callers", [1, 3, 8])
def test_callers_run_at_once_and_each_its_own(short: None, callers: int) -> None:
    inside, most, lock = [0], [0], threading.Lock()
    threads: Counter[str] = Counter()
    # Each thread's first call waits for those of the others, in the warm-up and then again:
    # on a busy machine one could come when the others have done all there was to do.
    meeting, here = threading.Barrier(callers), threading.local()

    def call() -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threads[threading.current_thread().name] += 1
        if not hasattr(here, "met"):
            here.met = True
            meeting.wait(60)
        time.sleep(0.002)
        with lock:
            inside[0] -= 1

    found = closed_loop("a", [call] * callers, iterations=40, batch=2)
    assert len(found.samples_ns) == 40
    assert most[0] == callers
    assert set(threads) == {f"caller {n}" for n in range(callers)}
    assert found.concurrency == callers
    assert found.batch == 2
    starts = found.starts_ns
    assert starts is not None
    assert (np.diff(starts) >= 0).all()
    # n callers of 2 ms calls of 2 images each.
    assert found.throughput_images_per_s() <= callers * 2 / 0.002
    assert found.throughput_images_per_s() == pytest.approx(
        callers * 2 / found.samples_ns.mean() * 1e9
    )


def test_callers_for_a_duration(short: None) -> None:
    told: list[tuple[int, int]] = []
    found = closed_loop(
        "a",
        [lambda: time.sleep(0.001)] * 2,
        duration_s=0.3,
        progress=lambda *at: told.append(at),
    )
    starts = found.starts_ns
    assert starts is not None
    # Each goes on until an answer comes later than that, and each may have been interrupted
    # before its last call.
    assert (starts + found.samples_ns).max() >= 0.3e9
    assert (starts[:-2] < 0.3e9).all()
    assert told
    assert all(total == 300 for _, total in told)


@pytest.mark.parametrize("measured", [closed_loop, offered_load])
def test_the_first_error_of_a_caller_ends_all(measured: Any) -> None:
    calls = [0]

    def fails() -> None:
        calls[0] += 1
        if calls[0] > 3:
            raise ZeroDivisionError("call 4")
        time.sleep(0.001)

    given = ("a", [fails] * 4) + ((50,) if measured is offered_load else ())
    threads = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError, match="call 4"):
        measured(*given, duration_s=60)
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("count", [0, 257])
def test_impossible_numbers_of_callers(count: int) -> None:
    said = f"concurrency must be an integer from 1 to 256, got {count}"
    for measured, rate in ((closed_loop, ()), (offered_load, (5,))):
        with pytest.raises(ParameterError) as caught:
            measured("a", [lambda: None] * count, *rate)  # type: ignore[operator]
        assert str(caught.value) == said
