# SPDX-License-Identifier: Apache-2.0
"""A look into an ONNX file before any library opens it: what it claims, and where it reaches.

The file is walked as protobuf, message by message; numbers are skipped, not read, so that a
file of hundreds of megabytes takes milliseconds. No package but numpy is needed.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from edge_imprint_runtime.errors import ModelFileError, UnsafeModelError
from edge_imprint_runtime.protobuf import FIXED32, FIXED64, LENGTH, VARINT, Wire

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_NODES",
    "External",
    "Scan",
    "check_model_file",
    "numbers_bytes",
    "scan",
]

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit for one file
MAX_NODES = 200_000
_MAX_DEPTH = 16  # graphs within graphs (If, Loop, Scan)
# All but weights and notes: what a library turns into many small objects.
_MAX_DESCRIPTION_BYTES = 64 * 2**20

# Numbers of the fields of onnx.proto that are looked at.
_MODEL_GRAPH, _MODEL_NOTES, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 14, 20, 25
_TRAINING_GRAPHS = (1, 2)
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_GRAPH_NOTES = (10, 16)
_NODE_KIND, _NODE_ATTRIBUTE, _NODE_NOTES = 4, 5, (6, 9)
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
# Of each of these an attribute has one.
_ATTRIBUTE_ONE = {5: "a tensor", 6: "a graph", 22: "a sparse tensor"}
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S = 4, 5, 6, 7, 10, 11

# TensorProto.DataType -> bits a number, and the field that holds numbers kept one by one.
_TYPES = {
    **dict.fromkeys((1,), (32, _FLOATS)),
    **dict.fromkeys((6,), (32, _INT32S)),
    **dict.fromkeys((4, 5, 10, 16), (16, _INT32S)),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), (8, _INT32S)),
    **dict.fromkeys((21, 22, 23), (4, _INT32S)),
    **dict.fromkeys((25, 26), (2, _INT32S)),
    **dict.fromkeys((27, 28), (6, _INT32S)),
    7: (64, _INT64S),
    8: (0, _STRINGS),
    11: (64, _DOUBLES),
    12: (32, _UINT64S),
    13: (64, _UINT64S),
    14: (64, _FLOATS),  # two floats a number
    15: (128, _DOUBLES),  # two doubles
}
_TEXT = 8
# What an execution provider compiled, in the node or in a file that it names by any path.
_COMPILED = b"EPContext"
# The wire type of a number that stands alone.
_ALONE = {_FLOATS: FIXED32, _DOUBLES: FIXED64}
_ALONE |= dict.fromkeys((_INT32S, _INT64S, _UINT64S), VARINT)

Span: TypeAlias = tuple[int, int]
_ONE = (0, 0)  # where no packed numbers can lie


@dataclass(frozen=True)
class External:
    """A tensor whose numbers lie in another file.

    Attributes:
        tensor: Its name.
        location: What it says of that file.
    """

    tensor: str
    location: str


@dataclass
class Scan:
    """What a file holds.

    Attributes:
        nodes: How many nodes, those of graphs inside nodes included.
        functions: How many operators it defines itself.
        trainings: How many training graphs it holds.
        external: Tensors whose numbers lie in other files.
    """

    nodes: int = 0
    functions: int = 0
    trainings: int = 0
    external: list[External] = field(default_factory=list)


def check_model_file(path: str | os.PathLike[str]) -> None:
    """Refuse an ONNX file that no library should open.

    Args:
        path: The file; it is mapped, and what it names beside itself is not touched.

    Raises:
        ModelFileError: It is missing, can't be read, or is no ONNX model.
        UnsafeModelError: It keeps weights in other files, or claims what it does not hold:
            tensors of another size than their numbers, too many nodes, too deep a nesting,
            a part stated twice; or it holds what was compiled for one accelerator.
    """
    where = str(path)
    if not os.path.isfile(path):  # a pipe or a device would be waited for
        raise ModelFileError(f"cannot read {where}: there is no such file")
    try:
        with open(path, "rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, where)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found = scan(data, where)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"cannot read {where}: {reason}") from error
    if found.external:
        first = found.external[0]
        raise UnsafeModelError(
            f"{where} keeps the numbers of {first.tensor[:80]!r} in another file "
            f"({first.location[:80]!r}), and a model is one file; export it again"
        )


def scan(data: bytes | mmap.mmap, where: str) -> Scan:
    """Walk a file's content.

    Args:
        data: All of it.
        where: Its name, for messages.

    Returns:
        What it holds.

    Raises:
        ModelFileError: It is no ONNX model.
        UnsafeModelError: As in `check_model_file`, weights in other files apart.
    """
    _check_size(len(data), where)
    # Messages are read off small copies; only a tensor's own fields are read in place.
    return _Walk(data, where).model()


def numbers_bytes(dims: list[int], data_type: int) -> int:
    """Return how many bytes a tensor's numbers take; 0 for text."""
    bits, _ = _TYPES.get(data_type, (0, 0))
    return (math.prod(dims) * bits + 7) // 8


