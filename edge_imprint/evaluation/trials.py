# SPDX-License-Identifier: Apache-2.0
"""Many ways to imprint, tried on the same folds.

What the ways share is done once a fold: the whitened embeddings serve every way that whitens.
Similarities are kept for one way only, in a second pass over its folds, so that memory does
not grow with the number of ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_imprint.evaluation.linear import check_size, fit_logistic
from edge_imprint.imprinting.imprint import imprint, resolved
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.imprinting.whitening import ClassSource, fit_whitening
from edge_imprint.judging.choose import choose_proxies
from edge_imprint.judging.crossval import HeldOut
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.head import Head

__all__ = ["LOGISTIC", "Trials", "Way"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Tell = Callable[[int, int], None]
Result = TypeVar("Result")

LOGISTIC = "logistic regression"
# Choosing k takes about as long as this many imprintings, for the progress shown.
_CHOOSING = 30


@dataclass(frozen=True)
class Way:
    """A row of the table that a recipe makes; attributes as those of `Row`."""

    name: str
    kind: str
    recipe: Recipe
    family: str | None = None
    k: int | None = None
    note: str = ""

    @property
    def work(self) -> int:
        """How long it takes, beside one imprinting."""
        return _CHOOSING if self.kind == "auto" else 1


class _Listed:
    """Embeddings in memory, one part a class."""

    def __init__(self, source: ClassSource, change: Callable[[Float32], Float32]) -> None:
        self.parts = [change(source[c][0]) for c in range(len(source))]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, c: int) -> tuple[Float32, None]:
        return self.parts[c], None

    def joined(self) -> tuple[Float32, Int64]:
        """Return all rows, and their classes."""
        sizes = [len(part) for part in self.parts]
        return np.concatenate(self.parts), np.repeat(np.arange(len(sizes)), sizes)


class _Fold:
    """One fold: what to learn from, what is held out, and both whitened."""

    def __init__(self, split: Folds, number: int, seed: int) -> None:
        self.training = _Listed(split.training(number), lambda rows: rows)
        self.queries = _Listed(split.held_out(number), lambda rows: rows).joined()[0]
        self.labels = [str(c) for c in range(len(self.training))]
        self.seed = seed
        self._shrinkage: float | str | None = None
        self._whitened: dict[tuple[float | None, int | None], tuple[_Listed, Float32]] = {}

    def resolved(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the shrinkage that this fold's training part chooses."""
        if recipe.whiten_shrinkage != "auto":
            return recipe
        if self._shrinkage is None:
            self._shrinkage = resolved(self.training, recipe, self.seed).whiten_shrinkage
        return replace(recipe, whiten_shrinkage=self._shrinkage)

    def head(
        self, recipe: Recipe, ks: Sequence[int] | None, device: str
    ) -> tuple[Head, Float32]:
        """Make a head of the training part, and return the queries that it takes."""
        source, queries = self.training, self.queries
        if recipe.pre_norm == "whiten":
            source, queries = self._mapped(self.resolved(recipe))
            recipe = replace(recipe, pre_norm="l2", whiten_shrinkage=None, whiten_size=None)
        head = imprint(source, self.labels, recipe, ks=ks, seed=self.seed, device=device)
        return head, queries

    def _mapped(self, recipe: Recipe) -> tuple[_Listed, Float32]:
        share, size = recipe.whiten_shrinkage, recipe.whiten_size
        assert not isinstance(share, str)  # resolved
        if share == 1:  # as `imprint` has it: nothing is left of the map
            return self.training, self.queries
        if (share, size) not in self._whitened:
            whitening = fit_whitening(self.training, size, share)
            mapped = _Listed(self.training, whitening.apply)
            self._whitened[share, size] = mapped, whitening.apply(self.queries)
        return self._whitened[share, size]


