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

from edge_imprint.cli import main

MOMENTS = {signal.SIGINT: 6, signal.SIGKILL: 5}  # of each command
OLD = b"what was there before"
INTERRUPTED = "error: interrupted; no file was left half-written"
KEPT = "; what was embedded is kept, and the same command goes on from there"

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
        assert process.wait(300) == 0
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
            else:  # once at the beginning: where later ones are quicker, it is in the midst
                time.sleep(whole_s * (moments.random() if number else 0))
            process.send_signal(stop)
            _, said = process.communicate(timeout=300)
        assert out.read_bytes() in (OLD, new)
        if process.returncode == 0:  # it was over before the signal came
            assert out.read_bytes() == new
            continue
        stopped += 1
        if stop == signal.SIGINT:
            # -SIGINT: Python was already leaving, all work done.
            assert process.returncode in (130, -signal.SIGINT)
            if process.returncode == 130:
                assert said.splitlines()[-1] in (
                    {INTERRUPTED, INTERRUPTED + KEPT} if name == "build" else {INTERRUPTED}
                )
                assert "Traceback" not in said
            else:
                assert out.read_bytes() == new
            assert list(tmp_path.iterdir()) == [out]  # nothing half-written beside it
    assert stopped > 0
    # Whatever a kill left beside it, the next run works.
    with start(command, *parts) as process:
        assert process.wait(300) == 0
    assert out.read_bytes() == new


@pytest.mark.parametrize(
    ("command_line", "function", "cached", "said"),
    [
        ("build x --backbone demo --out h", "edge_imprint.cli._build.run_build", True, KEPT),
        ("evaluate x --backbone demo", "edge_imprint.cli._evaluate.embed_photos", True, KEPT),
        ("build x --backbone demo --out h", "edge_imprint.cli._build.run_build", False, ""),
        (
            "build x --backbone demo --out h --no-cache",
            "edge_imprint.cli._build.run_build",
            True,
            "",
        ),
        ("export h --out m", "edge_imprint.cli._export.run_export", True, ""),
    ],
)
def test_what_was_embedded_is_kept(
    command_line: str,
    function: str,
    cached: bool,
    said: str,
    workshop: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, stop)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if cached:
        (tmp_path / "edge-imprint").mkdir()
    words = [str(workshop.photos) if word == "x" else word for word in command_line.split()]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == INTERRUPTED + said
