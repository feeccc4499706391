# SPDX-License-Identifier: Apache-2.0
"""Embeddings from elsewhere: an ``.npz`` file of ``embeddings`` and ``labels``."""

from __future__ import annotations

import io
import lzma
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import (
    EdgeImprintError,
    EmbeddingError,
    InputError,
    TooFewClassesError,
)

__all__ = ["LabelledEmbeddings", "read_embeddings"]

_HOW = (
    "write it with numpy.savez(FILE, embeddings=..., labels=...), embeddings (N, D) and "
    "labels (N,)"
)
# What zipfile raises where a file is damaged.
_DAMAGE = (
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """Embeddings and their classes.

    Attributes:
        embeddings: (N, D) float32, finite.
        class_index: (N,) int64 positions in ``labels``.
        labels: The class names, sorted (numbers by their value).
        paths: What each row was made of; None where the file does not say.
    """

    embeddings: npt.NDArray[np.float32]
    class_index: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    paths: tuple[str, ...] | None


def read_embeddings(file: str | os.PathLike[str]) -> LabelledEmbeddings:
    """Read an embeddings file; nothing in it is run (no pickle).

    Args:
        file: An ``.npz`` file that holds ``embeddings``, (N, D) real numbers, ``labels``, (N,)
            integers or text, and, if known, ``paths``, (N,) text. Other arrays are not
            looked at.

    Returns:
        What it holds.

    Raises:
        InputError: The file is missing or no such file, an array is missing, or has the
            wrong shape or type, or a label is empty.
        EmbeddingError: A row holds NaN or infinity.
        TooFewClassesError: All labels are the same.
        ContractValueError: A label can't name a class.
    """
    path = Path(file)
    if not os.path.isfile(path):
        raise InputError(f"there is no embeddings file {path}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz file (a zip of arrays); {_HOW}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            held = {
                name: _array(archive, name, names, path)
                for name in ("embeddings", "labels", "paths")
                if name in names or name != "paths"
            }
    except EdgeImprintError:
        raise
    except _DAMAGE as error:
        reason = str(error) or "it ends too early"
        raise InputError(f"cannot read {path}: {reason}; {_HOW}") from error
    embeddings = _embeddings(held["embeddings"], path)
    index, labels = _labels(held["labels"], len(embeddings), path)
    paths = None
    if "paths" in held:
        paths = tuple(_text(held["paths"], "paths", len(embeddings), path))
    return LabelledEmbeddings(embeddings, index, labels, paths)


def _array(
    archive: zipfile.ZipFile, name: str, names: list[str], path: Path
) -> npt.NDArray[Any]:
    if name not in names:
        there = ", ".join(repr(other) for other in names[:10]) or "none"
        raise InputError(f"{path} lacks the array {name!r} (it holds {there}); {_HOW}")
    if f"{name}.npy" not in archive.namelist():
        raise InputError(f"what {path} calls {name!r} is no .npy array; {_HOW}")
    data = archive.read(f"{name}.npy")  # whole, so that its checksum is looked at first
    try:
        with warnings.catch_warnings():  # of old headers, which it reads all the same
            warnings.simplefilter("ignore")
            array: npt.NDArray[Any] = np.lib.format.read_array(
                io.BytesIO(data), allow_pickle=False
            )
    except (ValueError, SyntaxError, TypeError, OverflowError, tokenize.TokenError) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"the array {name!r} of {path} is pickled Python objects, which are not read "
                "(they can run code, and may be of mixed types); save numbers or text"
            ) from error
        raise InputError(f"the array {name!r} of {path} is broken: {error}; {_HOW}") from error
    return array


def _embeddings(given: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float32]:
    if given.ndim != 2 or not given.size or given.dtype.kind not in "fiu":
        raise InputError(
            f"the embeddings of {path} must be (N, D) real numbers, N and D at least 1, got "
            f"{given.shape} of {given.dtype}"
        )
    with np.errstate(over="ignore"):  # beyond float32's range is infinity, refused below
        rows = given.astype(np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        what = (
            "NaN" if np.isnan(rows[bad]).any() else "inf, or a number beyond float32's range"
        )
        raise EmbeddingError(
            f"row {bad} of the embeddings of {path} holds {what}; mend it or leave it out"
        )
    return rows


def _labels(
    given: npt.NDArray[Any], count: int, path: Path
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    if given.dtype.kind in "iu" and given.shape == (count,):
        values, index = np.unique(given, return_inverse=True)
        labels = tuple(str(value) for value in values)
    else:
        texts = _text(given, "labels", count, path)
        if "" in texts:
            raise InputError(f"the label of row {texts.index('')} of {path} is empty; name it")
        labels = tuple(sorted(set(texts)))
        position = {label: c for c, label in enumerate(labels)}
        index = np.array([position[text] for text in texts])
    if len(labels) < 2:
        raise TooFewClassesError(
            f"{path} holds one class only ({labels[0]!r}); a classifier needs at least two"
        )
    check_labels(labels)
    return index.astype(np.int64), labels


def _text(given: npt.NDArray[Any], name: str, count: int, path: Path) -> list[str]:
    kinds = "integers or text" if name == "labels" else "text"
    if given.shape != (count,) or given.dtype.kind not in "US":
        raise InputError(
            f"the {name} of {path} must be {count} of {kinds}, one an embedding, got shape "
            f"{given.shape} of {given.dtype}"
        )
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in given.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"the {name} of {path} are bytes that are no UTF-8 text") from error
