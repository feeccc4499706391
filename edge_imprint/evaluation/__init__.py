# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint evaluate`: which recipe for these embeddings, and why."""

from __future__ import annotations

__all__: list[str] = []
