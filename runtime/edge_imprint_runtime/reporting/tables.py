# SPDX-License-Identifier: Apache-2.0
"""What a report says, as tables of text and lists of facts, whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.reporting.form import PERCENT_KEYS
from edge_imprint_runtime.reporting.schema import Recorded, Report
from edge_imprint_runtime.reporting.words import (
    bytes_text,
    count,
    fact_name,
    fact_text,
    figure,
    interval,
    ms_text,
    percent,
    when,
)

__all__ = [
    "Facts",
    "HeadCost",
    "Table",
    "VERDICT",
    "cold_start",
    "device",
    "energy",
    "head_costs",
    "headline",
    "intervals",
    "layers",
    "load",
    "machine",
    "memory",
    "method",
    "mlperf",
    "model",
    "percentiles",
    "provider",
    "stage_names",
    "stages",
    "verdict",
]

Facts = dict[str, str]
VERDICT = "this run is"

# The parts of a call, in their order; others follow by name.
_STAGES = ("copy_in", "compute", "copy_out")
_SHOWN_LAYERS = 15


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        title: What they are.
        columns: Their headings.
        rows: Their cells.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1


@dataclass(frozen=True)
class HeadCost:
    """What the head adds to its backbone: fused minus backbone only, at the median.

    Attributes:
        batch: Images a call.
        bare_ms: The median of the backbone only, milliseconds.
        ms: Milliseconds a call.
        bounds_ms: The interval of it.
        ratio: Fused over backbone only.
        bounds: The interval of the ratio.
        shown: Whether it is told apart from nothing.
    """

    batch: int
    bare_ms: float
    ms: float
    bounds_ms: tuple[float, float]
    ratio: float
    bounds: tuple[float, float]
    shown: bool

    @property
    def short(self) -> str:
        """Return the milliseconds with their sign and unit."""
        return f"{_signed(self.ms)} ms"

    @property
    def bounds_text(self) -> str:
        """Return the interval of the milliseconds."""
        return " to ".join(_signed(side) for side in self.bounds_ms)

    @property
    def share_text(self) -> str:
        """Return it as a share of the backbone."""
        return percent(self.ratio - 1)

    @property
    def text(self) -> str:
        """Return it as a sentence without its end."""
        costs = f"{self.short} ({self.bounds_text}), {self.share_text} of the backbone"
        return costs if self.shown else f"none shown: {costs}"


def headline(report: Report) -> Facts:
    """Return the figures that stand first: of the first series, and the verdict."""
    first = report.series[0].summary
    return {
        f"p50, {report.series[0].title}": ms_text(first["p50_ms"]),
        "p99": ms_text(first["p99_ms"]),
        "images a second": figure(first["throughput_images_per_s"]),
        VERDICT: "stable" if report.stable else "NOT stable",
    }


def verdict(report: Report) -> tuple[str, ...]:
    """Return the findings as sentences, those that make the run unstable first."""
    findings = sorted(report.data["verdict"]["findings"], key=lambda f: not f["severe"])
    return tuple(
        f"{'NOT stable' if f['severe'] else 'note'}: {f['text'].rstrip('.')} ({f['code']})"
        for f in findings
    )


def device(report: Report) -> str:
    """Return the name of what computes: the GPU, the board, or the processor."""
    facts = report.data["machine"]
    board = facts.get("board") or facts.get("cpu_model") or facts.get("architecture")
    gpu = facts.get("gpu_name")
    return ", ".join(str(part) for part in dict.fromkeys((board, gpu)) if part) or "unknown"


def percentiles(report: Report, *, bounds: bool = True) -> Table:
    """Return latency and throughput of all whole calls.

    Args:
        report: The report.
        bounds: Whether the percentiles carry their intervals.
    """
    keys = tuple(PERCENT_KEYS) if bounds else ("p50", "p90", "p99")
    names = tuple(key.replace("_", ".") for key in keys)
    rows = []
    for series in report.series:
        s = series.summary
        if series.whole:
            figures = [
                _with_bounds(s, key) if bounds else figure(s[f"{key}_ms"]) for key in keys
            ]
            rate = figure(s["throughput_images_per_s"])
            rows.append(
                (series.title, count(s["iterations"]), *figures, figure(s["max_ms"]), rate)
            )
    columns = ("latency in ms", "samples", *names, "max", "images/s")
    return Table("Percentiles", columns, tuple(rows))


def intervals(series: Recorded) -> Facts:
    """Return the intervals of a series' percentiles in ms, by percentile."""
    found = series.summary["intervals_ms"]
    return {key.replace("_", "."): interval(found[key]) for key in PERCENT_KEYS}


