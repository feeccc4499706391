# SPDX-License-Identifier: Apache-2.0
"""The head: proxies, labels and a rule. Its answers, in plain numpy, are what a head means.

ONNX Runtime, TensorRT and the C library are each held against it, so this file and `rules`
share no code with the exporter.
"""

from __future__ import annotations

import functools
import numbers
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import (
    BackboneInfo,
    Contract,
    Rule,
    decode,
    encode,
)
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import (
    HeadValueError,
    LabelCountError,
    NotCalibratedError,
    ParameterError,
)
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.head_arrays import (
    check_classes,
    check_embeddings,
    check_fit,
    check_taught,
    floats,
    frozen,
    integers,
)
from edge_imprint_runtime.head_file import check_arrays, dump_arrays, read_arrays
from edge_imprint_runtime.rules import Comparison, decide, softmax

__all__ = ["Head"]

Float32: TypeAlias = npt.NDArray[np.float32]
Int64: TypeAlias = npt.NDArray[np.int64]

# Their dimensions.
_OPTIONAL_FLOATS = {"center": 1, "transform": 2, "metric": 2, "threshold": 1, "samples": 2}
_OPTIONAL_INTEGERS = ("sample_class", "host_proxies")
_OPTIONAL = (*_OPTIONAL_FLOATS, *_OPTIONAL_INTEGERS)


