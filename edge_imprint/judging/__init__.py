# SPDX-License-Identifier: Apache-2.0
"""Judged on embeddings held out: cross-validation, choosing k, calibration."""

from __future__ import annotations

__all__: list[str] = []
