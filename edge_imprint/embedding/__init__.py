# SPDX-License-Identifier: Apache-2.0
"""Photos -> embeddings: read, decoded, embedded, kept; on this machine or on a cluster."""

from __future__ import annotations

__all__: list[str] = []
