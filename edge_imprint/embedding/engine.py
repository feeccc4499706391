# SPDX-License-Identifier: Apache-2.0
"""What an engine is: photos go in, embeddings come out, in any order, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.photos import Location

__all__ = ["Broken", "Embedded", "Engine", "Result"]


@dataclass(frozen=True)
class Embedded:
    """Photos that were embedded together.

    Attributes:
        indices: Their positions among the photos given.
        digests: The SHA-256 (32 bytes) of each one's bytes, as they were read.
        rows: (n, D) float32.
    """

    indices: tuple[int, ...]
    digests: tuple[bytes, ...]
    rows: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Broken:
    """A photo that can't be read or decoded.

    Attributes:
        index: Its position among the photos given.
        problem: One sentence: what is wrong, which photo, what to do.
    """

    index: int
    problem: str


Result: TypeAlias = Embedded | Broken


class Engine(Protocol):
    """Embeds photos.

    Attributes:
        device: Where it embeds: ``cpu`` or ``cuda``.
        arithmetic: ``fp32``, ``bf16`` or ``fp16``; rows of one do not pass for another's.
        notes: What a user should know once it has run, each a sentence.
    """

    device: str
    arithmetic: str
    notes: list[str]

    def embed(self, photos: Sequence[Location]) -> Iterator[Result]:
        """Embed photos, each once, in any order.

        An embedding depends on its photo alone: not on those beside it, not on how many
        threads, processes or nodes there are (on a CPU to the last bit).
        """

    def close(self) -> None:
        """Give back processes, threads and memory; an `embed` that is under way ends."""
