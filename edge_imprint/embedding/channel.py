# SPDX-License-Identifier: Apache-2.0
"""A bounded queue between threads that can be closed, so that nobody waits for ever."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Channel", "ClosedChannel", "NothingYet"]

T = TypeVar("T")


class ClosedChannel(Exception):  # noqa: N818 - it is the end, no error
    """Nothing more comes out of the channel, or goes into it."""


class NothingYet(Exception):  # noqa: N818 - as above
    """The time is over and nothing has come; the channel is open."""


class Channel(Generic[T]):
    """A queue of bounded length with an end (`queue.Queue` has one from Python 3.13 on).

    Args:
        size: Items it holds at most.
        newest_first: Whether the item comes out that went in last.
    """

    def __init__(self, size: int, *, newest_first: bool = False) -> None:
        self._size, self._newest_first = size, newest_first
        self._items: deque[T] = deque()
        self._ended = False
        lock = threading.Lock()
        self._filled, self._emptied = threading.Condition(lock), threading.Condition(lock)

    def put(self, item: T) -> None:
        """Add an item, once there is room.

        Raises:
            ClosedChannel: It was ended or closed, also while this waited.
        """
        with self._emptied:
            while len(self._items) >= self._size and not self._ended:
                self._emptied.wait()
            if self._ended:
                raise ClosedChannel
            self._items.append(item)
            self._filled.notify()

    def get(self, timeout_s: float | None = None) -> T:
        """Take an item, once there is one: the oldest, or the newest.

        Raises:
            ClosedChannel: There is none, and none will come.
            NothingYet: None came within ``timeout_s``.
        """
        with self._filled:
            while not self._items:
                if self._ended:
                    raise ClosedChannel
                if not self._filled.wait(timeout_s):
                    raise NothingYet
            item = self._items.pop() if self._newest_first else self._items.popleft()
            self._emptied.notify()
            return item

    def end(self) -> None:
        """Take no more items; those that are there still come out."""
        with self._filled:
            self._ended = True
            self._filled.notify_all()
            self._emptied.notify_all()

    def close(self) -> None:
        """End it, and drop what is there."""
        with self._filled:
            self._items.clear()
        self.end()
