# SPDX-License-Identifier: Apache-2.0
"""Reports and comparisons as Markdown, for pull requests and notes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edge_imprint_runtime.reporting import tables
from edge_imprint_runtime.reporting.compare import Comparison
from edge_imprint_runtime.reporting.head_cost import head_costs
from edge_imprint_runtime.reporting.schema import Report
from edge_imprint_runtime.reporting.tables import Table

__all__ = ["comparison_markdown", "report_markdown"]


def report_markdown(report: Report) -> str:
    """Write a report.

    Args:
        report: The report.

    Returns:
        Markdown with tables, as GitHub shows them.
    """
    provider = report.data["provider"]
    lead = f"{provider['name']} ({provider['library']}) on {tables.device(report)}"
    parts = [
        f"# Latency of {_escape(report.model_name)}",
        f"{_escape(lead)}.",
        _facts(tables.headline(report)),
        "\n".join(f"- {_escape(line)}." for line in tables.verdict(report)),
        "## Latency",
        _table(tables.percentiles(report)),
    ]
    costs = head_costs(report)
    if costs:
        lines = "\n".join(f"- batch {cost.batch}: {_escape(cost.text)}" for cost in costs)
        parts += ["## What the head costs", lines]
    shown = (tables.stages, tables.load, tables.layers, tables.inspected)
    for made in (table(report) for table in shown):
        if made is not None:
            parts += [f"## {made.title}", _table(made)]
    for title, facts in (
        ("MLPerf Inference, single stream", tables.mlperf(report)),
        ("Cold start", tables.cold_start(report)),
        ("Memory", tables.memory(report)),
        ("Energy", tables.energy(report)),
        ("Model", tables.model(report)),
        ("Run by", tables.provider(report)),
        ("Machine", tables.machine(report)),
        ("How it was measured", tables.method(report)),
    ):
        if facts:
            parts += [f"## {title}", _facts(facts)]
    return _join(parts)


def comparison_markdown(comparison: Comparison) -> str:
    """Write a comparison.

    Args:
        comparison: The comparison.

    Returns:
        Markdown with tables, as GitHub shows them.
    """
    base, *others = (side.title for side in comparison.sides)
    parts = [f"# {_escape(', '.join(others))} beside {_escape(base)}"]
    parts += [f"**Note: {_escape(line)}.**" for line in comparison.warnings]
    parts += [
        "\n".join(f"- {_escape(line)}" for line in comparison.measured),
        "\n".join(f"- {_escape(f'{p.title}: {p.words}')}" for p in comparison.pairs),
        "## Latency",
        _table(comparison.pairs_table()),
        "Intervals hold with 95 %.",
    ]
    if comparison.advice:
        parts += [f"{_escape(_capital(comparison.advice))}."]
    if comparison.alone:
        lines = (f"{title}: in {', '.join(sides)} only" for title, sides in comparison.alone)
        parts += ["## Not in all", "\n".join(f"- {_escape(line)}" for line in lines)]
    parts += ["## What differs"]
    parts += [_table(comparison.facts_table) if comparison.facts else "Nothing is known to."]
    return _join(parts)


def _join(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(facts: Mapping[str, str]) -> str:
    rows = tuple(facts.items())
    return _table(Table("", ("what", "figure"), rows, 2))


def _table(table: Table) -> str:
    numbers = len(table.columns) - table.text_columns
    rule = ["---"] * table.text_columns + ["---:"] * numbers
    lines = [[_escape(cell) for cell in row] for row in (table.columns, *table.rows)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _escape(text: str) -> str:
    """Keep what a name holds from being read as Markdown or HTML, and on one line."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", line)
