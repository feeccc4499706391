# SPDX-License-Identifier: Apache-2.0
"""A real S3 server on this machine, for tests."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["deaf_port", "serve_s3", "variables"]


@contextmanager
def deaf_port() -> Iterator[int]:
    """Give a port of this machine that nothing listens on, and that nobody else takes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def variables(port: int) -> dict[str, str]:
    """Return the environment in which s3:// leads to a server on this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def serve_s3(log: Path) -> Iterator[int]:
    """Run a server that keeps its objects in memory.

    Args:
        log: Where it writes what it says.

    Yields:
        Its port.
    """
    with open(log, "wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=out,
            stderr=out,
        )
        try:
            yield _port(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(120)


def _port(server: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until it listens: at the port that the system gave it, so no other can have it."""
    for _ in range(1200):
        assert server.poll() is None, log.read_text()
        if said := re.search(r"Running on http://127\.0\.0\.1:(\d+)\s", log.read_text()):
            return int(said[1])
        time.sleep(0.1)
    raise AssertionError(log.read_text())
