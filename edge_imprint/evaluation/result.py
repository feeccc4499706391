# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` finds out, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint.judging.calibrate import Calibration

__all__ = [
    "INTERVAL",
    "RULE",
    "Answers",
    "Duplicate",
    "Evaluation",
    "Map",
    "Recommendation",
    "Row",
    "ShotsPoint",
    "Suspect",
    "as_json",
]

SCHEMA = "edge-imprint.evaluate/1"
INTERVAL = (
    "95 % intervals are Wilson's, on the held-out answers; what another choice of photos to "
    "learn from would change is not in them"
)
RULE = (
    "the best held-out accuracy; of the ways within one standard error of it (paired "
    "differences) the one of the smallest head"
)

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One way to make a classifier, cross-validated.

    Attributes:
        name: For people.
        kind: ``preset``, ``k``, ``auto`` or ``comparison`` (never recommended).
        family: ``imprint`` or ``whitened`` where the row is one of these with another k.
        k: Proxies a class at most; None where there is no one number.
        recipe: The line to build it with; None where no build makes it.
        note: What to know of it, such as ``oracle: sees all classes``; empty for nothing.
        failed: Why it could not be run; then all that follows is None.
        accuracy: Share (0..1) of held-out answers that are right.
        low: Lower end of the accuracy's 95 % interval.
        high: Upper end.
        balanced_accuracy: Mean over the classes of the share that is right.
        make_s: Seconds to make it of all embeddings.
        head_bytes: Size of the head file; of a linear model, that of its weights as float32.
        proxies: Proxies of all classes together; None for a linear model.
    """

    name: str
    kind: str
    family: str | None = None
    k: int | None = None
    recipe: str | None = None
    note: str = ""
    failed: str | None = None
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    balanced_accuracy: float | None = None
    make_s: float | None = None
    head_bytes: int | None = None
    proxies: int | None = None


@dataclass(frozen=True)
class Recommendation:
    """Which row to build, and why.

    Attributes:
        row: Its name.
        recipe: The line to build it with.
        rule: By which it was chosen.
        reason: What that gave here.
        warnings: Ways that are not recommended and yet better by more than the interval.
    """

    row: str
    recipe: str
    rule: str
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShotsPoint:
    """Accuracy with n images a class to learn from (all it has, where that is less).

    Attributes:
        name: The preset.
        n: Images a class at most; the largest n is all there are in a fold.
        accuracy: Share (0..1) of held-out answers that are right.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    name: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Answers:
    """The recommended row's held-out answers, in the order of the rows given.

    Attributes:
        row: (M,) int64 which rows were held out (all, but the only one of a class).
        truth: (M,) int64 their classes.
        label: (M,) int64 the answers.
        own: (M,) float32 similarity to the nearest proxy of the true class.
        best_other: (M,) float32 that of the nearest other class.
    """

    row: Int64
    truth: Int64
    label: Int64
    own: Float32
    best_other: Float32


@dataclass(frozen=True)
class Suspect:
    """A row that may be mislabelled: surely of another class, as the others see it.

    Attributes:
        row: Which.
        truth: Its class.
        label: The class it looks like.
        margin: By how much it is more similar to that one.
    """

    row: int
    truth: int
    label: int
    margin: float


@dataclass(frozen=True)
class Duplicate:
    """Two rows of different classes that are all but the same.

    Attributes:
        first: The one.
        second: The other, a larger number.
        first_class: The class of the one.
        second_class: That of the other.
        distance: Between the two, of unit length each.
    """

    first: int
    second: int
    first_class: int
    second_class: int
    distance: float


