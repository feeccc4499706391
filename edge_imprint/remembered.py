# SPDX-License-Identifier: Apache-2.0
"""Where a build found its photos, so that an export can be proved without being told again.

Kept in the cache of this machine and not in the head, which travels. What is gone from the
cache costs one option.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from edge_imprint_runtime.errors import OutputWriteError
from edge_imprint_runtime.files import cache_folder, write_atomic

__all__ = ["Remembered", "recall_photos", "remember_photos"]


@dataclass(frozen=True)
class Remembered:
    """Where the photos of a head lay.

    Attributes:
        data: A folder, manifest, shards or address, as `find_photos` takes it.
        split: The rows of a manifest that were used; None for all.
    """

    data: str
    split: str | None = None


def remember_photos(
    head: str | os.PathLike[str], data: str | os.PathLike[str], split: str | None = None
) -> None:
    """Note where the photos of a head lie.

    Args:
        head: The head file.
        data: What it was built from.
        split: The split of it.
    """
    path = _path(Path(head))
    place = os.fspath(data)
    if "://" not in place:
        place = os.path.abspath(place)
    # A cache that can't be written costs an option, never the result.
    with contextlib.suppress(OSError, OutputWriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"data": place, "split": split})
        write_atomic(path, text.encode("utf-8", "surrogateescape"), force=True)


def recall_photos(head: str | os.PathLike[str]) -> Remembered | None:
    """Find where the photos of a head lay; they may be there no longer.

    Args:
        head: The head file.

    Returns:
        What `remember_photos` noted; None where nothing is known.
    """
    try:
        found = json.loads(_path(Path(head)).read_bytes().decode("utf-8", "surrogateescape"))
        data, split = found["data"], found.get("split")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(data, str) or not isinstance(split, str | None):
        return None
    return Remembered(data, split)


def _path(head: Path) -> Path:
    digest = hashlib.sha256(head.read_bytes()).hexdigest()
    return cache_folder() / "builds" / f"{digest[:32]}.json"
