# SPDX-License-Identifier: Apache-2.0
"""Where the host keeps backbone graphs.

Here and not in the exporter: a build whose embeddings are all remembered asks only whether a
graph is there, and importing the exporter brings onnx.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from edge_imprint_runtime import files
from edge_imprint_runtime.contract import BackboneInfo

__all__ = ["OPSET", "cache_folder", "graph_path", "has_graph", "tool_versions"]

# The lowest that torch's exporter writes; lower ones it silently does not reach (torch 2.15).
OPSET = 18

# Raised whenever this package writes another graph for the same backbone.
_FORM = 1
_TOOLS = ("torch", "timm", "torchvision", "onnx", "onnxscript")


def cache_folder() -> Path:
    """Return the folder of cached backbone graphs; it may not exist yet."""
    return files.cache_folder() / "backbones"


def graph_path(info: BackboneInfo) -> Path:
    """Return the file of a backbone's graph, named by all that decides its content.

    Args:
        info: Which backbone; its digest stands for its weights.

    Returns:
        The file; it may not exist.
    """
    size = f"{info.preprocess.height}x{info.preprocess.width}"
    key = "\n".join([str(_FORM), info.digest, size, str(OPSET), *tool_versions(_TOOLS)])
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.onnx"


def has_graph(info: BackboneInfo) -> bool:
    """Tell whether a backbone's graph is in the cache; it is not read."""
    try:
        return graph_path(info).stat().st_size > 0
    except OSError:
        return False


def tool_versions(tools: tuple[str, ...]) -> list[str]:
    """Return ``tool=version`` for each, ``none`` where it is not installed; none is loaded."""
    return [f"{tool}={_version(tool)}" for tool in tools]


def _version(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return "none"
