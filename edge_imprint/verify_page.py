# SPDX-License-Identifier: Apache-2.0
"""A verification as a page that opens offline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edge_imprint import report
from edge_imprint.versions import versions
from edge_imprint_runtime.contract.codec import encode
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.files import size_text
from edge_imprint_runtime.images import open_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edge_imprint_export.proof.result import Way, Whole
    from edge_imprint_runtime.head import Head

__all__ = ["COLUMNS", "cells", "not_run", "pixels_line", "render"]

COLUMNS = ("way", "inputs", "images", "labels", "difference", "from all", "passed")

_SIDE_PIXELS = 78
_SHOWN_PHOTOS = 24
_SHOWN_LAYERS = 15
_FLOOR = 1e-9  # of a logarithmic axis


def render(found: Whole, photos: Sequence[Path], *, model: Path, head: Head) -> str:
    """Make the page.

    Args:
        found: The verification.
        photos: The files that were given to it.
        model: The model's file.
        head: Its head.

    Returns:
        A whole HTML document that loads nothing from elsewhere.
    """
    checked = found.found
    figures = {
        "it is as it must be" if found.passed else "it is not as it must be": (
            "passed" if found.passed else "FAILED"
        ),
        f"of {checked.images} photos labelled as float32 does": f"{checked.agreement:.2%}",
        "largest difference of a score": f"{checked.max_difference:.2g}",
    }
    if found.accuracy is not None and found.accuracy_float32 is not None:
        right = f"of photos with a class right (float32: {found.accuracy_float32:.2%})"
        figures[right] = f"{found.accuracy:.2%}"
    return report.page(
        f"Does {model.name} decide as its head?",
        "The same photos, once by the model file and once by the oracle: the bare float32 "
        "backbone and the head in plain numpy, which share no code with the exporter.",
        [
            report.cards(figures),
            _ways(found),
            _differences(found),
            _layers(found),
            _disagreements(found, photos),
            _facts(found, model, head),
        ],
    )


def cells(way: Way) -> list[str]:
    """Return a row of the table of ways, one text for each of `COLUMNS`."""
    verdict = {True: "yes", False: "NO", None: "not asked"}[way.passed]
    if way.found is None:
        return [
            way.name,
            way.inputs,
            "-",
            "-",
            "-",
            "-",
            "not run" if way.passed is None else "NO",
        ]
    return [
        way.name,
        way.inputs,
        str(way.found.images),
        f"{way.found.agreement:.2%}",
        f"{way.found.max_difference:.2g}",
        f"{way.difference:.2g}",
        verdict,
    ]


def not_run(found: Whole) -> list[str]:
    """Return the ways that could not be run, each once, with its reason."""
    lines = [f"{way.name}: {way.failed.rstrip('.')}" for way in found.ways if way.failed]
    return list(dict.fromkeys(lines))


def _ways(found: Whole) -> str:
    batches = found.batches
    asked = f"Scores may differ by {found.found.tolerance:g}, labels not at all."
    if found.reduced:
        asked = (
            f"{found.min_agreement:.2%} of the labels on photos must be the oracle's; on "
            "random numbers nothing is asked, for they are not what its ranges were read off."
        )
    return report.section(
        "Every way to run it",
        "ONNX Runtime rewrites a graph before it runs it, more at each level; ONNX's own "
        "evaluator says what the operators mean. Labels: how many are the oracle's. "
        "Difference: the largest of a score from the oracle's, and from that of the usual "
        f"way, all. {asked}",
        report.table(COLUMNS, [cells(way) for way in found.ways], text_columns=2),
        *(report.words(f"Not run: {line}.") for line in not_run(found)),
        *(report.words(f"Note: {line}.") for line in found.notes),
        report.words(
            f"{batches.images} photos in batches of 1 to {batches.largest}: "
            f"{batches.agreement:.2%} of labels as alone, scores within "
            f"{batches.max_difference:.2g}: {'as' if batches.passed else 'NOT as'} it must be."
        ),
        report.words(f"{pixels_line(found)}.") if found.pixels is not None else "",
    )


def pixels_line(found: Whole) -> str:
    """Return how near the pixels made of camera frames are to Pillow's; empty for others."""
    if found.pixels is None:
        return ""
    return (
        f"{found.pixels.images} camera frames: {found.pixels.within_one:.3%} of the pixels "
        f"made of them within one grey level of Pillow's, at most "
        f"{found.pixels.max_difference:.2g} off"
    )


def _differences(found: Whole) -> str:
    total = len(found.margin)
    close = int((found.difference > found.margin / 2).sum())
    safe = f"all but {close} of {total}" if close else f"all {total}"
    return report.section(
        "Differences, photo by photo",
        "How far the scores of a photo are from the oracle's, beside how far its best class "
        "leads there. Where the difference is below half of the lead, the label can't change: "
        f"so it is for {safe} photos.",
        report.chart(
            functools.partial(_draw_differences, found), functools.partial(_draw_sorted, found)
        ),
    )


