# SPDX-License-Identifier: Apache-2.0
"""The head: proxies, labels and a rule. Its `scores`, in plain numpy, are what a head means.

ONNX Runtime, TensorRT and the C library are each held against `Head.scores`, so this file
shares no code with the exporter.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import (
    EPSILON,
    BackboneInfo,
    Contract,
    Rule,
    decode,
    encode,
)
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import (
    HeadValueError,
    InputError,
    LabelCountError,
)
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.head_file import check_arrays, dump_arrays, read_arrays

__all__ = ["Head"]

Float32: TypeAlias = npt.NDArray[np.float32]
Int64: TypeAlias = npt.NDArray[np.int64]

# Products are taken in blocks of rows, so that memory stays bounded for any N.
_BLOCK_BYTES = 64 * 2**20


class Head:
    """Class proxies and the rule that compares embeddings with them. Immutable.

    The score of class c for an embedding z is ``max_k <norm((z - center) @ transform), p_ck>``
    (arXiv 2503.14572, section 3). Ties go to the lowest class index.

    Args:
        proxies: (P, E) finite numbers, kept as float32.
        class_index: (P,) integers in 0..C-1; each class has at least one proxy. Kept sorted.
        labels: C unique names.
        rule: How an embedding becomes scores.
        center: (D,) finite numbers, taken off each embedding first; None for zeros.
        transform: (D, E) finite numbers; None for the identity (E = D).
        recipe: How the proxies were made, one line.
        backbone: What made the embeddings; None if they came as bare numbers.

    Raises:
        HeadValueError: The arrays contradict each other, or hold NaN or infinity.
        LabelCountError: There are more or fewer labels than classes.
        ContractValueError: A label is empty, too long or there twice.
    """

    __slots__ = (
        "backbone",
        "center",
        "class_index",
        "labels",
        "proxies",
        "recipe",
        "rule",
        "transform",
    )

    proxies: Float32
    class_index: Int64
    labels: tuple[str, ...]
    rule: Rule
    center: Float32 | None
    transform: Float32 | None
    recipe: str
    backbone: BackboneInfo | None

    def __init__(
        self,
        proxies: npt.ArrayLike,
        class_index: npt.ArrayLike,
        labels: Sequence[str],
        rule: Rule | None = None,
        *,
        center: npt.ArrayLike | None = None,
        transform: npt.ArrayLike | None = None,
        recipe: str = "given",
        backbone: BackboneInfo | None = None,
    ) -> None:
        matrix = _floats("proxies", proxies, 2)
        index = np.asarray(class_index)
        if index.ndim != 1 or len(index) != len(matrix) or index.dtype.kind not in "iu":
            raise HeadValueError(
                f"class_index must be {len(matrix)} integers, one a proxy, "
                f"got shape {index.shape} of {index.dtype}"
            )
        names = tuple(labels)
        check_labels(names)
        _check_classes(index, len(names))
        order = np.argsort(index, kind="stable")
        values = {
            "proxies": _frozen(matrix[order]),
            "class_index": _frozen(index[order].astype(np.int64)),
            "labels": names,
            "rule": rule if rule is not None else Rule(),
            "center": None if center is None else _frozen(_floats("center", center, 1)),
            "transform": (
                None if transform is None else _frozen(_floats("transform", transform, 2))
            ),
            "recipe": recipe,
            "backbone": backbone,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_map()
        _ = self.contract  # recipe and embedding size are checked there

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a Head does not change; make a new one instead of setting {name}"
        )

    def __reduce__(self) -> tuple[Callable[[], Head], tuple[()]]:
        # By way of the constructor: pickle and copy.deepcopy (scikit-learn's n_jobs) would set
        # attributes, and forget that the arrays are read-only.
        make = functools.partial(
            Head,
            self.proxies,
            self.class_index,
            self.labels,
            self.rule,
            center=self.center,
            transform=self.transform,
            recipe=self.recipe,
            backbone=self.backbone,
        )
        return make, ()

    def __repr__(self) -> str:
        return (
            f"Head({len(self.labels)} classes, {len(self.proxies)} proxies, "
            f"embedding_size={self.embedding_size}, recipe={self.recipe!r})"
        )

    @property
    def embedding_size(self) -> int:
        """Length D of the embeddings it takes."""
        if self.center is not None:
            return len(self.center)
        if self.transform is not None:
            return int(self.transform.shape[0])
        return int(self.proxies.shape[1])

    @property
    def contract(self) -> Contract:
        """What is written beside the numbers."""
        return Contract(
            self.labels, self.rule, self.embedding_size, self.recipe, backbone=self.backbone
        )

    def scores(self, embeddings: npt.ArrayLike) -> Float32:
        """Compare embeddings with every class.

        Args:
            embeddings: (N, D) finite numbers; computed in float32.

        Returns:
            (N, C) float32, higher is nearer.

        Raises:
            InputError: The shape is not (N, D), or a row is NaN or infinite.
        """
        rows = self._check(embeddings)
        first = np.flatnonzero(np.diff(self.class_index, prepend=-1))
        out = np.empty((len(rows), len(self.labels)), np.float32)
        block = max(1, _BLOCK_BYTES // (4 * len(self.proxies)))
        for start in range(0, len(rows), block):
            similarity = self._map(rows[start : start + block]) @ self.proxies.T
            out[start : start + block] = np.maximum.reduceat(similarity, first, axis=1)
        return out

    def predict(self, embeddings: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Name the class of each embedding.

        Args:
            embeddings: (N, D) finite numbers.

        Returns:
            (N,) int32 class indices; of equal scores the lowest index wins.

        Raises:
            InputError: The shape is not (N, D), or a row is NaN or infinite.
        """
        labels: npt.NDArray[np.int32] = self.scores(embeddings).argmax(axis=1).astype(np.int32)
        return labels

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the head file (safetensors), atomically.

        Args:
            path: The file.
            force: Whether an existing file may be replaced.

        Returns:
            The path.

        Raises:
            OutputExistsError: The file is there and ``force`` is false.
            OutputWriteError: It can't be written.
        """
        arrays: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
        arrays = {"proxies": self.proxies, "class_index": self.class_index}
        if self.center is not None:
            arrays["center"] = self.center
        if self.transform is not None:
            arrays["transform"] = self.transform
        return write_atomic(path, dump_arrays(arrays, encode(self.contract)), force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Head:
        """Read a head file.

        Args:
            path: A safetensors file that `save` wrote.

        Returns:
            The head.

        Raises:
            HeadFileError: The file is missing, is no safetensors file, or holds other arrays.
            NoContractError: It has no edge-imprint metadata.
            ContractVersionError, ContractKeyError, ContractValueError: Its metadata is not
                what this release reads.
            HeadValueError, LabelCountError: Its arrays and labels contradict each other.
        """
        arrays, metadata = read_arrays(Path(path))
        contract = decode(metadata, model=False, where=str(path))
        check_arrays(arrays, str(path))
        try:
            head = cls(
                arrays["proxies"],
                arrays["class_index"],
                contract.labels,
                contract.rule,
                center=arrays.get("center"),
                transform=arrays.get("transform"),
                recipe=contract.recipe,
                backbone=contract.backbone,
            )
        except (HeadValueError, LabelCountError) as error:
            raise type(error)(f"{path}: {error}") from error
        if head.embedding_size != contract.embedding_size:
            raise HeadValueError(
                f"{path}: embedding_size says {contract.embedding_size}, "
                f"its arrays take {head.embedding_size}"
            )
        return head

    def _map(self, rows: Float32) -> Float32:
        if self.center is not None:
            rows = rows - self.center
        if self.transform is not None:
            rows = rows @ self.transform
        if self.rule.embedding_norm == "l2":
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows / np.maximum(norms, np.float32(EPSILON))
        return rows

    def _check(self, embeddings: npt.ArrayLike) -> Float32:
        given = np.asarray(embeddings)
        if (
            given.ndim != 2
            or given.shape[1] != self.embedding_size
            or given.dtype.kind not in "fiu"
        ):
            raise InputError(
                f"embeddings must be numbers of shape (N, {self.embedding_size}), "
                f"got {given.shape} of {given.dtype}"
            )
        with np.errstate(over="ignore"):  # beyond float32's range is infinity, refused below
            rows = given.astype(np.float32)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise InputError(f"embedding {int(np.argmin(finite))} holds NaN or infinity")
        return rows

    def _check_map(self) -> None:
        size = self.embedding_size
        mapped = size if self.transform is None else self.transform.shape[1]
        if self.transform is not None and self.transform.shape[0] != size:
            raise HeadValueError(
                f"transform must have {size} rows, one an entry of center, "
                f"got {self.transform.shape[0]}"
            )
        if mapped != self.proxies.shape[1]:
            raise HeadValueError(
                f"proxies must have {mapped} columns, got {self.proxies.shape[1]}"
            )


def _check_classes(index: npt.NDArray[np.generic], classes: int) -> None:
    found = np.unique(index).astype(np.int64)
    if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < classes:
        raise LabelCountError(
            f"class_index goes from {found[0]} to {found[-1]}, but there are {classes} labels"
        )
    if len(found) < classes:
        empty = int(np.setdiff1d(np.arange(classes), found)[0])
        raise LabelCountError(f"there are {classes} labels, but class {empty} has no proxy")


def _floats(name: str, values: npt.ArrayLike, ndim: int) -> Float32:
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


def _frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    copy: npt.NDArray[np.generic] = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy
