# SPDX-License-Identifier: Apache-2.0
"""What one process writes into a block another reads, and blocks do not overlap."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.embedding.shared_blocks import BlockShape, SharedBlocks, shared_memory

SHAPE = BlockShape(blocks=3, photos=2, height=5, width=7)


def test_another_process_sees_the_same_memory() -> None:
    file = shared_memory(SHAPE)
    blocks = SharedBlocks(file, SHAPE)
    code = (
        "import sys\n"
        "from edge_imprint.embedding.shared_blocks import BlockShape, SharedBlocks\n"
        "blocks = SharedBlocks(int(sys.argv[1]), BlockShape(3, 2, 5, 7))\n"
        "blocks.pixels(1)[1] = 9\n"
        "blocks.at[2] = -5\n"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, pass_fds=[file])
    os.close(file)
    assert (blocks.pixels(1)[1] == 9).all()
    assert not blocks.pixels(0).any()
    assert not blocks.pixels(1)[0].any()
    assert not blocks.pixels(2).any()
    assert blocks.at.tolist() == [0, 0, -5]


@given(st.builds(BlockShape, *[st.integers(1, 9)] * 4))
def test_blocks_do_not_overlap(shape: BlockShape) -> None:
    file = shared_memory(shape)
    try:
        blocks = SharedBlocks(file, shape)
    finally:
        os.close(file)
    blocks.at[:] = -1
    for block in range(shape.blocks):
        pixels = blocks.pixels(block)
        assert pixels.shape == (shape.photos, shape.height, shape.width, 3)
        assert pixels.flags["C_CONTIGUOUS"]
        assert not pixels.any()
        pixels[...] = block + 1
    for block in range(shape.blocks):
        assert (blocks.pixels(block) == block + 1).all()
    assert (blocks.at == -1).all()
    assert shape.head_bytes % mmap.PAGESIZE == 0


def test_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    file = shared_memory(SHAPE)
    one, other = SharedBlocks(file, SHAPE), SharedBlocks(file, SHAPE)
    assert os.fstat(file).st_nlink == 0  # no name that could be left behind
    os.close(file)
    one.pixels(2)[0] = 3
    np.testing.assert_array_equal(other.pixels(2), one.pixels(2))


def test_no_room_leaves_no_descriptor() -> None:
    code = (
        "import os, resource\n"
        "from edge_imprint.embedding.shared_blocks import BlockShape, shared_memory\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "before = os.listdir('/proc/self/fd')\n"
        "try: shared_memory(BlockShape(3, 2, 5, 7))\n"
        "except OSError as error: print(error.strerror)\n"
        "assert os.listdir('/proc/self/fd') == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("File too large", "")
