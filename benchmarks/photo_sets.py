# SPDX-License-Identifier: Apache-2.0
"""Folders of photos for the benchmarks: seeded, of the size and detail that cameras give."""

from __future__ import annotations

import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["make_jpegs"]

# How strong each octave of noise is, coarse to fine: amplitudes that fall with the frequency,
# as in photos. The finest is the sensor's; it decides how many bytes a JPEG takes.
_OCTAVES = ((6, 50.0), (15, 28.0), (40, 16.0), (100, 10.0), (240, 6.0))
_SENSOR_NOISE = 4.0
_QUALITY = 88
# To draw one takes 50 ms, so that beyond these photos are copies of them with another comment:
# other bytes, another class, the same work for all that reads and embeds them.
_PICTURES = 1000


def make_jpegs(
    folder: str | os.PathLike[str],
    count: int,
    classes: int,
    seed: int,
    size: tuple[int, int] = (640, 480),
) -> list[Path]:
    """Write photos into one subfolder a class; those that are there already stay.

    Photo i belongs to class ``i % classes`` and depends on the seed, i and the classes alone,
    so that a larger count adds photos and changes none. There are about 1,000 pictures; photos
    beyond are these with another comment in the file, in the same class.

    Args:
        folder: Where; it need not be there.
        count: Photos in all.
        classes: Classes.
        seed: Of what is on them.
        size: Width and height, pixels.

    Returns:
        The files, in the order of i; 60 to 90 kB each at 640x480.
    """
    root = Path(folder)
    files = [root / f"class-{i % classes:03}" / f"photo-{i:06}.jpg" for i in range(count)]
    for home in {file.parent for file in files}:
        home.mkdir(parents=True, exist_ok=True)

    pictures = _PICTURES - _PICTURES % classes if classes < _PICTURES else classes

    def write(i: int) -> None:
        if not files[i].exists():
            if i < pictures:
                photo = Image.fromarray(
                    _photo(i % classes, np.random.default_rng([seed, i]), size)
                )
                buffer = io.BytesIO()
                photo.save(buffer, "JPEG", quality=_QUALITY)
                data = buffer.getvalue()
            else:
                data = _commented(files[i % pictures].read_bytes(), f"photo {i}")
            beside = files[i].with_suffix(".part")  # a benchmark is stopped now and then
            beside.write_bytes(data)
            os.replace(beside, files[i])

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for some in (range(min(pictures, count)), range(pictures, count)):
            list(threads.map(write, some))
    return files


def _commented(jpeg: bytes, text: str) -> bytes:
    """Put a comment (a COM segment) behind the two bytes that a JPEG begins with."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + jpeg[2:]


def _photo(
    label: int, rng: np.random.Generator, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Draw noise of all scales around a class's colours, with some of its shapes on it."""
    width, height = size
    of_class = np.random.default_rng([1_000_003, label])
    colour = of_class.uniform(60, 190, 3).astype(np.float32)
    pixels = np.tile(colour, (height, width, 1))
    for cells, strength in _OCTAVES:
        grey = _noise(rng, cells, size)[..., None]
        tint = rng.normal(1, 0.35, 3).astype(np.float32)
        pixels += strength * grey * tint
    y, x = np.ogrid[:height, :width]
    sides = int(of_class.integers(0, 3))  # what the class's shapes are: a disc, a box, bars
    for _ in range(int(rng.integers(2, 5))):
        u = (x - rng.uniform(0.15, 0.85) * width) / (rng.uniform(0.08, 0.2) * width)
        v = (y - rng.uniform(0.15, 0.85) * height) / (rng.uniform(0.08, 0.2) * height)
        inside = u**2 + v**2 < 1 if sides == 0 else np.maximum(abs(u), abs(v)) < 1
        if sides == 2:
            inside &= np.sin(9 * u) > 0
        pixels[inside] += of_class.uniform(-70, 70, 3).astype(np.float32)
    pixels += rng.standard_normal((height, width, 1), np.float32) * _SENSOR_NOISE
    return pixels.clip(0, 255).astype(np.uint8)


def _noise(
    rng: np.random.Generator, cells: int, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Draw smooth noise with so many cells across, of about unit variance."""
    shape = (max(2, cells * size[1] // size[0]), cells)
    coarse = Image.fromarray(rng.standard_normal(shape, np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
