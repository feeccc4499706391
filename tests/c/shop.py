# SPDX-License-Identifier: Apache-2.0
"""What tests of the C programs share: photos, and programs run beside Python's command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Done = subprocess.CompletedProcess[str]
MakeModel = Callable[..., Path]

PYTHON = Path(sys.executable).with_name("edge-imprint")


class Program:
    """A C program, with the ONNX Runtime that Python has."""

    def __init__(self, path: Path, ort: Path) -> None:
        self.path = path
        self.environment = {**os.environ, "EDGE_IMPRINT_ONNXRUNTIME": str(ort)}

    def __call__(self, *arguments: object, **options: object) -> Done:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [self.path, *map(str, arguments)],
            **{
                "capture_output": True,
                "text": True,
                "check": False,
                "timeout": 600,
                "env": self.environment,
            }
            | options,
        )


def python(*arguments: object) -> Done:
    """Run Python's command, the reference."""
    return subprocess.run(
        [PYTHON, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def picture(seed: int, height: int = 24, width: int = 40) -> npt.NDArray[np.uint8]:
    """A few soft blobs of colour: (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    found: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(coarse).resize((width, height)))
    return found