def _layers(found: Whole) -> str:
    if not found.layers:
        return ""
    shown = found.worst_layers[:_SHOWN_LAYERS]
    rows = [[x.name, x.op, f"{x.error:.2%}", f"{x.added:.2%}"] for x in shown]
    return report.section(
        "Where the difference arises",
        f"The reduced backbone ({found.graph.precision}) beside float32, layer by layer. "
        "Error: |a - b| / |a| of a layer's output; its own: what is above the largest error "
        "of what it was given. A layer can be kept in float32: "
        "edge-imprint export --keep-float32 LAYER.",
        report.chart(
            functools.partial(_draw_layers, found), functools.partial(_draw_depth, found)
        ),
        report.table(["layer", "operator", "error", "its own"], rows, text_columns=2),
    )


def _disagreements(found: Whole, photos: Sequence[Path]) -> str:
    other = np.flatnonzero(found.label != found.label_float32)
    if not len(other):
        return report.section("Photos labelled otherwise", "None: every label is float32's.")
    shown = other[np.argsort(-found.margin[other], kind="stable")][:_SHOWN_PHOTOS]
    captions = [
        f"{found.labels[found.label[i]]}, float32: {found.labels[found.label_float32[i]]} "
        f"(lead {found.margin[i]:.2g})"
        for i in shown
    ]
    few = f" The {len(shown)} with the largest lead." if len(shown) < len(other) else ""
    return report.section(
        "Photos labelled otherwise",
        f"{len(other)} photos whose label is not float32's. A small lead means that the photo "
        f"lies between two classes.{few}",
        report.gallery(
            [_thumbnail(photos[found.rows[i]]) for i in shown], captions, [True] * len(shown)
        ),
    )


def _facts(found: Whole, model: Path, head: Head) -> str:
    graph = found.graph
    said = {key.partition(".")[2]: text for key, text in encode(head.contract).items()}
    said.pop("labels")
    return report.section(
        "What was verified",
        "As the files say of themselves, and the tools that ran them.",
        report.facts(
            {
                "file": f"{model.name}, {size_text(model.stat().st_size)}",
                "input": graph.input,
                "precision": graph.precision,
                "head precision": graph.head_precision,
                "target": graph.target,
                "classes": len(found.labels),
                "photos that could not be read": len(found.skipped) or None,
                **said,
                "tools": versions(),
            }
        ),
    )


def _draw_differences(found: Whole, axes: Axes) -> None:
    lead = found.margin
    other = found.label != found.label_float32
    for chosen, color, label in (
        (~other, report.COLORS[0], "same label"),
        (other, report.COLORS[4], "another label"),
    ):
        if chosen.any():
            y = np.maximum(found.difference[chosen], _FLOOR)
            axes.scatter(lead[chosen], y, s=12, alpha=0.6, lw=0, color=color, label=label)
    half = np.linspace(0, max(float(lead.max()), _FLOOR), 200)[1:]
    axes.plot(half, half / 2, "--", lw=1, color=report.COLORS[2], label="half of the lead")
    axes.set(yscale="log")
    axes.set(xlabel="lead of the best class, float32", ylabel="largest score difference")
    axes.legend(frameon=False, fontsize=8.5)


def _draw_sorted(found: Whole, axes: Axes) -> None:
    values = np.sort(np.maximum(found.difference, _FLOOR))
    share = 100 * np.arange(1, len(values) + 1) / len(values)
    axes.step(values, share, where="post", color=report.COLORS[0])
    if not found.reduced:
        allowed = found.found.tolerance
        axes.axvline(allowed, ls="--", lw=1, color=report.COLORS[4], label="allowed")
        axes.legend(frameon=False, fontsize=8.5)
        axes.set(xscale="log")
    axes.set(ylim=(0, 101))
    axes.set(xlabel="largest score difference of a photo", ylabel="% of photos up to it")


def _draw_layers(found: Whole, axes: Axes) -> None:
    shown = found.worst_layers[:_SHOWN_LAYERS][::-1]
    place = np.arange(len(shown))
    axes.barh(place, [_percent(x.error) for x in shown], color="#bfdbfe", label="error")
    axes.barh(
        place, [_percent(x.added) for x in shown], color=report.COLORS[0], label="its own"
    )
    # A dollar sign would start a formula.
    names = [x.name if len(x.name) <= 30 else f"…{x.name[-29:]}" for x in shown]
    axes.set_yticks(place, [name.replace("$", r"\$") for name in names], fontsize=7)
    axes.set(xlabel="% of the layer's output")
    axes.legend(frameon=False, fontsize=8.5)


def _draw_depth(found: Whole, axes: Axes) -> None:
    errors = [_percent(layer.error) for layer in found.layers]
    place = np.arange(1, len(errors) + 1)
    axes.plot(place, errors, "o-", color=report.COLORS[0], markersize=3, lw=1.2)
    axes.set(xlabel="layer, from pixels to embedding", ylabel="error, %", ylim=(0, None))


def _percent(error: float) -> float:
    """Return an error as a bar can show it: an overflow in fp16 is infinite."""
    return 100 * min(error, 10.0)


def _thumbnail(path: Path) -> npt.NDArray[np.uint8]:
    try:
        image = open_image(path)
    except EdgeImprintError:  # it was there a minute ago
        image = Image.new("RGB", (1, 1), "#cbd5e1")
    small = max(image.size) < _SIDE_PIXELS
    way = Image.Resampling.BILINEAR if small else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.fit(image, (_SIDE_PIXELS, _SIDE_PIXELS), way))
