# SPDX-License-Identifier: Apache-2.0
"""How many images at once: found while the work is done, so that the search costs nothing."""

from __future__ import annotations

__all__ = ["BatchSearch", "FIRST", "GROWTH", "LIMIT", "REPEATS"]

FIRST = 32
"""The batch that a search starts with."""

LIMIT = 1024
"""The largest batch tried; GPUs are full well before it."""

GROWTH = 1.05
"""How much faster (images a second) twice the batch must be to be worth twice the memory."""

REPEATS = 2
"""Batches timed at each size, of which the faster counts; one before them warms up."""


class BatchSearch:
    """Finds the batch at which a device embeds the most images a second.

    The batch is doubled while that makes it faster by `GROWTH`; then the search is over. It
    never rises again above a size that did not fit into memory.

    Args:
        fixed: Images a batch where the user says so: nothing is searched; None to search.
        limit: The largest batch to try.

    Attributes:
        size: Images to embed next at once.
        settled: Whether the search is over.
    """

    def __init__(self, fixed: int | None = None, *, limit: int = LIMIT) -> None:
        self.size = min(FIRST, limit) if fixed is None else fixed
        self.settled = fixed is not None or self.size >= limit
        self._limit = limit
        self._runs: list[float] = []
        self._slower: tuple[int, float] | None = None  # half the size, and its images a second

    def took(self, count: int, seconds: float) -> None:
        """Hear what a batch took.

        Args:
            count: Its images; batches that are not of the size asked for don't count.
            seconds: What the device took for it, without waiting for photos.
        """
        if self.settled or count != self.size:
            return
        self._runs.append(seconds)
        if len(self._runs) <= REPEATS:
            return
        rate = count / max(min(self._runs[1:]), 1e-9)
        if self._slower is not None and rate < GROWTH * self._slower[1]:
            self.size, self.settled = self._slower[0], True
        elif 2 * count > self._limit:
            self.settled = True
        else:
            self._slower, self.size = (count, rate), 2 * count
        self._runs = []

    def too_large(self, count: int) -> None:
        """Hear that a batch did not fit into memory; at most half of it is asked for now."""
        self.size = min(self.size, max(1, count // 2))
        self.settled = True
