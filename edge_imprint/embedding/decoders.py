# SPDX-License-Identifier: Apache-2.0
"""Where lanes get decoded photos from: worker processes, or the lane's own thread."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.channel import Channel, ClosedChannel, NothingYet
from edge_imprint.embedding.decode_worker import Setup
from edge_imprint.embedding.decoding import Chunk, decode_chunk
from edge_imprint.embedding.engine import Broken
from edge_imprint.embedding.shared_blocks import BlockShape, SharedBlocks, shared_memory
from edge_imprint.embedding.workers import StoppedError, Worker, WorkerStartError
from edge_imprint.photos import Location
from edge_imprint_runtime.contract import Preprocess

__all__ = ["Decoded", "Decoders", "ProcessDecoders", "Tasks", "ThreadDecoders"]

# A lane that has waited so long wants one more worker.
_PATIENCE_S = 0.05


@dataclass(frozen=True)
class Decoded:
    """Photos that were decoded together.

    Attributes:
        indices: The positions of the good ones among all photos.
        digests: The SHA-256 of each good one.
        broken: The others.
        pixels: (n, H, W, 3) uint8 of the good ones, valid until it is given back.
        block: Where they lie.
    """

    indices: tuple[int, ...]
    digests: tuple[bytes, ...]
    broken: tuple[Broken, ...]
    pixels: npt.NDArray[np.uint8]
    block: int


class Decoders(Protocol):
    """Decodes photos, for lanes that ask from several threads."""

    def next(self) -> Decoded | None:
        """Return the next photos; None once there are none, or it was stopped."""

    def give_back(self, decoded: Decoded) -> None:
        """Let the memory of photos be used again."""

    def stop(self) -> None:
        """End what it started; `next` then gives None."""


class Tasks:
    """Deals out the photos, a few at a time, to whoever asks from any thread.

    Args:
        photos: The photos.
        most: Photos at a time.
        least: Photos at a time near the end, so that nobody waits long for the last one.
        takers: Who asks, about.
    """

    def __init__(
        self, photos: Sequence[Location], *, most: int, least: int, takers: int
    ) -> None:
        self._photos, self._most, self._least, self._takers = photos, most, least, takers
        self._next = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[range, list[Location]]:
        """Return the next positions, and the photos there; none at the end."""
        with self._lock:
            left = len(self._photos) - self._next
            count = self._most if left >= 2 * self._most * self._takers else self._least
            chosen = range(self._next, self._next + min(left, count))
            self._next = chosen.stop
            return chosen, [self._photos[i] for i in chosen]


class ThreadDecoders:
    """Decodes in the thread that asks. A decoder that crashes takes this process with it.

    Args:
        tasks: The photos.
        preprocess: From a photo to pixels.
        decode: As in `decode_photo`.
        most: Photos at a time.
    """

    def __init__(
        self, tasks: Tasks, preprocess: Preprocess, *, decode: str, most: int
    ) -> None:
        self._tasks, self._preprocess, self._way = tasks, preprocess, decode
        self._shape = (most, preprocess.height, preprocess.width, 3)
        self._free: list[npt.NDArray[np.uint8]] = []  # its append and pop are atomic
        self._stopped = False

    def next(self) -> Decoded | None:
        """Decode the next photos; see `Decoders`."""
        chosen, photos = self._tasks.take()
        if not photos or self._stopped:
            return None
        try:
            pixels = self._free.pop()
        except IndexError:
            pixels = np.empty(self._shape, np.uint8)
        chunk = decode_chunk(photos, self._preprocess, pixels, decode=self._way)
        return _decoded(chunk, chosen, pixels, 0)

    def give_back(self, decoded: Decoded) -> None:
        """Use the pixels' memory again; see `Decoders`."""
        base = decoded.pixels.base
        if isinstance(base, np.ndarray):
            self._free.append(base)

    def stop(self) -> None:
        """See `Decoders`."""
        self._stopped = True


