# SPDX-License-Identifier: Apache-2.0
"""What each device reads: records, the check of any model, and the rewriting of graphs."""

from __future__ import annotations

__all__: list[str] = []
