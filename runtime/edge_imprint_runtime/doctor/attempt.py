# SPDX-License-Identifier: Apache-2.0
"""Tries one thing in a process of its own, so that what kills it does not kill the doctor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

__all__ = ["STATUSES", "attempt"]

STATUSES = {
    "runs": "it ran, and its answer is right",
    "partly": "the answer is right, but other providers computed parts of it",
    "wrong": "it ran, and its answer is wrong",
    "fails": "it gave an error",
    "crashes": "its process died",
    "hangs": "it was not done within its time",
    "missing": "it is not installed",
}
"""What an attempt may come to."""

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge_imprint_runtime.doctor.child import main; main(sys.argv[2], sys.argv[3])"
)
_LIBRARY = re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file")
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
_LOG_LENGTH = 4000  # characters of what the child said that are kept


def attempt(
    task: str,
    argument: str = "",
    *,
    limit_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one task of `child.TASKS` in a process of its own.

    Args:
        task: Which.
        argument: What it is given, such as a provider's name.
        limit_s: Seconds after which it is killed.
        environment: Set beside the environment that is there.

    Returns:
        ``status`` (of `STATUSES`), ``stage`` (how far it came), ``reason`` (one line, empty
        where it runs), ``lacks`` (shared libraries that were not found), ``seconds``, and
        what the task itself has found out.
    """
    command = [sys.executable, "-c", _CODE, json.dumps(sys.path), task, argument]
    own = dict(os.environ) | {"ORT_DISABLE_TELEMETRY": "1"} | dict(environment or {})
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env=own,
            start_new_session=True,  # so that its own children can be ended with it
        )
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said = _TERMINAL.sub("", _text(log))
        found = _judged(_lines(_text(out)), status, said, limit_s)
    found["lacks"] = list(dict.fromkeys(_LIBRARY.findall(said + found["reason"])))
    found["seconds"] = round(time.monotonic() - started, 3)
    return found


def _judged(
    lines: list[dict[str, Any]], status: int | None, said: str, limit_s: float
) -> dict[str, Any]:
    """Say what it came to, of what the child wrote and how it ended."""
    stage = next((line["stage"] for line in reversed(lines) if "stage" in line), "start")
    found: dict[str, Any] = {"status": "fails", "stage": stage, "reason": ""}
    for line in lines:
        found |= line.get("facts", {})
    if status is None:
        return found | {"status": "hangs", "reason": f"not done after {limit_s:g} s"}
    if status < 0:
        return found | {"status": "crashes", "reason": f"killed by {_signal(-status)}"}
    done = next((line["result"] for line in lines if "result" in line), None)
    if done is None:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        reason = f"ended with status {status}: {last[0].strip()[:300]}"
        return found | {"status": "crashes", "reason": reason}
    found |= done
    if found["status"] != "runs" and said.strip():
        found["log"] = said[-_LOG_LENGTH:]
    return found


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
