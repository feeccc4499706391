# SPDX-License-Identifier: Apache-2.0
"""What tests of photos in C share: the program that reads them, and pictures of all kinds."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from edge_imprint_runtime.errors import (
    BrokenImageError,
    EdgeImprintError,
    ImageTooLargeError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import open_image

Pixels = npt.NDArray[np.uint8]
Answer = Pixels | tuple[type[EdgeImprintError], str]

ERRORS: dict[int, type[EdgeImprintError]] = {
    1: UnreadableImageError,
    2: BrokenImageError,
    3: ImageTooLargeError,
}


class Reader:
    """The C program that reads photos; one process for many."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.folder = folder

    def close(self) -> None:
        """End the program, which must end well."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(300)
        self.process.stdout.close()
        assert status == 0

    def read(self, file: Path | str) -> Answer:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{file}\n".encode())
        line = self._bytes(None).decode()
        status, width, height, message = line.rstrip("\n").split(" ", 3)
        if int(status):
            return ERRORS[int(status)], message
        data = self._bytes(3 * int(width) * int(height))
        return np.frombuffer(data, np.uint8).reshape(int(height), int(width), 3)

    def read_bytes(self, data: bytes) -> tuple[Answer, Answer]:
        """Return what C and Python make of a file of these bytes."""
        file = self.folder / "photo"
        file.write_bytes(data)
        return self.read(file), in_python(file)

    def _bytes(self, count: int | None) -> bytes:
        stream, data = self.process.stdout, bytearray()
        assert stream is not None
        while len(data) != count and not (count is None and data.endswith(b"\n")):
            part = stream.read(1 if count is None else count - len(data))
            assert part, f"the program ended, status {self.process.wait()}"
            data += part
        return bytes(data)


def in_python(file: Path) -> Answer:
    try:
        return np.asarray(open_image(file))
    except EdgeImprintError as error:
        return type(error), str(error)


def same(found: tuple[Answer, Answer], off: int = 0) -> None:
    """Hold that C and Python read the same pixels (``off`` levels apart), or both refuse."""
    in_c, expected = found
    if isinstance(expected, tuple):
        assert isinstance(in_c, tuple), expected
        assert in_c[0] is expected[0]
        return
    assert not isinstance(in_c, tuple), in_c
    assert in_c.shape == expected.shape
    assert np.abs(in_c.astype(int) - expected).max(initial=0) <= off


def picture(seed: int, *shape: int, noise: int = 30) -> Pixels:
    """A smooth picture with some noise, which JPEG is made for."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = 128 + 100 * np.sin(rows / 7 + seed) * np.cos(columns / 11)
    mixed = waves.reshape(*shape[:2], *[1] * (len(shape) - 2)) + rng.normal(0, noise, shape)
    return mixed.clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:  # its buffer is short for small, dense JPEGs
        patch.setattr(ImageFile, "MAXBLOCK", 1 << 20)
        image.save(stream, kind, **options)
    return stream.getvalue()


def part(kind: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )


def png(
    width: int,
    height: int,
    depth: int,
    kind: int,
    rows: bytes,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    pixels = part(b"IDAT", zlib.compress(rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + before
        + pixels
        + after
        + part(b"IEND", b"")
    )
