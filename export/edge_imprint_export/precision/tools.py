# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's own tools for reduced precision, loaded when first asked for."""

from __future__ import annotations

import os
from typing import Any

from edge_imprint_runtime.errors import MissingPackageError

__all__ = ["float16_tool", "quantization_tool"]


def float16_tool() -> Any:
    """Return the module that turns float32 into float16.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
    """
    _no_telemetry()
    try:
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise MissingPackageError("onnxruntime", "--precision fp16", "cpu") from error
    return float16


def quantization_tool() -> Any:
    """Return the module that calibrates and quantizes.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
    """
    _no_telemetry()
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingPackageError("onnxruntime", "--precision int8", "cpu") from error
    return quantization


def _no_telemetry() -> None:
    """Do as the runtime's backend does, for whichever of them loads ONNX Runtime first."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
