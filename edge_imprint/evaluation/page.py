# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a page that opens offline."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edge_imprint import report
from edge_imprint.evaluation import charts
from edge_imprint.evaluation.result import INTERVAL, Evaluation, Row
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.files import size_text
from edge_imprint_runtime.images import open_image

__all__ = ["COLUMNS", "cells", "not_run", "percent", "render", "worst_first"]

COLUMNS = ("way", "accuracy", "95 % interval", "balanced", "to make", "head", "proxies")

_SIDE_PIXELS = 78
_MATRIX = 30  # classes that a whole confusion matrix can show
_WORST = 20  # classes shown where there are more
_GRID = 12
_PAIRS = 6
_IN_PAIR = 3
_IN_GRID = 4
_SUSPECTS = 30


def render(
    found: Evaluation, *, title: str, commands: Sequence[str] = (), pictures: bool = False
) -> str:
    """Make the page.

    Args:
        found: The evaluation.
        title: What was evaluated, plain text.
        commands: What to run next.
        pictures: Whether its paths are photos to be shown; else they are named.

    Returns:
        A whole HTML document that loads nothing from elsewhere.
    """
    shown = _Pictures(found, pictures)
    best = found.recommended
    assert best.accuracy is not None
    assert best.low is not None
    assert best.high is not None
    auroc = found.calibration.auroc
    figures = {
        f"of held-out images right, {best.name} (95 %: {_range(best)})": percent(
            best.accuracy
        ),
        f"images of {len(found.labels)} classes, {found.embedding_size} numbers each": str(
            int(found.counts.sum())
        ),
        "the head file": _size(best),
    }
    if auroc is not None:
        figures["AUROC, unknown against known images"] = f"{auroc:.3f}"
    return report.page(
        f"Which recipe for {title}?",
        "Each image was held out once and classified by what the others teach "
        f"({found.folds} folds, seed {found.seed}).",
        [
            report.cards(figures),
            _recommendation(found, commands),
            _comparison(found),
            report.section(
                "How many proxies, how many photos",
                f"Bands are 95 % intervals. {found.more_photos}",
                report.chart(
                    functools.partial(charts.by_k, found),
                    functools.partial(charts.by_shots, found),
                ),
            ),
            report.section(
                "A map",
                "Embeddings (dots) and proxies (diamonds), a colour a class, on the two axes "
                "along which the embeddings spread most. What overlaps here may be apart in "
                "other directions.",
                report.chart(*charts.maps(found)),
            ),
            _classes(found),
            _confused(found, shown),
            _extremes(found, shown),
            _suspects(found, shown),
            _unknown(found),
            report.section(
                "Neural collapse",
                found.collapse_meaning,
                report.facts(
                    {
                        "NC1": f"{found.nc1:.3f}" if math.isfinite(found.nc1) else "infinite",
                        "VCI": f"{found.vci:.3f}",
                    }
                ),
            ),
        ],
    )


def cells(row: Row) -> list[str]:
    """Return a row of the table, one text for each of `COLUMNS`."""
    name = f"{row.name} ({row.note})" if row.note else row.name
    if row.failed is not None or row.accuracy is None or row.balanced_accuracy is None:
        return [name, "not run", *["-"] * (len(COLUMNS) - 2)]
    return [
        name,
        percent(row.accuracy),
        _range(row),
        percent(row.balanced_accuracy),
        f"{row.make_s:.2f} s",
        _size(row),
        "-" if row.proxies is None else str(row.proxies),
    ]


def not_run(found: Evaluation) -> list[str]:
    """Return the ways that could not be run, each with its reason."""
    return [f"{row.name}: {row.failed}" for row in found.rows if row.failed is not None]


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.1f} %"


def _size(row: Row) -> str:
    return "-" if row.head_bytes is None else size_text(row.head_bytes)


def _range(row: Row) -> str:
    assert row.low is not None
    assert row.high is not None
    return f"{100 * row.low:.1f} to {100 * row.high:.1f}"


def _recommendation(found: Evaluation, commands: Sequence[str]) -> str:
    advice = found.recommendation
    return report.section(
        f"Recommended: {advice.row}",
        f"Because {advice.reason}.",
        report.code(commands or [advice.recipe]),
        *(report.words(f"But: {warning}.") for warning in advice.warnings),
        f'<p class="soft">The rule: {advice.rule}.</p>',
    )


