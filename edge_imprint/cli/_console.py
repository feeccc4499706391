# SPDX-License-Identifier: Apache-2.0
"""What the commands share: progress and tables on stderr, files read and written, parsing."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

# What `predict` can do without is imported where it is used: rich and what imprints take
# longer to load than a small model takes to open and to answer.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from edge_imprint.builder import Progress as Tell

__all__ = [
    "FORCE",
    "build_progress",
    "command_name",
    "note",
    "print_json",
    "progress",
    "say",
    "table",
]

FORCE = click.option("--force", is_flag=True, help="Replace the output file if it is there.")
_LINE_S = 30  # how often a line is written where no bar can be


def note(text: str) -> None:
    """Print a line on stderr."""
    _err().print(text, markup=False)


def say(text: str) -> None:
    """Print a line on stdout; what it can't show (a file name of other bytes) is escaped."""
    click.echo(_printable(text))


def command_name() -> str:
    """Return how this command was called, for hints that can be copied."""
    import shlex
    import shutil

    called = sys.argv[0]
    return "edge-imprint" if shutil.which("edge-imprint") == called else shlex.quote(called)


def print_json(value: Any) -> None:
    """Print one JSON object as one line on stdout, in ASCII where stdout can't show it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=False)
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        text = json.dumps(value, sort_keys=False)
    click.echo(text)


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """Show one progress bar a step on stderr, where it is a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = _err()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(step: str, done: int, total: int) -> None:
            if step not in tasks:
                for (
                    task
                ) in tasks.values():  # a step that only began is over when the next does
                    bars.update(task, completed=bars.tasks[task].total or 0)
                tasks[step] = bars.add_task(step, total=total)
                if not console.is_terminal:
                    note(f"{step} ...")
            bars.update(tasks[step], completed=done, total=total)

        yield tell
        for task in tasks.values():  # all went well, so the last step is over too
            bars.update(task, completed=bars.tasks[task].total or 0)


@contextlib.contextmanager
def build_progress(wanted: bool = True) -> Iterator[Tell | None]:
    """Show how far the build of an engine is: a bar, or a line every half a minute.

    Args:
        wanted: Whether one may come: where not (`open_model` without rebuild), it is None.
    """
    if not wanted:
        yield None
        return
    began, told = 0.0, 0
    with progress() as show:

        def tell(step: str, done: int, total: int) -> None:
            nonlocal began, told
            began = began or time.monotonic()
            # Where it is not known how far it is, the bar counts the seconds.
            show(step, done if total else 0, total or 1)
            seconds = int(time.monotonic() - began)
            if seconds >= told + _LINE_S and not sys.stderr.isatty():
                told = seconds
                note(f"{step}, {seconds} s so far" + (f" ({done} %)" if total else ""))

        yield tell


def table(title: str, columns: list[str], rows: list[list[str]], *, err: bool = False) -> None:
    """Print a table; numbers to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=escape(_printable(title)), title_justify="left")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(cell.replace("[", r"\[") for cell in row))
    (_err() if err else Console(highlight=False)).print(grid)


@functools.cache
def _err() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _printable(text: str) -> str:
    return text.encode(_encoding(), "backslashreplace").decode(_encoding())


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"  # None: stdout is closed
