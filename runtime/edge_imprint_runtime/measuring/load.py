# SPDX-License-Identifier: Apache-2.0
"""Latency under load: many callers at once, or calls that come whether one is ready or not.

Callers that wait for their answer before they ask again (`closed_loop`) ask less often while
the model stalls, so that a stall is one slow sample among many. Users don't wait for each
other: with `offered_load` calls arrive at random times at a rate of their own, and a latency
counts from the arrival, so that all who came during a stall are slow (no coordinated
omission).
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.limits import (
    WARM_UP_S,
    Limit,
    Tell,
    undisturbed,
)
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.measuring.turns import new_warm_up

__all__ = ["MAX_CONCURRENCY", "Offered", "closed_loop", "offered_load", "poisson_arrivals"]

MAX_CONCURRENCY = 256
MAX_RATE_PER_S = 1e6

_TELL_S = 0.1
_LEAVE_S = 5.0  # a call that hangs must not hang the bench: its thread is left behind
_SPIN_NS = 200_000  # what a sleep may overshoot, on Linux 50 to 100 us
_START_NS = 20_000_000
_GRACE_NS = 1_000_000_000
# More of the arrivals than this still waiting when the last one comes: it can't keep up.
_OVERLOAD_SHARE = 0.02

Call = Callable[[], object]


@dataclass(frozen=True)
class Offered:
    """What came of an offered load.

    Attributes:
        series: Latencies from the arrival to the answer; its starts are the arrivals.
        offered_per_s: Calls a second that were to come.
        drawn_per_s: Calls a second that chance made of it.
        arrivals: Calls that came.
        unserved: Calls that were never begun, because so many waited before them.
        backlog_mean: Calls that a call found waiting when it came, on average.
        backlog_max: The most that one found.
        backlog_end: What the last one found.
        busy_share: How much of their time the callers were in a call, 0..1.
    """

    series: Series
    offered_per_s: float
    drawn_per_s: float
    arrivals: int
    unserved: int
    backlog_mean: float
    backlog_max: int
    backlog_end: int
    busy_share: float

    @property
    def overloaded(self) -> bool:
        """Whether more came than could be answered."""
        waiting = max(self.backlog_end, self.unserved)
        return waiting > max(self.series.concurrency, _OVERLOAD_SHARE * self.arrivals)


def poisson_arrivals(
    rate_per_s: float, limit: Limit, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Draw the times at which calls arrive, independent of each other and of the answers.

    Args:
        rate_per_s: Calls a second, on average.
        limit: How many, or for how long, but no more than that many.
        seed: Of the generator (PCG64): the same seed, the same arrivals.

    Returns:
        (S,) int64 nanoseconds from the begin, rising; the gaps follow the exponential law.
        At least one.

    Raises:
        ParameterError: The rate is out of range.
    """
    if not 0 < rate_per_s <= MAX_RATE_PER_S:
        raise ParameterError(
            f"rate must be above 0 and at most {MAX_RATE_PER_S:.0f} a second, got {rate_per_s}"
        )
    rng = np.random.default_rng(seed)
    if limit.duration_s is None:
        gaps = rng.exponential(1e9 / rate_per_s, limit.samples)
        return np.cumsum(gaps).astype(np.int64)
    wanted = rate_per_s * limit.duration_s
    # Ten standard deviations above the mean; a report takes no more than the limit.
    room = min(int(wanted + 10 * wanted**0.5) + 10, limit.samples)
    times = np.cumsum(rng.exponential(1e9 / rate_per_s, room))
    inside = int(np.searchsorted(times, limit.duration_s * 1e9))
    return times[: max(1, inside)].astype(np.int64)