def stages(report: Report) -> Table | None:
    """Return the medians of the stages of calls; None where none were measured."""
    of = sorted({_call(s) for s in report.series if not s.whole})
    names = stage_names(report)
    if not of:
        return None
    rows = []
    for call in of:
        found = {
            s.summary["stage"]: s.summary
            for s in report.series
            if _call(s) == call and s.summary["offered_per_s"] is None
        }
        medians = [figure(found[n]["p50_ms"]) if n in found else "-" for n in names]
        whole = found.get("whole")
        name, batch = call[0], call[1]
        last = "-" if whole is None else figure(whole["p50_ms"])
        rows.append((f"{name}, batch {batch}", *medians, last))
    columns = ("median in ms", *(n.replace("_", " ") for n in names), "whole call")
    return Table("Stages of a call", columns, tuple(rows))


def stage_names(report: Report) -> tuple[str, ...]:
    """Return the stages that were measured, in the order in which they happen."""
    found = {s.summary["stage"] for s in report.series if not s.whole}
    return (*(n for n in _STAGES if n in found), *sorted(found - set(_STAGES)))


def _call(series: Recorded) -> tuple[str, int, int]:
    return (series.name, series.batch, int(series.summary["concurrency"]))


def head_costs(report: Report) -> tuple[HeadCost, ...]:
    """Return what the head costs, for each batch at which both series were measured."""
    alone = {s.key[1:]: s for s in report.series if s.name == "backbone only" and s.whole}
    found = []
    for fused in report.series:
        bare = alone.get(fused.key[1:])
        if fused.name != "fused" or bare is None:
            continue
        seen = compare(bare.samples_ns, fused.samples_ns)
        base_ms = bare.summary["p50_ms"]
        low, high = ((side - 1) * base_ms for side in seen.interval)
        ms = fused.summary["p50_ms"] - base_ms
        found.append(
            HeadCost(
                fused.batch,
                base_ms,
                ms,
                (low, high),
                seen.ratio,
                seen.interval,
                seen.significant,
            )
        )
    return tuple(found)


def load(report: Report) -> Table | None:
    """Return latency by offered load; None where none was offered."""
    rows = []
    for series in report.series:
        s = series.summary
        if s["offered_per_s"] is not None and series.whole:
            done = s["throughput_images_per_s"] / series.batch
            times = [figure(s[f"{key}_ms"]) for key in ("p50", "p90", "p99", "max")]
            rate = figure(s["offered_per_s"])
            rows.append((f"{series.name}, batch {series.batch}", rate, figure(done), *times))
    columns = (
        "latency in ms",
        "offered calls/s",
        "answered calls/s",
        "p50",
        "p90",
        "p99",
        "max",
    )
    return Table("Under load", columns, tuple(rows)) if rows else None


def layers(report: Report) -> Table | None:
    """Return the layers that take longest; None where they were not measured."""
    shown = report.data["layers"][:_SHOWN_LAYERS]
    rows = tuple(
        (
            layer["name"],
            layer["kind"],
            figure(layer["mean_ms"]),
            "-" if layer["share"] is None else percent(layer["share"]),
        )
        for layer in shown
    )
    columns = ("layer", "operator", "mean ms", "share")
    return Table("Layers that take longest", columns, rows, 2) if rows else None


