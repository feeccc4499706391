# SPDX-License-Identifier: Apache-2.0
"""A comparison of runs as a page that opens offline, on a phone, and on paper."""

from __future__ import annotations

import functools

import numpy as np

from edge_imprint import bench_charts, report
from edge_imprint.bench_page import NO_CHARTS, Draw
from edge_imprint_runtime.reporting.compare import PERCENTS, Comparison, Pair, p_text
from edge_imprint_runtime.reporting.schema import Key
from edge_imprint_runtime.reporting.words import figure, when

__all__ = ["render"]

_MOST_CARDS = 4
_MOST_CHARTS = 8
_MOST_RATIOS = 24


def render(found: Comparison) -> str:
    """Make the page.

    Args:
        found: The comparison.

    Returns:
        A whole HTML document that loads nothing from elsewhere; without charts, and with a
        sentence that says so, where the package that draws them is missing.
    """
    draws = report.can_draw()
    base, *others = found.sides
    return report.page(
        f"{', '.join(side.title for side in others)} beside {base.title}",
        "Ratios of medians, with what they may be by chance. Below 1 is faster than "
        f"{base.title}.",
        [
            _cards(found),
            "" if draws else report.words(NO_CHARTS),
            _warnings(found),
            _measured(found),
            _words(found, draws),
            _distributions(found) if draws else "",
            _figures(found),
            _alone(found),
            _differs(found),
            _files(found),
        ],
    )


def _cards(found: Comparison) -> str:
    whole = [pair for pair in found.pairs if pair.key[3] == "whole"] or list(found.pairs)
    several = len(found.sides) > 2
    values, kinds = {}, {}
    for pair in whole[:_MOST_CARDS]:
        name = f"{pair.title}: {pair.other}" if several else pair.title
        values[name], kind = _short(pair)
        if kind:
            kinds[name] = kind
    return report.cards(values, kinds=kinds)


def _short(pair: Pair) -> tuple[str, str]:
    if not pair.stable:
        return "unstable", "bad"
    if not pair.difference.significant:
        return "no difference", ""
    if pair.difference.ratio > 1:
        return f"{pair.difference.ratio:.3g} x as long", "bad"
    return f"{1 / pair.difference.ratio:.3g} x as fast", "good"


def _warnings(found: Comparison) -> str:
    if not found.warnings:
        return ""
    lines = [f"{line}." for line in found.warnings]
    return report.verdict(
        "Before the figures", "What these runs can't say.", report.listing(lines), good=False
    )


def _measured(found: Comparison) -> str:
    return report.section(
        "What was measured",
        "The model of each side, what ran it, and where.",
        report.listing([f"{line}." for line in found.measured]),
    )


def _words(found: Comparison, draws: bool) -> str:
    lines = [f"{pair.title}: {pair.words}." for pair in found.pairs]
    shown = min(len(found.pairs), _MOST_RATIOS)
    chart = ""
    if draws:
        chart = report.drawings(
            (
                "Ratio of the medians, 95 % interval (red: slower, green: faster, else: grey)",
                "Ratios of medians; the figures are in the list and in the table.",
                functools.partial(bench_charts.ratios, comparison=found),
            ),
            height=min(9.0, 1.3 + 0.36 * shown),
        )
    return report.section(
        "What is shown",
        "An interval that leaves out 1 is a difference; of twenty series without any, one "
        "would show one by chance.",
        chart,
        report.listing(lines),
        report.words(f"{found.advice[:1].upper()}{found.advice[1:]}.") if found.advice else "",
        long=True,
    )


def _distributions(found: Comparison) -> str:
    keys = list(dict.fromkeys(pair.key for pair in found.pairs if pair.key[3] == "whole"))
    keys = keys or list(dict.fromkeys(pair.key for pair in found.pairs))
    made: list[tuple[str, str, Draw]] = [
        (
            title,
            f"Distributions of latency of {title} in each run; the figures are in the table.",
            functools.partial(bench_charts.ecdf, lines=_lines(found, key)),
        )
        for title, key in _titles(found, keys[:_MOST_CHARTS])
    ]
    return report.section(
        "Distributions",
        "How many calls took at most so long, the slowest 0.5 % left out.",
        report.drawings(*made),
        long=True,
    )


def _titles(found: Comparison, keys: list[Key]) -> list[tuple[str, Key]]:
    names = {pair.key: pair.title for pair in found.pairs}
    return [(names[key], key) for key in keys]


def _lines(found: Comparison, key: Key) -> bench_charts.Lines:
    return [
        (side.title, np.concatenate([s.samples_ns for s in side.series(key)]))
        for side in found.sides
        if key in side.keys
    ]


def _figures(found: Comparison) -> str:
    rows: list[list[report.Cell]] = []
    for pair in found.pairs:
        seen = pair.difference
        low, high = seen.interval
        rows.append(
            [
                (pair.title, pair.other),
                *(f"{figure(pair.base_ms[p])} / {figure(pair.other_ms[p])}" for p in PERCENTS),
                (f"{seen.ratio:.3f}", f"{low:.3f} to {high:.3f}"),
                p_text(seen.p_value),
            ]
        )
    columns = ["series", *PERCENTS, "ratio of p50", "p-value"]
    return report.section(
        "Figures",
        f"Milliseconds: {found.sides[0].title} / the other.",
        report.table(columns, rows, caption="Latency in ms and ratios", stack=True),
        long=True,
    )


def _alone(found: Comparison) -> str:
    if not found.alone:
        return ""
    lines = [f"{title}: in {', '.join(sides)} only." for title, sides in found.alone]
    return report.section(
        "Not in all", "These series have no counterpart.", report.listing(lines)
    )


def _differs(found: Comparison) -> str:
    table = found.facts_table
    if not found.facts:
        return report.section("What differs", "Nothing that the reports know of.")
    return report.section(
        "What differs",
        "Of all that the reports say of model, provider, machine and method.",
        report.table(
            table.columns,
            table.rows,
            text_columns=len(table.columns),
            caption="What differs between the runs",
            stack=True,
        ),
        long=True,
    )


def _files(found: Comparison) -> str:
    rows = [
        [
            side.title,
            run.path.name,
            when(run.data["created_unix_s"]),
            "stable" if run.stable else "NOT stable",
            run.data["made_with"],
        ]
        for side in found.sides
        for run in side.runs
    ]
    columns = ["side", "file", "measured", "the run is", "with"]
    return report.section(
        "The runs",
        "The first is the base. Several files of one side are repeated runs.",
        report.table(columns, rows, text_columns=5, caption="Files", stack=True),
    )
