# SPDX-License-Identifier: Apache-2.0
"""ONNX files as things: which are refused, and what they are made of."""

from __future__ import annotations

__all__: list[str] = []
