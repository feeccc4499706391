# SPDX-License-Identifier: Apache-2.0
"""What a report says, as tables of text and lists of facts, whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_imprint_runtime.files import size_text
from edge_imprint_runtime.reporting.form import PERCENT_KEYS
from edge_imprint_runtime.reporting.schema import Recorded, Report
from edge_imprint_runtime.reporting.words import (
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
    "Table",
    "VERDICT",
    "by_series",
    "cold_start",
    "device",
    "energy",
    "headline",
    "layers",
    "load",
    "inspected",
    "machine",
    "main_series",
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

_INSPECTOR = "inspector"  # of an engine
_INSPECTED_LAYERS = 200
_INSPECTED_LENGTH = 120  # characters of a cell


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


def headline(report: Report) -> Facts:
    """Return the figures that stand first: of what the run is about, and the verdict."""
    main = main_series(report)
    first = main.summary
    return {
        f"p50, {main.title}": ms_text(first["p50_ms"]),
        "p99": ms_text(first["p99_ms"]),
        "images a second": figure(first["throughput_images_per_s"]),
        VERDICT: "stable" if report.stable else "NOT stable",
    }


def main_series(report: Report) -> Recorded:
    """Return what the run is about: the first load that was offered, or else its first series.

    Where a load is offered, the calls without one are there to know what a device can do.
    """
    offered = (s for s in report.series if s.whole and s.summary["offered_per_s"] is not None)
    return next(offered, report.series[0])


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


def percentiles(report: Report) -> Table:
    """Return latency and throughput of all whole calls, a row a series."""
    names = tuple(key.replace("_", ".") for key in PERCENT_KEYS)
    rows = []
    for series in report.series:
        s = series.summary
        if series.whole:
            figures = [_with_bounds(s, key) for key in PERCENT_KEYS]
            rate = figure(s["throughput_images_per_s"])
            rows.append(
                (series.title, count(s["iterations"]), *figures, figure(s["max_ms"]), rate)
            )
    columns = ("latency in ms", "samples", *names, "max", "images/s")
    return Table("Percentiles", columns, tuple(rows))


def by_series(series: Sequence[Recorded], *, bounds: bool) -> Table:
    """Return latency and throughput, a column a series, as a terminal has room for it.

    Args:
        series: Some series.
        bounds: Whether the percentiles carry their intervals.
    """
    said = [one.summary for one in series]
    rows = [
        (
            key.replace("_", "."),
            *(_with_bounds(s, key) if bounds else figure(s[f"{key}_ms"]) for s in said),
        )
        for key in PERCENT_KEYS
    ]
    rows += [(name, *(figure(s[f"{name}_ms"]) for s in said)) for name in ("max", "mean")]
    rows.append(("images/s", *(figure(s["throughput_images_per_s"]) for s in said)))
    rows.append(("samples", *(count(s["iterations"]) for s in said)))
    return Table("Latency in ms", ("", *(one.title for one in series)), tuple(rows))


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
        last = "-" if whole is None else figure(whole["p50_ms"])
        rows.append((f"{call[0]}, batch {call[1]}", *medians, last))
    columns = ("median in ms", *(n.replace("_", " ") for n in names), "whole call")
    if all(row[-1] == "-" for row in rows):  # callers at once: no call was alone
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("Stages of a call", columns, tuple(rows))


def stage_names(report: Report) -> tuple[str, ...]:
    """Return the stages that were measured, in the order in which they happen."""
    found = {s.summary["stage"] for s in report.series if not s.whole}
    return (*(n for n in _STAGES if n in found), *sorted(found - set(_STAGES)))


def _call(series: Recorded) -> tuple[str, int, int]:
    return (series.name, series.batch, int(series.summary["concurrency"]))


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
    """Return memory of the process in words, what is unknown left out."""
    m = report.data["memory"]
    names = {
        "before opening the model": m["rss_before_bytes"],
        "after opening it": m["rss_open_bytes"],
        "at most": m["rss_peak_bytes"],
        "memory of the device": m["device_bytes"],
    }
    known = {name: size_text(size) for name, size in names.items() if size is not None}
    if m["rss_peak_bytes"] is not None:
        known["counted in"] = "callers, sensors and the bench itself, on top of the model"
    return known


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
        "file": f"{m['file']}, {size_text(m['bytes'])}",
        "sha256": m["sha256"],
        **{k: m[k] for k in ("backbone", "precision", "input", "target", "classes")},
        "slots for proxies": m["slots"],
        "embedding size": m["embedding_size"],
    }
    engine = (report.data["engine"] or {}).items()
    return _texts(known) | _texts({f"engine: {k}": v for k, v in engine if k != _INSPECTOR})


def inspected(report: Report) -> Table | None:
    """Return the layers of the engine as TensorRT's inspector tells them, the first of them.

    Layers are objects with TensorRT's own keys, or names alone, by how the engine was built;
    what else stands there is left out. None where there are none.
    """
    said = (report.data["engine"] or {}).get(_INSPECTOR)
    layers = [x for x in said if isinstance(x, dict | str)] if isinstance(said, list) else []
    if not layers:
        return None
    rows = tuple(_inspected(layer) for layer in layers[:_INSPECTED_LAYERS])
    left = len(layers) - len(rows)
    title = f"Layers of the engine{f', {count(left)} more left out' if left else ''}"
    used = [n for n in range(4) if n == 0 or any(row[n] != "-" for row in rows)]
    columns = [("layer", "kind", "precision", "tactic")[n] for n in used]
    cells = tuple(tuple(row[n] for n in used) for row in rows)
    return Table(title, tuple(columns), cells, len(columns))


def _inspected(layer: dict[str, Any] | str) -> tuple[str, str, str, str]:
    """Return name, kind, precision and tactic of a layer, "-" for what is not told."""
    if isinstance(layer, str):
        return (_cut(layer), "-", "-", "-")
    told = {key.lower().replace("_", ""): value for key, value in layer.items()}
    outputs = told.get("outputs")
    first = outputs[0] if isinstance(outputs, list) and outputs else None
    form = first.get("Format/Datatype") if isinstance(first, dict) else None
    found = (
        told.get("name"),
        told.get("layertype") or told.get("kind") or told.get("type"),
        told.get("precision") or form,
        told.get("tacticname") or told.get("tactic") or told.get("tacticvalue"),
    )
    name, kind, precision, tactic = ("-" if x in (None, "") else _cut(str(x)) for x in found)
    return name, kind, precision, tactic


def _cut(text: str) -> str:
    return text if len(text) <= _INSPECTED_LENGTH else f"{text[: _INSPECTED_LENGTH - 3]}..."


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
