# SPDX-License-Identifier: Apache-2.0
"""The charts of latency: distributions, over time, by batch, by stage, by layer, by run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_imprint import report
from edge_imprint_runtime.reporting.compare import Comparison
from edge_imprint_runtime.reporting.schema import Recorded, Report
from edge_imprint_runtime.reporting.tables import stage_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = [
    "COLORS",
    "STROKES",
    "by_batch",
    "by_stage",
    "ecdf",
    "layers",
    "over_time",
    "plain",
    "ratios",
    "tail",
    "throughput",
]

# Blue, amber, green, red, violet, teal: apart in hue and in lightness, and drawn with
# different strokes, so that they are told apart without colour too.
COLORS = ("#2563eb", "#d97706", "#15803d", "#dc2626", "#7c3aed", "#0891b2")
STROKES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_MOST_LINES = len(COLORS)
_POINTS = 240  # of a curve
_DOTS = 1_200  # of a scatter; above that, a band and the slowest
_SLOWEST = 150
_BUCKETS = 160

Lines = Sequence[tuple[str, npt.NDArray[np.int64]]]  # a name, nanoseconds


def plain(text: str, longest: int = 48) -> str:
    """Return a name as matplotlib shows it as it is: a dollar sign would start a formula."""
    shown = text if len(text) <= longest else f"…{text[1 - longest :]}"
    return shown.replace("$", r"\$")


def ecdf(figure: Figure, lines: Lines) -> None:
    """Draw which share of the samples took at most so long."""
    axes = figure.subplots()
    edges = []
    for (name, samples), color, stroke in zip(lines, COLORS, STROKES, strict=False):
        ordered = np.sort(samples) / 1e6
        ranks = _spread(len(ordered), _POINTS)
        share = 100 * (ranks + 1) / len(ordered)
        axes.step(
            ordered[ranks],
            share,
            where="post",
            color=color,
            ls=stroke,
            lw=1.7,
            label=plain(name),
        )
        edges.append((ordered[0], ordered[int(0.995 * (len(ordered) - 1))]))
    low, high = min(a for a, _ in edges), max(b for _, b in edges)
    # Batches side by side lie far apart; on one linear axis the smallest would be a line.
    if high > 3 * low > 0:
        axes.set(xscale="log")
        axes.set_xlim(low / 1.05, high * 1.05)
        _plain_ticks(axes)
    elif high > low:
        margin = 0.03 * (high - low)
        axes.set_xlim(low - margin, high + margin)
    axes.set(xlabel="ms a call", ylabel="% of the calls", ylim=(0, 101))
    _legend(axes)


def tail(figure: Figure, lines: Lines) -> None:
    """Draw latency by percentile, the tail stretched: each nine has the same width."""
    axes = figure.subplots()
    furthest = 1.0
    for (name, samples), color, stroke in zip(lines, COLORS, STROKES, strict=False):
        ordered = np.sort(samples) / 1e6
        nines = np.linspace(0, np.log10(max(len(ordered), 2)), _POINTS)
        ranks = np.ceil((1 - 10**-nines) * len(ordered)).astype(np.int64).clip(1) - 1
        ranks[-1] = len(ordered) - 1  # the slowest, wherever rounding put it
        axes.plot(nines, ordered[ranks], color=color, ls=stroke, lw=1.7, label=plain(name))
        furthest = max(furthest, float(nines[-1]))
    ticks = {0: "0", np.log10(2): "50", 1: "90", 2: "99", 3: "99.9", 4: "99.99", 5: "99.999"}
    shown = {at: text for at, text in ticks.items() if at <= furthest}
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set(xlabel="percentile", ylabel="ms a call", yscale="log")
    _plain_ticks(axes, y=True)
    _legend(axes)


def over_time(
    figure: Figure, series: Sequence[Recorded], marks: Mapping[str, Sequence[str]]
) -> None:
    """Draw samples over time, with the warm-up apart on the left.

    Args:
        figure: Where.
        series: Of one batch.
        marks: Codes of severe findings, by the title of the series.
    """
    warm, axes = figure.subplots(1, 2, sharey=True, width_ratios=(1, 4))
    known = all(s.starts_ns is not None for s in series)
    for s, color in zip(series, COLORS, strict=False):
        warm_ms = s.warm_up_ns / 1e6
        kept = _spread(len(warm_ms), 200)
        warm.plot(kept, warm_ms[kept], ".", ms=2, color=color, alpha=0.7, rasterized=False)
        ms = s.samples_ns / 1e6
        at = np.arange(len(ms)) if s.starts_ns is None or not known else s.starts_ns / 1e9
        found = marks.get(s.title, ())
        label = s.title + (f" - {', '.join(found)}" if found else "")
        _dots_or_band(axes, at, ms, color, plain(label, 60))
    axes.set(xlabel="seconds into the run" if known else "sample, in the order taken")
    warm.set(xlabel="warm-up", ylabel="ms a call", yscale="log")
    _plain_ticks(warm, y=True)
    warm.set_facecolor("#f1f5f9")
    for text, s in zip(_legend(axes), series, strict=False):
        if marks.get(s.title):
            text.set_color("#b91c1c")


def by_batch(figure: Figure, series: Sequence[Recorded]) -> None:
    """Draw the time of one image by batch: median, with p99 above it."""
    axes = figure.subplots()
    for name, color, stroke, points in _batches(series):
        place = [at for at, _ in points]
        p50 = [s.summary["p50_ms"] / s.batch for _, s in points]
        p99 = [s.summary["p99_ms"] / s.batch for _, s in points]
        axes.plot(place, p50, "o", color=color, ls=stroke, label=f"{plain(name)}, p50")
        axes.plot(place, p99, "^", color=color, ls=":", alpha=0.6, label=f"{plain(name)}, p99")
    _batch_axis(axes, series)
    axes.set(ylabel="ms an image", ylim=(0, None))
    _legend(axes)


def throughput(figure: Figure, series: Sequence[Recorded]) -> None:
    """Draw images a second by batch."""
    axes = figure.subplots()
    for name, color, stroke, points in _batches(series):
        rates = [s.summary["throughput_images_per_s"] for _, s in points]
        axes.plot(
            [at for at, _ in points], rates, "o", color=color, ls=stroke, label=plain(name)
        )
    _batch_axis(axes, series)
    axes.set(ylabel="images a second", ylim=(0, None))
    _legend(axes)


def by_stage(figure: Figure, found: Report) -> None:
    """Draw the medians of the stages of each call end to end."""
    axes = figure.subplots()
    stages = [name for name in stage_names(found) if not name.endswith("_gpu")]
    calls = list(dict.fromkeys((s.name, s.batch) for s in found.series if not s.whole))
    place = np.arange(len(calls))[::-1]
    left = np.zeros(len(calls))
    for stage, color in zip(stages, COLORS, strict=False):
        value = {
            (s.name, s.batch): s.summary["p50_ms"]
            for s in found.series
            if s.summary["stage"] == stage
        }
        widths = np.array([value.get(call, 0.0) for call in calls])
        axes.barh(place, widths, 0.6, left=left, color=color, label=stage.replace("_", " "))
        left += widths
    axes.set_yticks(place, [f"{plain(name, 18)}\nbatch {batch}" for name, batch in calls])
    axes.set(xlabel="ms, the medians of the stages", ylim=(-0.7, len(calls) - 0.3))
    _legend(axes, 3)


def layers(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the layers that take longest."""
    axes = figure.subplots()
    place = np.arange(len(rows))[::-1]
    axes.barh(place, [row["mean_ms"] for row in rows], color=report.COLORS[0])
    axes.set_yticks(place, [plain(row["name"], 30) for row in rows], fontsize=7.5)
    axes.set(xlabel="ms, mean of a call")
    axes.grid(visible=False, axis="y")