def mlperf(report: Report) -> Facts:
    """Return the estimate by MLPerf's rules; empty where none was asked for."""
    m = report.data["mlperf"]
    if m is None:
        return {}
    needed = [] if m["needed_queries"] is None else [f"{count(m['needed_queries'])} queries"]
    if m["needed_duration_s"] is not None:
        needed.append(f"{m['needed_duration_s']:g} s")
    suggested = "-" if m["suggested_queries"] is None else count(m["suggested_queries"])
    valid = "yes" if m["valid"] else f"NO: {m['reason']}" if m["reason"] else "NO"
    return {
        f"p{m['percentile']:g} by early stopping": ms_text(m["estimate_ms"]),
        "confidence": f"{100 * m['confidence']:g} %",
        "queries (q)": count(m["queries"]),
        "may be above it (t)": count(m["over_latency"]),
        "set aside": count(m["discarded"]),
        "duration": f"{m['duration_s']:.1f} s",
        "the rules ask for": " and ".join(needed) or "-",
        "suggested for a tight estimate": f"{suggested} queries",
        "long enough": valid,
    }


def cold_start(report: Report) -> Facts:
    """Return how long the first answer takes; empty where that was not measured."""
    cold = report.data["cold_start"]
    if cold is None:
        return {}
    runs = cold["runs_ms"]
    spread = f"{ms_text(min(runs))} to {ms_text(max(runs))}"
    return {
        "what": cold["what"],
        "median": ms_text(cold["p50_ms"]),
        f"of {count(len(runs))} runs": spread,
    }


def memory(report: Report) -> Facts:
    """Return memory in words, what is unknown left out."""
    m = report.data["memory"]
    names = {
        "before opening the model": m["rss_before_bytes"],
        "after opening it": m["rss_open_bytes"],
        "at most": m["rss_peak_bytes"],
        "memory of the device": m["device_bytes"],
    }
    texts = {name: bytes_text(size) for name, size in names.items()}
    return {name: text for name, text in texts.items() if text is not None}


def energy(report: Report) -> Facts:
    """Return energy an image; empty where no sensor tells it."""
    e = report.data["energy"]
    if e is None:
        return {}
    joules = e["joules_per_image"]
    return {
        "an image": f"{figure(1e3 * joules)} mJ" if joules < 1 else f"{figure(joules)} J",
        "mean power": f"{figure(e['mean_power_w'])} W",
        "read off": e["source"],
        "while": f"{e['series']} ran",
    }


def model(report: Report) -> Facts:
    """Return facts of the model and its engine."""
    m = report.data["model"]
    known = {
        "file": f"{m['file']}, {bytes_text(m['bytes'])}",
        "sha256": m["sha256"],
        **{k: m[k] for k in ("backbone", "precision", "input", "target", "classes")},
        "slots for proxies": m["slots"],
        "embedding size": m["embedding_size"],
    }
    engine = report.data["engine"] or {}
    return _texts(known) | _texts({f"engine: {k}": v for k, v in engine.items()})


def provider(report: Report) -> Facts:
    """Return facts of what ran the model."""
    p = report.data["provider"]
    return _texts(
        {
            "provider": p["name"],
            "backend asked for": p["backend"],
            "library": p["library"],
            "threads": p["threads"] or "the library's choice",
            "nodes": p["nodes"],
            "nodes elsewhere": p["strays"],
        }
    )


def machine(report: Report) -> Facts:
    """Return facts of the machine, what is unknown left out."""
    return _texts(report.data["machine"])


def method(report: Report) -> Facts:
    """Return how it was measured."""
    m = report.data["method"]
    asked = {
        "samples a series, asked for": m["iterations"],
        "seconds asked for": m["duration_s"],
        "warm-up": m["warm_up"],
        "clock": m["clock"],
        "mode": m["mode"],
        "percentiles": f"{m['percentiles']}: a percentile is a sample that was seen",
        "intervals": f"{100 * m['confidence']:g} %, bootstrap of {count(m['resamples'])}",
        "sensors read every": None if m["interval_s"] is None else f"{m['interval_s']:g} s",
        "seed": m["seed"],
        "measured": when(report.data["created_unix_s"]),
        "with": report.data["made_with"],
        "label": report.data["label"],
        "commit": report.data["commit"],
    }
    return _texts(asked)


def _texts(values: Mapping[str, Any]) -> Facts:
    texts = {fact_name(name): fact_text(name, value) for name, value in values.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _with_bounds(summary: Mapping[str, Any], key: str) -> str:
    text, bounds = figure(summary[f"{key}_ms"]), summary["intervals_ms"][key]
    return text if bounds is None else f"{text} ({interval(bounds)})"


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{'-' if value < 0 else '+'}{figure(abs(value))}"
