# SPDX-License-Identifier: Apache-2.0
"""Embeddings on disk, in files that are written once and checked before they are believed."""

from __future__ import annotations

from edge_imprint.embedding.cache.space import Space
from edge_imprint.embedding.cache.store import EmbeddingStore, embeddings_folder

__all__ = ["EmbeddingStore", "Space", "embeddings_folder"]