def ratios(figure: Figure, comparison: Comparison) -> None:
    """Draw the ratio of the medians of each series with its interval."""
    axes = figure.subplots()
    pairs = comparison.pairs[:24]
    place = np.arange(len(pairs))[::-1]
    several = len(comparison.sides) > 2
    for at, pair in zip(place, pairs, strict=True):
        found = pair.difference
        color = report.COLORS[2]
        shown = found.significant and pair.stable
        if shown:
            color = "#b91c1c" if found.ratio > 1 else "#15803d"
        marker = "o" if not shown else (">" if found.ratio > 1 else "<")
        axes.plot(found.interval, (at, at), color=color, lw=2.2, solid_capstyle="butt")
        axes.plot(found.ratio, at, marker, color=color, ms=6)
    axes.axvline(1, color="#0f172a", lw=1, ls="--")
    names = [f"{pair.title}\n{pair.other}" if several else pair.title for pair in pairs]
    axes.set_yticks(place, [plain(name, 44) for name in names], fontsize=8)
    axes.set(xlabel=f"ratio of medians over {plain(comparison.sides[0].title)}: < 1 is faster")
    axes.set_ylim(-0.7, len(pairs) - 0.3)
    axes.locator_params(axis="x", nbins=5)


def _legend(axes: Axes, columns: int = 2) -> list[Text]:
    """Name the lines above the chart, where they hide nothing."""
    names = axes.get_legend_handles_labels()[1]
    fits = columns if max(map(len, names), default=0) < 34 else 1
    legend = axes.legend(
        frameon=False,
        fontsize=8.5,
        ncols=fits,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        borderpad=0,
        markerscale=1.5,
    )
    return legend.get_texts()


