# SPDX-License-Identifier: Apache-2.0
"""No space left: the old file stays, no new one is begun, and one line says so."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_full_disk(run: Run, workshop: Any, tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: the write stops in the middle.
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    for out, arguments in (
        (new, ["build", workshop.photos, "--backbone", workshop.backbone]),
        (old, ["export", workshop.head, "--force"]),
        (old, ["bench", workshop.model, "--iterations", 50, "--warm-up", "0.5s", "--force"]),
    ):
        done = run(
            *arguments,
            "--out",
            out,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"error: cannot write {out}: file too large"
        assert old.read_text() == "old"
        assert list(tmp_path.iterdir()) == [old]


def test_a_full_stdout(workshop: Any, command: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [command, "inspect", workshop.model],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: no space left on the device; free some and run it again\n"
