# SPDX-License-Identifier: Apache-2.0
"""A measurement as a page that opens offline, on a phone, and on paper."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_imprint import bench_charts, report, sensor_charts
from edge_imprint_runtime.reporting import tables
from edge_imprint_runtime.reporting.form import PERCENT_KEYS
from edge_imprint_runtime.reporting.head_cost import HeadCost, head_costs
from edge_imprint_runtime.reporting.schema import Recorded, Report
from edge_imprint_runtime.reporting.words import figure, interval, when

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NO_CHARTS", "percentile_part", "render", "table_part"]

NO_CHARTS = (
    "Charts are left out: the package matplotlib, which draws them, was not installed where "
    "this page was made (pip install 'edge-imprint[demo]')."
)

_MOST_BATCHES = 4  # each of which has a chart over time
_SHOWN_LAYERS = 12

Draw = Callable[["Figure"], None]


def render(found: Report) -> str:
    """Make the page.

    Args:
        found: The report.

    Returns:
        A whole HTML document that loads nothing from elsewhere; without charts, and with a
        sentence that says so, where the package that draws them is missing.
    """
    draws = report.can_draw()
    costs = head_costs(found)
    figures = tables.headline(found)
    kinds = {tables.VERDICT: "good" if found.stable else "bad"}
    if costs:
        name = f"the head's cost at the median, batch {costs[0].batch}"
        if costs[0].doubt:
            name = f"{name}: NOT reliable"
            kinds[name] = "bad"
        figures[name] = costs[0].short
    provider = found.data["provider"]
    labels = [found.data["label"], when(found.data["created_unix_s"])]
    parts = [
        report.cards(figures, kinds=kinds),
        "" if draws else report.words(NO_CHARTS),
        _verdict(found),
        _latency(found, draws),
        _batches(found, draws),
        _head(costs),
        _stages(found, draws),
        _load(found, draws),
        _mlperf(found),
        _start_memory_energy(found),
        _layers(found, draws),
        _sensors(found, draws),
        _environment(found),
        _method(found),
    ]
    return report.page(
        f"Latency of {found.model_name}",
        f"{provider['name']} ({provider['library']}) on {tables.device(found)}. "
        f"{', '.join(text for text in labels if text)}.",
        parts,
    )


def percentile_part(series: Sequence[Recorded]) -> str:
    """Show percentiles, each with its interval below it."""
    names = [key.replace("_", ".") for key in PERCENT_KEYS]
    rows: list[list[report.Cell]] = []
    for one in series:
        s = one.summary
        row: list[report.Cell] = [(one.title, f"{s['iterations']:,} samples")]
        for key in PERCENT_KEYS:
            bounds = s["intervals_ms"][key]
            row.append((figure(s[f"{key}_ms"]), "" if bounds is None else interval(bounds)))
        rows.append([*row, figure(s["max_ms"]), figure(s["throughput_images_per_s"])])
    columns = ["latency in ms", *names, "max", "images/s"]
    return report.table(columns, rows, caption="Percentiles", stack=True)


def table_part(table: tables.Table, *, stack: bool = True) -> str:
    """Show a table."""
    return report.table(
        table.columns,
        table.rows,
        text_columns=table.text_columns,
        caption=table.title,
        stack=stack,
    )


def _verdict(found: Report) -> str:
    lines = [f"{line}." for line in tables.verdict(found)]
    if found.stable:
        text = "Nothing that moved while it ran makes its figures doubtful."
    else:
        text = (
            "Something moved while it ran: its figures are not to be held against others. "
            "Mend what is named here and measure again."
        )
    title = (
        "The run found itself stable" if found.stable else "The run found itself NOT stable"
    )
    return report.verdict(
        title, text, report.listing(lines) if lines else "", good=found.stable
    )


def _closed(found: Report) -> list[Recorded]:
    """Return the whole calls of which each waited for the one before."""
    return [s for s in found.series if s.whole and s.summary["offered_per_s"] is None]


def _latency(found: Report, draws: bool) -> str:
    method = found.data["method"]
    charts = ""
    if draws:
        closed = _closed(found) or [s for s in found.series if s.whole] or list(found.series)
        lines = [(s.title, s.samples_ns) for s in closed]
        made: list[tuple[str, str, Draw]] = [
            (
                "How many calls took at most so long, the slowest 0.5 % left out",
                f"Distribution of latency, {len(lines)} series; figures are in the table.",
                functools.partial(bench_charts.ecdf, lines=lines),
            ),
            (
                "Latency by percentile, the tail stretched",
                f"Tail of latency of {len(lines)} series; its figures are in the table.",
                functools.partial(bench_charts.tail, lines=lines),
            ),
        ]
        for batch in sorted({s.batch for s in closed})[:_MOST_BATCHES]:
            of = [s for s in closed if s.batch == batch]
            made.append(
                (
                    f"Over time, batch {batch} (grey: the warm-up)",
                    f"Latency over time at batch {batch}.",
                    functools.partial(
                        bench_charts.over_time, series=of, marks=_marks(found, of)
                    ),
                )
            )
        charts = report.drawings(*made)
    return report.section(
        "Latency",
        "Milliseconds a call, as the caller waits for it. A percentile is a sample that was "
        f"seen; below it stands its {100 * method['confidence']:g} % interval, where the "
        "samples are enough for one.",
        percentile_part([s for s in found.series if s.whole]),
        charts,
        long=True,
    )


def _marks(found: Report, series: Sequence[Recorded]) -> dict[str, list[str]]:
    """Return the codes of severe findings by the title of the series they are about."""
    severe = [f for f in found.data["verdict"]["findings"] if f["severe"]]
    return {
        s.title: [
            f["code"]
            for f in severe
            # A finding names its series; its text may say that it is of one batch only.
            if f["series"] in (s.name, s.title)
            and (
                "(batch " not in f["text"]
                or f"(batch {s.batch})" in f["text"]
                or f"(batch {s.batch}, " in f["text"]  # and how many callers
            )
        ]
        for s in series
    }


def _batches(found: Report, draws: bool) -> str:
    closed = _closed(found)
    if not draws or len({s.batch for s in closed}) < 2:
        return ""
    return report.section(
        "By batch",
        "What a larger batch gains in images a second, and what an image then takes.",
        report.drawings(
            (
                "Time of one image",
                "Milliseconds an image by batch; the percentiles are in the table above.",
                functools.partial(bench_charts.by_batch, series=closed),
            ),
            (
                "Throughput",
                "Images a second by batch; its figures are in the table above.",
                functools.partial(bench_charts.throughput, series=closed),
            ),
        ),
    )


def _head(costs: tuple[HeadCost, ...]) -> str:
    if not costs:
        return ""
    rows: list[list[report.Cell]] = [
        [
            f"batch {cost.batch}",
            figure(cost.bare_ms),
            figure(cost.bare_ms + cost.ms),
            (cost.short.removesuffix(" ms"), cost.bounds_text),
            cost.share_text,
            ("yes" if cost.shown else "no", "NOT reliable" if cost.doubt else ""),
        ]
        for cost in costs
    ]
    doubts = [f"Batch {c.batch} is NOT reliable: {c.doubt}." for c in costs if c.doubt]
    columns = [
        "batch",
        "backbone only, ms",
        "fused, ms",
        "the head, ms",
        "share",
        "told apart",
    ]
    return report.section(
        "What the head costs",
        "The model and its backbone alone, measured in turns within this run; the "
        "difference of the medians, and its 95 % interval.",
        report.listing(doubts) if doubts else "",
        report.table(columns, rows, caption="Fused minus backbone only", stack=True),
    )


def _stages(found: Report, draws: bool) -> str:
    table = tables.stages(found)
    if table is None:
        return ""
    chart = ""
    if draws and len(tables.stage_names(found)) > 1:
        calls = {(s.name, s.batch) for s in found.series if not s.whole}
        chart = report.drawings(
            (
                "The medians, end to end",
                "Medians of the stages of a call; the figures are in the table.",
                functools.partial(bench_charts.by_stage, found=found),
            ),
            height=min(6.0, 1.8 + 0.5 * len(calls)),
        )
    return report.section(
        "Stages",
        "Copying in, computing, copying out. They are measured apart from the whole calls, "
        "and medians do not add up exactly.",
        chart,
        table_part(table),
    )


def _load(found: Report, draws: bool) -> str:
    table = tables.load(found)
    if table is None:
        return ""
    lines = [
        (s.title, s.samples_ns)
        for s in found.series
        if s.whole and s.summary["offered_per_s"] is not None
    ]
    chart = ""
    if draws:
        chart = report.drawings(
            (
                "How many calls were answered within so long",
                "Distribution of latency under load; its figures are in the table.",
                functools.partial(bench_charts.ecdf, lines=lines),
            )
        )
    return report.section(
        "Under load",
        "Calls that arrive at random (Poisson) at a stated rate; latency counts from when a "
        "call was due, so time in the queue is part of it.",
        table_part(table),
        chart,
    )


def _mlperf(found: Report) -> str:
    facts = tables.mlperf(found)
    if not facts:
        return ""
    return report.section(
        "MLPerf Inference, single stream",
        "An estimate by MLPerf Inference's rules of early stopping. It is no MLPerf result: "
        "those are submitted and reviewed.",
        report.facts(facts),
    )


def _start_memory_energy(found: Report) -> str:
    blocks = (
        ("Cold start", "In fresh processes, one after the other.", tables.cold_start(found)),
        ("Memory", "Resident, of the process that measured.", tables.memory(found)),
        ("Energy", "Mean power while it ran, by images answered.", tables.energy(found)),
    )
    shown = [block for block in blocks if block[2]]
    return report.beside(
        *(report.section(title, text, report.facts(facts)) for title, text, facts in shown)
    )


def _layers(found: Report, draws: bool) -> str:
    table = tables.layers(found)
    if table is None:
        return ""
    chart = ""
    if draws:
        rows = found.data["layers"][:_SHOWN_LAYERS]
        chart = report.drawings(
            (
                "The most expensive first",
                "Mean time of layers; the figures are in the table.",
                functools.partial(bench_charts.layers, rows=rows),
            )
        )
    return report.section(
        "Layers",
        f"{len(found.data['layers'])} layers were timed one by one, which makes each a little "
        "slower than it is within a whole call.",
        chart,
        table_part(table, stack=False),
    )


def _sensors(found: Report, draws: bool) -> str:
    sensors = found.data["sensors"]
    if sensors is None:
        return ""
    times = np.array(sensors["times_s"], np.float64)
    readings = {
        name: np.array(values, np.float64) for name, values in sensors["readings"].items()
    }
    held = sensor_charts.throttled(readings)
    lost = [f"{source} fell silent: {why}." for source, why in sensors["lost"].items()]
    rows = [
        [label, name, *(figure(x) for x in (np.nanmin(v), np.nanmedian(v), np.nanmax(v)))]
        for label, lines in sensor_charts.groups(times, readings).items()
        for name, v in lines.items()
        if not np.isnan(v).all()
    ]
    return report.section(
        "Sensors",
        f"Read every {sensors['interval_s']:g} s by a thread of its own.",
        sensor_charts.render(times, readings) if draws else "",
        report.words(f"Clocks were held down: {', '.join(held)}.") if held else "",
        report.listing(lost) if lost else "",
        report.table(
            ["quantity", "reading", "least", "median", "most"],
            rows,
            text_columns=2,
            caption="All readings",
        ),
        long=True,
    )


def _environment(found: Report) -> str:
    strays = found.data["provider"]["strays"]
    inside = tables.inspected(found)
    return report.section(
        "Environment",
        "Figures depend on all of this.",
        report.facts(tables.model(found), "Model"),
        report.facts(tables.provider(found), "Run by"),
        report.facts(tables.machine(found), "Machine"),
        report.words(f"{len(strays)} nodes ran elsewhere than asked.") if strays else "",
        "" if inside is None else report.folded(inside.title, table_part(inside, stack=False)),
        long=True,
    )


def _method(found: Report) -> str:
    samples = sum(len(s.samples_ns) for s in found.series)
    return report.section(
        "How it was measured",
        f"All {samples:,} samples in nanoseconds, those of the warm-ups, and every reading of "
        f"the sensors are in {found.path.name} ({found.data['schema']}); curves here are "
        "thinned, the slowest samples are kept.",
        report.facts(tables.method(found)),
        long=True,
    )
