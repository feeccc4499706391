# SPDX-License-Identifier: Apache-2.0
"""The tools that a file was made with."""

from __future__ import annotations

import contextlib
from importlib import metadata

__all__ = ["versions"]

_TOOLS = ("edge-imprint", "numpy", "pillow", "onnx", "onnxruntime", "torch", "timm")


def versions() -> str:
    """Name the tools at hand: with recipe and digests, what it takes to make a file again."""
    found = []
    for tool in _TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{tool}={metadata.version(tool)}")
    return " ".join(found)