class Trials:
    """Folds, and what is tried on them.

    Args:
        split: The folds.
        class_index: (N,) int64 class of each row, as the folds' source was made of.
        seed: For whatever is drawn.
        device: ``cpu`` or ``cuda``: where k-means runs.

    Attributes:
        position: (M,) int64 the rows held out, in the order of all answers here.
        truth: (M,) int64 their classes.
        failed: For each way that can't be run: why.
        unconverged: Whether training logistic regression was cut short.
    """

    def __init__(self, split: Folds, class_index: Int64, seed: int, device: str) -> None:
        self.split, self.seed, self.device = split, seed, device
        members = [np.flatnonzero(class_index == c) for c in range(len(split.source))]
        self.position: Int64 = np.concatenate(
            [
                members[c][rows]
                for fold in range(split.count)
                for c, rows in enumerate(split.rows(fold))
            ]
        )
        self.truth: Int64 = class_index[self.position]
        self.failed: dict[str, str] = {}
        self.unconverged = False
        self._chosen: dict[tuple[str, int], list[int]] = {}  # ks, by way and fold

    def attempt(self, name: str, run: Callable[..., Result], *args: object) -> Result | None:
        """Do a part of a way's work, or note why it can't be done.

        Args:
            name: The way's.
            run: The work.
            args: What it is given.

        Returns:
            What it gives; None where it, or an earlier part, failed.
        """
        if name in self.failed:
            return None
        try:
            return run(*args)
        except EdgeImprintError as error:
            self.failed[name] = str(error)
            return None

    def cross_validate(self, ways: Sequence[Way], tell: Tell) -> dict[str, Int64]:
        """Let every way, and logistic regression, answer for all that is held out.

        Args:
            ways: The ways.
            tell: Told (done, total).

        Returns:
            (M,) int64 answers by name; ways that failed are in ``failed`` instead.
        """
        parts: dict[str, list[Int64 | None]] = {way.name: [] for way in ways}
        parts[LOGISTIC] = []
        steps = _Steps(tell, self.split.count * sum(way.work for way in ways))
        for number in range(self.split.count):
            fold = _Fold(self.split, number, self.seed)
            for way in ways:
                parts[way.name].append(
                    self.attempt(way.name, self._answers, way, fold, number, steps)
                )
                steps.add(way.work)
            parts[LOGISTIC].append(self.attempt(LOGISTIC, self._logistic, fold))
        return {
            name: np.concatenate([part for part in columns if part is not None])
            for name, columns in parts.items()
            if name not in self.failed
        }

    def similarities(self, way: Way) -> HeldOut:
        """Answer again, and keep the similarities.

        Args:
            way: One of those that `cross_validate` was given.

        Returns:
            The held-out similarities, in the order of ``position``.
        """
        scores, nearest, labels = [], [], []
        for number in range(self.split.count):
            fold = _Fold(self.split, number, self.seed)
            head, queries = self._head(way, fold, number)
            nearest.append(head.nearest(queries))
            scores.append(head.scores(queries))
            labels.append(head.predict(queries))
        rows = [np.concatenate(self.split.rows(n)) for n in range(self.split.count)]
        return HeldOut(
            self.truth,
            np.concatenate(rows),
            np.concatenate(scores),
            np.concatenate(nearest),
            np.concatenate(labels),
        )

    def with_shots(self, recipe: Recipe, shots: int) -> Int64:
        """Answer with few images to learn from.

        Args:
            recipe: How.
            shots: Images a class at most; each fold draws its own.

        Returns:
            (M,) int64 answers.
        """
        labels = []
        for number in range(self.split.count):
            fold = _Fold(self.split, number, self.seed)
            few = ByClass(*fold.training.joined(), shots=shots, seed=self.seed + number)
            head = imprint(few, fold.labels, recipe, seed=self.seed, device=self.device)
            labels.append(head.predict(fold.queries).astype(np.int64))
        return np.concatenate(labels)

    def _answers(self, way: Way, fold: _Fold, number: int, steps: _Steps) -> Int64:
        head, queries = self._head(way, fold, number, steps.within)
        return head.predict(queries).astype(np.int64)

    def _head(
        self, way: Way, fold: _Fold, number: int, tell: Tell | None = None
    ) -> tuple[Head, Float32]:
        ks = None
        if way.recipe.proxies == "auto":
            # Chosen on the training part alone: what is held out has no say in it.
            if (way.name, number) not in self._chosen:
                # The shrinkage is chosen once, not for every k: it is the slowest part.
                choice = choose_proxies(
                    fold.training, fold.resolved(way.recipe), seed=self.seed, progress=tell
                )
                self._chosen[way.name, number] = choice.ks
            ks = self._chosen[way.name, number]
        return fold.head(way.recipe, ks, self.device)

    def _logistic(self, fold: _Fold) -> Int64:
        rows, index = fold.training.joined()
        check_size(len(rows), rows.shape[1], len(fold.labels))
        predict, converged = fit_logistic(rows, index)
        self.unconverged |= not converged
        return predict(fold.queries)


class _Steps:
    """Progress over ways of unequal length."""

    def __init__(self, tell: Tell, total: int) -> None:
        self.tell, self.total, self.done = tell, total, 0

    def add(self, work: int) -> None:
        self.done += work
        self.tell(self.done, self.total)

    def within(self, part: int, of: int) -> None:
        """Tell how far the choosing within one way is."""
        self.tell(self.done + part * (_CHOOSING - 1) // of, self.total)
