# SPDX-License-Identifier: Apache-2.0
"""Engines: an ONNX model compiled by TensorRT for one GPU, and what lies beside it."""

from __future__ import annotations

from edge_imprint_runtime.engine.build import compile_again, compile_engine
from edge_imprint_runtime.engine.fits import check_fits
from edge_imprint_runtime.engine.plan import PlanHeader, read_plan_header
from edge_imprint_runtime.engine.refit import refit_engine
from edge_imprint_runtime.engine.sidecar import Sidecar, read_sidecar, sidecar_path

__all__ = [
    "PlanHeader",
    "Sidecar",
    "check_fits",
    "compile_again",
    "compile_engine",
    "read_plan_header",
    "read_sidecar",
    "refit_engine",
    "sidecar_path",
]
