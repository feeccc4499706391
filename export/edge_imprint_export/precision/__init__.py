# SPDX-License-Identifier: Apache-2.0
"""Half- and quarter-size backbones, and where their embeddings leave float32's."""

from __future__ import annotations

from edge_imprint_export.precision.half import to_half
from edge_imprint_export.precision.int8 import int8_dialect, to_int8
from edge_imprint_export.precision.layers import LayerError, layer_errors

__all__ = ["LayerError", "int8_dialect", "layer_errors", "to_half", "to_int8"]
