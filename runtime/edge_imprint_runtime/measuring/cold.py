# SPDX-License-Identifier: Apache-2.0
"""Cold start: from the start of a process to the first label, in fresh processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from edge_imprint_runtime.errors import ParameterError, ProviderError
from edge_imprint_runtime.measuring.limits import Tell

__all__ = ["MAX_COLD", "cold_start"]

MAX_COLD = 1_000
_TIMEOUT_S = 600.0
_MARK = "label:"

# What a user's program does that asks for one label, and nothing else.
_CHILD = """
import os, sys
import numpy as np
from edge_imprint_runtime import open_model
path, backend, threads, graph, dtype, *shape = sys.argv[1:]
options = {"cuda_graph": True} if graph == "1" else {}
model = open_model(path, backend, threads=int(threads), **options)
shape = [1, *map(int, shape)]
image = np.frombuffer(os.urandom(int(np.prod(shape))), np.uint8).reshape(shape)
if dtype != "uint8":
    image = (image / np.float32(128) - 1).astype(dtype)
print("label:", model.predict(image)[0].label.encode("unicode_escape").decode(), flush=True)
"""

_WHAT = (
    "from the start of a process of {python} to its first label: it opens the model and "
    "classifies one random image; the files were read before, and lie in the system's cache"
)


def cold_start(
    path: str | os.PathLike[str],
    runs: int,
    *,
    shape: Sequence[int],
    dtype: str,
    backend: str = "auto",
    threads: int = 0,
    cuda_graph: bool = False,
    progress: Tell | None = None,
) -> dict[str, Any]:
    """Start a process, wait for its first label, and again.

    Time is taken by this process on its monotonic clock: before it starts the other, and when
    the label has come through a pipe.

    Args:
        path: A fused model.
        runs: How many processes, one after the other.
        shape: Of one image.
        dtype: Of its numbers.
        backend: As `open_model` takes it, likewise the others.
        threads: As there.
        cuda_graph: As there.
        progress: Told (done, total) after each.

    Returns:
        The report's ``cold_start``.

    Raises:
        ParameterError: That many runs can't be made.
        ProviderError: A process ended without a label.
    """
    if not 1 <= runs <= MAX_COLD:
        raise ParameterError(f"cold must be an integer from 1 to {MAX_COLD}, got {runs}")
    parts = [os.fspath(path), backend, threads, int(cuda_graph), dtype, *shape]
    command = [sys.executable, "-c", _CHILD, *map(str, parts)]
    taken_ms = []
    for done in range(runs):
        taken_ms.append(_first_label_ns(command) / 1e6)
        if progress is not None:
            progress(done + 1, runs)
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return {
        "runs_ms": taken_ms,
        "p50_ms": sorted(taken_ms)[math.ceil(runs / 2) - 1],
        "what": _WHAT.format(python=version),
    }


def _first_label_ns(command: list[str]) -> int:
    # A file takes any number of warnings; a pipe that nobody reads would stop the process.
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        start = time.perf_counter_ns()
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            errors="replace",
        ) as process:
            end = _label_time_ns(process)
        said.seek(0)
        lines = said.read().strip().splitlines()
    if not end:
        why = lines[-1:] or [f"it ended with {process.returncode}"]
        raise ProviderError(
            f"a fresh process came to no label: {why[0][:300]}; leave out --cold, or open the "
            "model in a Python of its own to see why"
        )
    return end - start


def _label_time_ns(process: subprocess.Popen[str]) -> int:
    """Wait until it ends; return when its label came, or 0."""
    assert process.stdout is not None  # it is a pipe
    end, timer = 0, threading.Timer(_TIMEOUT_S, process.kill)
    timer.start()
    try:
        for line in process.stdout:  # a library may print lines of its own
            if line.startswith(_MARK) and not end:
                end = time.perf_counter_ns()
        process.wait()
    finally:
        timer.cancel()
        process.kill()  # when this one is interrupted, that one must not go on
    return end