class ProcessDecoders:
    """Decodes in worker processes, first one, then more where lanes wait.

    A process that dies is replaced; a photo that kills it twice is broken. Where no process
    can be started, threads of this one decode, and a note says so.

    Args:
        tasks: The photos.
        preprocess: From a photo to pixels.
        decode: As in `decode_photo`.
        most: Photos at a time.
        first: Processes that are started at once.
        limit: Processes at most.
        lanes: Lanes that ask.
        notes: Is told what a user should know.

    Raises:
        OSError: There is no room for the shared memory.
    """

    def __init__(
        self,
        tasks: Tasks,
        preprocess: Preprocess,
        *,
        decode: str,
        most: int,
        first: int,
        limit: int,
        lanes: int,
        notes: list[str],
    ) -> None:
        # Each worker fills one, each lane reads one, and as many again wait for lanes.
        shape = BlockShape(limit + 2 * lanes, most, preprocess.height, preprocess.width)
        self._setup = Setup(shape, preprocess, decode)
        self._tasks, self._limit, self._notes = tasks, limit, notes
        self._memory_file = shared_memory(shape)
        try:
            self._blocks = SharedBlocks(self._memory_file, shape)
        except OSError:
            os.close(self._memory_file)
            raise
        self._free: Channel[int] = Channel(shape.blocks, newest_first=True)
        for block in reversed(range(shape.blocks)):
            self._free.put(block)
        self._ready: Channel[Decoded | BaseException] = Channel(shape.blocks)
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._coming = 0  # started and not yet up
        self._running = 0
        self._stopped = False
        self._add_workers(first)

    def next(self) -> Decoded | None:
        """Wait for the next photos; see `Decoders`."""
        while True:
            try:
                decoded = self._ready.get(_PATIENCE_S)
            except NothingYet:
                self._add_workers()
            except ClosedChannel:
                return None
            else:
                if isinstance(decoded, BaseException):
                    raise decoded
                return decoded

    def give_back(self, decoded: Decoded) -> None:
        """Let a worker fill the block again; see `Decoders`."""
        with contextlib.suppress(ClosedChannel):
            self._free.put(decoded.block)

    def stop(self) -> None:
        """End the processes and the threads that wait for them; see `Decoders`."""
        with self._lock:
            stopped, self._stopped = self._stopped, True
        self._free.close()
        self._ready.close()
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join()
        if not stopped:
            os.close(self._memory_file)

    def pids(self) -> list[int]:
        """Return the numbers of the processes that there are."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _add_workers(self, count: int | None = None) -> None:
        """Start so many; None: as many again as there are, unless some are not up yet."""
        with self._lock:
            if self._stopped or (count is None and self._coming):
                return
            there = len(self._workers)
            for _ in range(min(self._limit - there, there if count is None else count)):
                worker = Worker(self._setup, self._memory_file, self._blocks)
                thread = threading.Thread(
                    target=self._feed, args=(worker,), name="edge-imprint decode", daemon=True
                )
                self._workers.append(worker)
                self._threads.append(thread)
                self._coming += 1
                self._running += 1
                thread.start()  # while locked, so that `stop` joins none that does not run

    def _feed(self, worker: Worker) -> None:
        """Ask one worker for one block after the other; runs in a thread of its own."""
        try:
            up = self._started(worker)
            with self._lock:
                self._coming -= 1
            while True:
                block = self._free.get()
                chosen, photos = self._tasks.take()
                if not photos:
                    return
                chunk, up = self._decode(worker if up else None, photos, block)
                self._ready.put(_decoded(chunk, chosen, self._blocks.pixels(block), block))
        except (ClosedChannel, StoppedError):
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            worker.stop()
            with self._lock:
                self._running -= 1
                last = not self._running
            if last:
                self._ready.end()

    def _started(self, worker: Worker) -> bool:
        try:
            worker.start()
        except WorkerStartError as error:
            self._say_why(error)
            return False
        return True

    def _decode(
        self, worker: Worker | None, photos: list[Location], block: int
    ) -> tuple[Chunk, bool]:
        if worker is not None:
            try:
                return worker.decode(photos, block), True
            except WorkerStartError as error:
                self._say_why(error)
        pixels, setup = self._blocks.pixels(block), self._setup
        return decode_chunk(photos, setup.preprocess, pixels, decode=setup.decode), False

    def _say_why(self, error: WorkerStartError) -> None:
        note = f"photos were decoded without worker processes, which can't run here: {error}"
        with self._lock:
            if note not in self._notes:
                self._notes.append(note)

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(ClosedChannel):
            self._ready.put(error)


def _decoded(
    chunk: Chunk, chosen: range, pixels: npt.NDArray[np.uint8], block: int
) -> Decoded:
    return Decoded(
        tuple(chosen[i] for i in chunk.good),
        chunk.digests,
        tuple(Broken(chosen[i], text) for i, text in chunk.problems),
        pixels[: len(chunk.good)],
        block,
    )
