# SPDX-License-Identifier: Apache-2.0
"""The real command, run as a user runs it, and a workshop of small inputs for it."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

COMMAND = Path(sys.executable).with_name("edge-imprint")


@dataclass(frozen=True)
class Workshop:
    """Small inputs, made once by the command itself. Don't change them.

    Attributes:
        photos: A folder of three classes, 6 photos each.
        backbone: ``onnx:FILE``.
        head: What ``build`` made of them.
        model: What ``export`` made of the head.
    """

    photos: Path
    backbone: str
    head: Path
    model: Path


@pytest.fixture(scope="session")
def command() -> Path:
    """The console script that pip installed beside this interpreter."""
    assert COMMAND.is_file(), "run: pip install -e '.[dev]'"
    return COMMAND


@pytest.fixture(scope="session")
def run(command: Path) -> Run:
    """Return ``run(*arguments, **subprocess_options)``."""

    def run(*arguments: object, **options: Any) -> Done:
        return subprocess.run(
            [command, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, run: Run, tiny_backbone: bytes
) -> Workshop:
    root = tmp_path_factory.mktemp("workshop")
    for label, colour in (("red", (200, 60, 60)), ("green", (60, 200, 60)), ("b l u e", 90)):
        (root / "photos" / label).mkdir(parents=True)
        for number in range(6):
            rng = np.random.default_rng([zlib.crc32(label.encode()), number])
            pixels = np.add(colour, rng.integers(-40, 40, (24, 24, 3)))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / "photos" / label / f"{number}.png")
    (root / "tiny.onnx").write_bytes(tiny_backbone)
    made = Workshop(
        root / "photos",
        f"onnx:{root}/tiny.onnx",
        root / "head.safetensors",
        root / "model.onnx",
    )
    for arguments in (
        ("build", made.photos, "--backbone", made.backbone, "--out", made.head),
        ("export", made.head, "--out", made.model),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    return made
