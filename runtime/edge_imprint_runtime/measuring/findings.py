# SPDX-License-Identifier: Apache-2.0
"""What a measurement found out about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Finding", "Verdict"]


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
        code: Its kind: ``drift``, ``level_shift``, ``other_load``, ``clock_change``, ...
        series: The name of the series that it is about; None where it is the machine.
        text: One sentence: what was seen, and what to do.
        severe: Whether the figures can't be trusted for it.
    """

    code: str
    series: str | None
    text: str
    severe: bool

    def as_json(self) -> dict[str, Any]:
        """Return an entry of a report's ``verdict.findings``."""
        return {
            "code": self.code,
            "series": self.series,
            "text": self.text,
            "severe": self.severe,
        }


@dataclass(frozen=True)
class Verdict:
    """Whether a measurement can be trusted, and what was found.

    Attributes:
        stable: Nothing severe was found.
        findings: The severe ones first.
    """

    stable: bool
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Return a report's ``verdict``."""
        return {"stable": self.stable, "findings": [f.as_json() for f in self.findings]}
