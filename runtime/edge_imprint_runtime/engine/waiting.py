# SPDX-License-Identifier: Apache-2.0
"""A build takes minutes: it is waited for in sight, and can be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

__all__ = ["FIRST_RUN", "STEP", "Progress", "Watch"]

Progress: TypeAlias = Callable[[str, int, int], None]
_Result = TypeVar("_Result")

STEP = "compiling"
FIRST_RUN = (
    "TensorRT tries many kernels for each layer; that takes from seconds to ten minutes (on a "
    "Jetson), and less the next time, since timings are kept"
)
_BEAT_S = 1.0


class Watch:
    """Waits for a build, and tells how far it is.

    Args:
        progress: Called from the thread that waits, with the step's name and: per cent done
            and 100, where TensorRT tells; else seconds passed and 0. At least once a second.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._share: float | None = None
        self._stop = threading.Event()

    def hear(self, share: float) -> bool:
        """Take what TensorRT tells, from its own thread; returns whether to go on."""
        self._share = share
        return not self._stop.is_set()

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do the work in a thread of its own, so that an interrupt ends it at once.

        Args:
            work: The build; TensorRT lets other threads run meanwhile.

        Returns:
            What it returns, or raises.
        """
        results: list[_Result] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:  # raised again below, in the thread that waits
                errors.append(error)
            finally:
                done.set()

        started = time.monotonic()
        # A daemon: where TensorRT can't be stopped, it must not hold back an interrupt.
        thread = threading.Thread(target=run, name="engine build", daemon=True)
        try:
            thread.start()
            self._tell(started)
            while not done.wait(_BEAT_S):
                self._tell(started)
        finally:
            self._stop.set()
        thread.join()
        if errors:
            raise errors[0]
        if self._progress is not None:
            self._progress(STEP, 100, 100)
        return results[0]

    def _tell(self, started: float) -> None:
        if self._progress is None:
            return
        if self._share is None:
            self._progress(STEP, int(time.monotonic() - started), 0)
        else:
            self._progress(STEP, int(100 * self._share), 100)
