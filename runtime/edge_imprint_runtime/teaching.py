# SPDX-License-Identifier: Apache-2.0
"""Teaching a class on a device: photos' embeddings -> proxies, in numpy, without chance.

Nothing is drawn, and nothing depends on the order in which photos came: a class's proxies are
made anew from all its taught samples, sorted. So teaching 5 photos and then 5 more is teaching
10, to the last byte of the head file. `docs/teaching.md` says the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import EPSILON
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import (
    EmbeddingError,
    InputError,
    NotTeachableError,
    ParameterError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.head_arrays import check_embeddings
from edge_imprint_runtime.rules import Comparison

__all__ = ["MAX_SAMPLES", "check_teachable", "forget", "teach"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]

MAX_SAMPLES = 10_000  # that a head remembers: its file is written anew at each teaching
_MAX_ITERATIONS = 300  # Lloyd's ends far sooner; rounding might let two states alternate
# Squared distances that differ by less of themselves tie: two embeddings are as far from their
# mean, and rounding, which no two processors share, must not choose between what is equal.
_TIE = 1e-9
_UNIT = 1e-3  # proxies whose norms are this near to 1 were normalised
# A new class's threshold: a 20th of its photos may lie below, as in `build --calibrate`.
_FALSE_ALARM = 0.05
_FOLDS = 20


@dataclass(frozen=True)
class _Class:
    """A class of a head.

    Attributes:
        label: Its name.
        host: (h, E) proxies made on the host.
        samples: (n, D) embeddings of what was taught, distinct, sorted.
        taught: (t, E) proxies made of them.
        threshold: From which similarity on it is known; 0 where nothing is calibrated.
    """

    label: str
    host: Float32
    samples: Float32
    taught: Float32
    threshold: float


def teach(head: Head, label: str, embeddings: npt.ArrayLike, *, proxies: int = 5) -> Head:
    """Add a class, or improve one.

    A class that the host made keeps its proxies and its threshold, and gets taught ones
    beside them. An embedding that was taught before counts once.

    Args:
        head: What is known so far.
        label: The class's name, new or known.
        embeddings: (n, D) finite numbers, n >= 1: the photos' embeddings.
        proxies: Taught proxies of the class at most, >= 1; one an embedding where there are
            fewer. One proxy is the mean; more are k-means, started from the embedding nearest
            to the mean, then farthest points.

    Returns:
        A new head; a new class stands last.

    Raises:
        ParameterError: ``proxies`` is out of range, or the head would remember more than
            `MAX_SAMPLES` embeddings.
        NotTeachableError: The head's recipe makes all classes from one another.
        InputError: There are no embeddings, or they are not (n, D) finite numbers.
        EmbeddingError: An embedding is zero where only its direction counts.
        ContractValueError: The name can't be a label.
    """
    if not isinstance(proxies, (int, np.integer)) or isinstance(proxies, bool) or proxies < 1:
        raise ParameterError(f"proxies must be an integer >= 1, got {proxies!r}")
    check_teachable(head)
    rows = check_embeddings(embeddings, head.embedding_size)
    _check_rows(head, rows)
    classes = _split(head)
    position = head.labels.index(label) if label in head.labels else len(classes)
    if position == len(classes):
        check_labels((*head.labels, label))
        empty = (head.proxies[:0], rows[:0], head.proxies[:0])
        classes.append(_Class(label, *empty, threshold=0.0))
    old = classes[position]
    # + 0: what is -0 here and 0 there would be two.
    samples = np.unique(np.concatenate([old.samples, rows]) + np.float32(0), axis=0)
    others = [c for c in classes if c is not old]
    total = len(samples) + sum(len(c.samples) for c in others)
    if total > MAX_SAMPLES:
        raise ParameterError(
            f"the head would remember {total:,} taught photos, the limit is {MAX_SAMPLES:,}; "
            "teach fewer, or forget a class"
        )
    made = _proxies(head, samples, int(proxies))
    threshold = old.threshold
    if head.threshold is not None and not len(old.host):
        found = _threshold(head, samples, int(proxies), others)
        threshold = old.threshold if found is None else found
    classes[position] = replace(old, samples=samples, taught=made, threshold=threshold)
    return _joined(head, classes)


def forget(head: Head, label: str) -> Head:
    """Take a class away: its proxies, whoever made them, and what was taught of it.

    Args:
        head: What is known so far.
        label: The class's name.

    Returns:
        A new head without it. Where the class had been taught alone, and is forgotten before
        others were taught, it is the head as it was before.

    Raises:
        ParameterError: There is no such class, it is the only one, or fewer proxies would be
            left than are to vote.
    """
    if label not in head.labels:
        known = ", ".join(repr(name) for name in head.labels[:20])
        raise ParameterError(f"there is no class {label!r} to forget; there are {known}")
    if len(head.labels) == 1:
        raise ParameterError(
            f"{label!r} is the only class; teach another before forgetting it"
        )
    kept = [c for c in _split(head) if c.label != label]
    left = sum(len(c.host) + len(c.taught) for c in kept)
    if left < head.rule.neighbors:
        raise ParameterError(
            f"{head.rule.neighbors} proxies vote, and without {label!r} {left} are left; "
            "teach another class before forgetting it"
        )
    return _joined(head, kept)


def check_teachable(head: Head) -> None:
    """Refuse a head of whose classes none can be made alone.

    Raises:
        NotTeachableError: Its recipe is of least squares, or normalises by quantiles.
    """
    words = head.recipe.split()
    if len(words) == 5 and (words[1].startswith("least_squares") or words[2] == "quantile"):
        raise NotTeachableError(
            f"the head's recipe '{head.recipe}' makes the proxies of all classes from one "
            "another, so that none can be taught alone; build the head with another recipe"
        )


def _check_rows(head: Head, rows: Float32) -> None:
    if not len(rows):
        raise InputError("there is nothing to teach; give at least one photo")
    if head.rule.embedding_norm == "l2" or head.rule.distance == "cosine":
        norms = np.linalg.norm(_linear(head, rows), axis=1)
        if norms.min() <= EPSILON:
            raise EmbeddingError(
                f"embedding {int(norms.argmin())} is zero, so that it points nowhere; "
                "leave that photo out"
            )


def _split(head: Head) -> list[_Class]:
    """Take a head apart, class by class."""
    counts = np.bincount(head.class_index)
    host = counts if head.host_proxies is None else head.host_proxies
    ends = np.cumsum(counts)
    classes = []
    for c, label in enumerate(head.labels):
        own = head.proxies[ends[c] - counts[c] : ends[c]]
        samples = np.empty((0, head.embedding_size), np.float32)
        if head.samples is not None:
            samples = head.samples[head.sample_class == c]
        threshold = 0.0 if head.threshold is None else float(head.threshold[c])
        classes.append(_Class(label, own[: host[c]], samples, own[host[c] :], threshold))
    return classes


def _joined(head: Head, classes: Sequence[_Class]) -> Head:
    """Put a head together again; what was never taught leaves no trace."""
    index = np.arange(len(classes))
    counts = [len(c.host) + len(c.taught) for c in classes]
    remembered = [len(c.samples) for c in classes]
    taught = any(remembered)
    return Head(
        np.concatenate([part for c in classes for part in (c.host, c.taught)]),
        np.repeat(index, counts),
        [c.label for c in classes],
        head.rule,
        center=head.center,
        transform=head.transform,
        metric=head.metric,
        threshold=None if head.threshold is None else [c.threshold for c in classes],
        temperature=head.temperature,
        samples=np.concatenate([c.samples for c in classes]) if taught else None,
        sample_class=np.repeat(index, remembered) if taught else None,
        host_proxies=[len(c.host) for c in classes] if taught else None,
        recipe=head.recipe,
        backbone=head.backbone,
        notes=head.notes,
    )


def _proxies(head: Head, samples: Float32, count: int) -> Float32:
    """Make up to ``count`` proxies of (n, D) sorted samples: (k, E)."""
    points = _linear(head, samples)
    if head.rule.embedding_norm == "l2":
        points = _unit(points)
    centres = _centres(points, min(count, len(points)))
    norms = np.linalg.norm(head.proxies.astype(np.float64), axis=1)
    if np.abs(norms - 1).max() < _UNIT:  # the host normalised its own
        centres = _unit(centres)
    return centres.astype(np.float32)


def _linear(head: Head, rows: Float32) -> Float64:
    """Return (n, E): ``(rows - center) @ transform``."""
    points = rows.astype(np.float64)
    if head.center is not None:
        points = points - head.center
    if head.transform is not None:
        points = points @ head.transform.astype(np.float64)
    return points


def _unit(rows: Float64) -> Float64:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Float64 = rows / np.maximum(norms, EPSILON)
    return unit


def _centres(points: Float64, k: int) -> Float64:
    """Cluster (n, E) points: up to k means, fewer where points coincide.

    Starts from the point nearest to the mean, then the one farthest from all chosen, and goes
    on with Lloyd's iteration until no point moves. Ties go to the lowest index. A mean that
    loses all its points is given up.
    """
    mean: Float64 = points.mean(axis=0)
    if k == 1:
        return mean[np.newaxis]
    chosen = [int(_nearest(_squares(points, mean)))]
    gap = _squares(points, points[chosen[0]])
    while len(chosen) < k and gap.max() > 0:
        chosen.append(int((gap >= gap.max() * (1 - _TIE)).argmax()))
        gap = np.minimum(gap, _squares(points, points[chosen[-1]]))
    centres: Float64 = points[chosen]
    owner = np.full(len(points), -1)
    for _ in range(_MAX_ITERATIONS):
        nearest = _nearest(np.stack([_squares(points, centre) for centre in centres]))
        kept, found = np.unique(nearest, return_inverse=True)
        if len(kept) == len(centres) and np.array_equal(found, owner):
            break
        owner = found
        centres = np.stack([points[owner == c].mean(axis=0) for c in range(len(kept))])
    return centres


def _nearest(squares: Float64) -> npt.NDArray[np.intp]:
    """Return along the first axis where the least is; of what ties the lowest index."""
    first: npt.NDArray[np.intp] = (squares <= squares.min(axis=0) * (1 + _TIE)).argmax(axis=0)
    return first


def _squares(points: Float64, centre: Float64) -> Float64:
    """Return (n,) squared distances; not by way of products, in which they would cancel."""
    gap = points - centre
    squares: Float64 = np.einsum("ij,ij->i", gap, gap)
    return squares


def _threshold(
    head: Head, samples: Float32, count: int, others: Sequence[_Class]
) -> float | None:
    """Choose from which similarity on a class that was only taught is known.

    Each sample is compared with proxies made without it (without its 20th part, where there
    are more than 20). Of these n similarities the ``floor((n + 1) / 20)``-th smallest is the
    threshold, so that one photo in 20 falls below it. Fewer than 19 photos have no such
    value, and are mostly of one place and one light: there it is the smallest, or the median
    threshold of the classes that the host made (else of all others) where that is lower. None
    where there is neither another photo nor another class.
    """
    found = _held_out(head, samples, count)
    rank = int(np.floor(_FALSE_ALARM * (len(found) + 1) + 1e-9))
    if rank >= 1:
        return float(np.sort(found)[rank - 1])
    known = [c.threshold for c in others if len(c.host)] or [c.threshold for c in others]
    medians = [float(np.median(np.array(known, np.float32)))] if known else []
    return min([*medians, *found.tolist()], default=None)


def _held_out(head: Head, samples: Float32, count: int) -> Float32:
    """Return (n,) similarities to proxies made of other samples; none of a single one."""
    folds = np.arange(len(samples)) % min(len(samples), _FOLDS)
    found = np.empty(len(samples) if len(samples) > 1 else 0, np.float32)
    for fold in range(int(folds.max()) + 1 if len(found) else 0):
        inside = folds != fold
        made = _proxies(head, samples[inside], count)
        comparison = Comparison(
            head.rule,
            made,
            np.zeros(len(made), np.int64),
            center=head.center,
            transform=head.transform,
            metric=head.metric,
        )
        similarity = comparison.similarity(samples[~inside])
        found[~inside] = comparison.nearest(similarity)[:, 0]
    return found
