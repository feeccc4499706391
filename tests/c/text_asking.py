# SPDX-License-Identifier: Apache-2.0
"""Questions to the C library's readers of text and files, by way of programs/text_check.c."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Answer = dict[str, Any]
Field = bytes | str


def to_bytes(field: Field) -> bytes:
    """Encode a field, half surrogates too: what is no UTF-8 must get there."""
    return field.encode("utf-8", "surrogatepass") if isinstance(field, str) else field


def text(answer: Answer, name: str) -> str:
    """Return a text of an answer."""
    return bytes.fromhex(answer[name]).decode()


class Asking:
    """A running text_check: one process for many questions.

    Args:
        program: Its path.
        prepare: Called in its process first, to limit it.
    """

    def __init__(
        self, program: Path, *, prepare: Callable[[], None] | None = None, **popen: Any
    ) -> None:
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=prepare,
            **popen,
        )

    def ask(self, *fields: Field) -> Answer:
        """Ask one question; the program's death fails the test, with what it printed."""
        parts = [to_bytes(field) for field in fields]
        question = struct.pack("<I", len(parts))
        question += b"".join(struct.pack("<I", len(part)) + part for part in parts)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(question)
            stdin.flush()
        except BrokenPipeError:
            self.close()
        line = stdout.readline()
        if not line:
            self.close()
        answer: Answer = json.loads(line)
        assert "left" not in answer  # something was handed out beside a failure
        return answer

    @property
    def process_id(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it; a sanitizer's complaint or a crash is the test's failure."""
        _, complaint = self._process.communicate()
        assert self._process.returncode == 0, complaint.decode()[-6000:]

    def __enter__(self) -> Asking:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._process.kill()
            self._process.communicate()
