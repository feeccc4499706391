# SPDX-License-Identifier: Apache-2.0
"""A photo's bytes -> its digest and the network's pixels; what a worker process does."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint.photos import Location, Remote
from edge_imprint.photos.locations import MAX_PHOTO_BYTES
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    EdgeImprintError,
    ImageTooLargeError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import decode_photo
from edge_imprint_runtime.quick import check_decode

__all__ = ["Chunk", "decode_chunk", "read_photo"]

_READERS = 8


@dataclass(frozen=True)
class Chunk:
    """Photos that were read together.

    Attributes:
        good: Which of them could be decoded, as positions in the chunk, rising.
        digests: The SHA-256 (32 bytes) of each good one.
        problems: For each other one its position and one sentence.
    """

    good: tuple[int, ...]
    digests: tuple[bytes, ...]
    problems: tuple[tuple[int, str], ...]


def read_photo(photo: Location) -> bytes:
    """Read a photo's bytes.

    Raises:
        UnreadableImageError: It is missing, may not be read, or is no regular file.
        ImageTooLargeError: It is larger than `MAX_PHOTO_BYTES`, and not read to find that out.
    """
    try:
        if isinstance(photo, Path):
            found = os.stat(photo)
            # A pipe without a writer would be waited for without an end.
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                raise UnreadableImageError(f"cannot read the image {photo}: no regular file")
            if found.st_size > MAX_PHOTO_BYTES:
                raise ImageTooLargeError(
                    f"the image {photo} has {found.st_size:,} bytes, the limit is "
                    f"{MAX_PHOTO_BYTES:,}; make it smaller or take it out"
                )
        return photo.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImageError(f"cannot read the image {photo}: {reason}") from error


def decode_chunk(
    photos: Sequence[Location],
    preprocess: Preprocess,
    pixels: npt.NDArray[np.uint8],
    *,
    decode: str,
    at: Callable[[int], None] | None = None,
) -> Chunk:
    """Read and decode a few photos.

    Args:
        photos: The photos.
        preprocess: From a photo to pixels.
        pixels: (n, H, W, 3) uint8, at least as long as the photos; its first rows are filled
            with the pixels of the good ones, without gaps.
        decode: As in `decode_photo`.
        at: Told the position of each photo before it is touched.

    Returns:
        What became of them.

    Raises:
        ParameterError: There is no such way to decode.
    """
    check_decode(decode)  # here, or each photo would be called broken
    good: list[int] = []
    digests: list[bytes] = []
    problems: list[tuple[int, str]] = []
    for position, (photo, read) in enumerate(zip(photos, _readers(photos), strict=True)):
        if at is not None:
            at(position)
        try:
            data = read()
            pixels[len(good)] = decode_photo(data, preprocess, name=str(photo), decode=decode)
            digests.append(hashlib.sha256(data).digest())
            good.append(position)
        except EdgeImprintError as error:
            problems.append((position, str(error)))
        except MemoryError:
            problems.append((position, f"the image {photo} does not fit into memory"))
    return Chunk(tuple(good), tuple(digests), tuple(problems))


def _readers(photos: Sequence[Location]) -> Iterator[Callable[[], bytes]]:
    """Give for each photo what reads it; those in an object store are read side by side."""
    if not any(isinstance(getattr(photo, "archive", photo), Remote) for photo in photos):
        yield from (functools.partial(read_photo, photo) for photo in photos)
        return
    with ThreadPoolExecutor(_READERS) as readers:  # most of it is waiting for an answer
        yield from [readers.submit(read_photo, photo).result for photo in photos]