def _comparison(found: Evaluation) -> str:
    best = [i for i, row in enumerate(found.rows) if row.name == found.recommendation.row]
    return report.section(
        "All ways, on the same held-out images",
        f"{len(found.answers.row)} answers each. {INTERVAL}. Balanced: the mean over classes.",
        report.table(COLUMNS, [cells(row) for row in found.rows], best=best),
        *(report.words(f"Not run: {line}.") for line in not_run(found)),
    )


def worst_first(found: Evaluation) -> list[int]:
    """Order the classes by accuracy; those without a held-out image come last."""
    recall = found.recall
    return sorted(
        range(len(recall)),
        key=lambda c: (math.inf if recall[c] is None else recall[c], c),
    )


def _classes(found: Evaluation) -> str:
    names, many = found.labels, len(found.labels) > _MATRIX
    order = worst_first(found)[: _WORST if many else None]
    rows = []
    for c in order:
        recall, wrong = found.recall[c], found.taken_for(c)
        rows.append(
            [
                names[c],
                "-" if wrong is None else f"{names[wrong[0]]} ({wrong[1]})",
                str(int(found.counts[c])),
                "-" if recall is None else percent(recall),
            ]
        )
    shown = np.arange(len(names))
    columns = list(names)
    counts = found.confusion
    text = "Rows are what an image is, columns what the answer was."
    if many:
        wrong_only = found.confusion - np.diag(np.diag(found.confusion))
        wrongs = wrong_only.sum(axis=0) + wrong_only.sum(axis=1)
        shown = np.sort(np.argsort(-wrongs, kind="stable")[:_WORST])
        inside = found.confusion[np.ix_(shown, shown)]
        rest = found.confusion[shown].sum(axis=1, keepdims=True) - inside.sum(axis=1)[:, None]
        counts = np.hstack([inside, rest])
        columns = [*(names[c] for c in shown), "all others"]
        text += f" Of {len(names)} classes the {_WORST} with most confusions."
    which = f"the {_WORST} with the lowest accuracy" if many else "lowest accuracy first"
    return report.section(
        "Classes",
        f"Held-out accuracy of each class ({which}), with {found.recommendation.row}.",
        report.table(
            ["class", "most often taken for", "images", "right"], rows, text_columns=2
        ),
        report.words(text),
        report.heat([names[c] for c in shown], columns, counts),
    )


class _Pictures:
    """Images of the evaluation, as pictures or by name."""

    def __init__(self, found: Evaluation, pictures: bool) -> None:
        self.found, self.pictures = found, pictures and found.paths is not None

    def gallery(
        self, rows: Sequence[int], captions: Sequence[str], wrong: Sequence[bool]
    ) -> str:
        if not rows:
            return '<span class="soft">none</span>'
        if self.pictures:
            return report.gallery([self._thumbnail(row) for row in rows], captions, wrong)
        named = [self.found.name_of(row) for row in rows]
        return report.listing(
            [f"{name}: {caption}" for name, caption in zip(named, captions, strict=True)]
        )

    def _thumbnail(self, row: int) -> npt.NDArray[np.uint8]:
        assert self.found.paths is not None
        try:
            image = open_image(Path(self.found.paths[row]))
        except EdgeImprintError:  # it was there a minute ago
            image = Image.new("RGB", (1, 1), "#cbd5e1")
        small = max(image.size) < _SIDE_PIXELS
        way = Image.Resampling.BILINEAR if small else Image.Resampling.LANCZOS
        return np.asarray(ImageOps.fit(image, (_SIDE_PIXELS, _SIDE_PIXELS), way))