def closed_loop(
    name: str,
    calls: Sequence[Call],
    *,
    batch: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    progress: Tell | None = None,
    began_ns: int | None = None,
    warm_up_s: float = WARM_UP_S,
    most: int | None = None,
) -> Series:
    """Let several threads call at once, each the next as soon as its own is answered.

    Args:
        name: What runs.
        calls: One a thread; each call of it is one sample.
        batch: Images that one call takes.
        iterations: Samples of all threads together.
        duration_s: Instead: seconds, without the warm-up.
        progress: Told (done, total) now and then: samples, or milliseconds.
        began_ns: What the starts are counted from, on `time.perf_counter_ns`.
        warm_up_s: Seconds at most until they are steady.
        most: Samples of a series at most; None: 2,000,000.

    Returns:
        The samples of all threads in the order in which they began.

    Raises:
        ParameterError: A limit is impossible, or there are no or too many threads.
    """
    _check_callers(calls)
    limit = Limit.of(iterations, duration_s, most)
    tickets = itertools.count()  # next() of it is atomic
    kept = [(array("q"), array("q")) for _ in calls]

    def work(crew: _Crew, number: int) -> None:
        starts, taken = kept[number]
        add, mark, clock, call = (
            taken.append,
            starts.append,
            time.perf_counter_ns,
            calls[number],
        )
        crew.meet()
        end_ns = crew.begin_ns + int((limit.duration_s or 1e6) * 1e9)
        while not crew.stopped() and next(tickets) < limit.samples:
            start = clock()
            call()
            end = clock()
            mark(start)
            add(end - start)
            if end >= end_ns:
                return

    def tell(crew: _Crew) -> None:
        done = sum(len(taken) for _, taken in kept)
        limit.told(progress, done, time.perf_counter_ns() - crew.begin_ns)

    limit.told(progress, 0, 0)  # the warm-up may take a while
    with undisturbed():
        warm_ns, steady = _warm_up(calls, warm_up_s)
        crew = _Crew(len(calls), work)
        crew.run(tell)
    starts = np.concatenate([np.array(starts, np.int64) for starts, _ in kept])
    taken = np.concatenate([np.array(taken, np.int64) for _, taken in kept])
    order = np.argsort(starts, kind="stable")
    zero_ns = crew.begin_ns if began_ns is None else began_ns
    return Series(
        name,
        batch,
        taken[order],
        starts[order] - zero_ns,
        concurrency=len(calls),
        warm_up_ns=warm_ns,
        warmed_up=steady,
    )


def offered_load(
    name: str,
    calls: Sequence[Call],
    rate_per_s: float,
    *,
    batch: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    progress: Tell | None = None,
    began_ns: int | None = None,
    warm_up_s: float = WARM_UP_S,
    most: int | None = None,
) -> Offered:
    """Let calls come at random times at a rate of their own, and see how long each waits.

    The arrivals are drawn beforehand, and served in the order in which they come by as many
    threads as there are ``calls``. A load above what the threads can do piles up; what is not
    begun by twice the time of the arrivals, or a second after the last, is given up, and
    counted.

    Args:
        name: What runs.
        calls: One a thread.
        rate_per_s: Calls a second, on average.
        batch: Images that one call takes.
        iterations: How many calls come.
        duration_s: Instead: for how many seconds they come.
        seed: Of the arrivals.
        progress: As in `closed_loop`.
        began_ns: As there.
        warm_up_s: As there.
        most: As there.

    Returns:
        The latencies, and what piled up.

    Raises:
        ParameterError: A limit or the rate is impossible.
    """
    _check_callers(calls)
    limit = Limit.of(iterations, duration_s, most)
    arrivals = poisson_arrivals(rate_per_s, limit, seed=seed)
    due_ns, count = arrivals.tolist(), len(arrivals)
    starts, ends = array("q", bytes(8 * count)), array("q", bytes(8 * count))
    span_ns = due_ns[-1] + _START_NS

    def work(crew: _Crew, number: int) -> None:
        clock, call = time.perf_counter_ns, calls[number]
        crew.meet()
        begin = crew.begin_ns + _START_NS  # so that no thread is late for the first
        give_up = begin + span_ns + max(span_ns, _GRACE_NS)
        for place in tickets:
            if place >= count or crew.wait_until(begin + due_ns[place]):
                return
            start = clock()
            if start > give_up:
                return
            call()
            ends[place] = clock()
            starts[place] = start

    def tell(crew: _Crew) -> None:
        now_ns = time.perf_counter_ns() - crew.begin_ns
        limit.told(progress, int(np.searchsorted(arrivals, now_ns)), now_ns)

    limit.told(progress, 0, 0)  # the warm-up may take a while
    with undisturbed():
        warm_ns, steady = _warm_up(calls, warm_up_s)
        tickets = itertools.count()
        crew = _Crew(len(calls), work)
        crew.run(tell)
    begin = crew.begin_ns + _START_NS
    begun, ended = np.array(starts, np.int64), np.array(ends, np.int64)
    served = ended > 0
    scheduled = begin + arrivals
    zero_ns = crew.begin_ns if began_ns is None else began_ns
    series = Series(
        name,
        batch,
        (ended - scheduled)[served],
        (scheduled - zero_ns)[served],
        concurrency=len(calls),
        warm_up_ns=warm_ns,
        warmed_up=steady,
        offered_per_s=float(rate_per_s),
    )
    # Whoever came before and was not begun yet, waits; one that never was, waits for ever.
    begun_sorted = np.sort(begun[served])
    waiting = np.arange(count) - np.searchsorted(begun_sorted, scheduled, side="right")
    waiting = np.maximum(waiting, 0)
    busy_ns = int((ended - begun)[served].sum())
    whole_ns = max(1, int(ended.max()) - begin) * len(calls)
    return Offered(
        series,
        float(rate_per_s),
        count / max(1, due_ns[-1]) * 1e9,
        count,
        int(count - served.sum()),
        float(waiting.mean()),
        int(waiting.max()),
        int(waiting[-1]),
        min(1.0, busy_ns / whole_ns),
    )


