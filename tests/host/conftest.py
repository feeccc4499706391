# SPDX-License-Identifier: Apache-2.0
"""Photos on disk, and backbones small enough to be run a hundred times."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_imprint import Backbone, load_backbone

WritePhotos = Callable[..., Path]


@pytest.fixture(scope="session")
def write_photos() -> WritePhotos:
    """Return ``write(root, {"cat": 6, "dog": 3}, size=24)``: noise around a colour a class."""

    def write(root: Path, counts: Mapping[str, int], size: int = 24) -> Path:
        for label, count in counts.items():
            folder = root / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng([zlib.crc32(label.encode()), number])
                colour = np.random.default_rng(zlib.crc32(label.encode())).integers(40, 216, 3)
                pixels = colour + rng.integers(-40, 40, (size, size, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / f"{label}-{number}.png")
        return root

    return write


@pytest.fixture(scope="session")
def photos_folder(tmp_path_factory: pytest.TempPathFactory, write_photos: WritePhotos) -> Path:
    """Three classes of 8, 6 and 4 photos. Don't change them."""
    root = tmp_path_factory.mktemp("photos")
    return write_photos(root, {"red": 8, "green": 6, "blue": 4})


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: bytes) -> Path:
    """The tiny backbone as a user's ONNX file. Don't change it."""
    file = tmp_path_factory.mktemp("backbone") / "tiny.onnx"
    file.write_bytes(tiny_backbone)
    return file


@pytest.fixture(scope="session")
def network(onnx_file: Path) -> Backbone:
    """The tiny backbone, loaded."""
    return load_backbone(f"onnx:{onnx_file}")
