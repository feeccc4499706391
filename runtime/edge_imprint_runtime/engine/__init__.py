# SPDX-License-Identifier: Apache-2.0
"""Engines: an ONNX model compiled by TensorRT for one GPU, and what lies beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_imprint_runtime.engine.build import compile_again, compile_engine
    from edge_imprint_runtime.engine.fits import check_fits
    from edge_imprint_runtime.engine.refit import refit_engine
    from edge_imprint_runtime.engine.sidecar import Sidecar, read_sidecar, sidecar_path

__all__ = [
    "Sidecar",
    "check_fits",
    "compile_again",
    "compile_engine",
    "read_sidecar",
    "refit_engine",
    "sidecar_path",
]

_HOMES = {
    "Sidecar": "sidecar",
    "check_fits": "fits",
    "compile_again": "build",
    "compile_engine": "build",
    "read_sidecar": "sidecar",
    "refit_engine": "refit",
    "sidecar_path": "sidecar",
}


def __getattr__(name: str) -> Any:
    # Each model that is opened asks `engine.opening` whether it is an engine; what compiles
    # one takes longer to load than a small model takes to answer.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    home = importlib.import_module(f"edge_imprint_runtime.engine.{_HOMES[name]}")
    value = getattr(home, name)
    globals()[name] = value
    return value
