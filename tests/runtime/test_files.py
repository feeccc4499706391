# SPDX-License-Identifier: Apache-2.0
"""A file is the old one or the new one: with a full disk, and when the writer is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_imprint_runtime.errors import OutputExistsError, OutputWriteError
from edge_imprint_runtime.files import (
    cache_folder,
    check_output,
    file_sha256,
    size_text,
    write_atomic,
)

NOBODY = 65_534


def run(
    code: str, *arguments: Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_writes_what_it_is_given(tmp_path: Path) -> None:
    for name, data in (("a", b""), ("b", b"\0\r\n" * 1_000), ("ü ñ😀", b"x")):
        path = tmp_path / name
        assert write_atomic(path, data) == path
        assert path.read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == sorted(["a", "b", "ü ñ😀"])


def test_takes_a_relative_path_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic("name", b"x")
    assert (tmp_path / "name").read_bytes() == b"x"


@pytest.mark.parametrize("letter", ["x", "ü", "画", "😀"])
def test_the_longest_name_that_the_file_system_takes(tmp_path: Path, letter: str) -> None:
    """The temporary name beside it must not be longer."""
    path = tmp_path / (letter * (255 // len(letter.encode())))
    path.write_bytes(b"old")
    write_atomic(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert len(os.listdir(tmp_path)) == 1


def test_the_file_has_the_modes_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    written = write_atomic(tmp_path / "ours", b"")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_keeps_an_existing_file_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(
        OutputExistsError,
        match="exists already; pass --force \\(in Python force=True\\) to replace it",
    ):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputWriteError, match="it is a folder; name a file in it"):
        write_atomic(tmp_path / "folder", b"", force=force)
    assert (tmp_path / "folder").is_dir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/f", "there is no folder"),
        ("file/f", "there is no folder|not a directory"),
        ("x" * 256, "file name too long"),
        ("a\0b", "null"),
        ("loop/f", "there is no folder|levels of symbolic links"),
    ],
)
def test_a_path_that_can_hold_no_file(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    for call in (check_output, lambda path: write_atomic(path, b"x")):
        with pytest.raises(OutputWriteError, match=f"cannot write .*({reason})") as caught:
            call(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    # In a process of its own, which may give up root: that could not be taken back. It starts
    # in the folder, because the folders above it belong to root alone.
    code = (
        "import os\n"
        "from edge_imprint_runtime.errors import OutputWriteError\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        f"if os.geteuid() == 0: os.setuid({NOBODY})\n"
        "try: write_atomic('f', b'new', force=True)\n"
        "except OutputWriteError as error: print(error)\n"
    )
    (tmp_path / "f").write_bytes(b"old")
    tmp_path.chmod(0o555)
    try:
        done = run(code, cwd=tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert done.stdout == "cannot write f: the folder . is not writable\n", done.stderr
    assert (tmp_path / "f").read_bytes() == b"old"


def test_check_output_touches_nothing(tmp_path: Path) -> None:
    assert check_output(tmp_path / "f") == tmp_path / "f"
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel's limit on a file's size fails a write half way, as a full disk does."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    code = (
        "import resource, sys\n"
        "from edge_imprint_runtime.errors import OutputWriteError\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_atomic(sys.argv[1], bytes(1_000_000), force=True)\n"
        "except OutputWriteError as error: print(error)\n"
    )
    done = run(code, path)
    assert done.stdout == f"cannot write {path}: file too large\n", done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("kill_after", [1, 5, 20])
def test_a_killed_writer_leaves_one_whole_file(tmp_path: Path, kill_after: int) -> None:
    """Killed while it replaces 4 MB by 4 MB as fast as it can; whichever is there is whole."""
    path = tmp_path / "f"
    code = (
        "import sys\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        "for count in range(10**9):\n"
        "    write_atomic(sys.argv[1], bytes([count % 256]) * 4_000_000, force=True)\n"
        "    print(count, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(kill_after):
            assert writer.stdout.readline()
        # The next write is under way by now; any moment of it will do.
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    data = path.read_bytes()
    assert len(data) == 4_000_000
    assert len(set(data)) == 1
    assert data[0] >= kill_after - 1


def test_a_reader_always_finds_a_whole_file(tmp_path: Path) -> None:
    """It looks as often as it can while another process replaces the file again and again."""
    path = tmp_path / "f"
    path.write_bytes(bytes(1_000_000))
    code = (
        "import sys\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        "for count in range(10**9):\n"
        "    write_atomic(sys.argv[1], bytes([count % 256]) * 1_000_000, force=True)\n"
    )
    seen: set[bytes] = set()
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        while len(seen) < 50:
            assert writer.poll() is None
            for _ in range(100):
                assert os.stat(path).st_size == 1_000_000
            data = path.read_bytes()
            assert data == data[:1] * 1_000_000
            seen.add(data[:1])
        writer.kill()


def test_an_interrupted_writer_cleans_up(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        "def interrupt(_): raise KeyboardInterrupt\n"
        "os.fsync = interrupt\n"
        "write_atomic(sys.argv[1], b'new', force=True)\n"
    )
    path = tmp_path / "f"
    path.write_bytes(b"old")
    assert "KeyboardInterrupt" in run(code, path).stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from edge_imprint_runtime.files import write_atomic\n"
        "for _ in range(20):\n"
        "    write_atomic(sys.argv[1], sys.argv[2].encode() * 1_000_000, force=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "f")]
    writers = [subprocess.Popen([*command, letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    data = (tmp_path / "f").read_bytes()
    assert data in (b"a" * 1_000_000, b"b" * 1_000_000)
    assert os.listdir(tmp_path) == ["f"]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edge-imprint"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "edge-imprint"


def test_a_digest(tmp_path: Path) -> None:
    data = os.urandom(2**20 + 1)
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    with pytest.raises(OSError, match="No such file"):
        file_sha256(tmp_path / "b")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (278, "278 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (44_159, "44 kB"),
        (1_500_000, "1.5 MB"),
        (2_345_000_000, "2.3 GB"),
    ],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
