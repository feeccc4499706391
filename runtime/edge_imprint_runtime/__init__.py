# SPDX-License-Identifier: Apache-2.0
"""The device side: load a fused model, run it, teach it, measure it; numpy and a backend."""

from __future__ import annotations

from edge_imprint_runtime.contract import (
    BackboneInfo,
    Contract,
    Frame,
    GraphInfo,
    Preprocess,
    Rule,
    Teachable,
)
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import open_image, prepare
from edge_imprint_runtime.model import Model, Prediction, Predictions, open_model
from edge_imprint_runtime.teaching import forget, teach

__all__ = [
    "BackboneInfo",
    "Contract",
    "EdgeImprintError",
    "Frame",
    "GraphInfo",
    "Head",
    "Model",
    "Prediction",
    "Predictions",
    "Preprocess",
    "Rule",
    "Teachable",
    "forget",
    "open_image",
    "open_model",
    "prepare",
    "teach",
]
