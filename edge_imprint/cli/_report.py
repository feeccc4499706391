# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint report`."""

from __future__ import annotations

import re

import click

from edge_imprint.cli._console import note, print_json, say, table
from edge_imprint_runtime.errors import OutputWriteError
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.reporting import tables
from edge_imprint_runtime.reporting.compare import (
    Comparison,
    compare_reports,
)
from edge_imprint_runtime.reporting.gate import not_told, require_not_slower
from edge_imprint_runtime.reporting.head_cost import head_costs
from edge_imprint_runtime.reporting.markdown import comparison_markdown, report_markdown
from edge_imprint_runtime.reporting.schema import Report, read_report

__all__ = ["report"]

_MOST_SERIES = 3  # columns of a table that carry their intervals in 80 characters
_WRAPPED = 16  # characters of a column of words


@click.command()
@click.argument(
    "reports", nargs=-1, required=True, type=click.Path(), metavar="REPORT [REPORT...]"
)
@click.option("--html", type=click.Path(), help="A page to write.")
@click.option("--markdown", type=click.Path(), help="A Markdown file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option(
    "--fail-if-slower",
    metavar="SHARE",
    help="Exit with 1 where a median is longer than the first report's by more, such as 5%.",
)
@click.option(
    "--force", is_flag=True, help="Compare unstable runs too; replace the files to be written."
)
def report(
    reports: tuple[str, ...],
    html: str | None,
    markdown: str | None,
    as_json: bool,
    fail_if_slower: str | None,
    force: bool,
) -> None:
    """Show what bench found, or hold several runs against the first REPORT."""
    allowed = None if fail_if_slower is None else _share(fail_if_slower)
    if allowed is not None and len(reports) < 2:
        raise click.BadParameter(
            "takes two reports or more: the base, and what is held against it",
            param_hint="--fail-if-slower",
        )
    if html is not None and html == markdown:
        raise OutputWriteError(f"cannot write {html}: it is named twice; name another file")
    for out in (html, markdown):
        if out is not None:
            check_output(out, force=force, inputs=reports)
    read = [read_report(path) for path in reports]
    if len(read) == 1:
        _one(read[0], html, markdown, as_json, force)
        return
    found = compare_reports(read, force=force)
    if html is not None:
        from edge_imprint.compare_page import render

        _write(html, render(found), force)
    if markdown is not None:
        _write(markdown, comparison_markdown(found), force)
    if as_json:
        print_json(found.as_json())
    else:
        _show_comparison(found)
    if allowed is not None:
        for line in not_told(found, allowed):
            note(f"WARNING: {line}")
        require_not_slower(found, allowed)


def _one(
    found: Report, html: str | None, markdown: str | None, as_json: bool, force: bool
) -> None:
    if html is not None:
        from edge_imprint.bench_page import render

        _write(html, render(found), force)
    if markdown is not None:
        _write(markdown, report_markdown(found), force)
    if as_json:
        print_json(_summary(found))
    else:
        _show(found)


def _write(path: str, text: str, force: bool) -> None:
    write_atomic(path, text.encode("utf-8", "backslashreplace"), force=force)


def _summary(found: Report) -> dict[str, object]:
    """Return the report without its raw samples and readings."""
    left_out = ("series", "sensors", "layers")
    rest = {key: value for key, value in found.data.items() if key not in left_out}
    costs = [
        {
            "batch": cost.batch,
            "ms": cost.ms,
            "interval_ms": list(cost.bounds_ms),
            "ratio": cost.ratio,
            "interval": list(cost.bounds),
            "significant": cost.shown,
            "doubt": cost.doubt or None,
        }
        for cost in head_costs(found)
    ]
    return rest | {"series": [s.summary for s in found.series], "head": costs}


def _show(found: Report) -> None:
    provider = found.data["provider"]
    say(f"{found.model_name} on {tables.device(found)}")
    say(f"{provider['name']}, {provider['library']}; measured {_measured(found)}")
    say(f"this run is {'stable' if found.stable else 'NOT stable'}")
    for line in tables.verdict(found):
        say(f"  {line}")
    _percentiles(found)
    for cost in head_costs(found):
        say(f"the head at batch {cost.batch}: {cost.text}")
    for made in (tables.stages(found), tables.load(found), tables.layers(found)):
        if made is not None:
            _table(made)
    for title, facts in (
        ("MLPerf Inference, single stream", tables.mlperf(found)),
        ("cold start", tables.cold_start(found)),
        ("memory", tables.memory(found)),
        ("energy", tables.energy(found)),
    ):
        if facts:
            parts = (
                text if name == "what" else f"{name} {text}" for name, text in facts.items()
            )
            say(f"{title}: {'; '.join(parts)}")


def _percentiles(found: Report) -> None:
    """Show latency as `bench` does: a column a series, with intervals where there is room."""
    whole = [series for series in found.series if series.whole]
    for batch in dict.fromkeys(series.batch for series in whole):
        of = [series for series in whole if series.batch == batch]
        while of:
            groups = [of[:size] for size in range(_MOST_SERIES, 0, -1)]
            some = next(
                (g for g in groups if _fits(tables.by_series(g, bounds=False))), of[:1]
            )
            of = of[len(some) :]
            bounded = tables.by_series(some, bounds=True)
            _table(bounded if _fits(bounded) else tables.by_series(some, bounds=False))


def _measured(found: Report) -> str:
    facts = tables.method(found)
    names = ("measured", "label", "commit")
    return ", ".join(facts[name] for name in names if name in facts)


def _show_comparison(found: Comparison) -> None:
    for line in found.warnings:
        note(f"WARNING: {line}")
    for line in found.measured:
        say(line)
    for pair in found.pairs:
        say(f"{pair.title}: {pair.words}")
    _table(found.pairs_table(narrow=True))
    if found.advice:
        note(f"note: {found.advice}")
    for title, sides in found.alone:
        say(f"in {', '.join(sides)} only: {title}")
    if found.facts:
        _table(found.facts_table)
    else:
        say("the reports know of nothing that differs between the runs")


def _table(shown: tables.Table) -> None:
    """Show a table; where its figures would be broken in pieces, a line a row instead."""
    if _fits(shown):
        table(shown.title, list(shown.columns), [list(row) for row in shown.rows])
        return
    say(shown.title)
    for first, *cells in shown.rows:
        named = zip(shown.columns[1:], cells, strict=True)
        say(f"  {first}: {'; '.join(f'{name} {cell}' for name, cell in named)}")


def _fits(shown: tables.Table) -> bool:
    """Say whether the terminal is wide enough for figures in one piece; words are wrapped."""
    from rich.console import Console

    needed = 1
    for number, column in enumerate(zip(shown.columns, *shown.rows, strict=True)):
        longest = max(map(len, column[1:]), default=0)
        if number < shown.text_columns:
            longest = min(longest, _WRAPPED)
        needed += 3 + max(longest, *(len(word) for word in column[0].split() or [""]))
    return needed <= Console().width


def _share(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,4})?)\s?%", text)
    if match is None:
        raise click.BadParameter(
            f"must be a share such as 5%, got {text!r}", param_hint="--fail-if-slower"
        )
    return float(match[1]) / 100
