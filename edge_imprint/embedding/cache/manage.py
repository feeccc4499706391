# SPDX-License-Identifier: Apache-2.0
"""What the cache folder holds, for people: listed, pruned, cleared and verified."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_imprint.embedding.cache.shards import (
    SUFFIX,
    DamagedShardError,
    embedding_count,
    open_shard,
)
from edge_imprint.embedding.cache.space import FACTS, read_facts
from edge_imprint.embedding.cache.store import embeddings_folder
from edge_imprint_runtime.errors import CacheError
from edge_imprint_runtime.files import cache_folder

__all__ = [
    "KINDS",
    "Other",
    "SpaceUse",
    "Verified",
    "clear",
    "others",
    "prune",
    "spaces",
    "verify",
]

KINDS = {
    "backbones": "backbone graphs",
    "weights": "downloaded weights",
    "digests": "digests of files that were read",
    "timing": "TensorRT's timing caches",
    "tensorrt-provider": "engines of ONNX Runtime's TensorRT provider",
    "builds": "where heads' photos were found",
}
"""The cache's other folders, and what is in them."""

_KEY = "[0-9a-f]{32}"


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    used_unix_s: float


@dataclass(frozen=True)
class SpaceUse:
    """The embeddings of one space.

    Attributes:
        key: 32 hex digits, its folder's name.
        facts: What ``space.json`` says; empty where it is missing or damaged.
        embeddings: How many; one that two builds made at once counts twice.
        bytes: On disk.
        used_unix_s: When a build last used it.
        files: Its shards.
    """

    key: str
    facts: dict[str, Any]
    embeddings: int
    bytes: int
    used_unix_s: float
    files: tuple[_File, ...]


