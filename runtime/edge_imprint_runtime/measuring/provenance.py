# SPDX-License-Identifier: Apache-2.0
"""Where a report comes from: the program, the commit, the file, the engine, the provider."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.contract import Contract
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.files import file_sha256

__all__ = ["commit_here", "engine_facts", "made_with", "model_facts", "provider_facts"]

_TIMEOUT_S = 10.0
_MAX_STRAYS = 100
# Of what TensorRT's inspector says.
_MAX_LAYERS, _MAX_FIELDS, _MAX_FIELD, _MAX_NUMBER = 1_000, 50, 300, 1e18
# Of a sidecar, what the report has of its own, or what a measurement does not hang on.
_NOT_OF_ENGINE = {"metadata", "inputs", "outputs", "format", "version"}


def made_with() -> str:
    """Return the program with its version."""
    try:
        return f"edge-imprint {metadata.version('edge-imprint')}"
    except metadata.PackageNotFoundError:
        return "edge-imprint"


def commit_here(folder: str | os.PathLike[str] = ".") -> str | None:
    """Return the commit that a folder is at, for reports that compare commits.

    Args:
        folder: Where; by default where the process works.

    Returns:
        Git's short name of it, with ``+changes`` behind where files differ from it; None
        outside of a repository, or without git.
    """
    head = _git(folder, "rev-parse", "--short", "HEAD")
    if not head:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head + ("+changes" if changes else "")


def model_facts(path: str | os.PathLike[str], contract: Contract | None) -> dict[str, Any]:
    """Return the report's ``model``.

    Args:
        path: The file.
        contract: What it says of itself; None where it does not.
    """
    file = Path(path)
    graph = contract.graph if contract is not None else None
    backbone = contract.backbone if contract is not None else None
    return {
        "file": os.fsencode(path).decode(errors="backslashreplace"),
        "bytes": file.stat().st_size,
        "sha256": file_sha256(file),
        "precision": graph.precision if graph else None,
        "input": graph.input if graph else None,
        "backbone": backbone.name if backbone else None,
        "classes": len(contract.labels) if contract else None,
        "slots": graph.slots if graph else None,
        "embedding_size": contract.embedding_size if contract else None,
        "target": graph.target if graph else None,
    }


def engine_facts(runner: Runner) -> dict[str, Any] | None:
    """Return the report's ``engine``: what the sidecar says; None for what is no engine.

    Its ``inspector`` holds the layers as TensorRT's inspector describes them, each a name or
    a record, 1,000 of them at most; None where it describes none.
    """
    sidecar = getattr(runner, "sidecar", None)
    if sidecar is None:
        return None
    said = {
        name: _plain(value)
        for name, value in vars(sidecar).items()
        if name not in _NOT_OF_ENGINE
    }
    inspect = getattr(runner, "inspect", None)
    return said | {"inspector": inspect and _layers(inspect)}


def provider_facts(runner: Runner, backend: str) -> dict[str, Any]:
    """Return the report's ``provider``.

    Args:
        runner: What ran the model.
        backend: What was asked for.
    """
    placement = runner.placement
    return {
        "name": runner.provider,
        "backend": backend,
        "library": runner.library,
        "threads": runner.threads,
        "nodes": dict(placement.nodes) if placement else {},
        "strays": [text[:1_000] for text in placement.strays[:_MAX_STRAYS]]
        if placement
        else [],
    }


def _layers(inspect: Callable[[], str]) -> list[Any] | None:
    try:
        described = json.loads(inspect())
    except (
        EdgeImprintError,
        ValueError,
    ):  # TensorRT 8 writes JSON that is none for some names
        return None
    layers = described.get("Layers") if isinstance(described, dict) else None
    if not isinstance(layers, list):
        return None
    return [_bounded(layer) for layer in layers[:_MAX_LAYERS]]


def _bounded(layer: Any) -> str | dict[str, Any]:
    """Return a layer's name, or its fields, each as short as it may be."""
    if not isinstance(layer, dict):
        return str(layer)[:_MAX_FIELD]
    fields = list(layer.items())[:_MAX_FIELDS]
    return {str(key)[:_MAX_FIELD]: _field(value) for key, value in fields}


def _field(value: Any) -> Any:
    """Return a number or a short text; what is nested as its JSON."""
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) < _MAX_NUMBER else None
    return (value if isinstance(value, str) else json.dumps(value))[:_MAX_FIELD]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _git(folder: str | os.PathLike[str], *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
