# SPDX-License-Identifier: Apache-2.0
"""How long is measured: a number of samples, or a span of time."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edge_imprint_runtime.errors import ParameterError

__all__ = [
    "DEFAULT_ITERATIONS",
    "MAX_ALL_SAMPLES",
    "MAX_SAMPLES",
    "WARM_UP_S",
    "Limit",
    "Tell",
    "check_threads",
    "check_warm_up",
    "undisturbed",
]

DEFAULT_ITERATIONS = 1_000
# Of one series: 40 MB of a report, of which a reader takes six times as much.
MAX_SAMPLES = 2_000_000
# Of all series together: with warm-ups and sensors below 256 MB, the most that a reader takes.
MAX_ALL_SAMPLES = 6_000_000
WARM_UP_S = 30.0
_MAX_S = 86_400
_MAX_WARM_UP_S = 3_600

Tell: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Limit:
    """When a measurement ends.

    Attributes:
        samples: After so many samples of a series; at most, where there is a duration.
        duration_s: After so many seconds; None: the samples alone count.
    """

    samples: int
    duration_s: float | None = None

    @classmethod
    def of(
        cls, iterations: int | None, duration_s: float | None, most: int | None = None
    ) -> Limit:
        """Check what was asked for.

        Args:
            iterations: Samples of a series; 1,000 where neither is given.
            duration_s: Instead: seconds.
            most: Samples of a series, where several share a report; None: 2,000,000.

        Raises:
            ParameterError: Both are given, or one is impossible.
        """
        most = MAX_SAMPLES if most is None else most
        if iterations is not None and duration_s is not None:
            raise ParameterError("give iterations or duration, not both")
        if iterations is not None and iterations < 1:
            raise ParameterError(f"iterations must be an integer >= 1, got {iterations}")
        if iterations is not None and iterations > most:
            shared = "" if most == MAX_SAMPLES else " in each of so many series"
            raise ParameterError(
                f"iterations must be at most {most}{shared}, got {iterations}"
            )
        if duration_s is None:
            return cls(iterations or DEFAULT_ITERATIONS)
        if not 0 < duration_s <= _MAX_S:
            raise ParameterError(
                f"duration must be above 0 s and at most a day, got {duration_s}"
            )
        return cls(most, duration_s)

    def over(self, samples: int, elapsed_ns: int) -> bool:
        """Return whether a series of so many samples, after so long, is complete."""
        late = self.duration_s is not None and elapsed_ns >= self.duration_s * 1e9
        return late or samples >= self.samples

    def told(self, tell: Tell | None, samples: int, elapsed_ns: int) -> None:
        """Tell how far it is: samples of samples, or milliseconds of milliseconds."""
        if tell is None:
            return
        if self.duration_s is None:
            tell(min(samples, self.samples), self.samples)
        else:
            total = round(self.duration_s * 1e3)
            tell(min(elapsed_ns // 1_000_000, total), total)


def check_threads(threads: int) -> None:
    """Refuse more threads than there are cores for them.

    They wait for each other in loops that keep the cores busy: with 1,000 threads on two cores
    one call takes ten seconds, and an interrupt waits for its end.

    Raises:
        ParameterError: There are fewer cores that this process may use.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS, nor on Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if threads > cores:
        raise ParameterError(
            f"threads must be at most {cores}, as many cores as this process may use, got "
            f"{threads}: more of them fight each other"
        )


def check_warm_up(seconds: float) -> None:
    """Refuse a limit of a warm-up that is none.

    Raises:
        ParameterError: It is not above zero, or above an hour.
    """
    if not 0 < seconds <= _MAX_WARM_UP_S:
        raise ParameterError(f"warm-up must be above 0 s and at most an hour, got {seconds}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector from walking over what was there before.

    It stays on, as in the program that a user writes, and collects what the measured calls
    leave behind; but what the bench itself holds is out of its sight, so that a full
    collection costs no sample milliseconds that belong to the bench.
    """
    if gc.get_freeze_count():  # the program has done so itself, and may want to keep it
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
