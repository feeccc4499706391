# SPDX-License-Identifier: Apache-2.0
"""Embeddings -> a head with all that was asked for: k chosen, calibrated, classes kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_imprint.backbones import OwnClasses
from edge_imprint.imprinting.imprint import imprint, resolved
from edge_imprint.imprinting.proxies import Generate
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.shrinkage import choose_shrinkage
from edge_imprint.imprinting.streamed import drawn_notes
from edge_imprint.imprinting.whitening import ClassSource
from edge_imprint.judging.calibrate import (
    Calibration,
    calibrate,
    check_labels,
    weakly_calibrated,
)
from edge_imprint.judging.choose import Choice, choose_proxies
from edge_imprint.judging.crossval import HeldOut, held_out
from edge_imprint.judging.folds import Folds
from edge_imprint.judging.measures import paired_difference
from edge_imprint.keep import LOST, keep_classes, own_scale
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import TooFewImagesError
from edge_imprint_runtime.head import Head

__all__ = ["MadeHead", "Progress", "make_head"]

Progress = Callable[[str, int, int], None]
"""Told (step, done, total) now and then."""


@dataclass(frozen=True)
class MadeHead:
    """A head, what it was decided by, and what a user should know; as in `Build`."""

    head: Head
    choice: Choice | None
    calibration: Calibration | None
    notes: tuple[str, ...]


def make_head(
    source: ClassSource,
    labels: Sequence[str],
    recipe: Recipe,
    *,
    false_alarm: float | None = None,
    own: OwnClasses | None = None,
    seed: int = 0,
    device: str = "cpu",
    backbone: BackboneInfo | None = None,
    generate: Generate | None = None,
    progress: Progress | None = None,
) -> MadeHead:
    """Make a head: choose k, calibrate and keep classes where asked for, and imprint.

    Args:
        source: The embeddings, class by class.
        labels: The class names.
        recipe: How; its ``proxies`` may be ``auto``.
        false_alarm: As in `calibrate`; None to leave the head uncalibrated.
        own: The backbone's own classes, to be kept beside the new ones; None for none.
        seed: Seed.
        device: Where k-means runs.
        backbone: What the head remembers.
        generate: Instead of `edge_imprint.imprinting.proxies.generate`: on a cluster.
        progress: Told how far it is.

    Returns:
        The head with its evidence.

    Raises:
        ParameterError: A class is called ``unknown`` in a head to be calibrated.
        TooFewImagesError: Nothing can be held out, and it was needed.
    """
    tell = progress or _silent
    if false_alarm is not None:
        check_labels(labels)
    if recipe.whiten_shrinkage == "auto":
        tell("choosing the shrinkage", 0, 1)
        recipe = resolved(source, recipe, seed)
    notes: list[str] = []
    choice = calibration = None
    if recipe.proxies == "auto":
        choice = choose_proxies(
            source,
            recipe,
            seed=seed,
            progress=lambda done, total: tell("choosing proxies", done, total),
        )
    ks = None if choice is None else choice.ks
    answers = None
    if false_alarm is not None or own is not None:
        answers = _held_out(source, recipe, ks, seed, tell, needed=false_alarm is not None)
    if false_alarm is not None and answers is not None:
        calibration = calibrate(answers, false_alarm)
        notes += _weak_note(labels, answers, false_alarm)
    if choice is not None and recipe.pre_norm == "l2" and own is None:
        tell("looking at whitening", 0, 1)
        notes += _whitening_note(source, recipe, choice.ks, seed)
    head = imprint(
        source,
        labels,
        recipe,
        seed=seed,
        ks=ks,
        device=device,
        backbone=backbone,
        calibration=calibration,
        generate=generate,
        progress=lambda done, total: tell("imprinting", done, total),
    )
    notes += drawn_notes(source, labels, recipe)
    if own is not None:
        scale = 1.0 if answers is None else own_scale(own, source, answers)
        head = keep_classes(head, own, scale)
        notes.append(_kept_note(own, None if answers is None else scale))
    return MadeHead(head, choice, calibration, tuple(notes))


def _held_out(
    source: ClassSource,
    recipe: Recipe,
    ks: Sequence[int] | None,
    seed: int,
    tell: Progress,
    *,
    needed: bool,
) -> HeldOut | None:
    """Cross-validate; None where nothing can be held out and it is not needed."""
    try:
        folds = Folds(source, seed=seed)
    except TooFewImagesError:
        if needed:
            raise
        return None
    return held_out(
        folds,
        recipe,
        ks=ks,
        seed=seed,
        progress=lambda done, total: tell("holding out photos", done, total),
    )


def _whitening_note(
    source: ClassSource, recipe: Recipe, ks: Sequence[int], seed: int
) -> list[str]:
    """Say so where held-out photos speak for whitening."""
    share = choose_shrinkage(source, seed)
    if share == 1:
        return []
    folds = Folds(source, seed=seed)
    whitened = replace(recipe, pre_norm="whiten", whiten_shrinkage=share)
    plain, other = (held_out(folds, way, ks=ks, seed=seed) for way in (recipe, whitened))
    gain, error = paired_difference(other.right, plain.right)
    if gain <= 2 * error:
        return []
    text = (
        f"whitening brings {100 * gain:.1f} points on held-out photos (standard error "
        f"{100 * error:.1f}): try --recipe whitened"
    )
    return [text]


def _weak_note(labels: Sequence[str], answers: HeldOut, false_alarm: float) -> list[str]:
    weak = weakly_calibrated(answers, false_alarm)
    if not len(weak):
        return []
    needed = int(np.ceil(1 / false_alarm - 1e-9)) - 1
    shown = ", ".join(repr(labels[c]) for c in weak[:5])
    more = f" and {len(weak) - 5} more" if len(weak) > 5 else ""
    text = (
        f"fewer than {needed} photos could be held out of {shown}{more}: with so few a false "
        f"alarm of {false_alarm:.0%} is a hope, not a promise; add photos"
    )
    return [text]


def _kept_note(own: OwnClasses, scale: float | None) -> str:
    kept = f"{len(own.labels)} classes of the backbone were kept"
    if scale is None:
        return f"{kept} as they are: no photo could be held out to weigh them against the new"
    return (
        f"{kept}, their similarity times {scale:.3f}, with which at most {LOST:.0%} of the "
        "held-out photos of new classes go to them"
    )


def _silent(step: str, done: int, total: int) -> None:
    pass
