# SPDX-License-Identifier: Apache-2.0
"""What runs in a process that decodes; `workers` starts it and talks to it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from edge_imprint.embedding.decoding import decode_chunk
from edge_imprint.embedding.shared_blocks import BlockShape, SharedBlocks
from edge_imprint_runtime.contract import Preprocess

__all__ = ["READY", "Setup", "serve"]

READY = "ready"

# Of the processes here the kernel, short of memory, is to end this one: it is started anew.
_END_ME_FIRST = b"500"


@dataclass(frozen=True)
class Setup:
    """What a worker is told once.

    Attributes:
        shape: Of the shared memory.
        preprocess: From a photo to pixels.
        decode: As in `decode_photo`.
    """

    shape: BlockShape
    preprocess: Preprocess
    decode: str


def serve(connection_file: int, memory_file: int) -> None:
    """Decode what is asked for until the one who asks is gone.

    Args:
        connection_file: A socket's descriptor. First a `Setup` comes in and `READY` goes out;
            then a block's number and photos come in, and a `Chunk` goes out, each time.
        memory_file: The shared memory's.
    """
    connection: Connection[Any, Any] = Connection(connection_file)
    try:
        setup: Setup = connection.recv()
        _settle()
        blocks = SharedBlocks(memory_file, setup.shape)
        os.close(memory_file)
        connection.send(READY)
        _be_quiet()
        while True:
            block, photos = connection.recv()
            pixels = blocks.pixels(block)

            def tell(position: int, block: int = block) -> None:
                blocks.at[block] = position

            p, decode = setup.preprocess, setup.decode
            chunk = decode_chunk(photos, p, pixels, decode=decode, at=tell)
            connection.send(chunk)
    except (EOFError, ConnectionError):
        pass  # the one who asks has ended, or wants no more


def _settle() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a decoder that crashes leaves no file
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(_END_ME_FIRST)


def _be_quiet() -> None:
    """Send what C libraries print of odd files to nowhere: the photo's problem is told."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
