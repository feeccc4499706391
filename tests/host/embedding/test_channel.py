# SPDX-License-Identifier: Apache-2.0
"""A channel hands over each item once, is bounded, and lets nobody wait once it is closed."""

from __future__ import annotations

import threading

import pytest

from edge_imprint.embedding.channel import Channel, ClosedChannel, NothingYet


def test_items_come_out_in_turn_or_newest_first() -> None:
    for newest_first, want in ((False, [1, 2, 3]), (True, [3, 2, 1])):
        channel: Channel[int] = Channel(3, newest_first=newest_first)
        for item in (1, 2, 3):
            channel.put(item)
        assert [channel.get() for _ in range(3)] == want


def test_many_threads_lose_nothing_and_get_nothing_twice() -> None:
    channel: Channel[int] = Channel(2)
    got: list[int] = []

    def take() -> None:
        try:
            while True:
                got.append(channel.get())
        except ClosedChannel:
            pass

    takers = [threading.Thread(target=take) for _ in range(3)]
    givers = [
        threading.Thread(
            target=lambda start=start: [channel.put(i) for i in range(start, 300, 3)]
        )
        for start in range(3)
    ]
    for thread in takers + givers:
        thread.start()
    for thread in givers:
        thread.join()
    channel.end()
    for thread in takers:
        thread.join()
    assert sorted(got) == list(range(300))


def test_it_is_bounded() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.put(2)
    third = threading.Thread(target=channel.put, args=(3,))
    third.start()
    third.join(0.05)
    assert third.is_alive()
    assert channel.get() == 1
    third.join()
    assert [channel.get(), channel.get()] == [2, 3]


def test_a_time_limit() -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises(NothingYet):
        channel.get(0.01)
    channel.put(1)
    assert channel.get(0.01) == 1


def test_the_end_lets_the_rest_out_and_nothing_in() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.end()
    with pytest.raises(ClosedChannel):
        channel.put(2)
    assert channel.get() == 1
    with pytest.raises(ClosedChannel):
        channel.get()


@pytest.mark.parametrize("full", [False, True])
def test_closing_wakes_who_waits(full: bool) -> None:
    channel: Channel[int] = Channel(1)
    if full:
        channel.put(1)
    ended = []

    def wait() -> None:
        try:
            if full:
                channel.put(2)
            else:
                channel.get()
        except ClosedChannel:
            ended.append(True)

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    channel.close()
    for thread in waiting:
        thread.join()
    assert ended == [True] * 3
    with pytest.raises(ClosedChannel):  # what was there is gone
        channel.get()
