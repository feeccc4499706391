# SPDX-License-Identifier: Apache-2.0
"""Cards: what was found out about a backbone, so that a later build need not load it.

A card holds a backbone's name, digest and preprocessing. It is named by all that decides
them, and good only while the files it was read from are the same and its graph is cached:
then nothing is asked of the network itself, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge_imprint
from edge_imprint.backbones.names import Name
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.contract.codec import format_preprocess, parse_preprocess
from edge_imprint_runtime.errors import EdgeImprintError, OutputWriteError
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.graph_files import cache_folder, has_graph, tool_versions

__all__ = ["Card", "Cards"]

# Raised whenever a card is written or keyed otherwise.
_FORM = 1
_TOOLS = ("torch", "timm", "torchvision", "onnx")
# A file changed twice within a file system's tick can look unchanged; FAT's is 2 s.
_SETTLED_S = 2.0


@dataclass(frozen=True)
class Card:
    """What is remembered of a backbone.

    Attributes:
        info: What a head remembers.
        notes: What a user should know, each a sentence.
    """

    info: BackboneInfo
    notes: tuple[str, ...]


class Cards:
    """The card of one backbone under one set of options; made before the backbone is loaded.

    Args:
        name: The backbone.
        weights: The weights file, where one is given.
        random_weights: Whether the weights are random.
        preprocess: The preprocessing, where one is given.
    """

    def __init__(
        self,
        name: Name,
        *,
        weights: Path | None = None,
        random_weights: bool = False,
        preprocess: Preprocess | None = None,
    ) -> None:
        own = Path(name.rest) if name.kind == "onnx" else weights
        self._name = str(name)
        self._files = () if own is None else (own,)
        self._before_s = time.time()
        key = {
            "form": _FORM,
            "edge-imprint": edge_imprint.__version__,
            "tools": tool_versions(_TOOLS),
            "name": self._name,
            "files": [os.path.abspath(file) for file in self._files],
            "random": random_weights,
            "preprocess": None if preprocess is None else format_preprocess(preprocess),
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = cache_folder() / "cards" / f"{digest[:32]}.json"

    def find(self) -> Card | None:
        """Return the card, or None where there is none that is good."""
        try:
            content = json.loads(self.path.read_bytes())
            body = content["card"]
            if content["sha256"] != _digest(body):
                return None
            info = BackboneInfo(
                body["name"],
                body["weights"],
                body["digest"],
                parse_preprocess(body["preprocess"]),
            )
            same = all(_stamp(Path(path)) == stamp for path, stamp in body["files"])
            notes = tuple(str(note) for note in body["notes"])
        # Damaged in whatever way: it is made anew. RecursionError: brackets in brackets.
        except (OSError, ValueError, KeyError, TypeError, RecursionError, EdgeImprintError):
            return None
        return (
            Card(info, notes) if same and info.name == self._name and has_graph(info) else None
        )

    def keep(self, card: Card, files: Iterable[Path] = ()) -> None:
        """Write the card, if the files it stands on have settled.

        Args:
            card: What was found.
            files: Further files that it was read from, beside the weights.
        """
        # A cache that can't be written costs time, never the result.
        with contextlib.suppress(OSError, OutputWriteError):
            stamps = []
            for file in dict.fromkeys((*self._files, *files)):
                path = Path(os.path.abspath(file))
                stamp = _stamp(path)
                if max(stamp[1:3]) > (self._before_s - _SETTLED_S) * 1e9:
                    return  # it may have changed since it was read
                stamps.append([str(path), stamp])
            body = {
                "name": card.info.name,
                "weights": card.info.weights,
                "digest": card.info.digest,
                "preprocess": format_preprocess(card.info.preprocess),
                "notes": list(card.notes),
                "files": stamps,
            }
            content = json.dumps({"card": body, "sha256": _digest(body)}, indent=1)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, content.encode(), force=True)

    def drop(self) -> None:
        """Forget the card: what it said has turned out to be no longer so."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[int]:
    """Return size, times of change (ns) and place of a file: what a changed one can't keep."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
