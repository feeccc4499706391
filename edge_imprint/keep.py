# SPDX-License-Identifier: Apache-2.0
"""New classes beside those that a backbone was trained on (Qi et al. 2018, arXiv 1712.07136).

A row of the backbone's classifier, L2-normalised, is one proxy of its class.

Taken like that, new classes take nearly all. An imprinted proxy lies amid its class's images;
a row is what training found to tell its class from the others, and its cosine with an image of
its class is below that of a wrong imprinted proxy. One factor for all rows mends most of it
(calibrated stacking, Chao et al. 2016, arXiv 1605.04253), and no image of an old class is
needed to find it: `own_scale` takes the largest that loses few of the held-out new images.
Five digits imprinted beside five that a small network was trained on, percent right
(``benchmarks/keep_classes.py``, mean of 5 seeds):

========  =========  =========  ===============  =================
preset    old alone  new alone  kept (old, new)  scaled (old, new)
========  =========  =========  ===============  =================
qi2018    99         72         3, 72            81, 69
imprint   99         86         0, 86            81, 81
========  =========  =========  ===============  =================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone, OwnClasses
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint_runtime.contract import EPSILON, Rule
from edge_imprint_runtime.errors import HeadValueError, ParameterError, WeightsError
from edge_imprint_runtime.head import Head

if TYPE_CHECKING:
    from edge_imprint.imprinting.whitening import ClassSource
    from edge_imprint.judging.crossval import HeldOut

__all__ = ["LOST", "check_keep", "keep_classes", "own_classes", "own_scale"]

# Share of a new class's images that may go to the backbone's own classes.
LOST = 0.05

# No similarity is below it, so that a kept class is never called unknown.
_ALWAYS_KNOWN = np.finfo(np.float32).min


def own_classes(backbone: Backbone) -> OwnClasses:
    """Read a backbone's own classes.

    Args:
        backbone: The backbone.

    Returns:
        Its classifier's rows and class names.

    Raises:
        ParameterError: It has none, or none whose rows compare with its embeddings.
        WeightsError: The weights it was loaded from hold none.
    """
    if backbone.classifier is None:
        raise ParameterError(
            f"the backbone {backbone.info.name} brings no classes of its own; "
            "use a timm backbone, or leave out --keep-classes"
        )
    return backbone.classifier()


def check_keep(own: OwnClasses, labels: Sequence[str], recipe: Recipe) -> None:
    """Refuse what `keep_classes` would, before there is a head.

    Args:
        own: The backbone's own classes.
        labels: The new ones.
        recipe: What the head will be made by.

    Raises:
        ParameterError: A label is one of the backbone's own, or the recipe compares
            embeddings otherwise than a classifier does.
    """
    whitened = recipe.pre_norm == "whiten"
    _check_compared(recipe.rule, mapped=whitened, unit=recipe.post_norm == "l2")
    _check_apart(labels, own)


def own_scale(
    own: OwnClasses, source: ClassSource, answers: HeldOut, lost: float = LOST
) -> float:
    """Choose the factor for `keep_classes` on held-out images of the new classes.

    Args:
        own: The backbone's own classes.
        source: C classes of (n, D) float32 rows: the new ones.
        answers: What `held_out` gave for ``source``.
        lost: Share (0..1) of the held-out images that may go to the own classes.

    Returns:
        The largest factor that loses no more; 1.0 where the own classes are never near.

    Raises:
        ParameterError: ``lost`` is out of range.
        WeightsError: As in `keep_classes`.
    """
    if not 0 <= lost < 1:
        raise ParameterError(f"lost must be a share from 0 to below 1, got {lost!r}")
    proxies = _unit_rows(own)
    nearest = np.empty(len(answers.truth), np.float32)
    for c in range(len(source)):
        of_class = answers.truth == c
        rows = source[c][0][answers.row[of_class]]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.maximum(norms, np.float32(EPSILON))
        nearest[of_class] = (unit @ proxies.T).max(axis=1, initial=-1)
    # The own classes win where factor * nearest > new; never where nearest is not positive.
    new = answers.nearest.max(axis=1).astype(np.float64)
    factors = np.full(len(new), np.inf)
    np.divide(new, nearest, out=factors, where=nearest > 0)
    factor = float(np.sort(factors)[int(lost * len(factors))])
    return factor if 0 < factor < np.inf else 1.0


def keep_classes(head: Head, own: OwnClasses, scale: float = 1.0) -> Head:
    """Put a backbone's own classes beside imprinted ones.

    The imprinted classes come first: they keep their indices, and win where scores are equal.
    The own ones follow in their classifier's order. The recipe line stays that of the
    imprinted classes. Of a calibrated head the temperature stays, and an image nearest to a
    kept class is never called unknown: no image of it was there to calibrate with.

    Args:
        head: A head that compares L2-normalised embeddings with L2-normalised proxies by
            inner product or cosine, under ``max``.
        own: The own classes of the same backbone.
        scale: Length of the own classes' proxies, above 0: what their cosine is multiplied
            by. 1.0 is Qi et al.; see `own_scale`.

    Returns:
        A new head. It compares by inner product: on unit vectors cosine is the same.

    Raises:
        ParameterError: ``scale`` is out of range, the head compares otherwise, or a label is
            in both.
        HeadValueError: The embeddings have another length.
        WeightsError: A row of the classifier is zero, NaN or infinite.
    """
    if not 0 < scale < float("inf"):
        raise ParameterError(f"scale must be a number above 0, got {scale!r}")
    _check_compared(
        head.rule,
        mapped=head.center is not None or head.transform is not None,
        unit=np.allclose(np.linalg.norm(head.proxies, axis=1), 1, atol=1e-5),
    )
    size = own.weights.shape[1]
    if size != head.embedding_size:
        raise HeadValueError(
            f"the head takes embeddings of {head.embedding_size} numbers, the backbone's "
            f"classifier of {size}; take the classes of the backbone it was made with"
        )
    _check_apart(head.labels, own)
    imprinted, kept = len(head.labels), len(own.labels)
    threshold = head.threshold
    if threshold is not None:
        threshold = np.concatenate([threshold, np.full(kept, _ALWAYS_KNOWN, np.float32)])
    return Head(
        np.concatenate([head.proxies, np.float32(scale) * _unit_rows(own)]),
        np.concatenate([head.class_index, imprinted + np.arange(kept)]),
        (*head.labels, *own.labels),
        replace(head.rule, distance="inner_product"),
        threshold=threshold,
        temperature=head.temperature,
        recipe=head.recipe,
        backbone=head.backbone,
    )


def _unit_rows(own: OwnClasses) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(own.weights.astype(np.float64), axis=1, keepdims=True)
    good = np.isfinite(norms[:, 0]) & (norms[:, 0] > EPSILON)
    if not good.all():
        raise WeightsError(
            f"the classifier's row of the class {own.labels[int(np.argmin(good))]!r} is zero, "
            "NaN or infinite; give other weights, or leave out --keep-classes"
        )
    rows: npt.NDArray[np.float32] = (own.weights / norms).astype(np.float32)
    return rows


def _check_compared(rule: Rule, *, mapped: bool, unit: bool) -> None:
    obstacles = {
        "whitened or centred embeddings": mapped,
        f"embedding_norm={rule.embedding_norm!r}": rule.embedding_norm != "l2",
        "proxies that are not L2-normalised": not unit,
        f"aggregation={rule.aggregation!r}": rule.aggregation != "max",
        f"distance={rule.distance!r}": rule.distance not in ("inner_product", "cosine"),
    }
    found = [name for name, there in obstacles.items() if there]
    if found:
        raise ParameterError(
            "the backbone's own classes can be kept only where the nearest of L2-normalised "
            f"proxies decides by its cosine, not with {' and '.join(found)}; "
            "use --recipe imprint, or leave out --keep-classes"
        )


def _check_apart(labels: Sequence[str], own: OwnClasses) -> None:
    theirs = set(own.labels)
    both = [label for label in labels if label in theirs]
    if both:
        more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
        raise ParameterError(
            f"the class {both[0]!r}{more} is one of the backbone's own too; "
            "rename its folder, or leave out --keep-classes"
        )
