# SPDX-License-Identifier: Apache-2.0
"""Reports of measurements: their files, what they say in words, and how two differ.

`schema` reads and writes them, `compare` holds them against each other, `tables` and
`markdown` show them. ``docs/report.schema.json`` says what a report is.
"""

from __future__ import annotations

__all__: list[str] = []