def _confused(found: Evaluation, shown: _Pictures) -> str:
    kept, names = found.answers, found.labels
    rows = []
    for a, b, times in found.confused_pairs(_PAIRS):
        parts = []
        for true, answer in ((a, b), (b, a)):
            wrong = np.flatnonzero((kept.truth == true) & (kept.label == answer))
            surest = np.argsort(kept.own[wrong] - kept.best_other[wrong], kind="stable")
            chosen = wrong[surest][:_IN_PAIR].tolist()
            captions = [f"{names[true]}, not {names[answer]}"] * len(chosen)
            typical = np.flatnonzero((kept.truth == answer) & (kept.label == answer))
            if chosen and len(typical):
                chosen.append(int(typical[kept.own[typical].argmax()]))
                captions.append(f"typical {names[answer]}")
            bad = [bool(kept.label[i] != kept.truth[i]) for i in chosen]
            parts.append(shown.gallery(kept.row[chosen].tolist(), captions, bad))
        rows.append((f"{names[a]} / {names[b]}: {times}", parts))
    text = (
        "Which classes are taken for one another, how often, the surest of these answers, and "
        "a typical image of the class answered."
    )
    if not rows:
        return report.section("Most confused", "No image was taken for another class.")
    left, right = "taken for the second", "taken for the first"
    return report.section("Most confused", text, report.grid([left, right], rows))


def _extremes(found: Evaluation, shown: _Pictures) -> str:
    kept = found.answers
    rows = []
    for c in sorted(worst_first(found)[:_GRID]):
        mine = np.flatnonzero(kept.truth == c)
        ordered = mine[np.argsort(-kept.own[mine], kind="stable")]
        half = min(_IN_GRID, len(ordered) // 2)
        parts = [
            shown.gallery(
                kept.row[some].tolist(),
                [f"{value:.3f}" for value in kept.own[some]],
                (kept.label[some] != c).tolist(),
            )
            for some in (ordered[:half], ordered[::-1][:half])
        ]
        rows.append((found.labels[c], parts))
    few = len(found.labels) > _GRID
    return report.section(
        "Nearest to and farthest from their proxies",
        "Held-out images by their similarity to the nearest proxy of their own class; red: "
        "classified wrong."
        + (f" The {_GRID} classes with the lowest accuracy." if few else ""),
        report.grid(["nearest", "farthest"], rows),
    )


def _suspects(found: Evaluation, shown: _Pictures) -> str:
    names = found.labels
    parts = []
    some = found.suspects[:_SUSPECTS]
    if some:
        captions = [f"{names[s.truth]}, or {names[s.label]}?" for s in some]
        parts.append(shown.gallery([s.row for s in some], captions, [True] * len(some)))
    text = (
        f"{found.suspects_total or 'No'} images look like another class more surely than a "
        "quarter of the images that are right look like their own: mislabelled, or mistaken"
        + (f" (the {_SUSPECTS} surest)." if found.suspects_total > _SUSPECTS else ".")
    )
    if found.duplicates_total is None:
        parts.append(report.words("Too many images to look for near-duplicates."))
    elif found.duplicates_total:
        parts.append(
            report.words(
                f"{found.duplicates_total} pairs of images in different classes are all but "
                "the same; at least one label of each is wrong, or the picture shows both."
            )
        )
        pairs = found.duplicates[: _SUSPECTS // 2]
        rows = [row for pair in pairs for row in (pair.first, pair.second)]
        captions = [
            f"pair {number}: {names[c]}"
            for number, pair in enumerate(pairs, 1)
            for c in (pair.first_class, pair.second_class)
        ]
        parts.append(shown.gallery(rows, captions, [False] * len(rows)))
    else:
        parts.append(report.words("No near-duplicates in different classes."))
    return report.section("Labels to look at", text, *parts)


def _unknown(found: Evaluation) -> str:
    calibration = found.calibration
    title = "Knowing what it does not know"
    if calibration.auroc is None or calibration.detected is None:
        return report.section(
            title,
            "Leaving a class out takes three classes or more, so that this was not tried.",
        )
    areas = [
        (area, name)
        for name, area in zip(found.labels, found.unknown_auroc, strict=True)
        if area is not None
    ]
    worst = ", ".join(f"{name} {area:.3f}" for area, name in sorted(areas)[:5])
    return report.section(
        title,
        "Each class was left out in turn, its images then being unknown: what build "
        "--calibrate would make of them. AUROC: the chance that a known image looks more "
        "known than an unknown one.",
        report.facts(
            {
                "AUROC, mean over classes": f"{calibration.auroc:.3f}",
                "hardest to tell": worst,
                "unknown images called unknown": percent(calibration.detected),
                "known images called unknown": percent(calibration.false_alarm),
            }
        ),
    )
