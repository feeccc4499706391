# SPDX-License-Identifier: Apache-2.0
"""What was exported beside what it was made of: the budget, and the whole verification."""

from __future__ import annotations

__all__: list[str] = []
