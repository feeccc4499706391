# SPDX-License-Identifier: Apache-2.0
"""Backbone graphs on disk, named by all that decides their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import BackboneExportError, OutputWriteError
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.graph_files import cache_folder, graph_path, tool_versions

__all__ = ["cache_folder", "cached", "known_difference", "lookup", "remember_difference"]

# A file ends in a field that ONNX does not know, of a number that it will not give away: the
# SHA-256 of all before it. A flipped bit in a weight is else no error, but another network.
_TAIL = b"\xfa\xff\xff\xff\x0f\x20"  # field 2**29 - 1, 32 bytes long

# What runs a graph before and after it is rewritten; it is installed by one of two names.
_RUNNERS = ("onnxruntime", "onnxruntime-gpu")


def lookup(info: BackboneInfo) -> onnx.ModelProto | None:
    """Find a backbone's graph, without its weights at hand and without torch.

    Args:
        info: Which backbone; its digest stands for its weights.

    Returns:
        The graph, or None where it is not cached, damaged or not readable.
    """
    try:
        content = _checked(graph_path(info).read_bytes())
        return None if content is None else parse(content, "the cached backbone")
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
    path = graph_path(info)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = to_bytes(model)
        digest = hashlib.sha256(content).digest()
        write_atomic(path, content + _TAIL + digest, force=True)
    except (OSError, OutputWriteError):
        pass  # a cache that can't be written costs time, never the result
    return model


def known_difference(info: BackboneInfo, form: str) -> float | None:
    """Find how much a backbone's embeddings change when it is rewritten.

    The rewritten graph itself is not kept: it is made anew in less time than it is read.

    Args:
        info: Which backbone.
        form: All that decides the rewriting. What ran both, ONNX Runtime's version, is added.

    Returns:
        What `remember_difference` was told, or None where it was told nothing.
    """
    try:
        return float(_difference_path(info, form).read_text())
    except (OSError, ValueError):
        return None  # it is measured anew


def remember_difference(info: BackboneInfo, form: str, difference: float) -> None:
    """Keep a measured difference for `known_difference`."""
    path = _difference_path(info, form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{difference:.3e}\n".encode(), force=True)
    except (OSError, OutputWriteError):
        pass  # as in `cached`


def _checked(content: bytes) -> bytes | None:
    """Return a file's graph without the sum at its end; None where the sum is another's."""
    end = len(content) - len(_TAIL) - hashlib.sha256().digest_size
    if end < 0 or content[end : end + len(_TAIL)] != _TAIL:
        return None
    good = hashlib.sha256(content[:end]).digest() == content[end + len(_TAIL) :]
    return content[:end] if good else None


def _difference_path(info: BackboneInfo, form: str) -> Path:
    key = "\n".join([form, *tool_versions(_RUNNERS)])
    graph, digest = graph_path(info), hashlib.sha256(key.encode()).hexdigest()
    return graph.with_name(f"{graph.stem}.{digest[:16]}.txt")
