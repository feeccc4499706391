# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server of files on this machine, which can be told to behave badly."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FileServer", "serve"]


@dataclass
class FileServer:
    """What it serves, how it behaves, and what it was asked.

    Attributes:
        url: Its address, without a slash at the end.
        files: Path -> content.
        cuts: After how many bytes of the body the connection is cut; an answer each, then
            none is.
        codes: Status codes of the first answers, instead of files.
        takes_ranges: Whether it sends a part of a file where one is asked for.
        shift: Bytes by which a part begins too late.
        asked: Path and ``Range`` of each request for a file's content.
        headers: Added to every answer.
        hang: Where set, answers wait for it.
        etag: What it says the content's SHA-256 is, where that is not the truth.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    takes_ranges: bool = True
    shift: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    hang: threading.Event | None = None
    etag: str = ""


@contextlib.contextmanager
def serve() -> Iterator[FileServer]:
    """Serve on a free port of the loopback, until it is left."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _answer(self, state, body=False)

        def do_GET(self) -> None:
            _answer(self, state, body=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        if state.hang is not None:
            state.hang.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, state: FileServer, *, body: bool) -> None:
    path = handler.path.partition("?")[0]
    asked = handler.headers.get("Range")
    if body:
        state.asked.append((path, asked))
        if state.hang is not None:
            state.hang.wait(30)
            return
        if state.codes:
            handler.send_error(state.codes.pop(0))
            return
    if path not in state.files:
        handler.send_error(404)
        return
    content = state.files[path]
    begin = int(asked[6:].rstrip("-")) if asked and state.takes_ranges else 0
    if begin and begin >= len(content):
        handler.send_error(416)
        return
    begin += state.shift if begin else 0
    handler.send_response(206 if begin else 200)
    if begin:
        end = len(content) - 1
        handler.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - begin))
    handler.send_header("ETag", f'"{state.etag or hashlib.sha256(content).hexdigest()}"')
    for name, value in state.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if body:
        end = begin + state.cuts.pop(0) if state.cuts else len(content)
        handler.wfile.write(content[begin:end])
