# SPDX-License-Identifier: Apache-2.0
"""A thread that reads the sensors while something else is measured."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import final

import numpy as np

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.sensors.source import SensorLostError, Source
from edge_imprint_runtime.sensors.trace import Trace

__all__ = ["Recorder"]

_NAN = float("nan")
# A driver that hangs must not hang the measurement too: its thread is left behind.
_JOIN_S = 2.0


class _Columns:
    """Rows of readings, kept by column: 8 bytes a value, and nothing for the collector."""

    def __init__(self) -> None:
        self.times = array("d")
        self.values: dict[str, array[float]] = {}
        self.lost: dict[str, str] = {}

    def add(self, time_s: float, row: Mapping[str, float]) -> None:
        taken = len(self.times)
        for name, value in row.items():
            column = self.values.get(name)
            if column is None:
                column = self.values[name] = array("d", [_NAN]) * taken
            column.append(value)
        self.times.append(time_s)
        for column in self.values.values():
            if len(column) == taken:
                column.append(_NAN)


@final
class Recorder:
    """Reads sources at an interval, on a thread of its own, until it is stopped.

    A source that is lost is noted with its reason, and the others are read on. It can be
    started again: that begins a new trace. As a context manager it starts and stops.

    Args:
        sources: What to read. Where two give one name, the first one's value is kept. They
            stay the caller's, who closes them.
        interval_s: Seconds from one reading to the next.

    Attributes:
        start_ns: `time.perf_counter_ns` when `Trace.times_s` is zero: on its clock, what is
            measured can be laid beside the readings.

    Raises:
        ParameterError: The interval is not above zero.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        interval_s: float = 0.25,
    ) -> None:
        if not 0 < interval_s < float("inf"):
            raise ParameterError(
                f"the sensors' interval is {interval_s} s; give seconds above 0"
            )
        self.interval_s = interval_s
        self.start_ns = 0
        self._sources = list(sources)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._columns = _Columns()

    def start(self) -> None:
        """Take a first reading now, and go on at the interval; a running one goes on."""
        if self._thread is not None:
            return
        self._columns = columns = _Columns()
        self._stop, self._ended = threading.Event(), threading.Event()
        self.start_ns = time.perf_counter_ns()
        self._thread = threading.Thread(
            target=self._run,
            args=(columns, self._stop, self._ended, self.start_ns),
            name="sensors",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Take a last reading and end the thread; the trace stays."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            # Not its join(), which Python 3.11 can abort in when Ctrl-C comes at that moment.
            self._ended.wait(_JOIN_S)

    def trace(self) -> Trace:
        """Return what was read since the last start, while it runs or after."""
        with self._lock:
            columns = self._columns
            return Trace(
                np.array(columns.times, np.float64),
                {name: np.array(column) for name, column in columns.values.items()},
                dict(columns.lost),
                self.interval_s,
            )

    def __enter__(self) -> Recorder:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(
        self,
        columns: _Columns,
        stop: threading.Event,
        ended: threading.Event,
        start_ns: int,
    ) -> None:
        try:
            self._read_on(columns, stop, start_ns)
        finally:
            ended.set()

    def _read_on(self, columns: _Columns, stop: threading.Event, start_ns: int) -> None:
        sources = list(self._sources)
        interval_ns = max(1, int(self.interval_s * 1e9))
        ended = False
        while True:
            now_ns = time.perf_counter_ns()
            row, lost = _read(sources)
            with self._lock:
                columns.add((now_ns - start_ns) / 1e9, row)
                columns.lost.update(lost)
            if lost:
                sources = [source for source in sources if source.name not in lost]
            if ended:
                return
            # From the start and not from the last reading: a slow sensor costs readings,
            # and shifts none.
            passed_ns = time.perf_counter_ns() - start_ns
            ended = stop.wait((interval_ns - passed_ns % interval_ns) / 1e9)


def _read(sources: list[Source]) -> tuple[dict[str, float], dict[str, str]]:
    row: dict[str, float] = {}
    lost: dict[str, str] = {}
    for source in sources:
        try:
            row = source.read() | row
        except SensorLostError as error:
            lost[source.name] = str(error)
        except Exception as error:  # a driver's library fails as it likes
            lost[source.name] = f"{type(error).__name__}: {error}"
    return row, lost
