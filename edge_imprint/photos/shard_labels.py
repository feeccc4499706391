# SPDX-License-Identifier: Apache-2.0
"""What the labels in tar shards mean: numbers that a file names, folders, or plain text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_imprint.photos.locations import Remote
from edge_imprint_runtime.errors import ShardError

__all__ = ["Label", "final_labels"]

_NAME_FILES = ("classes.txt", "labels.txt")
_MAX_NAMES_BYTES = 2**26


class Label(NamedTuple):
    """A label as a shard has it.

    Attributes:
        text: What it is, or the folder's name in the shard.
        folder: Whether it is a folder.
    """

    text: str
    folder: bool = False


def final_labels(
    labels: Sequence[Label], archive: Path | Remote, notes: list[str]
) -> list[str]:
    """Return the class names that labels stand for.

    Args:
        labels: Each once.
        archive: The first shard; the names of numbers are looked for beside it.
        notes: Where what a user should know is put.

    Returns:
        The name of each; two labels may have one name.

    Raises:
        ShardError: A file of names lacks one, has one twice, or can't be read.
    """
    folders = {label.text: _parts(label.text) for label in labels if label.folder}
    depth = _shared_depth(list(folders.values()))
    if depth:
        above = "/".join(next(iter(folders.values()))[:depth])
        notes.append(f"the classes are the folders below {above!r} in the shards")
    numbers = [label.text for label in labels if not label.folder]
    names = None
    if numbers and all(text.isascii() and text.isdigit() for text in numbers):
        names = _names_beside(archive)
        if names is None:
            notes.append(
                "the labels are numbers; a classes.txt beside the shards, with one name a "
                "line from number 0 on, would name them"
            )
    return [
        folders[label.text][depth]
        if label.folder
        else label.text
        if names is None
        else _named(label.text, *names)
        for label in labels
    ]


def _parts(folder: str) -> list[str]:
    return [part for part in folder.split("/") if part not in ("", ".", "..")]


def _shared_depth(folders: Sequence[list[str]]) -> int:
    """Return how many folders all lie in: ``photos/apple``, ``photos/pear`` share one."""
    depth = 0
    while folders and all(len(parts) > depth + 1 for parts in folders):
        if len({parts[depth] for parts in folders}) > 1:
            break
        depth += 1
    return depth


def _named(number: str, file: str, names: Sequence[str]) -> str:
    if len(number) > 9 or int(number) >= len(names):
        raise ShardError(
            f"a label in the shards is {number}, but {file} names {len(names)} classes, "
            f"0 to {len(names) - 1}; mend that file, or take it away"
        )
    return names[int(number)]


def _names_beside(archive: Path | Remote) -> tuple[str, list[str]] | None:
    """Read the file of names beside the shards: what it is called, and its lines."""
    for base in _NAME_FILES:
        where = (
            Remote(f"{archive.url.rpartition('/')[0]}/{base}")
            if isinstance(archive, Remote)
            else archive.parent / base
        )
        try:
            if isinstance(where, Path) and where.stat().st_size > _MAX_NAMES_BYTES:
                raise ShardError(f"{where} is too large for a list of class names; mend it")
            data = where.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ShardError(f"cannot read {where}: {error.strerror or error}") from error
        return str(where), _lines(data, str(where))
    return None


def _lines(data: bytes, name: str) -> list[str]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ShardError(f"{name} is no text in UTF-8; save it so") from error
    while lines and not lines[-1].strip():
        lines.pop()
    first: dict[str, int] = {}
    for number, line in enumerate(lines):
        text = line.strip()
        if not text or first.setdefault(text, number) != number:
            what = (
                f"names {text!r} again (first in line {first[text] + 1})" if text else "empty"
            )
            raise ShardError(
                f"{name}, line {number + 1}: {what}; give each class its own name"
            )
    return [line.strip() for line in lines]
