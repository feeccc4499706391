# SPDX-License-Identifier: Apache-2.0
"""What `edge-imprint bench` prints of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_imprint.cli._console import say, table
from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.measuring.series import rate_text

__all__ = ["show_report"]

_TOP = 10
_WITH_INTERVALS = 3  # columns; for more the intervals have no room
_MS = (
    ("p50 ms", "p50_ms"),
    ("p90 ms", "p90_ms"),
    ("p95 ms", "p95_ms"),
    ("p99 ms", "p99_ms"),
    ("p99.9 ms", "p99_9_ms"),
    ("max ms", "max_ms"),
    ("mean ms", "mean_ms"),
)

Row = dict[str, Any]


def show_report(report: dict[str, Any]) -> None:
    """Print the figures of a report, and those that need a comparison."""
    series = report["series"]
    marked = "" if report["verdict"]["stable"] else " - UNSTABLE, see below"
    where = f"{Path(report['model']['file']).name} on {report['provider']['name']}"
    for batch in dict.fromkeys(s["batch"] for s in series):
        rows = [s for s in series if s["batch"] == batch]
        whole = [s for s in rows if s["stage"] == "whole"]
        _table(f"{where}, batch {batch}{marked}", whole)
        stages = [s for s in rows if s["stage"] != "whole"]
        if stages:
            _table(f"stages of {stages[0]['name']}, batch {batch}{marked}", stages)
        for line in _beside(whole):
            say(line)
    for line in _rest(report):
        say(line)
    if report["layers"]:
        dearest = [
            [one["name"], one["kind"], f"{one['mean_ms']:.4f}", f"{one['share'] or 0:.1%}"]
            for one in report["layers"][:_TOP]
        ]
        title = f"the {len(dearest)} dearest of {len(report['layers'])} layers"
        _titled(title, ["layer", "kind", "ms", "share"], dearest)


def _table(title: str, series: Sequence[Row]) -> None:
    """One column a series: so that the percentiles of many have room in 80 characters."""
    cell = _bounded if len(series) <= _WITH_INTERVALS else _plain
    rows = [[label, *(cell(s, key) for s in series)] for label, key in _MS]
    if series[0]["stage"] == "whole":
        unit = "embeddings/s" if series[0]["name"] == "head" else "images/s"
        rows.append([unit, *(f"{s['throughput_images_per_s']:.1f}" for s in series)])
    rows.append(["samples", *(str(s["iterations"]) for s in series)])
    _titled(title, ["", *(_name(s) for s in series)], rows)


def _titled(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table below its title, which would be broken at the table's width in it."""
    say(title)
    table("", columns, rows)


def _bounded(series: Row, key: str) -> str:
    """Return a value, with its 95 % interval where samples bear one."""
    value = _number(series[key])
    bound = series["intervals_ms"].get(key.removesuffix("_ms"))
    return value if bound is None else f"{value} ({_number(bound[0])}-{_number(bound[1])})"


def _plain(series: Row, key: str) -> str:
    return _number(series[key])


def _name(series: Row) -> str:
    name = str(series["name"] if series["stage"] == "whole" else series["stage"])
    if series["offered_per_s"] is not None:
        name += f" at {rate_text(series['offered_per_s'])}/s"
    if series["concurrency"] > 1:
        name += f", {series['concurrency']} threads"
    return name


def _beside(whole: Sequence[Row]) -> list[str]:
    """Hold the model against what ran in turns with it."""
    first, *others = whole
    lines = []
    for other in others:
        if other["name"] == first["name"]:
            continue  # itself, under load
        other_ns, first_ns = (np.array(s["samples_ns"], np.int64) for s in (other, first))
        found = compare(other_ns, first_ns)
        low, high = found.interval
        lines.append(
            f"p50 of {first['name']} / {other['name']}: {found.ratio:.4f} "
            f"({low:.4f}-{high:.4f})"
        )
    return lines


def _rest(report: dict[str, Any]) -> list[str]:
    parts: tuple[tuple[str, Callable[[Row], list[str]]], ...] = (
        ("mlperf", _mlperf),
        ("cold_start", _cold),
        ("memory", _memory),
        ("energy", _energy),
    )
    return [
        line for key, lines in parts if report[key] is not None for line in lines(report[key])
    ]


def _mlperf(found: Row) -> list[str]:
    estimate = found["estimate_ms"]
    shown = "none" if estimate is None else f"{_number(estimate)} ms"
    line = (
        f"MLPerf single stream: {shown}, the early-stopping estimate of p90 at 99 %; "
        f"q = {found['queries']:,}, t = {found['over_latency']:,}, {found['duration_s']:.1f} s"
    )
    return [line, *([] if found["valid"] else [f"not valid by MLPerf: {found['reason']}"])]


def _cold(found: Row) -> list[str]:
    runs = ", ".join(f"{one:.0f}" for one in found["runs_ms"][:_TOP])
    return [f"cold start: {found['p50_ms']:.0f} ms to the first label (each: {runs})"]


def _memory(found: Row) -> list[str]:
    before, opened, peak = (found[f"rss_{name}_bytes"] for name in ("before", "open", "peak"))
    if before is None or opened is None:
        return []
    line = f"memory: {_mb(before)} before, {_mb(opened)} with the model open"
    if peak is not None:
        line += f", {_mb(peak)} at most once it ran"
    if found["device_bytes"] is not None:
        line += f"; {_mb(found['device_bytes'])} on the device"
    return [f"{line}; callers and sensors came later"]


def _energy(found: Row) -> list[str]:
    joules, watts = found["joules_per_image"], found["mean_power_w"]
    return [f"energy: {joules * 1e3:.3g} mJ an image, {watts:.3g} W ({found['source']})"]


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _number(value_ms: float) -> str:
    return f"{value_ms:.3f}" if value_ms < 100 else f"{value_ms:.1f}"
