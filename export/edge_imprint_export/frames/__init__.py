# SPDX-License-Identifier: Apache-2.0
"""Camera frames as nodes: colours, crop and Pillow's resize."""

from __future__ import annotations

__all__: list[str] = []