def _dots_or_band(
    axes: Axes,
    at: npt.NDArray[np.generic],
    ms: npt.NDArray[np.float64],
    color: str,
    label: str,
) -> None:
    """Draw each sample; of too many, the median and 5 to 95 % by bucket, and the slowest."""
    if len(ms) <= _DOTS:
        axes.plot(at, ms, ".", ms=2.2, color=color, alpha=0.6, label=label)
        return
    edges = np.linspace(0, len(ms), _BUCKETS + 1).astype(np.int64)
    pairs = list(itertools.pairwise(edges.tolist()))
    parts = [ms[a:b] for a, b in pairs]
    low, middle, high = np.array([np.percentile(part, (5, 50, 95)) for part in parts]).T
    centre = np.array([at[(a + b) // 2] for a, b in pairs])
    axes.fill_between(centre, low, high, color=color, alpha=0.18, lw=0)
    axes.plot(centre, middle, color=color, lw=1.4, label=label)
    slow = np.argsort(-ms, kind="stable")[:_SLOWEST]
    axes.plot(at[slow], ms[slow], ".", ms=2.2, color=color, alpha=0.6)


def _batches(
    series: Sequence[Recorded],
) -> list[tuple[str, str, Any, list[tuple[int, Recorded]]]]:
    place = {batch: at for at, batch in enumerate(sorted({s.batch for s in series}))}
    names = list(dict.fromkeys(s.name for s in series))
    return [
        (
            name,
            color,
            stroke,
            sorted(
                ((place[s.batch], s) for s in series if s.name == name), key=lambda p: p[0]
            ),
        )
        for name, color, stroke in zip(names, COLORS, STROKES, strict=False)
    ]


def _batch_axis(axes: Axes, series: Sequence[Recorded]) -> None:
    sizes = sorted({s.batch for s in series})
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(xlabel="batch, images a call")


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many positions, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _plain_ticks(axes: Axes, *, y: bool = False) -> None:
    """Write 0.5, 2, 30 on a logarithmic axis, and not powers of ten."""
    axis = axes.yaxis if y else axes.xaxis
    low, high = axis.get_view_interval()
    ticks = [
        digit * 10.0**power
        for power in range(-5, 7)
        for digit in ((1, 2, 5) if high > 4 * low else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
        if low <= digit * 10.0**power <= high
    ]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
