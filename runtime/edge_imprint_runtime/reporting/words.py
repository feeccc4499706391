# SPDX-License-Identifier: Apache-2.0
"""How figures are written, the same in the terminal, in Markdown and on pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from edge_imprint_runtime.files import size_text

__all__ = ["count", "figure", "interval", "ms_text", "percent", "when"]


def figure(value: float) -> str:
    """Write a figure with three or four digits, such as 0.0123, 1.234 or 12,345."""
    size = abs(value)
    for below, digits in ((0.00995, 5), (0.9995, 4), (9.995, 3), (99.95, 2), (999.5, 1)):
        if size < below:
            return f"{value:.{digits}f}" if value else "0"
    return f"{value:,.0f}"


def ms_text(value: float | None) -> str:
    """Write milliseconds with their unit."""
    return "-" if value is None else f"{figure(value)} ms"


def interval(bounds: Sequence[float] | None) -> str:
    """Write both ends of an interval."""
    return "-" if bounds is None else f"{figure(bounds[0])} to {figure(bounds[1])}"


def count(value: float) -> str:
    """Write a whole number."""
    return f"{int(value):,}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share."""
    return f"{100 * share:.{digits}f} %"


def when(unix_s: float) -> str:
    """Write a time in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
    except (OverflowError, OSError, ValueError):  # a year that no calendar of C's holds
        return f"{unix_s:.0f} s after 1970"


def fact_text(name: str, value: Any) -> str | None:
    """Write a fact of a machine or of an engine; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or None
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or None
    return str(value)


def fact_name(name: str) -> str:
    """Write the name of a fact: words instead of underscores, no unit that its text bears."""
    return name.removesuffix("_bytes").replace("_", " ")
