# SPDX-License-Identifier: Apache-2.0
"""A process that decodes: it crashes, is killed, can't be started, and is always replaced."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint.embedding.decode_worker import Setup
from edge_imprint.embedding.decoding import Chunk
from edge_imprint.embedding.shared_blocks import BlockShape, SharedBlocks, shared_memory
from edge_imprint.embedding.workers import StoppedError, Worker, WorkerStartError
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.images import photo_pixels
from tests.standins.deadly_photos import DeadlyPhoto

P = Preprocess(16, 16, interpolation="bicubic")
SHAPE = BlockShape(2, 4, 16, 16)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(4):
        made.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(made[-1])
    return made


@pytest.fixture
def blocks() -> Iterator[tuple[int, SharedBlocks]]:
    file = shared_memory(SHAPE)
    yield file, SharedBlocks(file, SHAPE)
    os.close(file)


@pytest.fixture
def worker(blocks: tuple[int, SharedBlocks]) -> Iterator[Worker]:
    made = Worker(Setup(SHAPE, P, decode="exact"), *blocks)
    yield made
    made.stop()


def there(pid: int | None) -> bool:
    return pid is not None and os.path.exists(f"/proc/{pid}")


def check_all_but(
    chunk: Chunk, photos: list[Path], blocks: SharedBlocks, bad: tuple[int, ...] = ()
) -> None:
    assert chunk.good == tuple(i for i in range(len(photos)) if i not in bad)
    for row, i in enumerate(chunk.good):
        np.testing.assert_array_equal(blocks.pixels(1)[row], photo_pixels(photos[i], P))
        assert chunk.digests[row] == hashlib.sha256(photos[i].read_bytes()).digest()


def test_it_decodes_and_ends(
    worker: Worker, photos: list[Path], blocks: tuple[int, SharedBlocks]
) -> None:
    worker.start()
    pid = worker.pid
    assert there(pid)
    for _ in range(2):
        check_all_but(worker.decode(photos, 1), photos, blocks[1])
    photos[2].write_bytes(b"no photo")
    chunk = worker.decode(photos, 1)
    check_all_but(chunk, photos, blocks[1], (2,))
    assert [at for at, _ in chunk.problems] == [2]
    assert worker.pid == pid  # a broken photo kills nothing
    worker.stop()
    assert not there(pid)


def test_a_photo_that_crashes_the_decoder(
    worker: Worker, photos: list[Path], blocks: tuple[int, SharedBlocks]
) -> None:
    worker.start()
    deadly: list[Any] = list(photos)
    deadly[1] = DeadlyPhoto(photos[1], os.getpid())
    deadly[3] = DeadlyPhoto(photos[3], os.getpid(), signal.SIGABRT)
    chunk = worker.decode(deadly, 1)
    check_all_but(chunk, photos, blocks[1], (1, 3))
    sentence = (
        "the image {photo} ends the process that decodes it ({how}); replace it or take it out"
    )
    assert chunk.problems == tuple(
        (
            at,
            sentence.format(photo=photos[at], how=how),
        )
        for at, how in ((1, "SIGSEGV"), (3, "SIGABRT"))
    )
    check_all_but(worker.decode(photos, 1), photos, blocks[1])


def test_a_chunk_of_nothing_but_deadly_photos(worker: Worker, photos: list[Path]) -> None:
    worker.start()
    deadly: list[Any] = [DeadlyPhoto(photo, os.getpid()) for photo in photos[:2]]
    chunk = worker.decode(deadly, 0)
    assert chunk.good == ()
    assert [at for at, _ in chunk.problems] == [0, 1]


def test_killed_from_outside_no_photo_is_lost(
    worker: Worker, photos: list[Path], blocks: tuple[int, SharedBlocks], tmp_path: Path
) -> None:
    worker.start()
    once: list[Any] = list(photos)
    once[2] = DeadlyPhoto(photos[2], os.getpid(), signal.SIGKILL, tmp_path / "once")
    chunk = worker.decode(once, 1)
    check_all_but(chunk, photos, blocks[1])
    assert chunk.problems == ()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)  # while it waits
    check_all_but(worker.decode(photos, 1), photos, blocks[1])


@pytest.mark.parametrize(
    ("executable", "reason"),
    [
        ("", "this program has no Python interpreter of its own"),
        ("/nowhere/python", "[Errno 2] No such file or directory: '/nowhere/python'"),
        ("/bin/false", "it ended with exit code 1"),
    ],
)
def test_it_can_not_be_started(
    worker: Worker, executable: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(WorkerStartError) as caught:
        worker.start()
    assert str(caught.value).startswith(reason)


def test_what_it_says_when_it_does_not_come_up(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(WorkerStartError) as caught:
        worker.start()
    assert "No module named" in str(caught.value)


def test_what_can_not_be_unpacked_there(
    worker: Worker, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It dies before the first photo: no photo is to blame, and whoever asks goes on without.
    worker.start()
    monkeypatch.setattr(DeadlyPhoto, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "DeadlyPhoto", DeadlyPhoto)
    unknown: Any = DeadlyPhoto(photos[0], os.getpid())
    with pytest.raises(WorkerStartError) as caught:
        worker.decode([unknown], 0)
    assert str(caught.value) == "it ends with exit code 1"


def test_stopped_while_it_decodes(
    worker: Worker, photos: list[Path], blocks: tuple[int, SharedBlocks]
) -> None:
    worker.start()
    pid = worker.pid
    stuck: Any = DeadlyPhoto(photos[0], os.getpid(), signal.SIGSTOP)
    raised = []

    def ask() -> None:
        try:
            worker.decode([stuck], 0)
        except StoppedError:
            raised.append(True)

    blocks[1].at[0] = -1
    asking = threading.Thread(target=ask)
    asking.start()
    while blocks[1].at[0] < 0:  # until it is at the photo
        time.sleep(0.01)
    worker.stop()
    asking.join()
    assert raised == [True]
    assert not there(pid)
    with pytest.raises(StoppedError):
        worker.start()


def test_it_ends_by_itself_when_nobody_holds_its_socket(worker: Worker) -> None:
    worker.start()
    pid, process = worker.pid, worker._process
    assert process is not None
    assert worker._connection is not None
    worker._connection.close()
    assert process.wait(120) == 0
    assert not there(pid)
