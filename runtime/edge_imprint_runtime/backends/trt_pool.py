# SPDX-License-Identifier: Apache-2.0
"""Lanes for callers: each gets one to itself, made when it is first needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from edge_imprint_runtime.backends.trt_lane import Lane, ProfilesTaken
from edge_imprint_runtime.errors import ClosedModelError, DeviceMemoryError

__all__ = ["Pool"]


class Pool:
    """Lanes of one engine. The first is made at once.

    Args:
        make: Makes a lane.
        most: How many there may be.
        at_once: Make them all now; an error says that there can't be so many. Else a
            caller who finds none free makes one, and where the device's memory or the
            engine's profiles don't allow it, waits for one, as from then on all do.

    Raises:
        DeviceError: A lane can't be made.
    """

    def __init__(self, make: Callable[[], Lane], most: int, *, at_once: bool) -> None:
        self._make, self._most = make, most
        self._change = threading.Condition()
        self._closed = False
        self._idle: list[Lane] = []
        self._lanes: set[Lane] = set()
        self._out = 0  # how many callers have a lane, or make one
        try:
            for _ in range(most if at_once else 1):
                self._idle.append(make())
        except BaseException:
            for lane in self._idle:
                lane.close()
            raise
        self._lanes.update(self._idle)

    @contextlib.contextmanager
    def one(self) -> Iterator[Lane]:
        """Lend a lane for a block; if that raises, the lane is closed and made anew later.

        Raises:
            ClosedModelError: The pool was closed.
            DeviceError: A lane can't be made, and there is none to wait for.
        """
        lane = self._take()
        try:
            yield lane
        except BaseException:
            # What is left of it is not known: a context, a record or the device may be broken.
            with self._change:
                self._lanes.discard(lane)
            try:
                lane.close()
            finally:  # also where a second interrupt ends it: `close` waits for all
                self._give_back(None)
            raise
        self._give_back(lane)

    def device_bytes(self) -> tuple[int, int]:
        """Return how many lanes there are, and what their buffers take of the device."""
        with self._change:
            return len(self._lanes), sum(lane.device_bytes for lane in self._lanes)

    def check(self) -> None:
        """Raise ClosedModelError if it was closed."""
        if self._closed:
            raise ClosedModelError("the model was closed; open it again")

    def close(self) -> None:
        """Wait until no lane is lent, and free them; nobody gets one from now on."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._out == 0)
            idle, self._idle = self._idle, []
            self._lanes.clear()
        for lane in idle:
            lane.close()

    def _take(self) -> Lane:
        with self._change:
            while True:
                self.check()
                if self._idle:
                    self._out += 1
                    return self._idle.pop()  # the last used: its shapes are likely the same
                if self._out < self._most:
                    self._out += 1
                    break
                self._change.wait()
        try:
            lane = self._make()
        except (DeviceMemoryError, ProfilesTaken):
            with self._change:
                self._out -= 1
                self._change.notify_all()
                if not self._lanes:
                    raise
                self._most = len(self._lanes)
            return self._take()
        except BaseException:
            self._give_back(None)
            raise
        with self._change:
            self._lanes.add(lane)
        return lane

    def _give_back(self, lane: Lane | None) -> None:
        with self._change:
            self._out -= 1
            if lane is not None:
                self._idle.append(lane)
            self._change.notify()
            if self._closed:
                self._change.notify_all()
