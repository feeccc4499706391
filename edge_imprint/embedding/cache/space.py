# SPDX-License-Identifier: Apache-2.0
"""Which embeddings may stand for each other: all that decides one but its photo."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.contract.codec import format_preprocess

__all__ = ["FACTS", "FORMAT", "Space", "read_facts"]

FACTS = "space.json"
FORMAT = "edge-imprint.embeddings/2"


@dataclass(frozen=True)
class Space:
    """What makes an embedding of a photo.

    Attributes:
        backbone: The network, with its preprocessing.
        arithmetic: Where and how it is computed, such as ``cpu fp32`` or ``cuda bf16``.
        decode: ``quick``, ``draft`` or ``exact``: how JPEGs become pixels.
    """

    backbone: BackboneInfo
    arithmetic: str
    decode: str

    @cached_property
    def key(self) -> str:
        """32 hex digits over all of it: the name of the space's folder.

        The backbone's name does not count, its digest does: a file may be moved. Only what
        follows a ``#``, its layer, is of the name alone.
        """
        from hashlib import sha256

        facts = self.facts()
        layer = self.backbone.name.rpartition("#")[2] if "#" in self.backbone.name else ""
        parts = [facts[name] for name in ("format", "digest", "preprocess")]
        parts += [layer, self.arithmetic, self.decode]
        return sha256("\n".join(parts).encode()).hexdigest()[:32]

    def facts(self) -> dict[str, Any]:
        """Tell the space to people, as ``space.json`` holds it."""
        return {
            "format": FORMAT,
            "backbone": self.backbone.name,
            "weights": self.backbone.weights,
            "digest": self.backbone.digest,
            "preprocess": format_preprocess(self.backbone.preprocess),
            "arithmetic": self.arithmetic,
            "decode": self.decode,
            "created_unix_s": int(time.time()),
        }


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Read a space's ``space.json``.

    Args:
        folder: The space's folder.

    Returns:
        What it says, or None where it is missing or damaged.
    """
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return None
    good = isinstance(facts, dict) and facts.get("format") == FORMAT
    return facts if good else None
