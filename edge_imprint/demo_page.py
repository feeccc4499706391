# SPDX-License-Identifier: Apache-2.0
"""The demonstration's report as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["render"]

_SHOWN_RIGHT = 30
_SHOWN_WRONG = 20


def render(result: dict[str, Any], answers: Sequence[dict[str, Any]]) -> str:
    """Make the page.

    Args:
        result: What ``report.json`` holds.
        answers: One a held-out photo: path, truth, label, score, right.

    Returns:
        A whole HTML document.
    """
    series = result["latency"]["series"]
    fused = next(s for s in series if s["name"] == "fused")
    size_mb = result["model"]["size_bytes"] / 1e6
    checked = result["verification"]
    imprint_s = next(
        row["fit_s"] for row in result["comparison"] if row["method"].startswith("k-means")
    )
    return report.page(
        "edge-imprint: a classifier without training",
        f"{result['photos_imprinted']} photos of real handwritten digits were imprinted on a "
        "small network that has seen only printed letters, fused into one ONNX file, and "
        f"tried on {result['photos_held_out']} photos it had not seen.",
        [
            report.cards(
                {
                    "of held-out photos right (the fused file)": _percent(
                        result["model"]["accuracy"]
                    ),
                    "to make the proxies, no gradient": f"{imprint_s:.2f} s",
                    "a photo at the median, on this CPU": f"{fused['p50_ms']:.2f} ms",
                    "in one self-contained file": f"{size_mb:.1f} MB",
                }
            ),
            _comparison(result),
            report.section(
                "Why several proxies a class",
                "A class that holds several kinds of thing is no single point: its mean lies "
                "between them. Accuracy on held-out photos by k, the number of proxies.",
                report.chart(
                    lambda axes: _draw_by_k(axes, result["accuracy_by_k"]),
                    lambda axes: _draw_methods(axes, result["comparison"]),
                ),
            ),
            _photos(answers),
            _unknown(result["unknown"]),
            report.section(
                "Latency",
                f"{series[0]['iterations']} samples each, taken in turns after a warm-up, "
                f"batch 1, {result['latency']['provider']['name']}. A percentile is a sample "
                "seen.",
                _latency_table(series),
                report.chart(
                    lambda axes: _draw_latency(axes, series),
                    lambda axes: _draw_over_time(axes, series),
                ),
            ),
            report.section(
                "Verified",
                "The fused file against the oracle (plain numpy on the bare backbone's "
                "embeddings; no shared code).",
                report.facts(
                    {
                        "photos": checked["images"],
                        "labels that agree": f"{checked['agreement']:.2%}",
                        "ties": checked["ties"],
                        "largest score difference": f"{checked['max_difference']:.2g} "
                        f"(allowed {checked['tolerance']:.0e})",
                        "recipe": result["model"]["recipe"],
                    }
                ),
            ),
            report.section(
                "Measured on",
                "Figures depend on the machine; these are its facts.",
                report.facts(_readable(result["latency"]["machine"])),
            ),
        ],
    )


def _comparison(result: dict[str, Any]) -> str:
    rows = [
        [row["task"], row["method"], _percent(row["accuracy"]), f"{row['fit_s']:.3f} s"]
        for row in result["comparison"]
    ]
    best = [i for i, row in enumerate(rows) if row[1].startswith("k-means")]
    return report.section(
        "Three tasks, four ways",
        "Accuracy on held-out photos and seconds to make the classifier, on the same "
        "embeddings. Odd / even and mod 3 have classes of several modes. Logistic regression "
        "is trained on all classes at once; the others take no gradient step.",
        report.table(
            ["task", "method", "accuracy", "time to make"], rows, text_columns=2, best=best
        ),
    )


def _photos(answers: Sequence[dict[str, Any]]) -> str:
    wrong = [answer for answer in answers if not answer["right"]][:_SHOWN_WRONG]
    right = [answer for answer in answers if answer["right"]]
    spread = right[:: max(1, len(right) // _SHOWN_RIGHT)][:_SHOWN_RIGHT]
    shown = spread + wrong
    return report.section(
        "What it says of photos it has not seen",
        f"{len(spread)} of the right answers and {len(wrong)} of the wrong ones (red: answer, "
        "then truth).",
        report.gallery(
            [_as_seen(answer["path"]) for answer in shown],
            [
                answer["label"]
                if answer["right"]
                else f"{answer['label']}, is {answer['truth']}"
                for answer in shown
            ],
            [not answer["right"] for answer in shown],
        ),
    )


def _unknown(unknown: dict[str, Any]) -> str:
    seen = unknown["imprinted"]
    shares = {
        f"photos of 0 to {seen - 1} called unknown": _percent(unknown["false_alarm"]),
        f"photos of {seen} and 9 called unknown": _percent(unknown["detected"]),
        "known from unknown, AUROC (1: perfect, 0.5: chance)": f"{unknown['auroc']:.3f}",
        "right, of the photos it answers": _percent(unknown["accuracy_where_known"]),
    }
    return report.section(
        "Knowing what it does not know",
        f"Only the digits 0 to {seen - 1} imprinted, calibrated on held-out photos of these "
        f"to call at most 5 % of them unknown; then shown {unknown['photos_of_known']} new "
        f"photos of them, and {unknown['photos_of_unknown']} of {seen} and 9, which it has "
        "never seen.",
        report.table(["what", "figure"], [list(pair) for pair in shares.items()]),
        report.chart(
            lambda axes: _draw_unknown(axes, unknown), lambda axes: _draw_roc(axes, unknown)
        ),
    )


def _draw_unknown(axes: Axes, unknown: dict[str, Any]) -> None:
    seen = unknown["imprinted"]
    known, new = (np.array(unknown[f"margin_of_{kind}"]) for kind in ("known", "unknown"))
    bins = np.linspace(min(known.min(), new.min()), max(known.max(), new.max()), 40)
    axes.hist(known, list(bins), color=report.COLORS[0], alpha=0.7, label=f"0 to {seen - 1}")
    axes.hist(new, list(bins), color=report.COLORS[1], alpha=0.7, label=f"{seen} and 9")
    axes.axvline(0, color="#0f172a", linestyle="--", linewidth=1)
    axes.set(xlabel="similarity above the class's threshold", ylabel="photos")
    axes.legend(frameon=False)


def _draw_roc(axes: Axes, unknown: dict[str, Any]) -> None:
    known, new = (np.sort(unknown[f"margin_of_{kind}"]) for kind in ("known", "unknown"))
    at = np.sort(np.concatenate([known, new]))
    alarm = np.searchsorted(known, at) / len(known)
    found = np.searchsorted(new, at) / len(new)
    axes.plot(100 * alarm, 100 * found, color=report.COLORS[0])
    axes.plot(
        100 * unknown["false_alarm"], 100 * unknown["detected"], "o", color=report.COLORS[4]
    )
    axes.annotate(
        "the calibrated threshold",
        (100 * unknown["false_alarm"], 100 * unknown["detected"]),
        textcoords="offset points",
        xytext=(10, -14),
    )
    axes.set(xlabel="false alarms, % of known photos", ylabel="found, % of unknown photos")


def _latency_table(series: Sequence[dict[str, Any]]) -> str:
    keys = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "mean_ms")
    rows = [
        [s["name"], *(f"{s[key]:.3f}" for key in keys), f"{s['throughput_images_per_s']:.0f}"]
        for s in series
    ]
    return report.table(["ms", "p50", "p90", "p99", "max", "mean", "images/s"], rows)


def _draw_by_k(axes: Axes, by_k: dict[str, dict[int, float]]) -> None:
    for color, (task, values) in zip(report.COLORS, by_k.items(), strict=False):
        ks = range(len(values))
        axes.plot(ks, [100 * v for v in values.values()], "o-", color=color, label=task)
        axes.set_xticks(ks, [str(k) for k in values])
    axes.set(xlabel="k, proxies a class", ylabel="accuracy, %")
    axes.legend(frameon=False, loc="lower right")


def _draw_methods(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = 0.8 / len(methods)
    # The mean first and grey, as what the others are held against.
    colors = dict(
        zip(methods, (report.COLORS[2], *report.COLORS[:2], *report.COLORS[3:]), strict=False)
    )
    for number, method in enumerate(methods):
        values = [100 * row["accuracy"] for row in rows if row["method"] == method]
        places = [i + (number - (len(methods) - 1) / 2) * width for i in range(len(tasks))]
        bars = axes.bar(places, values, width * 0.92, color=colors[method], label=method)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=8, padding=1)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set(ylabel="accuracy, %", ylim=(0, 116), yticks=range(0, 101, 20))
    axes.legend(frameon=False, loc="upper center", ncols=len(methods), fontsize=8.5)


def _draw_latency(axes: Axes, series: Sequence[dict[str, Any]]) -> None:
    samples = [np.array(s["samples_ns"]) / 1e6 for s in series]
    # The tail would squeeze all else into one bar; it is in the table.
    top = max(float(np.percentile(values, 99)) for values in samples)
    low = min(float(values.min()) for values in samples)
    bins = np.linspace(low, top, 60)
    for s, values, color in zip(series, samples, report.COLORS, strict=False):
        axes.hist(values, bins=list(bins), color=color, alpha=0.6, label=s["name"])
        axes.axvline(s["p50_ms"], color=color, linestyle="--", linewidth=1)
    axes.set(xlabel="ms a photo (up to p99; dashed: median)", ylabel="samples")
    axes.legend(frameon=False)


def _draw_over_time(axes: Axes, series: Sequence[dict[str, Any]]) -> None:
    for s, color in zip(series, report.COLORS, strict=False):
        values = np.array(s["samples_ns"]) / 1e6
        axes.plot(values, ".", markersize=2.5, color=color, alpha=0.6, label=s["name"])
    axes.set(xlabel="sample, in the order taken", ylabel="ms a photo", yscale="log")
    axes.legend(frameon=False, loc="upper right", markerscale=4)


def _as_seen(path: str) -> npt.NDArray[np.uint8]:
    """Enlarge an 8 x 8 photo as the network's preprocessing does."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))


def _readable(machine: dict[str, Any]) -> dict[str, Any]:
    shown = dict(machine)
    memory = shown.pop("memory_bytes", None)
    if memory is not None:
        shown["memory"] = f"{memory / 2**30:.1f} GiB"
    return {name.replace("_", " "): value for name, value in shown.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
