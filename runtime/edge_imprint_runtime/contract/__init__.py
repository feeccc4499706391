# SPDX-License-Identifier: Apache-2.0
"""The contract between host and device: what `docs/contract.md` says, in code."""

from __future__ import annotations

from edge_imprint_runtime.contract.codec import decode, encode
from edge_imprint_runtime.contract.spec import (
    EPSILON,
    MAX_LABEL_BYTES,
    MAX_LABELS,
    VERSION,
    BackboneInfo,
    Contract,
    Frame,
    GraphInfo,
    Preprocess,
    Rule,
    Teachable,
)

__all__ = [
    "EPSILON",
    "MAX_LABELS",
    "MAX_LABEL_BYTES",
    "VERSION",
    "BackboneInfo",
    "Contract",
    "Frame",
    "GraphInfo",
    "Preprocess",
    "Rule",
    "Teachable",
    "decode",
    "encode",
]
