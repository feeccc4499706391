# SPDX-License-Identifier: Apache-2.0
"""What generation reads: embeddings class by class, and a class too large for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Block", "Blocks", "ClassSource", "LargeClassSource", "is_large", "whole"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Block: TypeAlias = tuple[Float32, Float64 | None]
"""(n, D) rows and their (n,) sample weights; None for ones."""
Blocks: TypeAlias = Callable[[], Iterable[Block]]
"""Gives all rows of a class, the same blocks each time it is called."""


class ClassSource(Protocol):
    """Embeddings class by class, so that only one class need be in memory."""

    def __len__(self) -> int:
        """Return C, the number of classes."""

    def __getitem__(self, c: int) -> Block:
        """Return class c's (n, D) rows and its (n,) sample weights; None for ones."""


@runtime_checkable
class LargeClassSource(ClassSource, Protocol):
    """A source some of whose classes may be larger than memory.

    Of a large class ``source[c]`` gives rows drawn by a seed; `blocks` gives it whole.
    """

    def large(self, c: int) -> bool:
        """Return whether ``source[c]`` is only a draw of class c."""

    def blocks(self, c: int) -> Iterator[Block]:
        """Give the whole of class c, a block at a time, always the same blocks."""


def is_large(source: ClassSource, c: int) -> bool:
    """Return whether ``source[c]`` is only a draw of class c."""
    return isinstance(source, LargeClassSource) and source.large(c)


def whole(source: ClassSource, c: int) -> Blocks:
    """Return what gives the whole of class c of any source, as often as it is called.

    A class that is not large is read once, now, and is one block.
    """
    if isinstance(source, LargeClassSource) and source.large(c):
        return partial(source.blocks, c)
    block = source[c]
    return lambda: [block]