@dataclass(frozen=True)
class Other:
    """Another folder of the cache.

    Attributes:
        name: The folder's name.
        what: What is in it.
        files: How many files.
        bytes: On disk.
    """

    name: str
    what: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        files: Shards that were read.
        embeddings: Embeddings in the good ones.
        damaged: The damaged ones, each as one sentence.
    """

    files: int
    embeddings: int
    damaged: tuple[str, ...]


def spaces() -> list[SpaceUse]:
    """List the spaces, the last used first.

    Raises:
        CacheError: The folder can't be read.
    """
    folders = _folders(embeddings_folder())
    found = [_space(folder) for folder in folders if re.fullmatch(_KEY, folder.name)]
    return sorted(found, key=lambda space: (-space.used_unix_s, space.key))


def others() -> list[Other]:
    """List what else is in the cache folder, without what is empty.

    Raises:
        CacheError: The folder can't be read.
    """
    found = []
    for folder in _folders(cache_folder()):
        if folder.name == embeddings_folder().name:
            continue
        files = list(_walk(folder))
        what = KINDS.get(folder.name, "of another release")
        if files:
            found.append(Other(folder.name, what, len(files), sum(f.bytes for f in files)))
    return sorted(found, key=lambda other: other.name)


def prune(
    *,
    before_unix_s: float | None = None,
    max_bytes: int | None = None,
    backbone: str | None = None,
    dry_run: bool = False,
) -> tuple[int, int]:
    """Remove embeddings. A build that still needs one of them stops with a sentence.

    What is given must hold together: with an age and a size, what is older goes, the least
    recently used first, until what is left fits.

    Args:
        before_unix_s: Those last used before this moment.
        max_bytes: The least recently used ones, until those that are left take no more.
        backbone: Those of backbones whose name holds this, or fits it as a pattern with ``*``
            and ``?``; the size is then that of these.
        dry_run: Whether they stay.

    Returns:
        How many files and bytes were removed, or would be.

    Raises:
        CacheError: A file can't be removed.
    """
    chosen = [space for space in spaces() if backbone is None or _fits(space, backbone)]
    files = sorted((f for space in chosen for f in space.files), key=lambda f: f.used_unix_s)
    over = -1 if max_bytes is None else sum(file.bytes for file in files) - max_bytes
    gone = []
    for file in files:
        old = before_unix_s is None or file.used_unix_s < before_unix_s
        if old and (max_bytes is None or over > 0):
            gone.append(file)
            over -= file.bytes
    if not dry_run:
        for file in gone:
            _remove(file.path)
        for space in chosen:
            _tidy(embeddings_folder() / space.key)
    return len(gone), sum(file.bytes for file in gone)


def clear(*, everything: bool = False, dry_run: bool = False) -> tuple[int, int]:
    """Remove all embeddings and digests.

    Args:
        everything: Graphs, weights and timing caches too.
        dry_run: Whether they stay.

    Returns:
        How many files and bytes were removed, or would be.

    Raises:
        CacheError: A file can't be removed.
    """
    names = {embeddings_folder().name, "digests", *(KINDS if everything else ())}
    files = size = 0
    for folder in _folders(cache_folder()):
        if folder.name in names:
            held = list(_walk(folder))
            files, size = files + len(held), size + sum(file.bytes for file in held)
            if not dry_run:
                _empty(folder)
    return files, size


def verify(*, dry_run: bool = False) -> Verified:
    """Check the sum of every shard; what is damaged is removed, and so made anew.

    Args:
        dry_run: Whether it stays.

    Raises:
        CacheError: A file can't be read or removed.
    """
    files, embeddings, damaged = 0, 0, list[str]()
    for space in spaces():
        for file in space.files:
            files += 1
            try:
                shard, _ = open_shard(file.path, bytes.fromhex(space.key))
                shard.verify()
                embeddings += shard.count
            except DamagedShardError as error:
                damaged.append(str(error))
                if not dry_run:
                    _remove(file.path)
            except FileNotFoundError:  # merged or pruned meanwhile
                files -= 1
            except OSError as error:
                raise _refused(file.path, error, "read") from error
    return Verified(files, embeddings, tuple(damaged))


def _space(folder: Path) -> SpaceUse:
    files, embeddings, size, used = [], 0, 0, 0.0
    for file in _walk(folder):
        size += file.bytes
        if file.path.suffix == SUFFIX:
            files.append(file)
            embeddings += embedding_count(file.path)
        if file.path.suffix == SUFFIX or file.path.name == FACTS:
            used = max(used, file.used_unix_s)
    facts = read_facts(folder) or {}
    return SpaceUse(folder.name, facts, embeddings, size, used, tuple(files))


def _fits(space: SpaceUse, pattern: str) -> bool:
    name = str(space.facts.get("backbone", ""))
    return pattern in name or fnmatch.fnmatchcase(name, pattern)


def _tidy(folder: Path) -> None:
    """Remove a space's folder where no shard is left in it."""
    files = list(_walk(folder))
    if not any(file.path.suffix == SUFFIX for file in files):
        for file in files:
            if file.path.name == FACTS:
                _remove(file.path)
        with contextlib.suppress(OSError):  # a writer has begun a file in it
            folder.rmdir()


def _empty(folder: Path) -> None:
    # What is in it, not itself: it may be a link to a larger disk.
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                _remove(Path(entry.path))
                continue
            try:
                shutil.rmtree(entry.path)
            except FileNotFoundError:  # a build merged shards meanwhile
                continue
            except OSError as error:
                raise _refused(Path(entry.path), error) from error


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused(root, error, "read") from error


def _walk(folder: Path) -> Iterator[_File]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(Path(entry.path))
                    continue
                if not entry.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):  # merged or pruned meanwhile
                    stat = entry.stat(follow_symlinks=False)
                    yield _File(Path(entry.path), stat.st_size, stat.st_mtime)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(folder, error, "read") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError, what: str = "removed") -> CacheError:
    return CacheError(
        f"{path} in the cache can't be {what}: {error.strerror}; "
        "see who owns it, and who may write there"
    )
