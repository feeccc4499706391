# SPDX-License-Identifier: Apache-2.0
"""Weights that lie in files beside a model: found safe, all of them, before one is read."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from edge_imprint_export.graph import graphs_of
from edge_imprint_runtime.errors import ModelFileError, UnsafeModelError
from edge_imprint_runtime.onnx_scan import MAX_FILE_BYTES, numbers_bytes

__all__ = ["Span", "read_spans", "vet"]


@dataclass(frozen=True)
class Span:
    """Where a tensor's numbers lie: a regular file in the model's folder, bytes in it.

    Attributes:
        tensor: The tensor, in the model.
        path: The file, links followed.
        offset: The first byte.
        size_bytes: How many.
    """

    tensor: onnx.TensorProto
    path: Path
    offset: int
    size_bytes: int


def vet(model: onnx.ModelProto, folder: Path, where: str) -> list[Span]:
    """Hold all that a model says of other files against those files; none is read.

    Args:
        model: The model; its tensors' shapes are sound.
        folder: The folder in which it lies.
        where: What messages call it.

    Returns:
        One span for each tensor whose numbers lie in another file.

    Raises:
        ModelFileError: A file is missing.
        UnsafeModelError: A file is outside the folder, no regular file or too short; spans
            overlap; or all together is more than one ONNX file may hold.
    """
    home = Path(os.path.realpath(folder))
    spans = [
        _vet_one(tensor, home, where)
        for tensor in _tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
    ]
    if sum(span.size_bytes for span in spans) > MAX_FILE_BYTES:
        raise UnsafeModelError(
            f"{where} keeps more than {MAX_FILE_BYTES:,} bytes of weights in other files, and "
            "one ONNX file holds no more; use a smaller model"
        )
    ordered = sorted(spans, key=lambda span: (span.path, span.offset, span.size_bytes))
    for one, other in itertools.pairwise(ordered):
        # Two tensors of the same bytes are tied weights.
        same = (one.offset, one.size_bytes) == (other.offset, other.size_bytes)
        if one.path == other.path and not same and other.offset < one.offset + one.size_bytes:
            raise UnsafeModelError(
                f"{where} has weights that overlap in {one.path.name[:80]!r}; export it again"
            )
    return spans


def read_spans(spans: list[Span], where: str) -> None:
    """Read vetted spans into their tensors.

    Args:
        spans: What `vet` returned.
        where: What messages call the model.

    Raises:
        ModelFileError: A file can't be read, or is no longer what it was.
    """
    for span in spans:
        try:
            # What was found safe may have been replaced by a link or a pipe since.
            descriptor = os.open(span.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                stream.seek(span.offset)
                data = stream.read(span.size_bytes)
        except OSError as error:
            raise ModelFileError(
                f"cannot read {where}: its weights {span.path.name!r} can't be read "
                f"({error.strerror})"
            ) from error
        if len(data) != span.size_bytes:
            raise ModelFileError(
                f"cannot read {where}: its weights {span.path.name!r} were cut meanwhile"
            )
        span.tensor.raw_data = data
        span.tensor.ClearField("data_location")
        del span.tensor.external_data[:]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
            sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            sparse += attribute.sparse_tensors
        for inner in graphs_of(node):
            yield from _tensors(inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _vet_one(tensor: onnx.TensorProto, home: Path, where: str) -> Span:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    told = f"{where} keeps numbers of {tensor.name[:80]!r} in {location[:80]!r}"
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or os.path.isabs(location) or ".." in parts:
        raise UnsafeModelError(
            f"{told}, which is no file in its own folder; put the weights beside the model"
        )
    path = Path(os.path.realpath(home / location))
    if home not in path.parents:
        raise UnsafeModelError(
            f"{told}, a link out of its own folder; put the weights beside the model"
        )
    try:
        state = os.stat(path)
    except OSError as error:
        raise ModelFileError(
            f"cannot read {where}: its weights {location[:80]!r} can't be read "
            f"({error.strerror}); put them beside the model"
        ) from error
    if not stat.S_ISREG(state.st_mode):
        raise UnsafeModelError(f"{told}, which is no regular file; export it again")
    size = numbers_bytes(list(tensor.dims), tensor.data_type)
    offset = _count(entries.get("offset", "0"))
    if offset is None or _count(entries.get("length", str(size))) != size:
        raise UnsafeModelError(
            f"{told}, at an offset and length that don't fit its shape; export it again"
        )
    if offset + size > state.st_size:
        raise UnsafeModelError(
            f"{told}, which has {state.st_size:,} bytes where {offset + size:,} are needed; "
            "copy it again, whole"
        )
    return Span(tensor, path, offset, size)


def _count(text: str) -> int | None:
    # Not int(): it takes signs, spaces, underscores and digits of any script.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None
