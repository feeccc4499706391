# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: which way to imprint suits these embeddings, by cross-validation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint.collapse import nc1, vci
from edge_imprint.evaluation.findings import (
    answers_of,
    find_duplicates,
    find_suspects,
    make_map,
)
from edge_imprint.evaluation.linear import fit_logistic, weight_bytes
from edge_imprint.evaluation.recommend import recommend
from edge_imprint.evaluation.result import Evaluation, Map, Row, ShotsPoint
from edge_imprint.evaluation.trials import LOGISTIC, Trials, Way
from edge_imprint.imprinting.imprint import imprint, resolved
from edge_imprint.imprinting.proxies import one_blas_thread
from edge_imprint.imprinting.recipe import PRESETS, Recipe, check_seed
from edge_imprint.imprinting.sources import ByClass, normalized
from edge_imprint.judging.calibrate import calibrate, left_out
from edge_imprint.judging.choose import choose_proxies
from edge_imprint.judging.folds import FOLDS, Folds
from edge_imprint.judging.measures import (
    balanced_accuracy,
    confusion_matrix,
    paired_difference,
    wilson,
)
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import EmbeddingError, InputError, TooFewClassesError
from edge_imprint_runtime.head import Head

__all__ = ["KS", "SHOTS", "evaluate"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int], None]

KS = (1, 2, 5, 10, 20, 50)
SHOTS = (1, 2, 5, 10, 20, 50)
_FAMILIES = ("imprint", "whitened")
_BY_SHOTS = ("qi2018", *_FAMILIES)
# A gain below this share is none worth more photos.
_NO_GAIN = 0.01


