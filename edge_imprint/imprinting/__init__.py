# SPDX-License-Identifier: Apache-2.0
"""Embeddings -> proxies -> a head: the framework of arXiv 2503.14572, and whitening."""

from __future__ import annotations

__all__: list[str] = []
