# SPDX-License-Identifier: Apache-2.0
"""What a head is made of and what it is given: numbers, checked."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import (
    HeadValueError,
    InputError,
    LabelCountError,
    ParameterError,
)

if TYPE_CHECKING:
    from edge_imprint_runtime.head import Head

__all__ = [
    "check_classes",
    "check_embeddings",
    "check_fit",
    "check_taught",
    "floats",
    "frozen",
    "integers",
]

Float32: TypeAlias = npt.NDArray[np.float32]


def check_embeddings(embeddings: npt.ArrayLike, size: int) -> Float32:
    """Check embeddings.

    Args:
        embeddings: (N, D) finite numbers.
        size: D.

    Returns:
        (N, D) float32.

    Raises:
        InputError: The shape is not (N, D), or a row is NaN or infinite.
    """
    given = np.asarray(embeddings)
    if given.ndim != 2 or given.shape[1] != size or given.dtype.kind not in "fiu":
        raise InputError(
            f"embeddings must be numbers of shape (N, {size}), "
            f"got {given.shape} of {given.dtype}"
        )
    with np.errstate(over="ignore"):  # beyond float32's range is infinity, refused below
        rows = given.astype(np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputError(f"embedding {int(np.argmin(finite))} holds NaN or infinity")
    return rows


def check_fit(head: Head) -> None:
    """Hold a head's arrays, its rule and its calibration against each other.

    Raises:
        HeadValueError: Two of them contradict each other.
        ParameterError: More neighbors are to vote than there are proxies.
    """
    _check_map(head)
    _check_metric(head)
    if head.rule.neighbors > len(head.proxies):
        raise ParameterError(
            f"neighbors must be at most the {len(head.proxies)} proxies of the head, "
            f"got {head.rule.neighbors}"
        )
    if (head.threshold is None) != (head.temperature is None):
        raise HeadValueError("threshold and temperature belong together: both or neither")
    if head.threshold is not None and len(head.threshold) != len(head.labels):
        raise HeadValueError(
            f"threshold must hold {len(head.labels)} numbers, one a class, "
            f"got {len(head.threshold)}"
        )


def _check_map(head: Head) -> None:
    size = head.embedding_size
    mapped = size if head.transform is None else head.transform.shape[1]
    if head.transform is not None and head.transform.shape[0] != size:
        raise HeadValueError(
            f"transform must have {size} rows, one an entry of center, "
            f"got {head.transform.shape[0]}"
        )
    if mapped != head.proxies.shape[1]:
        raise HeadValueError(
            f"proxies must have {mapped} columns, got {head.proxies.shape[1]}"
        )


def _check_metric(head: Head) -> None:
    rule, size = head.rule, head.proxies.shape[1]
    if rule.distance == "mahalanobis" and head.metric is None:
        raise HeadValueError(f"distance='mahalanobis' needs metric, ({size}, F) numbers")
    if head.metric is not None and rule.distance != "mahalanobis":
        raise HeadValueError(
            f"metric belongs to distance='mahalanobis', the rule has {rule.distance!r}; "
            "leave it out"
        )
    if head.metric is not None and len(head.metric) != size:
        raise HeadValueError(f"metric must have {size} rows, got {len(head.metric)}")


def check_taught(head: Head) -> None:
    """Hold what a head remembers of teaching against its proxies.

    Raises:
        HeadValueError: Of samples, sample_class and host_proxies some are missing, their
            lengths differ, or a class has taught proxies without samples or the reverse.
    """
    samples, owner, host = head.samples, head.sample_class, head.host_proxies
    if samples is None and owner is None and host is None:
        return
    if samples is None or owner is None or host is None:
        raise HeadValueError(
            "samples, sample_class and host_proxies belong together: all or none"
        )
    classes = len(head.labels)
    if samples.shape[1] != head.embedding_size:
        raise HeadValueError(
            f"samples must have {head.embedding_size} columns, got {samples.shape[1]}"
        )
    ascending = bool((np.diff(owner) >= 0).all())
    if len(owner) != len(samples) or not (ascending and 0 <= owner[0] <= owner[-1] < classes):
        raise HeadValueError(
            f"sample_class must be {len(samples)} integers from 0 to {classes - 1}, one a "
            "sample, ascending"
        )
    if len(host) != classes or host.min() < 0:
        raise HeadValueError(f"host_proxies must be {classes} integers >= 0, one a class")
    taught = np.bincount(head.class_index) - host
    remembered = np.bincount(owner, minlength=classes)
    wrong = (taught < 0) | ((taught > 0) != (remembered > 0))
    if wrong.any():
        c = int(wrong.argmax())
        raise HeadValueError(
            f"class {c} has {taught[c]} taught proxies and {remembered[c]} samples; "
            "both or neither"
        )


def check_classes(index: npt.NDArray[np.generic], classes: int) -> None:
    """Check that each of ``classes`` has a proxy, and no other.

    Raises:
        LabelCountError: One has none, or there are more.
    """
    found = np.unique(index).astype(np.int64)
    if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < classes:
        raise LabelCountError(
            f"class_index goes from {found[0]} to {found[-1]}, but there are {classes} labels"
        )
    if len(found) < classes:
        empty = int(np.setdiff1d(np.arange(classes), found)[0])
        raise LabelCountError(f"there are {classes} labels, but class {empty} has no proxy")


def floats(name: str, values: npt.ArrayLike, ndim: int) -> Float32:
    """Read an array of finite numbers as float32.

    Raises:
        HeadValueError: It has other dimensions, is empty, or holds what is no finite number.
    """
    try:
        given = np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise HeadValueError(f"{name} must be one array of numbers: {error}") from error
    if given.ndim != ndim or not given.size or given.dtype.kind not in "fiu":
        raise HeadValueError(
            f"{name} must be numbers in {ndim} dimensions, "
            f"got shape {given.shape} of {given.dtype}"
        )
    with warnings.catch_warnings():
        # A float64 beyond float32's range becomes infinity, which is refused below by name.
        warnings.simplefilter("ignore", RuntimeWarning)
        array = given.astype(np.float32)
    if not np.isfinite(array).all():
        raise HeadValueError(f"{name} hold NaN or infinity")
    return array


def integers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Read a row of integers.

    Raises:
        HeadValueError: It has other dimensions, is empty, or holds what is no integer.
    """
    given = np.asarray(values)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise HeadValueError(
            f"{name} must be integers in one dimension, "
            f"got shape {given.shape} of {given.dtype}"
        )
    return given.astype(np.int64)


def frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return a copy that can't be written to."""
    copy: npt.NDArray[np.generic] = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy
