# SPDX-License-Identifier: Apache-2.0
"""Decoders give each photo once, from processes or from threads, whatever happens to them."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint.embedding import decoders
from edge_imprint.embedding.decoders import Decoded, ProcessDecoders, Tasks, ThreadDecoders
from edge_imprint.embedding.shared_blocks import BlockShape, shared_memory
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.images import photo_pixels
from tests.standins.deadly_photos import DeadlyPhoto

P = Preprocess(16, 16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng, made = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for i in range(40):
        made.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(made[-1])
    made[7].write_bytes(b"no photo")
    return made


def processes(photos: list[Any], notes: list[str], limit: int = 2) -> ProcessDecoders:
    tasks = Tasks(photos, most=4, least=2, takers=2)
    return ProcessDecoders(
        tasks, P, decode="exact", most=4, first=1, limit=limit, lanes=2, notes=notes
    )


def all_of(decoders: ProcessDecoders | ThreadDecoders, lanes: int = 2) -> list[Decoded]:
    """Take all from so many threads, copying the pixels, which are given back."""
    got: list[Decoded] = []

    def take() -> None:
        while (decoded := decoders.next()) is not None:
            copied = Decoded(
                decoded.indices, decoded.digests, decoded.broken, decoded.pixels.copy(), 0
            )
            got.append(copied)
            decoders.give_back(decoded)

    threads = [threading.Thread(target=take) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def check(got: list[Decoded], photos: list[Path], broken: set[int]) -> None:
    good = [i for decoded in got for i in decoded.indices]
    bad = [one.index for decoded in got for one in decoded.broken]
    assert sorted(bad) == sorted(broken)
    assert sorted(good + bad) == list(range(len(photos)))
    for decoded in got:
        for i, pixels in zip(decoded.indices, decoded.pixels, strict=True):
            np.testing.assert_array_equal(pixels, photo_pixels(photos[i], P))


def test_memory_that_can_not_be_mapped_is_given_back(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    made: list[int] = []

    def remember(shape: BlockShape) -> int:
        made.append(shared_memory(shape))
        return made[0]

    monkeypatch.setattr(decoders, "shared_memory", remember)
    monkeypatch.setattr(decoders, "SharedBlocks", refuse)
    with pytest.raises(OSError, match="allocate memory"):
        processes([*photos], [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])


@given(st.integers(0, 200), st.integers(1, 16), st.integers(1, 16), st.integers(1, 8))
def test_tasks_deal_out_each_photo_once(
    count: int, least: int, more: int, takers: int
) -> None:
    photos = [Path(str(i)) for i in range(count)]
    tasks = Tasks(photos, most=least + more, least=least, takers=takers)
    got = []
    while (taken := tasks.take())[1]:
        chosen, some = taken
        assert [photos[i] for i in chosen] == some
        assert len(some) <= least + more
        got += list(chosen)
    assert got == list(range(count))
    assert tasks.take() == (range(count, count), [])


def test_threads(photos: list[Path]) -> None:
    decoders = ThreadDecoders(
        Tasks(photos, most=4, least=2, takers=2), P, decode="exact", most=4
    )
    check(all_of(decoders), photos, {7})
    decoders.stop()
    assert decoders.next() is None


@pytest.mark.parametrize("limit", [1, 3])
def test_processes(photos: list[Path], limit: int) -> None:
    notes: list[str] = []
    decoders = processes(photos, notes, limit)
    check(all_of(decoders), photos, {7})
    assert decoders.next() is None
    decoders.stop()
    decoders.stop()  # again does no harm
    assert decoders.pids() == []
    assert notes == []


def test_a_photo_that_kills_is_broken_and_one_killed_from_outside_is_not(
    photos: list[Path], tmp_path: Path
) -> None:
    deadly: list[Any] = list(photos)
    deadly[3] = DeadlyPhoto(photos[3], os.getpid())
    deadly[20] = DeadlyPhoto(photos[20], os.getpid(), signal.SIGKILL, tmp_path / "once")
    notes: list[str] = []
    decoders = processes(deadly, notes)
    got = all_of(decoders)
    decoders.stop()
    check(got, photos, {3, 7})
    assert notes == []
    problem = next(one.problem for part in got for one in part.broken if one.index == 3)
    assert problem.startswith(f"the image {photos[3]} ends the process that decodes it (SIG")


def test_where_no_process_can_be_started_threads_decode(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    notes: list[str] = []
    decoders = processes(photos, notes)
    check(all_of(decoders), photos, {7})
    decoders.stop()
    why = "it ended with exit code 1"
    want = f"photos were decoded without worker processes, which can't run here: {why}"
    assert notes == [want]


def test_stopped_in_the_middle(photos: list[Path]) -> None:
    decoders = processes(photos, [])
    first = decoders.next()
    assert first is not None
    pids, threads = decoders.pids(), list(decoders._threads)
    decoders.stop()
    assert not [thread for thread in threads if thread.is_alive()]
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    assert decoders.next() is None
    decoders.give_back(first)


def test_lanes_that_never_give_back_bound_what_is_decoded(photos: list[Path]) -> None:
    tasks = Tasks(photos * 20, most=4, least=2, takers=2)
    decoders = ProcessDecoders(
        tasks, P, decode="exact", most=4, first=2, limit=2, lanes=2, notes=[]
    )
    blocks = 2 + 2 * 2
    held = [decoders.next() for _ in range(blocks)]
    waiting = threading.Thread(target=decoders.next)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()  # all memory is held, so nothing more is decoded
    assert len({decoded.block for decoded in held if decoded}) == blocks
    assert tasks.take()[0].start <= 4 * (blocks + 2)
    decoders.stop()
    waiting.join()


def test_what_fails_in_a_thread_fails_in_the_lane(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(list[Path]):
        def __getitem__(self, i: Any) -> Any:
            raise RuntimeError("no such photo")

    decoders = processes(Wrong(photos), [])
    with pytest.raises(RuntimeError, match="no such photo"):
        decoders.next()
    decoders.stop()
