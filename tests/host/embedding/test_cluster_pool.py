# SPDX-License-Identifier: Apache-2.0
"""A thread that pulls from an iterator, and what a worker's error becomes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edge_imprint.embedding.cluster_pool import Pulled, cause_of
from edge_imprint_runtime.errors import ClusterError, DeviceError


def _all(pulled: Pulled) -> list[int]:
    found = []
    while not pulled.ended:
        item = pulled.next(60)
        if item is not None:
            found.append(item)
    return found


def test_all_is_pulled_in_order() -> None:
    assert _all(Pulled(lambda: range(50), 2)) == list(range(50))


def test_what_the_iterator_raises_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    pulled = Pulled(items, 2)
    assert pulled.next(60) == 1
    with pytest.raises(OSError, match="gone"):
        pulled.next(60)
    assert pulled.ended
    assert pulled.next(60) is None


def test_nothing_yet_is_not_the_end() -> None:
    gate = threading.Event()

    def items() -> Iterator[int]:
        gate.wait(60)
        yield 1

    pulled = Pulled(items, 2)
    assert pulled.next(0) is None
    assert not pulled.ended
    gate.set()
    assert _all(pulled) == [1]


def test_an_iterator_is_let_go_when_it_is_closed() -> None:
    let_go = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            let_go.set()

    pulled = Pulled(items, 1)
    assert pulled.next(60) == 1
    pulled.close()
    assert pulled.ended
    assert let_go.wait(60)


def test_an_error_of_ours_stays_itself_and_another_is_the_clusters() -> None:
    class TaskError(Exception):
        def __init__(self, cause: Exception) -> None:
            super().__init__("\n a traceback")
            self.cause = cause

    ours = DeviceError("the device is gone")
    assert cause_of(TaskError(ours), "embedding") is ours
    other = cause_of(TaskError(ValueError("no such\nthing")), "embedding")
    assert isinstance(other, ClusterError)
    assert str(other) == (
        "embedding failed on a machine of the cluster: no such; "
        "look into its logs, or build with --engine local"
    )