def evaluate(
    embeddings: npt.ArrayLike,
    class_index: npt.ArrayLike,
    labels: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    device: str = "cpu",
    backbone: BackboneInfo | None = None,
    paths: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Try the ways to imprint on labelled embeddings and recommend one.

    Args:
        embeddings: (N, D) real numbers, finite; used as float32.
        class_index: (N,) integers, positions in ``labels``; each class at least once, one of
            them with two different rows.
        labels: The C class names, C at least 2.
        folds: Parts of the cross-validation, at least 2.
        seed: For whatever is drawn.
        device: ``cpu`` or ``cuda``: where k-means runs.
        backbone: What made the embeddings; heads are larger by what they remember of it.
        paths: What each row was made of, if known.
        progress: Told how far it is.

    Returns:
        All that was found. The same rows in another order give the same figures.

    Raises:
        InputError: An array has the wrong shape or type, or a class has no row.
        EmbeddingError: A row holds NaN or infinity.
        ParameterError: ``folds`` or ``seed`` is out of range.
        TooFewClassesError: Fewer than two classes.
        TooFewImagesError: No class has two different rows.
    """
    with one_blas_thread():  # the products are small, and two threads in each other's way
        return _evaluate(
            embeddings, class_index, labels, folds, seed, device, backbone, paths, progress
        )


def _evaluate(
    embeddings: npt.ArrayLike,
    class_index: npt.ArrayLike,
    labels: Sequence[str],
    folds: int,
    seed: int,
    device: str,
    backbone: BackboneInfo | None,
    paths: Sequence[str] | None,
    progress: Progress | None,
) -> Evaluation:
    begin = time.perf_counter()
    rows, index = _checked(embeddings, class_index, labels, paths)
    check_seed(seed)
    tell = progress or _silent
    source = ByClass(rows, index)
    trials = Trials(Folds(source, folds, seed), index, seed, device)
    ways = _ways(int(np.bincount(index).max()))
    answers = trials.cross_validate(ways, lambda n, of: tell("cross-validating", n, of))
    made = _Made(trials, source, labels, backbone)
    table = []
    for way in ways:
        table.append(made.row(way, answers.get(way.name)))
        tell("making the heads", len(table), len(ways) + 1)
    table.append(made.logistic_row(rows, index, answers.get(LOGISTIC)))
    tell("making the heads", len(table), len(ways) + 1)
    right = {name: label == trials.truth for name, label in answers.items()}
    recommendation = recommend(table, right)
    chosen = next(way for way in ways if way.name == recommendation.row)
    shots, more_photos = _by_shots(trials, chosen, right, tell)
    tell("looking closer", 0, 1)
    held = trials.similarities(chosen)
    calibration = calibrate(held)
    kept = answers_of(held, trials.position)
    suspects, suspects_total = find_suspects(kept)
    duplicates, duplicates_total = find_duplicates(rows, index)
    unit = normalized(rows, "l2")
    return Evaluation(
        labels=tuple(labels),
        counts=np.bincount(index),
        embedding_size=rows.shape[1],
        folds=trials.split.count,
        seed=seed,
        rows=tuple(table),
        recommendation=recommendation,
        answers=kept,
        confusion=confusion_matrix(kept.truth, kept.label, len(labels)),
        nc1=nc1(unit, index),
        vci=vci(unit, index),
        shots=shots,
        more_photos=more_photos,
        calibration=calibration,
        unknown_auroc=tuple(
            None if pair is None else pair[1] for pair in left_out(held, calibration.threshold)
        ),
        suspects=suspects,
        suspects_total=suspects_total,
        duplicates=duplicates,
        duplicates_total=duplicates_total,
        maps=_maps(made, chosen, rows, index),
        paths=None if paths is None else tuple(str(path) for path in paths),
        evaluate_s=time.perf_counter() - begin,
    )


def _checked(
    embeddings: npt.ArrayLike,
    class_index: npt.ArrayLike,
    labels: Sequence[str],
    paths: Sequence[str] | None,
) -> tuple[Float32, Int64]:
    given, index = np.asarray(embeddings), np.asarray(class_index)
    if given.ndim != 2 or not given.size or given.dtype.kind not in "fiu":
        raise InputError(
            "embeddings must be (N, D) real numbers, N and D at least 1, got "
            f"{given.shape} of {given.dtype}"
        )
    if index.shape != (len(given),) or index.dtype.kind not in "iu":
        raise InputError(
            f"class_index must be {len(given)} integers, one an embedding, got shape "
            f"{index.shape} of {index.dtype}"
        )
    if paths is not None and len(paths) != len(given):
        raise InputError(f"paths must be {len(given)}, one an embedding, got {len(paths)}")
    check_labels(tuple(labels))
    if len(labels) < 2:
        raise TooFewClassesError(
            f"a classifier needs at least two classes, got one class: {labels[0]!r}"
        )
    if index.min() < 0 or index.max() >= len(labels):
        raise InputError(
            f"class_index must be from 0 to {len(labels) - 1}, positions in labels, got "
            f"{index.min()} to {index.max()}"
        )
    empty = np.flatnonzero(np.bincount(index, minlength=len(labels)) == 0)
    if len(empty):
        raise InputError(f"the class {labels[int(empty[0])]!r} has no embedding; leave it out")
    with np.errstate(over="ignore"):  # beyond float32's range is infinity, refused below
        rows = given.astype(np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise EmbeddingError(
            f"row {int(np.argmin(finite))} of the embeddings holds NaN or infinity; "
            "mend it or leave it out"
        )
    return rows, index.astype(np.int64)


def _ways(largest: int) -> list[Way]:
    """List what is tried; ks above the largest class say nothing new and are left out."""
    ways = []
    for name in ("qi2018", "hosoda2024", "janson2022"):
        ways.append(Way(name, "preset", Recipe.parse(PRESETS[name]), k=1))
    for family in _FAMILIES:
        preset = Recipe.parse(PRESETS[family])
        ways += [
            Way(
                f"{family}, k = {k}",
                "preset" if k == preset.k else "k",
                preset.with_proxies(k),
                family,
                k,
                "each image is a proxy" if k > largest else "",
            )
            for k in KS
            if k <= largest or k == preset.k
        ]
        ways.append(Way(f"{family}, auto", "auto", preset.with_proxies("auto"), family))
    oracle = Recipe.parse(PRESETS["least-squares"])
    note = "oracle: sees all classes"
    return [*ways, Way("least-squares", "comparison", oracle, None, 1, note)]


class _Made:
    """Heads of all embeddings: what they cost."""

    def __init__(
        self,
        trials: Trials,
        source: ByClass,
        labels: Sequence[str],
        backbone: BackboneInfo | None,
    ) -> None:
        self.trials, self.source, self.labels = trials, source, labels
        self.backbone = backbone
        self.ks: dict[str, list[int]] = {}  # proxies of each class, by way

    def head(self, recipe: Recipe, ks: Sequence[int] | None = None) -> Head:
        """Make a head as `build` would."""
        recipe = resolved(self.source, recipe, self.trials.seed)
        if recipe.proxies == "auto" and ks is None:
            ks = choose_proxies(self.source, recipe, seed=self.trials.seed).ks
        return imprint(
            self.source,
            self.labels,
            recipe,
            ks=ks,
            seed=self.trials.seed,
            device=self.trials.device,
            backbone=self.backbone,
        )

    def row(self, way: Way, answers: Int64 | None) -> Row:
        """Make the table's row of a way; ``answers`` is None where it failed."""
        begin = time.perf_counter()
        head = self.trials.attempt(way.name, self.head, way.recipe)
        make_s = time.perf_counter() - begin
        recipe = None if way.kind == "comparison" else str(way.recipe)
        row = Row(way.name, way.kind, way.family, way.k, recipe, way.note)
        if head is None or answers is None:
            return replace(row, failed=self.trials.failed[way.name])
        self.ks[way.name] = np.bincount(head.class_index).tolist()
        return replace(
            self._scored(row, answers),
            make_s=make_s,
            head_bytes=_size(head),
            proxies=len(head.proxies),
        )

    def logistic_row(self, rows: Float32, index: Int64, answers: Int64 | None) -> Row:
        """Make the table's row of logistic regression."""
        row = Row(LOGISTIC, "comparison", note="trained; sees all classes")
        begin = time.perf_counter()
        self.trials.attempt(LOGISTIC, fit_logistic, rows, index)
        if answers is None or LOGISTIC in self.trials.failed:
            return replace(row, failed=self.trials.failed[LOGISTIC])
        if self.trials.unconverged:
            row = replace(row, note=f"{row.note}; training cut short")
        return replace(
            self._scored(row, answers),
            make_s=time.perf_counter() - begin,
            head_bytes=weight_bytes(rows.shape[1], len(self.labels)),
        )

    def _scored(self, row: Row, answers: Int64) -> Row:
        right = answers == self.trials.truth
        low, high = wilson(int(right.sum()), len(right))
        confusion = confusion_matrix(self.trials.truth, answers, len(self.labels))
        return replace(
            row,
            accuracy=float(right.mean()),
            low=low,
            high=high,
            balanced_accuracy=balanced_accuracy(confusion),
        )


def _size(head: Head) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return head.save(Path(folder) / "head").stat().st_size


def _by_shots(
    trials: Trials, chosen: Way, right: Mapping[str, Bool], tell: Progress
) -> tuple[tuple[ShotsPoint, ...], str]:
    """Accuracy against the number of images, and what it says of the recommended family."""
    every = max(
        int((part != fold).sum())
        for part in trials.split.parts
        for fold in range(trials.split.count)
    )
    tried = [n for n in SHOTS if n < every]
    points, by_n = [], dict[tuple[str, int], Bool]()
    for done, name in enumerate(_BY_SHOTS):
        recipe = Recipe.parse(PRESETS[name])
        whole = name if name in right else f"{name}, k = {recipe.k}"
        for n in tried:
            by_n[name, n] = trials.with_shots(recipe, n) == trials.truth
            tell("with fewer photos", done * len(tried) + tried.index(n) + 1, 3 * len(tried))
        by_n[name, every] = right[whole]
        for n in (*tried, every):
            hits = by_n[name, n]
            low, high = wilson(int(hits.sum()), len(hits))
            points.append(ShotsPoint(name, n, float(hits.mean()), low, high))
    name = chosen.family or ("qi2018" if chosen.k == 1 else "imprint")
    half = max((n for n in tried if n <= every / 2), default=None)
    if half is None:
        return tuple(
            points
        ), "There are too few images a class to tell whether more would pay."
    gain, error = paired_difference(by_n[name, every], by_n[name, half])
    low, high = gain - 1.96 * error, gain + 1.96 * error
    if low > 0:
        verdict = "more photos are likely to help"
    elif high < _NO_GAIN:
        verdict = "more photos are unlikely to help"
    else:
        verdict = "too few images to tell whether more would help"
    return tuple(points), (
        f"From {half} to {every} images a class {name} gains {100 * gain:.1f} points (95 % "
        f"interval {100 * low:.1f} to {100 * high:.1f}): {verdict}."
    )


def _maps(made: _Made, chosen: Way, rows: Float32, index: Int64) -> tuple[Map, ...]:
    """The embeddings with as many proxies as the recommended way has, and whitened ones."""
    maps = []
    for name, title in (("imprint", "embeddings, L2"), ("whitened", "whitened, L2")):
        recipe = Recipe.parse(PRESETS[name])
        head = made.head(recipe, made.ks[chosen.name])
        maps.append(make_map(title, rows, index, head, made.trials.seed))
    return tuple(maps)


def _silent(step: str, done: int, total: int) -> None:
    pass
