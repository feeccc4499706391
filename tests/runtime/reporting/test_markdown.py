# SPDX-License-Identifier: Apache-2.0
"""Markdown says all that the tables say, and no name in it is read as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable

from edge_imprint_runtime.reporting.compare import compare_reports
from edge_imprint_runtime.reporting.markdown import comparison_markdown, report_markdown
from edge_imprint_runtime.reporting.schema import Report
from tests.report_example import example_report, smallest_report

Save = Callable[..., Report]
EVIL = "<b>|*a*|\n# [x](http://y)`"


def tables_of(text: str) -> list[list[str]]:
    """Cut Markdown into its tables; every row of one must have as many cells."""
    made: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            made[-1].append(line)
        elif made[-1]:
            made.append([])
    found = [rows for rows in made if rows]
    for rows in found:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
        assert set(rows[1]) <= set("| -:")
    return found


def test_a_report(save: Save) -> None:
    text = report_markdown(save(example_report(300, stable=False)))
    assert text.startswith("# Latency of shop.onnx\n\nCPUExecutionProvider (onnxruntime")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "Latency",
        "What the head costs",
        "Stages of a call",
        "Under load",
        "Layers that take longest",
        "MLPerf Inference, single stream",
        "Cold start",
        "Memory",
        "Energy",
        "Model",
        "Run by",
        "Machine",
        "How it was measured",
    ]
    assert "- NOT stable: fused, batch 1: the median of the last fifth" in text
    assert len(tables_of(text)) == 13
    assert "\n\n\n" not in text


def test_a_small_report_has_no_empty_part(save: Save) -> None:
    text = report_markdown(save(smallest_report()))
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        *("Latency", "Model", "Run by", "Machine", "How it was measured"),
    ]
    assert len(tables_of(text)) == 6


def test_a_comparison(save: Save) -> None:
    one, two = save(smallest_report(), "a.json"), save(smallest_report(1.5, seed=1), "b.json")
    text = comparison_markdown(compare_reports([one, two]))
    assert text.startswith(
        "# b.json beside a.json\n\n"
        "- a.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13\n"
        "- b.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13\n"
        "- both ran the same model file (sha256 abababababab...)\n\n"
        "- fused, batch 1: b.json is 1.3"
    )
    assert len(tables_of(text)) == 1
    assert text.endswith("## What differs\n\nNothing is known to.\n")
    unstable = save(example_report(100, stable=False, commit="1"), "c.json")
    text = comparison_markdown(compare_reports([one, unstable], force=True))
    assert "**Note: c.json is NOT stable: fused, batch 1: the median" in text
    assert "- backbone only, batch 8: in c.json only" in text
    assert len(tables_of(text)) == 2


def test_names_are_only_names(save: Save) -> None:
    report = smallest_report(label=EVIL)
    report["model"]["file"] = EVIL
    report["series"][0]["name"] = EVIL
    report["machine"][EVIL] = EVIL
    found = save(report, "a.json")
    both = compare_reports([found, save(smallest_report() | {"series": report["series"]})])
    for text in (report_markdown(found), comparison_markdown(both)):
        tables_of(text)
        assert EVIL.split("\n")[0] not in text
        assert "\n# [" not in text
        assert r"\<b\>\|\*a\*\| \# \[x\](http://y)\`" in text