class _Crew:
    """Threads that begin together, and stop together when one fails or is interrupted."""

    def __init__(self, size: int, work: Callable[[_Crew, int], None]) -> None:
        self.begin_ns = 0
        self._work, self._size = work, size
        self._stop = threading.Event()
        self.stopped = self._stop.is_set
        self._barrier = threading.Barrier(size, action=self._begin)
        self._errors: list[BaseException] = []
        self._ended = [threading.Event() for _ in range(size)]

    def run(self, tell: Callable[[_Crew], None] | None = None) -> None:
        """Run all to their end; raise what the first one raised that failed."""
        threads = [
            threading.Thread(target=self._body, args=(i,), name=f"caller {i}", daemon=True)
            for i in range(self._size)
        ]
        try:
            for thread in threads:
                thread.start()
            # Not Thread.join: an interrupt in the midst of it makes Python 3.11 take the
            # thread for ended, and a process that ends beside a running session aborts.
            for ended in self._ended:
                while not ended.wait(_TELL_S):
                    if tell is not None and self.begin_ns:
                        tell(self)
            if tell is not None and self.begin_ns:
                tell(self)
        finally:
            self._stop.set()
            self._barrier.abort()
            for thread, ended in zip(threads, self._ended, strict=True):
                if thread.ident is not None and ended.wait(_LEAVE_S):  # it was started
                    thread.join(_LEAVE_S)
        if self._errors:
            raise self._errors[0]

    def meet(self) -> None:
        """Wait for the others."""
        self._barrier.wait()

    def wait_until(self, due_ns: int) -> bool:
        """Sleep until then; return whether all are to stop."""
        left = due_ns - time.perf_counter_ns()
        if left > _SPIN_NS and self._stop.wait((left - _SPIN_NS) / 1e9):
            return True
        while time.perf_counter_ns() < due_ns:
            time.sleep(0)  # gives the interpreter to callers that are in the middle of it
        return self._stop.is_set()

    def _begin(self) -> None:
        self.begin_ns = time.perf_counter_ns()

    def _body(self, number: int) -> None:
        try:
            self._work(self, number)
        except threading.BrokenBarrierError:
            pass  # another one failed, and its error is the one to tell
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
            self._barrier.abort()
        finally:
            self._ended[number].set()


def _warm_up(calls: Sequence[Call], limit_s: float) -> tuple[npt.NDArray[np.int64], bool]:
    """Call with all threads at once until it is steady."""
    warm_up, lock = new_warm_up(limit_s, len(calls)), threading.Lock()

    def work(crew: _Crew, number: int) -> None:
        clock, call = time.perf_counter_ns, calls[number]
        crew.meet()
        while not (warm_up.over or crew.stopped()):
            start = clock()
            call()
            taken_ns = clock() - start
            with lock:
                if not warm_up.over:
                    warm_up.add(taken_ns)

    _Crew(len(calls), work).run()
    return warm_up.samples_ns, warm_up.steady


def _check_callers(calls: Sequence[Call]) -> None:
    if not 1 <= len(calls) <= MAX_CONCURRENCY:
        raise ParameterError(
            f"concurrency must be an integer from 1 to {MAX_CONCURRENCY}, got {len(calls)}"
        )