class Head:
    """Class proxies and the rule that compares embeddings with them. Immutable.

    An embedding z becomes ``n = norm((z - center) @ transform)``; its similarity to each proxy
    and what follows from that is the rule's business (`docs/contract.md`; arXiv 2503.14572,
    section 3).

    Args:
        proxies: (P, E) finite numbers, kept as float32.
        class_index: (P,) integers in 0..C-1; each class has at least one proxy. Kept sorted.
        labels: C unique names.
        rule: How an embedding becomes scores.
        center: (D,) finite numbers, taken off each embedding first; None for zeros.
        transform: (D, E) finite numbers; None for the identity (E = D).
        metric: (E, F) finite numbers under mahalanobis, whose distance between n and p is
            ``|(n - p) @ metric|``; else None.
        threshold: (C,) the nearest similarity from which on an embedding is known to be of a
            class; None where the head is not calibrated.
        temperature: What scores are divided by before they become probabilities, above 0;
            None where the head is not calibrated.
        samples: (S, D) finite numbers: the embeddings of the photos that were taught on a
            device; None where none were. `edge_imprint_runtime.teaching` keeps them.
        sample_class: (S,) ascending integers in 0..C-1, their classes; there with
            ``samples`` only.
        host_proxies: (C,) integers: how many of a class's proxies, the first ones, were made
            on the host; the others were taught. There with ``samples`` only.
        recipe: How the proxies were made, one line.
        backbone: What made the embeddings; None if they came as bare numbers.
        notes: (name, text) of what is merely informative, such as how it was built.

    Raises:
        HeadValueError: The arrays contradict each other or the rule, or hold NaN or infinity.
        LabelCountError: There are more or fewer labels than classes.
        ContractValueError: A label is empty, too long or there twice, the temperature is out
            of range, or a class of a calibrated head is named ``unknown``.
        ParameterError: More neighbors are to vote than there are proxies.
    """

    __slots__ = (
        "_comparison",
        "backbone",
        "center",
        "class_index",
        "host_proxies",
        "labels",
        "metric",
        "notes",
        "proxies",
        "recipe",
        "rule",
        "sample_class",
        "samples",
        "temperature",
        "threshold",
        "transform",
    )

    proxies: Float32
    class_index: Int64
    labels: tuple[str, ...]
    rule: Rule
    center: Float32 | None
    transform: Float32 | None
    metric: Float32 | None
    threshold: Float32 | None
    temperature: float | None
    samples: Float32 | None
    sample_class: Int64 | None
    host_proxies: Int64 | None
    recipe: str
    backbone: BackboneInfo | None
    notes: tuple[tuple[str, str], ...]
    _comparison: Comparison | None

    def __init__(
        self,
        proxies: npt.ArrayLike,
        class_index: npt.ArrayLike,
        labels: Sequence[str],
        rule: Rule | None = None,
        *,
        center: npt.ArrayLike | None = None,
        transform: npt.ArrayLike | None = None,
        metric: npt.ArrayLike | None = None,
        threshold: npt.ArrayLike | None = None,
        temperature: float | None = None,
        samples: npt.ArrayLike | None = None,
        sample_class: npt.ArrayLike | None = None,
        host_proxies: npt.ArrayLike | None = None,
        recipe: str = "given",
        backbone: BackboneInfo | None = None,
        notes: Sequence[tuple[str, str]] = (),
    ) -> None:
        matrix = floats("proxies", proxies, 2)
        index = np.asarray(class_index)
        if index.ndim != 1 or len(index) != len(matrix) or index.dtype.kind not in "iu":
            raise HeadValueError(
                f"class_index must be {len(matrix)} integers, one a proxy, "
                f"got shape {index.shape} of {index.dtype}"
            )
        names = tuple(labels)
        check_labels(names)
        check_classes(index, len(names))
        order = np.argsort(index, kind="stable")
        given = {
            "center": center,
            "transform": transform,
            "metric": metric,
            "threshold": threshold,
            "samples": samples,
        }
        values: dict[str, Any] = {
            name: None if array is None else frozen(floats(name, array, ndim))
            for (name, array), ndim in zip(
                given.items(), _OPTIONAL_FLOATS.values(), strict=True
            )
        }
        for name, whole in zip(_OPTIONAL_INTEGERS, (sample_class, host_proxies), strict=True):
            values[name] = None if whole is None else frozen(integers(name, whole))
        values |= {
            "proxies": frozen(matrix[order]),
            "class_index": frozen(index[order].astype(np.int64)),
            "labels": names,
            "rule": rule if rule is not None else Rule(),
            # Any type of number will do, numpy's too; what is none is refused below.
            "temperature": (
                float(temperature) if isinstance(temperature, numbers.Real) else temperature
            ),
            "recipe": recipe,
            "backbone": backbone,
            "notes": tuple(sorted(notes)),
            "_comparison": None,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        check_fit(self)
        check_taught(self)
        _ = self.contract  # recipe, embedding size and temperature are checked there

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a Head does not change; make a new one instead of setting {name}"
        )

    def __reduce__(self) -> tuple[Callable[[], Head], tuple[()]]:
        # By way of the constructor: pickle and copy.deepcopy (scikit-learn's n_jobs) would set
        # attributes, and forget that the arrays are read-only.
        return functools.partial(Head, **self._arguments()), ()

    def replaced(self, **changes: Any) -> Head:
        """Make a head like this one, some of the constructor's arguments changed."""
        return Head(**(self._arguments() | changes))

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name[0] != "_"}

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
            self.labels,
            self.rule,
            self.embedding_size,
            self.recipe,
            backbone=self.backbone,
            temperature=self.temperature,
            notes=self.notes,
        )

    def scores(self, embeddings: npt.ArrayLike) -> Float32:
        """Compare embeddings with every class.

        Args:
            embeddings: (N, D) finite numbers; taken as float32.

        Returns:
            (N, C) float32, higher is nearer: the similarity of each class's nearest proxy
            under ``max``, its share of the votes under ``mnn``.

        Raises:
            InputError: The shape is not (N, D), a row is NaN or infinite, or its scores are
                beyond float32.
        """
        return self._compare(embeddings)[0]

    def nearest(self, embeddings: npt.ArrayLike) -> Float32:
        """Return (N, C) float32: that of each class's nearest proxy; see `scores`."""
        return self._compare(embeddings)[1]

    def predict(self, embeddings: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Name the class of each embedding; see `scores`.

        Returns:
            (N,) int32 class indices. Where votes are equal the nearest class wins; of equal
            scores then the lowest index.
        """
        return decide(self.rule, *self._compare(embeddings))

    def known(self, embeddings: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Tell of which embeddings the class is known; see `scores`.

        Returns:
            (N,) bool: whether the nearest proxy of the class that `predict` names is as near
            as that class's threshold.

        Raises:
            NotCalibratedError: The head has no threshold.
        """
        threshold, _ = self.calibration()
        scores, nearest = self._compare(embeddings)
        label = decide(self.rule, scores, nearest)
        near: npt.NDArray[np.bool_] = nearest[np.arange(len(label)), label] >= threshold[label]
        return near

    def probability(self, embeddings: npt.ArrayLike) -> Float32:
        """Return (N, C) float32, ``softmax(scores / temperature)``; see `scores`.

        Raises:
            NotCalibratedError: The head has no temperature.
        """
        _, temperature = self.calibration()
        return softmax(self.scores(embeddings), temperature)

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
        return write_atomic(path, self.to_bytes(), force=force)

    def to_bytes(self) -> bytes:
        """Return the content of the head file; equal heads give equal bytes."""
        arrays: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
        arrays = {"proxies": self.proxies, "class_index": self.class_index}
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        return dump_arrays(arrays, encode(self.contract))

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
            HeadValueError, LabelCountError, ParameterError: Its arrays, labels and rule
                contradict each other.
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
                temperature=contract.temperature,
                recipe=contract.recipe,
                backbone=contract.backbone,
                notes=contract.notes,
                **{name: arrays.get(name) for name in _OPTIONAL},
            )
        except (HeadValueError, LabelCountError, ParameterError) as error:
            raise type(error)(f"{path}: {error}") from error
        if head.embedding_size != contract.embedding_size:
            raise HeadValueError(
                f"{path}: embedding_size says {contract.embedding_size}, "
                f"its arrays take {head.embedding_size}"
            )
        return head

    def calibration(self) -> tuple[Float32, float]:
        """Return (C,) threshold and temperature.

        Raises:
            NotCalibratedError: The head has none.
        """
        if self.threshold is None or self.temperature is None:
            raise NotCalibratedError(
                "the head is not calibrated, so that it has no probabilities and knows no "
                "unknown; build it with --calibrate"
            )
        return self.threshold, self.temperature

    def comparison(self) -> Comparison:
        """Make the rule's arithmetic ready for these proxies, once."""
        if self._comparison is None:
            made = Comparison(
                self.rule,
                self.proxies,
                self.class_index,
                center=self.center,
                transform=self.transform,
                metric=self.metric,
            )
            object.__setattr__(self, "_comparison", made)
            return made
        return self._comparison

    def _compare(self, embeddings: npt.ArrayLike) -> tuple[Float32, Float32]:
        rows = check_embeddings(embeddings, self.embedding_size)
        return self.comparison().scores_and_nearest(rows)
