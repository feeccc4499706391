# SPDX-License-Identifier: Apache-2.0
"""Memory that this process and its workers see: photos lie in it decoded, never copied."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BlockShape", "SharedBlocks", "shared_memory"]


@dataclass(frozen=True)
class BlockShape:
    """How the memory is divided.

    Attributes:
        blocks: Blocks, each for the photos that are decoded and embedded together.
        photos: Photos a block.
        height: Of a photo at the network's size, pixels.
        width: The same.
    """

    blocks: int
    photos: int
    height: int
    width: int

    @property
    def head_bytes(self) -> int:
        """Bytes before the first block: an int64 for each, then up to a whole page."""
        return -(-8 * self.blocks // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def bytes(self) -> int:
        """Bytes in all. Memory is taken only where something was written."""
        return self.head_bytes + self.blocks * self.photos * self.height * self.width * 3


class SharedBlocks:
    """Blocks of photos in shared memory.

    Args:
        file: A descriptor of what `shared_memory` made; it may be closed afterwards.
        shape: How it is divided.

    Attributes:
        at: (blocks,) int64: at which photo of each block a worker is; -1 before the first. A
            worker that dies leaves there which photo it died of.
    """

    def __init__(self, file: int, shape: BlockShape) -> None:
        memory = mmap.mmap(file, shape.bytes)
        self.at: npt.NDArray[np.int64] = np.frombuffer(memory, np.int64, shape.blocks)
        whole = np.frombuffer(memory, np.uint8, offset=shape.head_bytes)
        self._pixels = whole.reshape(shape.blocks, shape.photos, shape.height, shape.width, 3)

    def pixels(self, block: int) -> npt.NDArray[np.uint8]:
        """Return the block's (photos, H, W, 3) uint8 pixels: the memory itself, no copy."""
        view: npt.NDArray[np.uint8] = self._pixels[block]
        return view


def shared_memory(shape: BlockShape) -> int:
    """Make memory for blocks, zeroed.

    It has no name: when the last process that holds it ends, however it ends, it is gone.

    Returns:
        A descriptor, for `SharedBlocks` here and in processes that are given it.

    Raises:
        OSError: There is not enough room for it.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("edge-imprint")
    else:  # not Linux
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    try:
        os.ftruncate(file, shape.bytes)
    except OSError:
        os.close(file)
        raise
    return file
