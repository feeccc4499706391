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
from pathlib import Path

from edge_imprint_runtime.errors import OutputWriteError
from edge_imprint_runtime.files import write_atomic

__all__ = ["recall_photos", "remember_photos"]


def remember_photos(head: str | os.PathLike[str], data: str | os.PathLike[str]) -> None:
    """Note where the photos of a head lie.

    Args:
        head: The head file.
        data: The folder or CSV file that it was built from.
    """
    path = _path(Path(head))
    # A cache that can't be written costs an option, never the result.
    with contextlib.suppress(OSError, OutputWriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"data": os.path.abspath(data)})
        write_atomic(path, text.encode("utf-8", "surrogateescape"), force=True)


def recall_photos(head: str | os.PathLike[str]) -> Path | None:
    """Find the photos of a head.

    Args:
        head: The head file.

    Returns:
        The folder or CSV file that it was built from; None where that is not known, or there
        no longer.
    """
    try:
        found = json.loads(_path(Path(head)).read_bytes().decode("utf-8", "surrogateescape"))
        data = Path(found["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if os.path.exists(data) else None


def _path(head: Path) -> Path:
    from edge_imprint_export.backbone.cache import (
        cache_folder,
    )  # brings onnx, which help can do without

    digest = hashlib.sha256(head.read_bytes()).hexdigest()
    return cache_folder().parent / "builds" / f"{digest[:32]}.json"
