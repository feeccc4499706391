# SPDX-License-Identifier: Apache-2.0
"""A C program of the tests that answers each line of its input by one line of JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy.typing as npt


class Asked:
    """A program that runs within a ``with``, and must survive all that it is asked."""

    def __init__(self, program: Path, folder: Path, separator: str = " ") -> None:
        self._folder = folder
        self._separator = separator
        self._files = 0
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object) -> Any:
        """Ask, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._separator.join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            said = self._process.communicate()[1]
            raise AssertionError(
                f"it ended with {self._process.returncode} when asked {words}:\n{said}"
            )
        return json.loads(line)

    def file(self, values: npt.NDArray[Any]) -> Path:
        """Write an array where the program can read it; 64 files are kept."""
        self._files = (self._files + 1) % 64
        path = self._folder / f"{self._files}.raw"
        values.tofile(path)
        return path

    def __enter__(self) -> Asked:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End its input: it must end well."""
        said = self._process.communicate()[1]
        assert self._process.returncode == 0 or kind is not None, said
