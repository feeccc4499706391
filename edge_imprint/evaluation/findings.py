# SPDX-License-Identifier: Apache-2.0
"""What held-out answers say beyond accuracy: suspects, duplicates, unknowns, a map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.nearest import nearest_among
from edge_imprint.embedding.neighbours import NEAR, exact_distance
from edge_imprint.evaluation.result import Answers, Duplicate, Map, Suspect
from edge_imprint.imprinting.sources import normalized
from edge_imprint.judging.crossval import HeldOut
from edge_imprint_runtime.head import Head

__all__ = [
    "answers_of",
    "find_duplicates",
    "find_suspects",
    "make_map",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_LISTED = 100
# All pairs of rows are compared: beyond this it would take longer than all the rest.
_MAX_ROWS = 30_000
# A suspect is surer than this share of the right answers.
_SURE = 0.25
_MAX_POINTS = 2_000


def answers_of(held: HeldOut, row: Int64) -> Answers:
    """Keep of held-out similarities what is shown of single images.

    Args:
        held: The answers.
        row: (M,) which row of the given embeddings each is.

    Returns:
        Them, in the order of the rows.
    """
    order = np.argsort(row)
    position = np.arange(len(row))
    others = held.nearest.copy()
    others[position, held.truth] = -np.inf
    return Answers(
        row[order],
        held.truth[order],
        held.label[order].astype(np.int64),
        held.nearest[position, held.truth][order],
        others.max(axis=1)[order],
    )


def find_suspects(answers: Answers) -> tuple[tuple[Suspect, ...], int]:
    """Find images that may be mislabelled.

    An image is suspect where the answer is another class, and surer than a quarter of the
    right answers are: by margin, its similarity to the one class less that to the other.

    Args:
        answers: The held-out answers.

    Returns:
        The surest hundred, and how many there are in all.
    """
    right = answers.label == answers.truth
    margin = answers.best_other - answers.own
    if not right.any():
        return (), 0
    wide = float(np.quantile(-margin[right], _SURE))
    found = np.flatnonzero(~right & (margin >= wide) & (margin > 0))
    found = found[np.argsort(-margin[found], kind="stable")]
    suspects = [
        Suspect(
            int(answers.row[i]),
            int(answers.truth[i]),
            int(answers.label[i]),
            float(margin[i]),
        )
        for i in found[:_LISTED]
    ]
    return tuple(suspects), len(found)


def find_duplicates(
    embeddings: Float32, class_index: Int64
) -> tuple[tuple[Duplicate, ...], int | None]:
    """Find images of different classes that are all but the same.

    Two are where their distance (at unit length) is below three tenths of the median distance
    between an image and its nearest neighbour.

    Args:
        embeddings: (N, D) float32.
        class_index: (N,) int64.

    Returns:
        The nearest hundred, and how many there are; None above 30,000 images, where they are
        not looked for.
    """
    if len(embeddings) > _MAX_ROWS:
        return (), None
    class_index = np.asarray(class_index, np.int64)

    def read(position: Int64) -> Float32:
        return embeddings[position]

    found = nearest_among(read, np.arange(len(embeddings)), class_index)
    pairs = np.column_stack([found.position, found.other_at[:, 0]])
    pairs = np.unique(np.sort(pairs[pairs[:, 1] >= 0], axis=1), axis=0)
    apart = exact_distance(read, pairs[:, 0], pairs[:, 1])
    own_first = found.own >= found.other[:, 0]
    nearest = np.where(own_first, found.own_at, found.other_at[:, 0])
    typical = float(np.median(exact_distance(read, found.position, nearest)))
    close = np.flatnonzero(apart <= NEAR * typical)
    close = close[np.argsort(apart[close], kind="stable")]
    listed = [
        Duplicate(int(a), int(b), int(class_index[a]), int(class_index[b]), float(distance))
        for (a, b), distance in zip(
            pairs[close[:_LISTED]], apart[close[:_LISTED]], strict=True
        )
    ]
    return tuple(listed), len(close)


def make_map(
    title: str, embeddings: Float32, class_index: Int64, head: Head, seed: int
) -> Map:
    """Lay embeddings and proxies on the two principal axes of the embeddings.

    Args:
        title: What space it shows.
        embeddings: (N, D) float32; 2,000 of more are drawn.
        class_index: (N,) int64.
        head: Its map, its proxies; they are compared at unit length.
        seed: For the draw.

    Returns:
        The map.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:_MAX_POINTS])
    rows = embeddings[drawn]
    if head.center is not None and head.transform is not None:
        rows = ((rows - head.center) @ head.transform).astype(np.float32)
    unit = normalized(rows, "l2").astype(np.float64)
    mean: Float64 = unit.mean(axis=0)
    axes, explained = _principal(unit - mean)
    return Map(
        title,
        (unit - mean) @ axes,
        class_index[drawn],
        (head.proxies - mean) @ axes,
        head.class_index,
        explained,
    )


def _principal(centred: Float64) -> tuple[Float64, float]:
    """Two principal axes, (E, 2), and the share of the variance that they show."""
    count, size = centred.shape
    gram = centred.T @ centred if size <= count else centred @ centred.T
    values, vectors = np.linalg.eigh(gram)
    axes = vectors[:, ::-1][:, :2]
    if size > count:
        axes = centred.T @ axes
    axes = axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-30)
    if axes.shape[1] < 2:  # embeddings of one number
        axes = np.hstack([axes, np.zeros((size, 2 - axes.shape[1]))])
    # A direction is as good as its opposite: the larger part goes up, so that runs agree.
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(2)]
    total = float(values.clip(0).sum())
    share = float(values[-2:].clip(0).sum()) / total if total > 0 else 1.0
    return axes * np.where(largest < 0, -1.0, 1.0), share
