# SPDX-License-Identifier: Apache-2.0
"""Files in C: read whole or refused, written whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.c.building import tool
from tests.c.text_asking import Answer, Asking, text

NOBODY = 65_534
HEAD_FILE, FILE_MISSING = 41, 20  # statuses by which a failed reading may be called


@pytest.fixture(scope="module")
def check(c_build: Path) -> Iterator[Asking]:
    with Asking(c_build / "tests" / "text_check") as asking:
        yield asking


def read(
    check: Asking, path: Path | str, limit: int = 10**9, status: int = HEAD_FILE
) -> Answer:
    return check.ask("read", str(path), str(limit), str(status))


def write(check: Asking, path: Path | str, data: bytes) -> Answer:
    return check.ask("write", str(path), data)


def written(answer: Answer) -> None:
    assert answer["status"] == "EI_OK", text(answer, "error")


def refused(answer: Answer, status: str, reason: str) -> None:
    assert answer["status"] == status, answer
    assert reason in text(answer, "error"), text(answer, "error")
    assert "\n" not in text(answer, "error")


# ---------------------------------------------------------------------------- reading -----


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4096, 5_000_000])
def test_a_file_is_read_whole(check: Asking, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "ü 😀").write_bytes(data)
    answer = read(check, tmp_path / "ü 😀", size)
    assert bytes.fromhex(answer["data"]) == data
    assert answer["aligned"]


def test_a_link_is_followed(check: Asking, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    assert bytes.fromhex(read(check, tmp_path / "link")["data"]) == b"data"


def test_a_file_above_the_limit(check: Asking, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(101))
    refused(read(check, path, 100), "EI_HEAD_FILE", "has 101 bytes, and 100 are the most")
    with path.open("wb") as file:
        file.truncate(2**43)  # a hole, which no memory could take
    refused(read(check, path), "EI_HEAD_FILE", "has 8796093022208 bytes")


def test_what_is_no_file(check: Asking, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "file").write_bytes(b"")
    for path, reason in (
        (tmp_path / "missing", "there is no file"),
        (tmp_path / "nowhere", "there is no file"),
        ("", "there is no file"),
        (tmp_path, "it is a folder; name a file in it"),
        (tmp_path / "fifo", "it is not a regular file"),  # and is not waited for
        ("/dev/zero", "it is not a regular file"),
        (tmp_path / "loop", "too many levels of symbolic links"),
        (tmp_path / "file" / "more", "not a directory"),
        (tmp_path / ("x" * 256), "file name too long"),
    ):
        refused(read(check, path), "EI_HEAD_FILE", reason)
        refused(read(check, path, status=FILE_MISSING), "EI_FILE_MISSING", reason)


def test_a_file_that_may_not_be_read(c_build: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"secret")
    (tmp_path / "f").chmod(0)
    with as_nobody(c_build, tmp_path) as check:
        refused(read(check, "f"), "EI_HEAD_FILE", "cannot read f: permission denied")


def test_a_file_that_changes_meanwhile(check: Asking) -> None:
    """Of /proc's files the size is said to be 0."""
    refused(read(check, "/proc/self/status"), "EI_HEAD_FILE", "another program is writing it")


def test_short_and_interrupted_reads(check: Asking, tmp_path: Path) -> None:
    data = os.urandom(1000)
    (tmp_path / "f").write_bytes(data)
    check.ask("short", "7")
    check.ask("fault", "read", str(errno.EINTR), "3")
    answer = read(check, tmp_path / "f")
    assert bytes.fromhex(answer["data"]) == data
    assert answer["calls"].split().count("read") > 1000 // 7 + 3
    check.ask("fault", "read", str(errno.EIO), "1")
    refused(read(check, tmp_path / "f"), "EI_HEAD_FILE", "input/output error")