def _check_size(size_bytes: int, where: str) -> None:
    if not size_bytes:
        raise ModelFileError(f"{where} is not an ONNX model: it has no nodes")
    if size_bytes > MAX_FILE_BYTES:
        raise UnsafeModelError(
            f"{where} has {size_bytes:,} bytes, one ONNX file holds {MAX_FILE_BYTES:,}; "
            "use a smaller model"
        )


class _Walk(Wire):
    """One walk through one file."""

    def __init__(self, data: bytes | mmap.mmap, where: str) -> None:
        super().__init__(data, where)
        self.found = Scan()
        self.flat_bytes = 0

    def model(self) -> Scan:
        graphs = 0
        for number, wire, start, end in self.read(0, len(self.data)):
            if wire != LENGTH:
                continue
            if number == _MODEL_GRAPH:
                graphs += 1
                self._graph(start, end, 1)
            elif number == _MODEL_NOTES:
                self.flat_bytes += end - start
            elif number == _MODEL_FUNCTION:
                self.found.functions += 1
                self._function(start, end)
            elif number == _MODEL_TRAINING:
                self.found.trainings += 1
                graphs_seen = set[int]()
                for part, kind, a, b in self.read(start, end):
                    if kind == LENGTH and part in _TRAINING_GRAPHS:
                        self.once(graphs_seen, part, "a training graph")
                        self._graph(a, b, 1)
        if graphs != 1:
            raise self.broken(f"it has {graphs} graphs" if graphs else "it has no nodes")
        described = len(self.data) - self.flat_bytes
        if described > _MAX_DESCRIPTION_BYTES:
            raise self.unsafe(
                f"has {described:,} bytes beside its weights, and no more than "
                f"{_MAX_DESCRIPTION_BYTES:,} are read; use a smaller model"
            )
        return self.found

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self.unsafe(
                f"nests graphs more than {_MAX_DEPTH} deep; export it without If and Loop"
            )
        nodes = []
        for number, wire, a, b in self.read(start, end):
            if wire != LENGTH:
                continue
            if number == _GRAPH_NODE:
                nodes.append((a, b))
                self._count_node()
            elif number == _GRAPH_TENSOR:
                self._tensor(a, b)
            elif number == _GRAPH_SPARSE:
                self._sparse(a, b)
            elif number in _GRAPH_NOTES:
                self.flat_bytes += b - a
        # After all were counted: of a million nodes none is looked at.
        for a, b in nodes:
            self._node(a, b, depth)

    def _function(self, start: int, end: int) -> None:
        nodes = []
        for number, wire, a, b in self.read(start, end):
            if wire == LENGTH and number == _FUNCTION_NODE:
                nodes.append((a, b))
                self._count_node()
            elif wire == LENGTH and number == _FUNCTION_ATTRIBUTE:
                self._attribute(a, b, 1)
        for a, b in nodes:
            self._node(a, b, 1)

    def _count_node(self) -> None:
        self.found.nodes += 1
        if self.found.nodes > MAX_NODES:
            raise self.unsafe(f"has more than {MAX_NODES:,} nodes; use a smaller model")

    def _node(self, start: int, end: int, depth: int) -> None:
        for number, wire, a, b in self.read(start, end):
            if wire == LENGTH and number == _NODE_ATTRIBUTE:
                self._attribute(a, b, depth)
            elif wire == LENGTH and number == _NODE_KIND and self.data[a:b] == _COMPILED:
                raise self.unsafe(
                    "holds what was compiled for one accelerator (an EPContext node), which "
                    "may name any file; export it again without"
                )
            elif wire == LENGTH and number in _NODE_NOTES:
                self.flat_bytes += b - a

    def _attribute(self, start: int, end: int, depth: int) -> None:
        seen = set[int]()
        for number, wire, a, b in self.read(start, end):
            if wire != LENGTH:
                continue
            if number in _ATTRIBUTE_ONE:
                self.once(seen, number, f"{_ATTRIBUTE_ONE[number]} of an attribute")
            if number in _ATTRIBUTE_TENSORS:
                self._tensor(a, b)
            elif number in _ATTRIBUTE_GRAPHS:
                self._graph(a, b, depth + 1)
            elif number in _ATTRIBUTE_SPARSE:
                self._sparse(a, b)

    def _sparse(self, start: int, end: int) -> None:
        dims, data_type, seen = list[int](), 0, set[int]()
        for number, wire, a, b in self.read(start, end):
            if wire == LENGTH and number in (1, 2):
                self.once(seen, number, "a part of a sparse tensor")
                kind = self._tensor(a, b)
                data_type = kind if number == 1 else data_type
            elif number == 3:
                dims += self.integers(wire, a, b)
        if min(dims, default=0) < 0 or numbers_bytes(dims, data_type) > MAX_FILE_BYTES:
            raise self.unsafe(
                f"holds a sparse tensor of the shape {_shape(dims)}, more than one ONNX file "
                "may hold; use a smaller model"
            )

    def _tensor(self, start: int, end: int) -> int:
        """Hold a tensor's shape against its numbers; returns its type."""
        dims, data_type, name, external = list[int](), 0, "", dict[str, str]()
        is_external, held, raw, seen = False, dict[int, list[Span]](), -1, set[int]()
        for number, wire, a, b in self.read(start, end):
            if number == _DIMS:
                dims += self.integers(wire, a, b)
            elif number == _TYPE and wire == VARINT:
                data_type = a
            elif number == _LOCATION and wire == VARINT:
                self.once(seen, number, "the place of a tensor's numbers")
                if a > 1:
                    raise self.unsafe(
                        "keeps a tensor's numbers in a place that ONNX does not have; "
                        "export it again"
                    )
                is_external = a == 1
            elif number == _NAME and wire == LENGTH:
                name = self.text(a, b)
            elif number == _EXTERNAL and wire == LENGTH:
                pair = {n: self.text(x, y) for n, w, x, y in self.read(a, b) if w == LENGTH}
                external[pair.get(1, "")] = pair.get(2, "")
            elif number == _RAW and wire == LENGTH:
                if raw >= 0:
                    raise self.unsafe(f"states the numbers of {name[:80]!r} twice")
                raw = b - a
                self.flat_bytes += raw
            elif wire == LENGTH and (number in _ALONE or number == _STRINGS):
                held.setdefault(number, []).append((a, b))
            elif number in _ALONE and wire == _ALONE[number]:
                held.setdefault(number, []).append(_ONE)
        if min(dims, default=0) < 0:
            raise self.unsafe(
                f"gives {name[:80]!r} the shape {_shape(dims)}; a side can't be negative"
            )
        if data_type not in _TYPES:
            raise self.unsafe(
                f"gives {name[:80]!r} the type {data_type}, which ONNX does not have"
            )
        if is_external or external:
            self.found.external.append(External(name, external.get("location", "")))
        else:
            self._check_numbers(name, dims, data_type, raw, held)
        return data_type

    def _check_numbers(
        self, name: str, dims: list[int], data_type: int, raw: int, held: dict[int, list[Span]]
    ) -> None:
        wanted, (bits, store) = math.prod(dims), _TYPES[data_type]
        if raw >= 0 and not held and data_type != _TEXT:
            fits = raw == numbers_bytes(dims, data_type)
        elif set(held) <= {store} and raw < 0:
            spans = held.get(store, [])
            count = sum(self._count(store, a, b) for a, b in spans)
            # Numbers of 2 and 4 bits share a byte; complex ones are two.
            per = 2 if data_type in (14, 15) else 1
            slots = (wanted * bits + 7) // 8 if bits in (2, 4) else wanted * per
            fits = count == slots
        else:
            fits = False
        if not fits:
            raise self.unsafe(
                f"gives {name[:80]!r} the shape {_shape(dims)}, which is not what its numbers "
                "fill; export it again"
            )

    def _count(self, store: int, start: int, end: int) -> int:
        """Count the numbers in one field."""
        size = end - start
        if store == _STRINGS or (start, end) == _ONE:
            return 1
        self.flat_bytes += size
        if store in (_FLOATS, _DOUBLES):
            width = 4 if store == _FLOATS else 8
            if size % width:
                raise self.broken("a tensor's numbers are cut off")
            return size // width
        packed = np.frombuffer(self.data[start:end], np.uint8)
        return int(np.count_nonzero(packed < 0x80))  # the last byte of each number


def _shape(dims: list[int]) -> str:
    text = ", ".join(str(side) for side in dims[:8])
    return f"({text}, ...)" if len(dims) > 8 else f"({text})"
