# SPDX-License-Identifier: Apache-2.0
"""Latency of several things beside each other, in turns, on one monotonic clock.

What is compared is measured in turns within one run, so that a clock that throttles or a
neighbour that wakes up hits all series alike. Each is warmed up until it is steady, and every
sample of it is kept, also those of the warm-up.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.limits import (
    MAX_SAMPLES,
    WARM_UP_S,
    Limit,
    Tell,
    check_warm_up,
    undisturbed,
)
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.measuring.steady import WarmUp

__all__ = [
    "Samples",
    "measure",
    "measure_stages",
    "new_warm_up",
    "single_stream",
    "warmed_up",
]

# A turn of one series is long against what the others' threads leave behind (ONNX Runtime's
# spin on for a while), and short against a throttle; each series gets ten turns at least.
_TURN_NS = 500_000_000
_MIN_TURNS = 10
_CHUNK_NS = 100_000_000
# Clocks take tenths of a second to rise.
_LEAST_WARM_UP_S = 0.5


@dataclass
class Samples:
    """What one series has collected: 16 bytes a sample, nothing for the garbage collector.

    Attributes:
        taken_ns: How long each call took.
        starts_ns: When it began, on `time.perf_counter_ns`.
        warm_up_ns: How long the calls of the warm-up took.
        steady: Whether the warm-up ended because the calls had become steady.
    """

    taken_ns: array[int] = field(default_factory=lambda: array("q"))
    starts_ns: array[int] = field(default_factory=lambda: array("q"))
    warm_up_ns: array[int] = field(default_factory=lambda: array("q"))
    steady: bool = True

    def take(self, run: Callable[[], object], count: int) -> None:
        """Time so many calls."""
        clock, taken, starts = (
            time.perf_counter_ns,
            self.taken_ns.append,
            self.starts_ns.append,
        )
        for _ in repeat(None, count):
            start = clock()
            run()
            end = clock()
            taken(end - start)
            starts(start)

    def slowest_ns(self) -> int:
        """Return about how long a call takes, by the last ten of the warm-up; at least 1."""
        return max(1, int(np.median(self.warm_up_ns[-10:]))) if self.warm_up_ns else 1

    def series(self, name: str, batch: int, began_ns: int) -> Series:
        """Make the series of it.

        Args:
            name: What ran.
            batch: Images a sample.
            began_ns: What the starts are counted from, on `time.perf_counter_ns`.
        """
        return Series(
            name,
            batch,
            _int64(self.taken_ns),
            _int64(self.starts_ns) - began_ns,
            warm_up_ns=tuple(self.warm_up_ns),
            warmed_up=self.steady,
        )


def warmed_up(run: Callable[[], object], limit_s: float = WARM_UP_S) -> Samples:
    """Run until the calls are steady, or the warm-up's limit of time is over.

    Args:
        run: What is warmed up.
        limit_s: Seconds of it at most.

    Returns:
        Samples that hold those of the warm-up alone.

    Raises:
        ParameterError: The limit is impossible.
    """
    warm_up = new_warm_up(limit_s)
    samples, clock = Samples(), time.perf_counter_ns
    while not warm_up.over:
        start = clock()
        run()
        taken_ns = clock() - start
        warm_up.add(taken_ns)
        samples.warm_up_ns.append(taken_ns)
    samples.steady = warm_up.steady
    return samples


def new_warm_up(limit_s: float, callers: int = 1) -> WarmUp:
    """Return a warm-up that is to end after so many seconds at the latest.

    Raises:
        ParameterError: The limit is impossible.
    """
    check_warm_up(limit_s)
    return WarmUp(min_s=min(_LEAST_WARM_UP_S, limit_s), max_s=limit_s, callers=callers)


def measure(
    runs: Mapping[str, Callable[[], object]],
    *,
    batch: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    progress: Tell | None = None,
    began_ns: int | None = None,
    warm_up_s: float = WARM_UP_S,
    most: int | None = None,
) -> list[Series]:
    """Time callables in turns, each warmed up until it is steady.

    Args:
        runs: What to time, by name; each call is one sample.
        batch: Images that one call takes.
        iterations: Samples of each (default 1,000 where no duration is given).
        duration_s: Instead: seconds for all of them together, without the warm-up.
        progress: Told (done, total) between the turns: samples, or milliseconds.
        began_ns: What the samples' starts are counted from, on `time.perf_counter_ns`; None
            for the end of the warm-up.
        warm_up_s: Seconds at most until each is steady; what is not by then says so.
        most: Samples of a series at most; None: 2,000,000.

    Returns:
        One series a callable, of equal length.

    Raises:
        ParameterError: A limit is impossible, or both are given.
    """
    limit = Limit.of(iterations, duration_s, most)
    limit.told(progress, 0, 0)  # the warm-up may take a while
    with undisturbed():
        kept = {name: warmed_up(run, warm_up_s) for name, run in runs.items()}
        turn = _turn(limit, kept)
        begin, done = time.perf_counter_ns(), 0
        while True:
            count = min(turn, limit.samples - done)
            for name, run in runs.items():
                run()  # not kept: it meets the caches and threads that another left
                kept[name].take(run, count)
            done += count
            elapsed_ns = time.perf_counter_ns() - begin
            limit.told(progress, done, elapsed_ns)
            if limit.over(done, elapsed_ns):
                break
    zero_ns = begin if began_ns is None else began_ns
    return [samples.series(name, batch, zero_ns) for name, samples in kept.items()]


def measure_stages(
    name: str,
    run: Callable[[], dict[str, int]],
    *,
    batch: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    progress: Tell | None = None,
    began_ns: int | None = None,
    warm_up_s: float = WARM_UP_S,
    most: int | None = None,
) -> list[Series]:
    """Time the stages of a call that times them itself.

    Args:
        name: What runs.
        run: One call; gives nanoseconds by stage, as `Runner.run_stages` does.
        batch: As in `measure`, likewise the others.
        iterations: As there.
        duration_s: As there.
        progress: As there.
        began_ns: As there.
        warm_up_s: As there.
        most: As there.

    Returns:
        One series a stage. Of a stage that ends in ``_gpu`` the clock is ``cuda_events``.

    Raises:
        ParameterError: A limit is impossible, or both are given.
    """
    limit = Limit.of(iterations, duration_s, most)
    limit.told(progress, 0, 0)
    with undisturbed():
        warm = warmed_up(run, warm_up_s)
        begin, clock = time.perf_counter_ns(), time.perf_counter_ns
        starts, stages = array("q"), {stage: array("q") for stage in run()}
        chunk = max(1, _CHUNK_NS // warm.slowest_ns())
        while True:
            for _ in repeat(None, min(chunk, limit.samples - len(starts))):
                starts.append(clock())
                for stage, taken_ns in run().items():
                    stages[stage].append(taken_ns)
            elapsed_ns = clock() - begin
            limit.told(progress, len(starts), elapsed_ns)
            if limit.over(len(starts), elapsed_ns):
                break
    since_ns = _int64(starts) - (begin if began_ns is None else began_ns)
    return [
        Series(
            name,
            batch,
            _int64(taken_ns),
            since_ns,
            stage=stage,
            clock="cuda_events" if stage.endswith("_gpu") else "host",
            warmed_up=warm.steady,
        )
        for stage, taken_ns in stages.items()
    ]


def single_stream(
    name: str,
    run: Callable[[], object],
    *,
    queries: int,
    duration_s: float,
    progress: Tell | None = None,
    began_ns: int | None = None,
    warm_up_s: float = WARM_UP_S,
) -> Series:
    """Issue one query after the other, as MLPerf Inference's single stream does.

    The next query is due when the one before is complete, and its latency counts from then:
    what happens between two calls is part of it.

    Args:
        name: What runs.
        run: One query, of one image.
        queries: It ends after so many at the earliest,
        duration_s: and after so many seconds; but at the latest when a series is full.
        progress: As in `measure`; told milliseconds.
        began_ns: As there.
        warm_up_s: As there.

    Returns:
        Its series.
    """
    least = Limit(queries, duration_s)
    least.told(progress, 0, 0)
    with undisturbed():
        samples = warmed_up(run, warm_up_s)
        clock, taken, starts = time.perf_counter_ns, samples.taken_ns, samples.starts_ns
        add, mark = taken.append, starts.append
        chunk = max(1, min(_CHUNK_NS // samples.slowest_ns(), queries))
        begin = last = clock()
        while True:
            for _ in repeat(None, min(chunk, MAX_SAMPLES - len(taken))):
                run()
                now = clock()
                add(now - last)
                mark(last)
                last = now
            least.told(progress, len(taken), last - begin)
            enough = len(taken) >= queries and last - begin >= duration_s * 1e9
            if enough or len(taken) >= MAX_SAMPLES:
                break
            last = clock()  # what telling took is nobody's latency
    return samples.series(name, 1, begin if began_ns is None else began_ns)


def _turn(limit: Limit, kept: Mapping[str, Samples]) -> int:
    """Return how many calls a turn has."""
    slowest_ns = max(samples.slowest_ns() for samples in kept.values())
    if limit.duration_s is None:
        return max(1, min(_TURN_NS // slowest_ns, limit.samples // _MIN_TURNS))
    share_ns = int(limit.duration_s * 1e9 / _MIN_TURNS / len(kept))
    return max(1, min(_TURN_NS, share_ns) // slowest_ns)


def _int64(values: array[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)
