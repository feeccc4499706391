# SPDX-License-Identifier: Apache-2.0
"""A head's numbers as the graph of a teachable model takes them, and whether they fit it.

The layout is that of `docs/contract.md`: the columns of class c are c K to c K + K - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import EPSILON, Contract
from edge_imprint_runtime.errors import HeadMismatchError
from edge_imprint_runtime.head import Head

__all__ = [
    "CLASSES",
    "COLUMNS",
    "ClassTensor",
    "check_head",
    "class_profile",
    "class_tensors",
    "layout",
    "profile_note",
]

Float32: TypeAlias = npt.NDArray[np.float32]

CLASSES, COLUMNS = "classes", "columns"  # dimensions that grow with the head: C and C*K
_GROWING = {"head/squares": COLUMNS, "head/mask": COLUMNS, "threshold": CLASSES}
_LOWEST = float(np.finfo(np.float32).min)  # not -inf: sums with it stay numbers
_SMALLEST_FLOOR = 1e-30  # as many votes as there can be, divided by it, are within float32


@dataclass(frozen=True)
class ClassTensor:
    """One input of a teachable graph beside its images.

    Attributes:
        values: float32, what a head puts there.
        shape: Its dimensions, those by name that another head may change.
    """

    values: Float32
    shape: tuple[int | str, ...]


def class_tensors(head: Head, slots: int) -> dict[str, ClassTensor]:
    """Lay a head's numbers out for a graph of K slots a class.

    Which there are depends on the rule, and on whether the head has a map and is calibrated:

    =================  ==========  ================================================
    ``proxies``        (E, C*K)    what they are compared with; transposed under manhattan,
                                   (F, C*K) under mahalanobis
    ``head/mean``      (E,)        the mean proxy (euclidean, mahalanobis)
    ``head/squares``   (C*K,)      -|p|^2, and the mask (euclidean, mahalanobis)
    ``head/mask``      (C*K,)      0, or the lowest float32 in padding (other votes)
    ``head/vote_floor``  (1,)      the smallest distance of a vote (weighted votes)
    ``center``         (D,)        as in the head, likewise ``transform`` and ``metric``
    ``threshold``      (C,)        calibrated
    ``temperature``    (1,)        calibrated
    =================  ==========  ================================================

    Args:
        head: C classes of up to K proxies.
        slots: K.

    Returns:
        The tensors by name, in a fixed order, C contiguous.

    Raises:
        HeadMismatchError: A class has more than K proxies.
    """
    rows, padding = layout(head, slots)
    manhattan = head.rule.distance == "manhattan"
    points, found = _compared(head, rows, padding)
    found = {"proxies": points[rows] if manhattan else points[rows].T} | found
    for name in ("center", "transform", "metric", "threshold"):
        if getattr(head, name) is not None:
            found[name] = getattr(head, name)
    if head.temperature is not None:
        found["temperature"] = [head.temperature]
    tensors = {}
    for name, values in found.items():
        array = np.ascontiguousarray(values, np.float32)
        shape: list[int | str] = list(array.shape)
        if name == "proxies":
            shape[0 if manhattan else 1] = COLUMNS
        elif name in _GROWING:
            shape[0] = _GROWING[name]
        tensors[name] = ClassTensor(array, tuple(shape))
    return tensors


def class_profile(
    head: Head, slots: int, max_classes: int
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Say which shapes the class tensors of a graph may take: an optimisation profile.

    Args:
        head: C classes of up to K proxies.
        slots: K.
        max_classes: How many classes the model may come to know, >= C.

    Returns:
        By name, as in `class_tensors`, the shapes of the fewest classes, of C and of the most.
        The fewest are one, or under votes as many as have columns for all that vote. Equal
        shapes where nothing grows.

    Raises:
        HeadMismatchError: A class has more than K proxies, or there are more classes.
    """
    present = len(head.labels)
    if present > max_classes:
        raise HeadMismatchError(
            f"the head has {present} classes, the model would hold {max_classes}; "
            "export it with a higher --max-classes"
        )
    counts = (-(-head.rule.neighbors // slots), present, max_classes)
    shapes = {name: tensor.shape for name, tensor in class_tensors(head, slots).items()}
    least, usual, most = (
        {name: _shape_of(shape, classes, slots) for name, shape in shapes.items()}
        for classes in counts
    )
    return {name: (least[name], usual[name], most[name]) for name in shapes}


def _shape_of(shape: tuple[int | str, ...], classes: int, slots: int) -> tuple[int, ...]:
    sizes = {CLASSES: classes, COLUMNS: classes * slots}
    return tuple(sizes[side] if isinstance(side, str) else side for side in shape)


def profile_note(head: Head, slots: int, max_classes: int) -> str:
    """Write `class_profile` in one line: the tensors that grow, ``name:MIN,OPT,MAX``.

    Args:
        head: As in `class_profile`, likewise the others.
        slots: K.
        max_classes: The most classes.

    Returns:
        Such as ``proxies:512x25,512x250,512x6400``; a blank between tensors.

    Raises:
        HeadMismatchError: As in `class_profile`.
    """
    growing = {
        name: shapes
        for name, shapes in class_profile(head, slots, max_classes).items()
        if name == "proxies" or name in _GROWING
    }
    return " ".join(
        f"{name}:{','.join('x'.join(map(str, shape)) for shape in shapes)}"
        for name, shapes in growing.items()
    )


def _compared(
    head: Head, rows: npt.NDArray[np.int64], padding: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], dict[str, npt.ArrayLike]]:
    """Return (P, E or F) proxies as the graph compares them, and what goes with them."""
    rule, votes = head.rule, head.rule.aggregation == "mnn"
    mask = np.where(padding & votes, _LOWEST, 0.0)
    points = head.proxies.astype(np.float64)
    found: dict[str, npt.ArrayLike] = {"head/mask": mask} if votes else {}
    if rule.distance in ("euclidean", "mahalanobis"):
        # About their mean, so that little cancels; rounded as the graph has it.
        mean = points.mean(axis=0).astype(np.float32)
        points = points - mean
        if head.metric is not None:
            points = points @ head.metric.astype(np.float64)
        points = points.astype(np.float32).astype(np.float64)
        squares = np.where(mask < 0, mask, -np.square(points).sum(axis=1)[rows])
        found = {"head/mean": mean, "head/squares": squares}
    elif rule.distance == "cosine":
        norms = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
        points = points / np.maximum(norms, EPSILON)
    if rule.weighting == "distance":
        found["head/vote_floor"] = [_vote_floor(head, points)]
    return points, found


def layout(head: Head, slots: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Say which proxy is in which slot.

    Args:
        head: C classes of up to K proxies.
        slots: K.

    Returns:
        (C*K,) int64 positions in ``head.proxies``, a class's first where it has fewer than K;
        and (C*K,) bool: which slots are such padding.

    Raises:
        HeadMismatchError: A class has more than K proxies.
    """
    counts = np.bincount(head.class_index)
    if counts.max() > slots:
        c = int(counts.argmax())
        raise HeadMismatchError(
            f"class {head.labels[c]!r} has {counts[c]} proxies, the model has room for "
            f"{slots} a class; export the model again from this head"
        )
    first = np.searchsorted(head.class_index, np.arange(len(counts)))
    slot = np.arange(slots)
    padding = slot >= counts[:, np.newaxis]
    rows = first[:, np.newaxis] + np.where(padding, 0, slot)
    return rows.ravel(), padding.ravel()


def check_head(head: Head, contract: Contract, where: str) -> None:
    """Refuse a head that a teachable model can't take.

    Args:
        head: The head beside the model.
        contract: The model's.
        where: The head's file, for messages.

    Raises:
        HeadMismatchError: It is of another backbone, embedding size or rule, only one of both
            is calibrated, or it has too many classes or proxies.
    """
    assert contract.graph is not None  # only of teachable models is it asked
    assert contract.graph.teachable is not None
    of_model, of_head = contract.backbone, head.backbone
    again = "; put the head there that was exported with the model, or export it again"
    digests = [None if info is None else info.digest for info in (of_model, of_head)]
    if digests[0] != digests[1]:
        raise HeadMismatchError(
            f"{where} was made with another backbone than the model{again}"
        )
    if of_model and of_head and of_head.preprocess != of_model.preprocess:
        raise HeadMismatchError(
            f"{where} was made with other preprocessing than the model's{again}"
        )
    if head.embedding_size != contract.embedding_size or head.rule != contract.rule:
        raise HeadMismatchError(
            f"{where} has another embedding size or rule than the model{again}"
        )
    if (head.temperature is None) != (contract.temperature is None):
        raise HeadMismatchError(f"of {where} and its model only one is calibrated{again}")
    limit = contract.graph.teachable.max_classes
    if len(head.labels) > limit:
        raise HeadMismatchError(
            f"{where} has {len(head.labels)} classes, the model holds {limit}; "
            "export it again with a higher --max-classes"
        )
    try:
        layout(head, contract.graph.slots)
    except HeadMismatchError as error:
        raise HeadMismatchError(f"{where}: {error}") from error


def _vote_floor(head: Head, points: npt.NDArray[np.float64]) -> float:
    """Return the smallest distance that divides a vote: 1e-6 of the proxies' spread."""
    if head.rule.distance == "cosine":
        return 1e-6
    if head.rule.distance == "manhattan":
        gap = np.abs(points - points.mean(axis=0)).sum(axis=1)
        spread = np.square(gap).mean()
    else:  # about their mean already
        spread = np.square(points).sum(axis=1).mean()
    return max(float(1e-6 * spread) or EPSILON, _SMALLEST_FLOOR)
