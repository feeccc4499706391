# SPDX-License-Identifier: Apache-2.0
"""The head as nodes: layouts, similarities, votes, precisions, and what can be taught."""

from __future__ import annotations

__all__: list[str] = []
