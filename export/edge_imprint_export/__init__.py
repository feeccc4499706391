# SPDX-License-Identifier: Apache-2.0
"""Backbone + head -> one ONNX model. The host's second half."""

from __future__ import annotations

from edge_imprint_export.fuse import embedder, fuse, headless, save
from edge_imprint_export.verify import Verification, verify

__all__ = ["Verification", "embedder", "fuse", "headless", "save", "verify"]
