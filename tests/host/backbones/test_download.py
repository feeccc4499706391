# SPDX-License-Identifier: Apache-2.0
"""Downloads from a real server on this machine that cuts, lies, hangs and refuses."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_imprint.backbones import download as downloads
from edge_imprint.backbones.download import download, no_connection
from edge_imprint_runtime.errors import WeightsError
from tests.standins.file_server import FileServer, serve

CONTENT = np.random.default_rng(0).bytes(3_000_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = "/some/net.pth"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(downloads, "_PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as state:
        state.files[PATH] = CONTENT
        yield state


def part_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def refused(server: FileServer, out: Path, reason: str, **options: object) -> None:
    with pytest.raises(WeightsError) as caught:
        download(server.url + PATH, out, **options)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"cannot get {server.url}{PATH} ({reason}); get it where there is a network and put "
        f"it at {out}"
    )
    assert not out.exists()


def test_a_file_comes_whole_and_is_not_fetched_again(
    server: FileServer, tmp_path: Path
) -> None:
    out, told = tmp_path / "new" / "folder" / "net.pth", []
    got = download(
        server.url + PATH, out, sha256_prefix=DIGEST[:8], progress=lambda *n: told.append(n)
    )
    assert got == out
    assert out.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [there for there, _ in told] == sorted(there for there, _ in told)
    assert os.listdir(out.parent) == ["net.pth"]
    download(server.url + PATH, out, sha256_prefix=DIGEST[:8])
    download(server.url + PATH, out)
    assert server.asked == [(PATH, None)]


def test_a_damaged_file_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    out = tmp_path / "net.pth"
    out.write_bytes(CONTENT[:-1])
    download(server.url + PATH, out, size_bytes=len(CONTENT))
    assert out.read_bytes() == CONTENT
    out.write_bytes(bytes(len(CONTENT)))
    download(server.url + PATH, out, sha256_prefix=DIGEST)
    assert out.read_bytes() == CONTENT


def test_a_cut_connection_is_taken_up_where_it_was(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 0, 700_000, 1]
    out = download(server.url + PATH, tmp_path / "net.pth", sha256_prefix=DIGEST)
    assert out.read_bytes() == CONTENT
    begins = [1_000_000, 1_000_000, 1_700_000, 1_700_001]
    assert server.asked == [(PATH, None), *((PATH, f"bytes={n}-") for n in begins)]


def test_a_connection_that_brings_nothing_more_is_given_up_and_continued_next_time(
    server: FileServer, tmp_path: Path
) -> None:
    out = tmp_path / "net.pth"
    server.cuts = [2_000_000, 0, 0, 0]
    reason = f"the connection was cut after 2,000,000 of {len(CONTENT):,} bytes"
    refused(server, out, reason, sha256_prefix=DIGEST)
    assert part_of(out).stat().st_size == 2_000_000
    server.asked.clear()
    download(server.url + PATH, out, sha256_prefix=DIGEST)
    assert server.asked == [(PATH, "bytes=2000000-")]
    assert out.read_bytes() == CONTENT
    assert not part_of(out).exists()


def test_a_killed_download_is_continued(server: FileServer, tmp_path: Path) -> None:
    out = tmp_path / "net.pth"
    server.cuts = [1_500_000, *[0] * 9]
    code = (
        "import os, sys, pathlib\n"
        "from edge_imprint.backbones.download import download\n"
        "stop = lambda there, total: there >= 1_500_000 and os.kill(os.getpid(), 9)\n"
        "download(sys.argv[1], pathlib.Path(sys.argv[2]), sha256_prefix=sys.argv[3],"
        " progress=stop)"
    )
    arguments = [sys.executable, "-c", code, server.url + PATH, str(out), DIGEST]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert 0 < part_of(out).stat().st_size <= 1_500_000
    server.cuts.clear()
    download(server.url + PATH, out, sha256_prefix=DIGEST)
    assert out.read_bytes() == CONTENT
    assert server.asked[1][1] is not None  # a range


def test_without_a_digest_an_old_part_is_not_trusted(
    server: FileServer, tmp_path: Path
) -> None:
    out = tmp_path / "net.pth"
    part_of(out).write_bytes(b"of another file")
    assert download(server.url + PATH, out).read_bytes() == CONTENT
    assert server.asked == [(PATH, None)]


def test_a_part_of_another_file_is_found_out(server: FileServer, tmp_path: Path) -> None:
    out = tmp_path / "net.pth"
    for old in (bytes(1000), bytes(len(CONTENT) + 5), bytes(len(CONTENT))):
        out.unlink(missing_ok=True)
        part_of(out).write_bytes(old)
        assert download(server.url + PATH, out, sha256_prefix=DIGEST).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: FileServer, tmp_path: Path) -> None:
    server.takes_ranges, server.cuts = False, [1_000_000, 2_000_000]
    out = download(server.url + PATH, tmp_path / "net.pth", sha256_prefix=DIGEST)
    assert out.read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_sends_another_part(server: FileServer, tmp_path: Path) -> None:
    server.cuts, server.shift = [1_000_000], 7
    out = download(server.url + PATH, tmp_path / "net.pth", sha256_prefix=DIGEST)
    assert out.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000000-", None]


def test_wrong_bytes(server: FileServer, tmp_path: Path) -> None:
    server.files[PATH] = CONTENT[:-1] + b"x"
    came = hashlib.sha256(server.files[PATH]).hexdigest()[:12]
    out = tmp_path / "net.pth"
    reason = f"what came has the SHA-256 {came}..., not {DIGEST[:12]}..."
    refused(server, out, reason, sha256_prefix=DIGEST)
    assert not part_of(out).exists()  # nothing of it is continued
    assert len(server.asked) == 1


def test_a_wrong_size(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"it has 3,000,001 bytes there, not the 5 that"):
        download(server.url + PATH, tmp_path / "net.pth", size_bytes=5)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_the_server_refuses_is_not_asked_twice(
    server: FileServer, tmp_path: Path, code: int
) -> None:
    server.codes = [code] * 9
    with pytest.raises(WeightsError, match=f"the server answers {code} "):
        download(server.url + PATH, tmp_path / "net.pth")
    assert len(server.asked) == 1


def test_a_server_that_fails_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.codes = [500, 503]
    assert download(server.url + PATH, tmp_path / "net.pth").read_bytes() == CONTENT
    server.codes = [500] * 9
    refused(server, tmp_path / "2.pth", "the server answers 500 Internal Server Error")
    assert len(server.asked) == 6


def test_a_server_that_hangs(server: FileServer, tmp_path: Path) -> None:
    server.hang = threading.Event()
    refused(server, tmp_path / "n.pth", "the server was silent for 0.2 s", timeout_s=0.2)
    assert len(server.asked) == 1


def test_several_at_once_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    out = tmp_path / "net.pth"

    def fetch(_: int) -> Path:
        return download(server.url + PATH, out, sha256_prefix=DIGEST)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(fetch, range(6))) == {out}
    assert out.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert os.listdir(tmp_path) == ["net.pth"]


def test_where_it_can_not_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"\((Not a directory|File exists)\)"):
        download(server.url + PATH, tmp_path / "file" / "net.pth")
    assert not server.asked


def test_a_full_disk(server: FileServer, tmp_path: Path) -> None:
    code = (
        "import pathlib, resource, signal, sys\n"
        "from edge_imprint.backbones.download import download\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, server.url + PATH, str(tmp_path / "net.pth")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert "WeightsError: cannot get" in done.stderr
    assert f"(cannot write {tmp_path}/net.pth.part: File too large)" in done.stderr
    assert len(server.asked) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert no_connection(address) == "no connection to 127.0.0.1: Connection refused"
        with pytest.raises(WeightsError, match=r"\(no connection to 127\.0\.0\.1: "):
            download(f"{address}/net.pth", tmp_path / "net.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_nobody_has() -> None:
    assert "nowhere.invalid" in no_connection("https://nowhere.invalid/x")


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [][: stop.wait(30)])
    monkeypatch.setattr(downloads, "CONNECT_S", 0.1)
    assert no_connection("https://slow.invalid") == "no answer from slow.invalid within 0.1 s"
    stop.set()


def test_behind_a_proxy_the_proxy_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert no_connection("https://nowhere.invalid/x") == ""
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    assert no_connection("https://nowhere.invalid/x")
