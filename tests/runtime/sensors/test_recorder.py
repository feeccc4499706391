# SPDX-License-Identifier: Apache-2.0
"""The recorder's thread: when it reads, what it keeps, and how it ends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.sensors import (
    LostSource,
    Recorder,
    SensorLostError,
    Trace,
    open_sensors,
    recorder,
)
from edge_imprint_runtime.sensors.source import Facts

Row = dict[str, float]


class Told:
    """A source that reads what it was told, then the last of it for ever."""

    def __init__(self, rows: Iterable[Row | Exception], name: str = "told") -> None:
        self.name = name
        self.rows = list(rows)
        self.reads = 0

    def read(self) -> Row:
        found = self.rows[min(self.reads, len(self.rows) - 1)]
        self.reads += 1
        if isinstance(found, Exception):
            raise found
        return found

    def facts(self) -> Facts:
        return {}

    def close(self) -> None: ...


def record(*sources: Told, readings: int = 5) -> Trace:
    """Record until the first source was read so often; the last reading is at the end."""
    with Recorder(sources, 0.001) as made:
        wait_for(lambda: sources[0].reads >= readings)
    return made.trace()


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sensors"]


def test_it_reads_from_the_start_to_the_stop() -> None:
    source = Told([{"load_percent": 1.0}, {"load_percent": 2.0}, {"load_percent": 3.0}])
    before_ns = time.perf_counter_ns()
    with Recorder([source], 0.05) as made:
        started_ns = time.perf_counter_ns()
        time.sleep(0.12)
        wait_for(lambda: source.reads >= 2)
    ended_s = (time.perf_counter_ns() - made.start_ns) / 1e9
    trace = made.trace()
    assert before_ns <= made.start_ns <= started_ns
    assert trace.interval_s == 0.05
    assert len(trace.times_s) == source.reads >= 3
    assert (np.diff(trace.times_s) > 0).all()
    # The first reading at once, the others on a grid from the start, and one at the stop.
    assert (trace.times_s[:-1] >= 0.05 * np.arange(len(trace.times_s) - 1)).all()
    assert 0.12 <= trace.times_s[-1] <= ended_s
    assert trace.readings["load_percent"].tolist()[:3] == [1.0, 2.0, 3.0]
    assert trace.lost == {}
    assert threads() == []


def test_a_value_that_comes_late_or_goes_is_nan() -> None:
    rows = [{"a_s": 1.0}, {"a_s": 2.0, "b_s": 5.0}, {"b_s": 6.0}, {"a_s": math.nan}, {}]
    trace = record(Told(rows))
    nan = math.nan
    assert [*trace.readings] == ["a_s", "b_s"]
    np.testing.assert_array_equal(trace.readings["a_s"][:5], [1.0, 2.0, nan, nan, nan])
    np.testing.assert_array_equal(trace.readings["b_s"][:5], [nan, 5.0, 6.0, nan, nan])
    assert {len(values) for values in trace.readings.values()} == {len(trace.times_s)}


def test_of_one_name_the_first_source_counts() -> None:
    trace = record(Told([{"a_s": 1.0, "b_s": 1.0}]), Told([{"a_s": 2.0, "c_s": 2.0}], "other"))
    assert {name: values[0] for name, values in trace.readings.items()} == {
        "a_s": 1.0,
        "b_s": 1.0,
        "c_s": 2.0,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SensorLostError("NVML: GPU is lost"), "NVML: GPU is lost"),
        (ValueError("not a number"), "ValueError: not a number"),
    ],
)
def test_a_lost_source_is_noted_and_the_others_go_on(error: Exception, reason: str) -> None:
    steady, gone = Told([{"a_s": 1.0}]), Told([{"b_s": 1.0}, error], "gone")
    trace = record(steady, gone, readings=6)
    assert trace.lost == {"gone": reason}
    assert gone.reads == 2
    assert trace.readings["a_s"].tolist() == [1.0] * len(trace.times_s)
    assert trace.readings["b_s"][0] == 1.0
    assert np.isnan(trace.readings["b_s"][1:]).all()


def test_a_source_that_could_not_be_opened() -> None:
    with Recorder([LostSource("jtop", "it is not installed")], 0.001) as made:
        wait_for(lambda: bool(made.trace().lost))
    assert made.trace().lost == {"jtop": "it is not installed"}
    assert made.trace().readings == {}
    assert len(made.trace().times_s) > 0


def test_each_start_begins_a_trace() -> None:
    source = Told([{"a_s": 1.0}, SensorLostError("gone"), {"a_s": 3.0}])
    made = Recorder([source], 0.001)
    assert len(made.trace().times_s) == 0
    with made:
        wait_for(lambda: bool(made.trace().lost))
    first, first_ns = made.trace(), made.start_ns
    made.start()
    made.start()  # it runs already
    wait_for(lambda: len(made.trace().times_s) > 2)
    assert len(threads()) == 1
    made.stop()
    made.stop()
    assert threads() == []
    again = made.trace()
    assert made.start_ns > first_ns
    assert again.lost == {}  # what was lost is tried again
    assert set(again.readings["a_s"]) == {3.0}
    assert 0 <= again.times_s[0] < first.times_s[-1] + 5
    assert first.readings["a_s"][0] == 1.0
    assert first.lost == {"told": "gone"}


def test_it_stops_without_waiting_for_its_interval() -> None:
    made = Recorder([Told([{"a_s": 1.0}])], 3600)
    made.start()
    wait_for(lambda: len(made.trace().times_s) == 1)
    began = time.monotonic()
    made.stop()
    assert time.monotonic() - began < 600
    assert len(made.trace().times_s) == 2
    assert threads() == []


def test_a_source_that_hangs_does_not_hang_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_JOIN_S", 0.05)
    release = threading.Event()

    class Hanging(Told):
        def read(self) -> Row:
            release.wait(30)
            return super().read()

    made = Recorder([Hanging([{"a_s": 1.0}])], 0.001)
    made.start()
    made.stop()
    assert len(made.trace().times_s) == 0
    release.set()
    wait_for(lambda: threads() == [])


def test_a_trace_can_be_taken_while_it_runs() -> None:
    with Recorder([Told([{"a_s": 1.0}])], 0.0001) as made:
        for _ in range(100):
            trace = made.trace()
            assert {len(v) for v in trace.readings.values()} <= {len(trace.times_s)}


def test_an_error_in_the_measurement_ends_the_thread_and_passes() -> None:
    with pytest.raises(ZeroDivisionError), Recorder([Told([{"a_s": 1.0}])], 0.01):
        _ = 1 / 0
    assert threads() == []


@pytest.mark.parametrize("interval_s", [0, -1.0, math.inf, math.nan])
def test_an_interval_that_is_none(interval_s: float) -> None:
    with pytest.raises(ParameterError) as caught:
        Recorder([], interval_s)
    assert str(caught.value) == (
        f"the sensors' interval is {interval_s} s; give seconds above 0"
    )


def test_real_sensors() -> None:
    sources = open_sensors()
    with Recorder(sources, 0.02) as made:
        time.sleep(0.3)
        wait_for(lambda: len(made.trace().times_s) > 3)
    for source in sources:
        source.close()
    trace = made.trace()
    busy, own = trace.readings["busy_cpu_s"], trace.readings["own_cpu_s"]
    assert len(trace.times_s) > 3
    assert (np.diff(busy) >= 0).all()
    assert (np.diff(own) >= 0).all()
    shares = trace.readings["cpu_percent"]
    assert ((shares >= 0) & (shares <= 100))[~np.isnan(shares)].all()
    assert not np.isnan(shares).all()
