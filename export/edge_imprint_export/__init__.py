# SPDX-License-Identifier: Apache-2.0
"""Backbone + head -> one ONNX model. The host's second half."""

from __future__ import annotations

from edge_imprint_export.frontend import embedder
from edge_imprint_export.fuse import fuse, fuse_head, save
from edge_imprint_export.proof.verify import Verification, verify

__all__ = ["Verification", "embedder", "fuse", "fuse_head", "save", "verify"]
