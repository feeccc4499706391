# SPDX-License-Identifier: Apache-2.0
"""A report on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.reporting.schema import Report, read_report

Save = Callable[..., Report]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return ``save(report, name="run.json")``: written as it is, and read."""

    def save(report: dict[str, Any], name: str = "run.json") -> Report:
        (tmp_path / name).write_text(json.dumps(report))
        return read_report(tmp_path / name)

    return save
