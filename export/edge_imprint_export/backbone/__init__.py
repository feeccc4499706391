# SPDX-License-Identifier: Apache-2.0
"""Backbones as graphs: exported, read from files, written by hand, and kept."""

from __future__ import annotations

__all__: list[str] = []
