# SPDX-License-Identifier: Apache-2.0
"""A process that decodes photos, seen from outside: started, asked, and replaced when it dies.

It is a plain Python process, neither forked nor spawned by `multiprocessing`: that would run
the caller's main module again, and a script without ``if __name__ == "__main__"`` would build
a second time. It ends by itself once its socket is closed, that is, however this one ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any

from edge_imprint.embedding.decode_worker import READY, Setup
from edge_imprint.embedding.decoding import Chunk
from edge_imprint.embedding.shared_blocks import SharedBlocks
from edge_imprint.photos import Location

__all__ = ["StoppedError", "Worker", "WorkerStartError"]

# Ctrl-C reaches every process of a terminal; the one who started this one decides.
_CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import json
sys.path[:] = json.loads(sys.argv[1])
from edge_imprint.embedding.decode_worker import serve
serve(int(sys.argv[2]), int(sys.argv[3]))
"""
_START_S = 60.0  # a slow disk may need long to read numpy; more, and something is wrong
_END_S = 5.0
# One of its deaths may have come from outside; a photo that is the cause kills again.
_DEATHS = 2


class WorkerStartError(Exception):
    """A process that decodes can't be started here; says why. Engines go on without."""


class StoppedError(Exception):
    """The worker was stopped."""


class Worker:
    """A process that decodes photos into shared memory. One thread asks; any may stop it.

    Args:
        setup: What it is told once.
        memory_file: The shared memory's descriptor.
        blocks: The same memory, here.
    """

    def __init__(self, setup: Setup, memory_file: int, blocks: SharedBlocks) -> None:
        self._setup, self._memory_file, self._blocks = setup, memory_file, blocks
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process, and wait until it can decode.

        Raises:
            WorkerStartError: It can't be started, or does not come up.
            StoppedError: It was stopped.
        """
        with tempfile.TemporaryFile() as errors:
            try:
                self._launch(errors)
                assert self._connection is not None
                self._connection.send(self._setup)
                if not self._connection.poll(_START_S):
                    raise WorkerStartError(f"it is not up after {_START_S:.0f} s")
                if self._connection.recv() != READY:
                    raise WorkerStartError("it gives an answer that is none")
            except WorkerStartError:
                self._end()
                raise
            except (OSError, EOFError) as error:
                with self._lock:
                    if self._stopped:
                        raise StoppedError from error
                if self._process is None:
                    raise WorkerStartError(str(error)) from error
                code = self._end()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                reason = said[-1] if said else f"it ended with {_how(code)}"
                raise WorkerStartError(reason) from error

    def decode(self, photos: Sequence[Location], block: int) -> Chunk:
        """Have photos decoded.

        Args:
            photos: At most as many as a block holds.
            block: The block that is filled.

        Returns:
            What became of them; one that twice killed the process has a problem, too.

        Raises:
            WorkerStartError: The process died and can't be started again.
            StoppedError: It was stopped.
        """
        deaths: Counter[int] = Counter()
        fatal: dict[int, str] = {}
        while True:
            todo = [i for i in range(len(photos)) if i not in fatal]
            try:
                return _merged(self._ask([photos[i] for i in todo], block), todo, fatal)
            except (OSError, EOFError) as error:
                with self._lock:
                    if self._stopped:
                        raise StoppedError from error
                code = self._end()
                at = int(self._blocks.at[block])
                position = todo[at] if at >= 0 else -1
                deaths[position] += 1
                if deaths[position] >= _DEATHS:
                    if position < 0:
                        raise WorkerStartError(f"it ends with {_how(code)}") from error
                    fatal[position] = (
                        f"the image {photos[position]} ends the process that decodes it "
                        f"({_how(code)}); replace it or take it out"
                    )
            self.start()

    def stop(self) -> None:
        """End the process; what is asked of it meanwhile raises `StoppedError`."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None:  # whoever waits for an answer now finds the socket's end
            _ended(process, at_once=True)

    def _launch(self, errors: IO[bytes]) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise WorkerStartError("this program has no Python interpreter of its own")
        ours, theirs = Pipe()
        path = [os.fspath(one) for one in sys.path if isinstance(one, (str, os.PathLike))]
        numbers = [str(theirs.fileno()), str(self._memory_file)]
        # Pixels need no linear algebra, whose threads cost time at the start, and memory.
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with theirs, self._lock:
            if self._stopped:
                ours.close()
                raise StoppedError
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, json.dumps(path), *numbers],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=os.environ | quiet,
                    pass_fds=[theirs.fileno(), self._memory_file],
                )
            except OSError:
                ours.close()
                raise
            self._connection = ours

    def _ask(self, photos: Sequence[Location], block: int) -> Chunk:
        self._blocks.at[block] = -1
        if not photos:
            return Chunk((), (), ())
        if self._connection is None:
            raise EOFError
        self._connection.send((block, photos))
        chunk: Chunk = self._connection.recv()
        return chunk

    def _end(self) -> int | None:
        """Wait for a process that dies, or end it; return how it ended."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if connection is not None:
            connection.close()
        return None if process is None else _ended(process)


def _ended(process: subprocess.Popen[bytes], *, at_once: bool = False) -> int | None:
    """End a process, which holds nothing that would have to be put in order."""
    # One that dies may need long on a busy machine; killed, it would tell another cause.
    for patience_s in (0.0 if at_once else 2 * _END_S, _END_S):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(patience_s)
        process.kill()
    return None


def _merged(chunk: Chunk, todo: list[int], fatal: dict[int, str]) -> Chunk:
    problems = [(todo[i], text) for i, text in chunk.problems] + list(fatal.items())
    return Chunk(tuple(todo[i] for i in chunk.good), chunk.digests, tuple(sorted(problems)))


def _how(code: int | None) -> str:
    """Say how a process ended: ``SIGSEGV``, or ``exit code 1``."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return "no exit code" if code is None else f"exit code {code}"