def test_reading_without_memory(check: Asking, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    check.ask("fail", "1")
    refused(read(check, tmp_path / "f"), "EI_OUT_OF_MEMORY", "not enough memory")


def test_what_is_there(check: Asking, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")
    there = {
        "file": 1,
        "nowhere": 1,
        "loop": 1,
        "loop/x": 1,
        "": 1,
        "missing": 0,
        "missing/x": 0,
        "file/x": 0,
        "x" * 256: 0,
    }
    found = {name: check.ask("exists", str(tmp_path / name))["good"] for name in there}
    assert found == there


# ---------------------------------------------------------------------------- writing -----


@pytest.mark.parametrize("data", [b"", b"x", b"\0\r\n" * 1000, bytes(3_000_000)])
def test_a_file_is_written(check: Asking, tmp_path: Path, data: bytes) -> None:
    for name in (
        "a",
        "ü ñ😀",
        "x" * 255,
        "画" * 85,
        b"\xff".decode("utf-8", "surrogateescape"),
    ):
        path = os.fsencode(tmp_path / name)
        for _ in range(2):  # new, and in the old one's place
            written(check.ask("write", path, data))
            assert Path(os.fsdecode(path)).read_bytes() == data
    assert len(os.listdir(tmp_path)) == 5


def test_a_relative_path(c_build: Path, tmp_path: Path) -> None:
    with Asking(c_build / "tests" / "text_check", cwd=tmp_path) as check:
        written(write(check, "f", b"x"))
        (tmp_path / "d").mkdir()
        written(write(check, "./d/../d/f", b"y"))
    assert (tmp_path / "f").read_bytes() == b"x"
    assert (tmp_path / "d" / "f").read_bytes() == b"y"


def test_on_the_disk_before_it_is_renamed(check: Asking, tmp_path: Path) -> None:
    answer = write(check, tmp_path / "f", b"x")
    calls = "getrandom openat write fsync close renameat openat fsync close close"
    assert answer["calls"] == calls
    answer = write(check, tmp_path / "f", b"x")
    assert answer["calls"] == calls.replace("openat write", "openat fchmod write")


def test_short_and_interrupted_writes(check: Asking, tmp_path: Path) -> None:
    data = os.urandom(1000)
    check.ask("short", "7")
    for call in ("write", "fsync", "openat", "close"):
        check.ask("fault", call, str(errno.EINTR), "3")
    written(write(check, tmp_path / "f", data))
    assert (tmp_path / "f").read_bytes() == data
    assert os.listdir(tmp_path) == ["f"]


FAULTS = [
    ("write", errno.EIO, "input/output error"),
    ("write", errno.ENOSPC, "no space left on device; free some"),
    ("write", errno.EDQUOT, "disk quota exceeded; free some"),
    ("fsync", errno.EIO, "input/output error"),
    ("close", errno.EDQUOT, "disk quota exceeded; free some"),
    ("renameat", errno.EXDEV, "invalid cross-device link"),
    ("fchmod", errno.EPERM, "operation not permitted; name a file in a folder"),
    ("openat", errno.EROFS, "read-only file system; name a file in a folder"),
    ("openat", errno.EMFILE, "too many open files"),
]


@pytest.mark.parametrize(("call", "number", "reason"), FAULTS)
def test_each_failing_call(
    check: Asking, tmp_path: Path, call: str, number: int, reason: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    check.ask("fault", call, str(number), "1")
    refused(write(check, path, b"new"), "EI_WRITE_FAILED", f"cannot write {path}: {reason}")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_names_that_are_taken(check: Asking, tmp_path: Path) -> None:
    check.ask("fault", "openat", str(errno.EEXIST), "99")
    written(write(check, tmp_path / "f", b"x"))
    check.ask("fault", "openat", str(errno.EEXIST), "100")
    refused(write(check, tmp_path / "f", b"y"), "EI_WRITE_FAILED", "file exists")
    assert (tmp_path / "f").read_bytes() == b"x"


def test_without_the_kernels_random_numbers(check: Asking, tmp_path: Path) -> None:
    check.ask("fault", "getrandom", str(errno.EAGAIN), "1")
    written(write(check, tmp_path / "f", b"x"))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_modes_of_any_new_file(
    c_build: Path, tmp_path: Path, mask: int
) -> None:
    program = c_build / "tests" / "text_check"
    with Asking(program, prepare=lambda: os.umask(mask) and None) as check:
        written(write(check, tmp_path / "f", b"x"))
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755, 0o666])
def test_what_was_there_keeps_its_modes(check: Asking, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(mode)
    written(write(check, path, b"new"))
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_was_there_keeps_its_owner(check: Asking, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root: no one else may give files away")
    path = tmp_path / "f"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, NOBODY)
    written(write(check, path, b"new"))
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    check.ask("fault", "fchown", str(errno.EPERM), "1")
    written(write(check, path, b"newer"))
    assert (path.read_bytes(), path.stat().st_uid) == (b"newer", 0)


def test_links_are_followed(check: Asking, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "file"
    (tmp_path / "d" / "beside").symlink_to("file")
    (tmp_path / "whole").symlink_to(tmp_path / "d" / "beside")
    (tmp_path / "chain").symlink_to("whole")
    for data in (b"new", b"newer"):  # leading nowhere at first
        written(write(check, tmp_path / "chain", data))
        assert file.read_bytes() == data
    for name in ("chain", "whole", "d/beside"):
        assert (tmp_path / name).is_symlink()
    assert not file.is_symlink()
    assert sorted(os.listdir(tmp_path / "d")) == ["beside", "file"]


def test_paths_that_can_hold_no_file(check: Asking, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "far").symlink_to("x" * 300)
    before = sorted(os.listdir(tmp_path))
    for name, reason in (
        ("folder", "it is a folder; name a file in it"),
        ("folder/", "it is a folder; name a file in it"),
        ("fifo", "it is not a regular file"),
        ("missing/f", f"there is no folder {tmp_path}/missing"),
        ("missing/", "it names no file"),
        ("file/f", "not a directory"),
        ("x" * 256, "file name too long"),
        ("x" * 5000, "file name too long"),
        ("loop", "too many levels of symbolic links"),
        ("loop/f", "too many levels of symbolic links"),
        ("far", "file name too long"),
    ):
        answer = write(check, f"{tmp_path}/{name}", b"x")
        refused(answer, "EI_WRITE_FAILED", reason if len(name) < 300 else "")
    refused(write(check, "/dev/null", b"x"), "EI_WRITE_FAILED", "it is not a regular file")
    refused(write(check, "", b"x"), "EI_WRITE_FAILED", "it names no file")
    refused(write(check, "/", b"x"), "EI_WRITE_FAILED", "it is a folder")
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_bytes() == b"old"


def test_links_that_grow_beyond_all_paths(check: Asking, tmp_path: Path) -> None:
    folder = tmp_path / "/".join(["d"] * 500)
    folder.mkdir(parents=True)
    (folder / "link").symlink_to("e/" * 2000 + "f")
    answer = write(check, folder / "link", b"x")
    refused(answer, "EI_WRITE_FAILED", "cannot write")
    assert answer["calls"] == ""
    assert os.listdir(folder) == ["link"]


def test_a_limit_on_files_stands_for_a_full_disk(c_build: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with Asking(c_build / "tests" / "text_check", prepare=limit) as check:
        answer = write(check, tmp_path / "f", bytes(1_000_000))
    refused(answer, "EI_WRITE_FAILED", "file too large")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


# ----------------------------------------------------------- folders that are not ours -----


def as_nobody(c_build: Path, folder: Path) -> Asking:
    """Ask as a user without rights, from within a folder: those above belong to root alone."""
    # Opened before the rights are gone: the build may lie where nobody may look.
    program = os.open(c_build / "tests" / "text_check", os.O_RDONLY)

    def prepare() -> None:
        os.chdir(folder)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    asking = Asking(Path(f"/proc/self/fd/{program}"), prepare=prepare, pass_fds=[program])
    os.close(program)
    return asking


def test_a_folder_that_may_not_be_written_to(c_build: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    tmp_path.chmod(0o555)
    try:
        with as_nobody(c_build, tmp_path) as check:
            refused(
                write(check, "f", b"new"),
                "EI_WRITE_FAILED",
                "cannot write f: permission denied; name a file in a folder that may be",
            )
            refused(write(check, "new", b"new"), "EI_WRITE_FAILED", "permission denied")
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def in_a_mount(c_build: Path, folder: Path, mount: str) -> Asking:
    """Ask in a world of its own, where `folder` is mounted anew; needs no root."""
    command = [tool("unshare", "util-linux"), "--mount", "--map-root-user", "sh", "-c"]
    tried = subprocess.run([*command, mount, "sh", folder], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"this system lets no user mount: {tried.stderr.decode().strip()}")
    script = folder.parent / "in_a_mount"
    program = c_build / "tests" / "text_check"
    words = " ".join(command)
    script.write_text(f"#!/bin/sh\nexec {words} '{mount} && exec {program}' sh '{folder}'\n")
    script.chmod(0o755)
    return Asking(script)


def test_a_full_disk(c_build: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with in_a_mount(c_build, disk, 'mount -t tmpfs -o size=256k none "$1"') as check:
        written(write(check, disk / "f", b"old" * 1000))
        for _ in range(3):  # nothing of a failed one stays, which would fill the disk
            refused(
                write(check, disk / "f", bytes(1_000_000)),
                "EI_WRITE_FAILED",
                "no space left on device; free some and try again",
            )
        assert bytes.fromhex(read(check, disk / "f")["data"]) == b"old" * 1000
        written(write(check, disk / "f", bytes(150_000)))


def test_a_read_only_disk(c_build: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "f").write_bytes(b"old")
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    with in_a_mount(c_build, disk, mount) as check:
        for name in ("f", "new"):
            refused(
                write(check, disk / name, b"new"),
                "EI_WRITE_FAILED",
                "read-only file system; name a file in a folder that may be written to",
            )
        assert bytes.fromhex(read(check, disk / "f")["data"]) == b"old"
    assert os.listdir(disk) == ["f"]
