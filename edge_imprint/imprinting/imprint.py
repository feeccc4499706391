# SPDX-License-Identifier: Apache-2.0
"""Embeddings, class by class -> a head (arXiv 2503.14572, section 3).

One pass a stage, and no stage needs more than one class at a time: whitening (where asked
for), generation, normalisation of the proxies, and the metric (mahalanobis).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.proxies import Generate
from edge_imprint.imprinting.proxies import generate as generate_here
from edge_imprint.imprinting.quantile import quantile_normalize
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.shrinkage import choose_shrinkage
from edge_imprint.imprinting.sources import Distinct, Mapped, Some, normalized
from edge_imprint.imprinting.whitening import ClassSource, Whitening, fit_whitening
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.head import Head

if TYPE_CHECKING:
    from edge_imprint.judging.calibrate import Calibration

__all__ = ["Proxies", "assemble", "imprint", "is_local", "make_all", "resolved"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Proxies:
    """What generation gave, before the proxies are normalised.

    Attributes:
        by_class: (p, E) float32 for each class.
        whitening: The map under ``pre_norm="whiten"``; None where its shrinkage is 1.
        metric: (E, F) float32 under ``distance="mahalanobis"``.
    """

    by_class: tuple[Float32, ...]
    whitening: Whitening | None = None
    metric: Float32 | None = None


def imprint(
    source: ClassSource,
    labels: Sequence[str],
    recipe: Recipe,
    *,
    seed: int = 0,
    ks: Sequence[int] | None = None,
    device: str = "cpu",
    backbone: BackboneInfo | None = None,
    calibration: Calibration | None = None,
    generate: Generate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Make a head of labelled embeddings.

    Args:
        source: C classes of (n, D) float32 rows, each n >= 1, finite.
        labels: Their C names.
        recipe: How.
        seed: For the generations that draw.
        ks: Proxies for each class, instead of the recipe's one number.
        device: ``cpu`` or ``cuda``: where k-means runs.
        backbone: What made the embeddings.
        calibration: The temperature and thresholds that the head gets; None for none.
        generate: Instead of `edge_imprint.imprinting.proxies.generate`: on a cluster. It does
            not make the clusters of ``least_squares``.
        progress: Told (done, total) classes.

    Returns:
        The head. The order of the rows changes nothing, and that of the classes nothing in
        what is made of a class, up to the last bits of sums over classes (whitening,
        mahalanobis, least squares).
    """
    recipe = resolved(source, recipe, seed)
    made = make_all(
        source, recipe, seed=seed, ks=ks, device=device, generate=generate, progress=progress
    )
    return assemble(made, labels, recipe, backbone=backbone, calibration=calibration)


def make_all(
    source: ClassSource,
    recipe: Recipe,
    *,
    seed: int = 0,
    ks: Sequence[int] | None = None,
    known: Mapping[int, Float32] | None = None,
    device: str = "cpu",
    generate: Generate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Proxies:
    """Make the proxies of all classes; arguments as in `imprint`.

    Args:
        source: As in `imprint`.
        recipe: As in `imprint`, `resolved`.
        seed: As in `imprint`.
        ks: As in `imprint`.
        known: Proxies, by class, that an earlier call gave and that are still true; see
            `is_local`.
        device: As in `imprint`.
        generate: As in `imprint`.
        progress: As in `imprint`.

    Returns:
        The proxies, not yet normalised.
    """
    whitening = None
    if recipe.pre_norm == "whiten" or recipe.distance == "mahalanobis":
        source = Distinct(source)
    if recipe.pre_norm == "whiten":
        share = recipe.whiten_shrinkage
        assert not isinstance(share, str)  # resolved
        if share != 1:  # else nothing is left of the map
            whitening = fit_whitening(source, recipe.whiten_size, share)
    mapped = Mapped(source, whitening, recipe.pre_norm)
    numbers = [recipe.k] * len(source) if ks is None else list(ks)
    if recipe.generation == "least_squares":
        from edge_imprint.imprinting.least_squares import least_squares

        made = least_squares(
            mapped, numbers, seed, ridge=recipe.ridge, balanced=recipe.balanced
        )
    else:
        make = partial(generate or generate_here, seed=seed, device=device, progress=progress)
        made = _generate(make, mapped, recipe.generation, numbers, known or {})
    metric = None
    if recipe.distance == "mahalanobis":
        # Of the embeddings as they are compared: after the map and the norm at inference.
        compared = Mapped(source, whitening, recipe.inference_norm)
        metric = fit_whitening(compared).transform
    return Proxies(tuple(made), whitening, metric)


def resolved(source: ClassSource, recipe: Recipe, seed: int) -> Recipe:
    """Put a number where a recipe leaves whitening's shrinkage to the embeddings.

    Args:
        source: As in `imprint`.
        recipe: Any recipe.
        seed: As in `imprint`.

    Returns:
        The recipe, as it is where there was nothing to choose.
    """
    if recipe.whiten_shrinkage != "auto":
        return recipe
    share = choose_shrinkage(source, seed)
    # Four digits, so that the recipe's line says what was done.
    return replace(recipe, whiten_shrinkage=max(round(share, 4), 1e-4))


def is_local(recipe: Recipe) -> bool:
    """Whether a class's proxies depend on that class's samples alone."""
    return recipe.pre_norm != "whiten" and recipe.generation != "least_squares"


def assemble(
    made: Proxies,
    labels: Sequence[str],
    recipe: Recipe,
    *,
    backbone: BackboneInfo | None = None,
    calibration: Calibration | None = None,
) -> Head:
    """Normalise the proxies and make the head of them; arguments as in `imprint`."""
    rows = np.concatenate(made.by_class)
    index = np.repeat(np.arange(len(made.by_class)), [len(part) for part in made.by_class])
    if recipe.post_norm == "quantile":
        rows = quantile_normalize(rows, index)
    else:
        rows = normalized(rows, recipe.post_norm)
    whitening = made.whitening
    return Head(
        rows,
        index,
        labels,
        recipe.rule,
        center=None if whitening is None else whitening.center,
        transform=None if whitening is None else whitening.transform,
        metric=made.metric,
        threshold=None if calibration is None else calibration.threshold,
        temperature=None if calibration is None else calibration.temperature,
        recipe=str(recipe),
        backbone=backbone,
    )


def _generate(
    make: Callable[..., list[Float32]],
    source: ClassSource,
    generation: str,
    ks: Sequence[int],
    known: Mapping[int, Float32],
) -> list[Float32]:
    missing = [c for c in range(len(source)) if c not in known]
    if not missing:
        return [known[c] for c in range(len(source))]
    made = make(Some(source, missing), generation, [ks[c] for c in missing])
    everything = dict(known) | dict(zip(missing, made, strict=True))
    return [everything[c] for c in range(len(source))]
