# SPDX-License-Identifier: Apache-2.0
"""The device side: load a fused model, run it, measure it; numpy and a backend."""

from __future__ import annotations

from edge_imprint_runtime.contract import BackboneInfo, Contract, GraphInfo, Preprocess, Rule
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import open_image, prepare
from edge_imprint_runtime.model import Model, Prediction, Predictions, open_model

__all__ = [
    "BackboneInfo",
    "Contract",
    "EdgeImprintError",
    "GraphInfo",
    "Head",
    "Model",
    "Prediction",
    "Predictions",
    "Preprocess",
    "Rule",
    "open_image",
    "open_model",
    "prepare",
]
