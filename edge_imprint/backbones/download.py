# SPDX-License-Identifier: Apache-2.0
"""Files from the network: resumed where they were cut, checked, whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_imprint_runtime.errors import WeightsError
from edge_imprint_runtime.files import file_sha256, size_text

__all__ = ["Progress", "download", "no_connection"]

Progress = Callable[[int, int], None]
"""Told how many bytes are there, and of how many; 0 where the server does not say."""

CONNECT_S = 5.0
"""How long a name may take to be found, and a server to be reached, in seconds."""

_BLOCK_BYTES = 2**18
_PAUSE_S = 0.5  # times the number of tries that brought nothing
_MOST_TRIES = 3  # in a row without a byte more
_BUSY = {429, 500, 502, 503, 504}  # may be over in a moment


class _CutError(Exception):
    """The transfer ended early; going on may help."""


class _FailedError(Exception):
    """It can't be had; the text says why."""


@dataclass(frozen=True)
class _Wanted:
    url: str
    sha256_prefix: str
    size_bytes: int | None
    progress: Progress | None
    timeout_s: float


def download(
    url: str,
    out: Path,
    *,
    sha256_prefix: str | None = None,
    size_bytes: int | None = None,
    progress: Progress | None = None,
    timeout_s: float = 10.0,
) -> Path:
    """Download a file, unless it is there.

    It comes into ``OUT.part``, and is renamed when it is whole. Where a digest is given, a
    part that an earlier call left is continued (without one, nothing could tell whether the
    two halves belong together). Processes that want the same file at once wait for the first.

    Args:
        url: ``http://`` or ``https://``; proxies are those of the environment.
        out: The file; its folder is made.
        sha256_prefix: The first hex digits of its SHA-256, any number.
        size_bytes: Its size.
        progress: Called as it comes.
        timeout_s: How long the server may be silent.

    Returns:
        ``out``.

    Raises:
        WeightsError: It can't be had, or is not the one wanted; says where to put it by hand.
    """
    wanted = _Wanted(url, (sha256_prefix or "").lower(), size_bytes, progress, timeout_s)
    try:
        if _is_whole(out, wanted):
            return out
        out.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(out, wanted) as part:
            if part is not None:
                _fill(part, wanted)
                part.flush()
                os.fsync(part.fileno())
                os.replace(part.name, out)
    except (OSError, _FailedError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        size = f", {size_text(size_bytes)}" if size_bytes else ""
        raise WeightsError(
            f"cannot get {url}{size} ({reason}); get it where there is a network and put it "
            f"at {out}"
        ) from error
    return out


def no_connection(url: str) -> str:
    """Tell why a server can't be reached, within `CONNECT_S`.

    A client that tries again and again takes most of a minute to say the same.

    Args:
        url: Any address of the server.

    Returns:
        The reason; empty where it can be reached, or is behind a proxy that knows.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = [f"no answer from {host} within {CONNECT_S:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            found[0] = ""
        except (OSError, UnicodeError) as error:  # the latter for what is no host's name
            reason = getattr(error, "strerror", None) or str(error)
            found[0] = f"no connection to {host}: {reason}"

    # A thread, since looking up a name knows no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    return found[0]


def _is_whole(file: Path, wanted: _Wanted) -> bool:
    """Tell whether the file is there and is the one wanted, as far as that is known."""
    if not file.is_file():
        return False
    if wanted.size_bytes not in (None, file.stat().st_size):
        return False
    return not wanted.sha256_prefix or file_sha256(file).startswith(wanted.sha256_prefix)


@contextlib.contextmanager
def _part_of(out: Path, wanted: _Wanted) -> Iterator[BinaryIO | None]:
    """Open and lock ``OUT.part``; None where another process has brought the file by then."""
    part = out.with_name(f"{out.name}.part")
    while True:
        with open(part, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # freed with the process, however that ends
            if _is_whole(out, wanted):
                if _is_at(file, part):
                    part.unlink()
                yield None
                return
            if _is_at(file, part):  # else it was renamed while this waited
                try:
                    yield file
                finally:
                    if _is_at(file, part) and not os.path.getsize(part):  # nothing came
                        part.unlink()
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _fill(part: BinaryIO, wanted: _Wanted) -> None:
    """Bring the whole content into the part, and check it."""
    reason = no_connection(wanted.url)
    if reason:
        raise _FailedError(reason)
    resumed = bool(wanted.sha256_prefix and part.seek(0, os.SEEK_END))
    if not resumed:
        part.truncate(0)
    _bring(part, wanted)
    digest = _digest(part)
    if resumed and not digest.startswith(wanted.sha256_prefix):  # the old half was another's
        part.truncate(0)
        _bring(part, wanted)
        digest = _digest(part)
    if not digest.startswith(wanted.sha256_prefix):
        part.truncate(0)
        raise _FailedError(
            f"what came has the SHA-256 {digest[:12]}..., not {wanted.sha256_prefix[:12]}..."
        )


def _digest(part: BinaryIO) -> str:
    part.flush()
    return file_sha256(part.name)


def _bring(part: BinaryIO, wanted: _Wanted) -> None:
    """Read until all is there, on from where it was cut."""
    tries = 0
    while True:
        before = part.seek(0, os.SEEK_END)
        try:
            _read_on(part, wanted)
            return
        except (_CutError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            tries = 0 if part.seek(0, os.SEEK_END) > before else tries + 1
            if tries >= _MOST_TRIES or (tries and isinstance(error, TimeoutError)):
                silent = f"the server was silent for {wanted.timeout_s:g} s"
                timed_out = isinstance(error, TimeoutError)
                raise _FailedError(silent if timed_out else str(error)) from error
            time.sleep(_PAUSE_S * tries)


def _read_on(part: BinaryIO, wanted: _Wanted) -> None:
    """Ask for what is missing, once."""
    begin = part.seek(0, os.SEEK_END)
    request = urllib.request.Request(wanted.url, headers={"Accept-Encoding": "identity"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    try:
        response = urllib.request.urlopen(request, timeout=wanted.timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        text = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # longer than the file there, so of another
            part.truncate(0)
        if error.code == 416 or error.code in _BUSY:
            raise _CutError(text) from error
        raise _FailedError(text) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise error.reason from error
        raise _CutError(str(error.reason)) from error
    with response:
        if begin and not _goes_on(response, begin):
            part.truncate(0)
            begin = 0
            if response.status == 206:  # another piece than was asked for
                raise _CutError("the server sends another part than was asked for")
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length is not None else 0
        if wanted.size_bytes is not None and total not in (0, wanted.size_bytes):
            raise _FailedError(
                f"it has {total:,} bytes there, not the {wanted.size_bytes:,} that are wanted"
            )
        _copy(response, part, begin, total, wanted)


def _goes_on(response: http.client.HTTPResponse, begin: int) -> bool:
    given = response.headers.get("Content-Range") or ""
    return response.status == 206 and given.startswith(f"bytes {begin}-")


def _copy(
    response: http.client.HTTPResponse,
    part: BinaryIO,
    there: int,
    total: int,
    wanted: _Wanted,
) -> None:
    while block := response.read(_BLOCK_BYTES):
        try:
            part.write(block)
        except OSError as error:  # a full disk is no cut connection
            raise _FailedError(f"cannot write {part.name}: {error.strerror}") from error
        there += len(block)
        if wanted.progress is not None:
            wanted.progress(there, total)
    if total and there != total:
        raise _CutError(f"the connection was cut after {there:,} of {total:,} bytes")
    if wanted.size_bytes not in (None, there):
        raise _CutError(f"{there:,} bytes came of {wanted.size_bytes:,}")
