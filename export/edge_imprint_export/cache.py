# SPDX-License-Identifier: Apache-2.0
"""Backbone graphs on disk, named by all that decides their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import onnx

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.torch_export import OPSET
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import BackboneExportError, OutputWriteError
from edge_imprint_runtime.files import write_atomic

__all__ = ["cache_folder", "cached", "lookup"]

# Raised whenever this package writes another graph for the same backbone.
_FORM = 1
_TOOLS = ("torch", "timm", "onnx", "onnxscript")


def cache_folder() -> Path:
    """Return the folder of cached backbone graphs; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "edge-imprint" / "backbones"


def lookup(info: BackboneInfo) -> onnx.ModelProto | None:
    """Find a backbone's graph, without its weights at hand and without torch.

    Args:
        info: Which backbone; its digest stands for its weights.

    Returns:
        The graph, or None where it is not cached or not readable.
    """
    try:
        return parse(_path(info).read_bytes(), "the cached backbone")
    except (OSError, BackboneExportError):
        return None  # it is made anew, and a damaged file replaced


def cached(info: BackboneInfo, make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """Find a backbone's graph, or make and keep it.

    Args:
        info: Which backbone.
        make: Makes the graph where the cache lacks it.

    Returns:
        The graph.

    Raises:
        BackboneExportError: ``make`` raised it.
    """
    found = lookup(info)
    if found is not None:
        return found
    model = make()
    path = _path(info)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_bytes(model), force=True)
    except (OSError, OutputWriteError):
        pass  # a cache that can't be written costs time, never the result
    return model


def _path(info: BackboneInfo) -> Path:
    versions = [f"{tool}={_version(tool)}" for tool in _TOOLS]
    size = f"{info.preprocess.height}x{info.preprocess.width}"
    key = "\n".join([str(_FORM), info.digest, size, str(OPSET), *versions])
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.onnx"


def _version(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return "none"