@dataclass(frozen=True, eq=False)
class Map:
    """Embeddings and proxies on the two principal axes of the embeddings.

    Attributes:
        title: What space it shows.
        points: (n, 2) float64, some of the embeddings.
        point_class: (n,) int64.
        proxies: (p, 2) float64.
        proxy_class: (p,) int64.
        explained: Share (0..1) of the variance that the two axes show.
    """

    title: str
    points: npt.NDArray[np.float64]
    point_class: Int64
    proxies: npt.NDArray[np.float64]
    proxy_class: Int64
    explained: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that `evaluate` found.

    Attributes:
        labels: The C class names.
        counts: (C,) int64 images of each.
        embedding_size: D.
        folds: Parts of the cross-validation.
        seed: Its seed.
        rows: The ways that were tried, in the order of the table.
        recommendation: Which of them to build.
        answers: Its held-out answers.
        confusion: (C, C) int64 of them; rows are true classes, columns answers.
        nc1: Neural collapse of the unit embeddings, see `edge_imprint.collapse`.
        vci: Variability collapse index of the unit embeddings.
        shots: Accuracy against the number of images, by preset.
        more_photos: What that says, one sentence.
        calibration: What ``build --calibrate`` would find.
        unknown_auroc: For each class: how well its images are told from those of the others
            when it is left out; None where that can't be tried.
        suspects: Rows that may be mislabelled, the surest first.
        suspects_total: How many there were, before the list was cut.
        duplicates: Near-duplicates in different classes, the nearest first.
        duplicates_total: How many there were; None where there were too many rows to look.
        maps: Unit embeddings, and whitened ones.
        paths: What each row was made of, where that is known.
        evaluate_s: Seconds it took.
    """

    labels: tuple[str, ...]
    counts: Int64
    embedding_size: int
    folds: int
    seed: int
    rows: tuple[Row, ...]
    recommendation: Recommendation
    answers: Answers
    confusion: Int64
    nc1: float
    vci: float
    shots: tuple[ShotsPoint, ...]
    more_photos: str
    calibration: Calibration
    unknown_auroc: tuple[float | None, ...]
    suspects: tuple[Suspect, ...]
    suspects_total: int
    duplicates: tuple[Duplicate, ...]
    duplicates_total: int | None
    maps: tuple[Map, ...]
    paths: tuple[str, ...] | None
    evaluate_s: float

    @property
    def recommended(self) -> Row:
        """The row that is recommended."""
        return next(row for row in self.rows if row.name == self.recommendation.row)

    @property
    def recall(self) -> tuple[float | None, ...]:
        """For each class the share of its held-out images that is right; None without any."""
        totals = self.confusion.sum(axis=1).tolist()
        right = np.diag(self.confusion).tolist()
        return tuple(None if not n else hit / n for hit, n in zip(right, totals, strict=True))

    @property
    def collapse_meaning(self) -> str:
        """One sentence on what `nc1` and `vci` mean."""
        return (
            "Both are 0 where each class is one point; NC1 is the spread within the classes "
            "against that between them, VCI the share of variability left within them (1: the "
            "class means tell nothing). The higher they are, the more several proxies a class "
            "or whitening can gain."
        )

    def confused_pairs(self, most: int) -> list[tuple[int, int, int]]:
        """Return the pairs (a, b) of classes most often taken for one another.

        Args:
            most: How many pairs at most.

        Returns:
            (a, b, number of answers b for a and a for b), the most first.
        """
        both = np.triu(self.confusion + self.confusion.T, 1)
        first = np.argsort(-both, axis=None, kind="stable")[:most]
        a, b = np.unravel_index(first, both.shape)
        pairs = zip(a.tolist(), b.tolist(), both[a, b].tolist(), strict=True)
        return [pair for pair in pairs if pair[2]]

    def taken_for(self, c: int) -> tuple[int, int] | None:
        """Return which class c's images are most often taken for, and how often."""
        wrong = self.confusion[c].copy()
        wrong[c] = 0
        return (int(wrong.argmax()), int(wrong.max())) if wrong.any() else None

    def name_of(self, row: int) -> str:
        """Return a row's path where it is known, else its number."""
        return f"row {row}" if self.paths is None else self.paths[row]


def as_json(found: Evaluation, commands: Sequence[str] = ()) -> dict[str, Any]:
    """Turn an evaluation into what ``--json`` prints.

    Args:
        found: The evaluation.
        commands: What to run next, if that is known.

    Returns:
        Plain values, to be dumped as JSON.
    """
    calibration = found.calibration
    names = found.labels
    return {
        "schema": SCHEMA,
        "images": int(found.counts.sum()),
        "images_by_class": dict(zip(names, found.counts.tolist(), strict=True)),
        "held_out": len(found.answers.row),
        "embedding_size": found.embedding_size,
        "folds": found.folds,
        "seed": found.seed,
        "interval": INTERVAL,
        "rows": [asdict(row) for row in found.rows],
        "recommendation": asdict(found.recommendation)
        | {"warnings": list(found.recommendation.warnings), "commands": list(commands)},
        "per_class": [
            {
                "label": name,
                "images": int(found.counts[c]),
                "held_out": int(found.confusion[c].sum()),
                "accuracy": found.recall[c],
                "taken_for": _taken_for(found, c),
                "unknown_auroc": found.unknown_auroc[c],
            }
            for c, name in enumerate(names)
        ],
        "confusion": found.confusion.tolist(),
        "collapse": {
            "nc1": found.nc1 if math.isfinite(found.nc1) else None,
            "vci": found.vci,
            "meaning": found.collapse_meaning,
        },
        "shots": [asdict(point) for point in found.shots],
        "more_photos": found.more_photos,
        "unknown": {
            "auroc": calibration.auroc,
            "detected": calibration.detected,
            "false_alarm": calibration.false_alarm,
        },
        "suspects_total": found.suspects_total,
        "suspects": [
            {
                "image": found.name_of(s.row),
                "row": s.row,
                "label": names[s.truth],
                "looks_like": names[s.label],
                "margin": s.margin,
            }
            for s in found.suspects
        ],
        "duplicates_total": found.duplicates_total,
        "duplicates": [
            {
                "images": [found.name_of(d.first), found.name_of(d.second)],
                "rows": [d.first, d.second],
                "labels": [names[d.first_class], names[d.second_class]],
                "distance": d.distance,
            }
            for d in found.duplicates
        ],
        "evaluate_s": found.evaluate_s,
    }


def _taken_for(found: Evaluation, c: int) -> dict[str, Any] | None:
    wrong = found.taken_for(c)
    return None if wrong is None else {"label": found.labels[wrong[0]], "times": wrong[1]}
