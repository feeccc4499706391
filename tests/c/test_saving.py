# SPDX-License-Identifier: Apache-2.0
"""A head saved in C is the old one or the new one, whoever pulls the plug or looks on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from edge_imprint_runtime import Head

KILLS = 1000


@pytest.fixture(scope="module")
def save_loop(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, copied: it is started a thousand times, and may be built anew meanwhile."""
    return shutil.copy(c_build / "tests" / "save_loop", tmp_path_factory.mktemp("save_loop"))


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two heads of about 300 kB, of another length each."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("heads")
    return [
        Head(
            rng.standard_normal((size, 128)),
            np.arange(size) % 20,
            [f"{number}" for number in range(20)],
        ).save(folder / str(size))
        for size in (600, 700)
    ]


def test_a_thousand_kills_leave_the_old_head_or_the_new_one(
    save_loop: str, tmp_path: Path, two_heads: list[Path]
) -> None:
    path = tmp_path / "model.head"
    known = [head.read_bytes() for head in two_heads]
    path.write_bytes(known[0])
    command = [save_loop, path, *two_heads]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.read(1) == b"."
        began = time.monotonic()
        assert writer.stdout.read(20) == b"." * 20
        one_s = (time.monotonic() - began) / 20
        writer.kill()
    path.write_bytes(known[0])
    for name in set(os.listdir(tmp_path)) - {path.name}:
        (tmp_path / name).unlink()
    span_s = max(0.004, 4 * one_s)  # some saves, on a slow disk too
    rng = random.Random(0)
    found, torn = [0, 0], 0
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.read(1) == b"."
            # Some moment of the saves that follow.
            time.sleep(rng.uniform(0, span_s))
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        found[known.index(path.read_bytes())] += 1
        for name in os.listdir(tmp_path):
            if name != path.name:
                assert name.startswith(".model.head.")
                assert name.endswith(".tmp")
                torn += 1
                (tmp_path / name).unlink()
    print(f"{KILLS} kills: {found} found whole, {torn} in the midst of writing")
    assert min(found) > 0
    assert torn > KILLS / 20  # the kills did hit


def test_a_reader_always_finds_a_whole_head(
    save_loop: str, tmp_path: Path, two_heads: list[Path]
) -> None:
    path = tmp_path / "model.head"
    known = [head.read_bytes() for head in two_heads]
    path.write_bytes(known[0])
    command = [save_loop, path, *two_heads]
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        begin = time.monotonic()
        while (passed_s := time.monotonic() - begin) < 1 or (
            len(seen) < 2 and passed_s < 60  # a busy machine is slow to start it
        ):
            seen.add(known.index(path.read_bytes()))
        writer.kill()
    assert seen == {0, 1}


def test_two_writers_do_not_share_a_temporary_file(
    save_loop: str, tmp_path: Path, two_heads: list[Path]
) -> None:
    path = tmp_path / "model.head"
    known = [head.read_bytes() for head in two_heads]
    commands = [[save_loop, path, *heads] for heads in (two_heads, two_heads[::-1])]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.read(20) == b"." * 20
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert path.read_bytes() in known
