# SPDX-License-Identifier: Apache-2.0
"""Stopped at any moment: the output is the old file or the new one, byte for byte."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MOMENTS = {signal.SIGINT: 6, signal.SIGKILL: 5}  # of each command
OLD = b"what was there before"
INTERRUPTED = "error: interrupted; no file was left half-written"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks into /proc for what is loaded"
)


def arguments(name: str, workshop: Any, out: Path) -> list[str]:
    if name == "build":
        data = ["build", workshop.photos, "--backbone", workshop.backbone]
    else:
        data = ["export", workshop.head]
    return [str(part) for part in [*data, "--out", out, "--force"]]


def wait_for_the_command(process: subprocess.Popen[str]) -> None:
    """Wait until numpy is loaded: the command line is then in charge, not Python's start."""
    with contextlib.suppress(OSError):  # it is over already
        while process.poll() is None:
            if "_multiarray_umath" in Path(f"/proc/{process.pid}/maps").read_text():
                return
            time.sleep(0.002)


def wait_for_the_write(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not list(folder.glob(".out.*.tmp")):
        pass


def start(command: Path, *parts: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [command, *parts], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("name", ["build", "export"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_old_or_new_never_torn(
    name: str, stop: signal.Signals, workshop: Any, command: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    new = (workshop.head if name == "build" else workshop.model).read_bytes()
    parts = arguments(name, workshop, out)
    with start(command, *parts) as process:
        wait_for_the_command(process)
        begin = time.monotonic()
        assert process.wait(60) == 0
        whole_s = time.monotonic() - begin
    assert out.read_bytes() == new

    moments = random.Random(f"{name} {stop}")
    stopped = 0
    for number in range(MOMENTS[stop]):
        out.write_bytes(OLD)
        with start(command, *parts) as process:
            wait_for_the_command(process)
            if number % 4 == 3:
                wait_for_the_write(process, tmp_path)
            else:
                time.sleep(moments.uniform(0, whole_s))
            process.send_signal(stop)
            _, said = process.communicate(timeout=60)
        assert out.read_bytes() in (OLD, new)
        if process.returncode == 0:  # it was over before the signal came
            assert out.read_bytes() == new
            continue
        stopped += 1
        if stop == signal.SIGINT:
            # -SIGINT: Python was already leaving, all work done.
            assert process.returncode in (130, -signal.SIGINT)
            if process.returncode == 130:
                assert said.splitlines()[-1] == INTERRUPTED
                assert "Traceback" not in said
            else:
                assert out.read_bytes() == new
            assert list(tmp_path.iterdir()) == [out]  # nothing half-written beside it
    assert stopped > 0
    # Whatever a kill left beside it, the next run works.
    with start(command, *parts) as process:
        assert process.wait(60) == 0
    assert out.read_bytes() == new
