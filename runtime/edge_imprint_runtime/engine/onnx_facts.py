# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says of itself, read without any ONNX library: a Jetson may have none.

The file must have passed `check_model_file`, which holds its claims against its content.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.protobuf import FIXED32, LENGTH, VARINT, Wire

__all__ = ["HEAD_NAMES", "Node", "OnnxFacts", "Tensor", "read_facts"]

Shape: TypeAlias = tuple[int | str | None, ...]
Value: TypeAlias = tuple[Shape, str]

# The head's own numbers in a fused graph, and what else of it lies under `head/`.
HEAD_NAMES = ("proxies", "center", "transform", "metric", "threshold", "temperature")

FLOAT, FLOAT16 = 1, 10
# TensorProto.DataType -> ONNX Runtime's word for it, and numpy's.
_TYPES = {
    1: ("float", np.float32),
    2: ("uint8", np.uint8),
    3: ("int8", np.int8),
    6: ("int32", np.int32),
    7: ("int64", np.int64),
    9: ("bool", np.bool_),
    10: ("float16", np.float16),
    11: ("double", np.float64),
}
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_NOTES = 7, 8, 14
# Who wrote the file, and what people are told of it.
_MODEL_TEXTS = (2, 3, 6)
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph.

    Attributes:
        kind: Its type, as ONNX numbers them.
        shape: Its dimensions.
        start: Where its bytes begin; -1 where they are kept number by number.
        end: Where they end.
        floats: Its numbers as bytes, where they are float32 kept number by number.
    """

    kind: int
    shape: tuple[int, ...]
    start: int = -1
    end: int = -1
    floats: bytes = b""

    def values(self, data: bytes) -> npt.NDArray[Any] | None:
        """Return its numbers, or None where they are kept in another way.

        Args:
            data: The file.
        """
        if self.kind not in _TYPES:
            return None
        raw = data[self.start : self.end] if self.start >= 0 else self.floats
        dtype = np.dtype(_TYPES[self.kind][1])
        if len(raw) != dtype.itemsize * int(np.prod(self.shape, dtype=np.int64)):
            return None
        return np.frombuffer(raw, dtype).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        kind: Its operator.
        inputs: Names; "" where one is left out.
        outputs: Names.
        attributes: Those that are one whole number or text, by name; of others the name.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int | str | None]


@dataclass
class OnnxFacts:
    """What a file says of itself.

    Attributes:
        metadata: Text by key.
        inputs: Shape and type by name, the images first; without what has a default.
        outputs: Likewise.
        nodes: In topological order; those of graphs within nodes are left out.
        tensors: The constants, by name.
        opset: Of the standard operators.
        graph_sha256: Over all but the head's numbers and what is said to people.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    opset: int = 0
    graph_sha256: str = ""

    @property
    def operators(self) -> Counter[str]:
        """How many nodes there are of each operator."""
        return Counter(node.kind for node in self.nodes)

    def head_tensors(self) -> dict[str, Tensor]:
        """Return the head's numbers: what another head of the same shapes would change."""
        return {name: t for name, t in self.tensors.items() if _of_head(name, t.kind, t.shape)}


def read_facts(data: bytes, where: str) -> OnnxFacts:
    """Read an ONNX file.

    Args:
        data: All of it, checked by `check_model_file`.
        where: Its name, for messages.

    Returns:
        What it says of itself.

    Raises:
        ModelFileError: It is no ONNX model.
    """
    return _Reader(data, where).model()


def _of_head(name: str, kind: int, shape: Sequence[int]) -> bool:
    if kind not in (FLOAT, FLOAT16):
        return False
    return name in HEAD_NAMES or (name.startswith("head/") and bool(shape))


class _Reader(Wire):
    """One reading of one file."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data, where)
        self.bytes = data
        self.found = OnnxFacts()
        self.digest = hashlib.sha256()

    def model(self) -> OnnxFacts:
        for number, wire, a, b in self.read(0, len(self.data)):
            if number == _MODEL_NOTES and wire == LENGTH:
                pair = {n: self.text(x, y) for n, w, x, y in self.read(a, b) if w == LENGTH}
                self.found.metadata[pair.get(1, "")] = pair.get(2, "")
            elif number == _MODEL_GRAPH and wire == LENGTH:
                self._graph(a, b)
            elif number not in _MODEL_TEXTS:
                if number == _MODEL_OPSET and wire == LENGTH:
                    self._opset(a, b)
                self._hash(number, wire, a, b)
        self.found.graph_sha256 = self.digest.hexdigest()
        return self.found

    def _hash(self, number: int, wire: int, a: int, b: int) -> None:
        value = b - a if wire == LENGTH else a
        self.digest.update(struct.pack("<IIQ", number, wire, value))
        if wire == LENGTH:
            self.digest.update(memoryview(self.bytes)[a:b])

    def _opset(self, start: int, end: int) -> None:
        domain, version = "", 0
        for number, wire, a, b in self.read(start, end):
            if number == 1 and wire == LENGTH:
                domain = self.text(a, b)
            elif number == 2 and wire == VARINT:
                version = a
        if domain in ("", "ai.onnx"):
            self.found.opset = version

    def _graph(self, start: int, end: int) -> None:
        values = list[tuple[int, int, int]]()
        for number, wire, a, b in self.read(start, end):
            if wire == LENGTH and number == _GRAPH_TENSOR:
                self._tensor(a, b)
                continue
            self._hash(number, wire, a, b)
            if wire != LENGTH:
                continue
            if number == _GRAPH_NODE:
                self.found.nodes.append(self._node(a, b))
            elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                values.append((number, a, b))
        for number, a, b in values:  # constants come before or after them
            name, value = self._value(a, b)
            if number == _GRAPH_OUTPUT:
                self.found.outputs[name] = value
            elif name not in self.found.tensors:
                self.found.inputs[name] = value

    def _tensor(self, start: int, end: int) -> None:
        name, kind, shape, raw, floats = "", 0, list[int](), (-1, -1), list[bytes]()
        for number, wire, a, b in self.read(start, end):
            if number == _TENSOR_DIMS:
                shape += self.integers(wire, a, b)
            elif number == _TENSOR_TYPE and wire == VARINT:
                kind = a
            elif number == _TENSOR_NAME and wire == LENGTH:
                name = self.text(a, b)
            elif number == _TENSOR_RAW and wire == LENGTH:
                raw = (a, b)
            elif number == _TENSOR_FLOATS and wire == LENGTH and kind in (0, FLOAT):
                floats.append(self.bytes[a:b])
            elif number == _TENSOR_FLOATS and wire == FIXED32:
                floats.append(b"?")  # one by one: its place is not told; see Tensor.values
        self.found.tensors[name] = Tensor(kind, tuple(shape), *raw, b"".join(floats))
        if _of_head(name, kind, shape):
            self.digest.update(repr((name, kind, shape)).encode())
        else:
            self._hash(_GRAPH_TENSOR, LENGTH, start, end)

    def _node(self, start: int, end: int) -> Node:
        kind, inputs, outputs = "", list[str](), list[str]()
        attributes = dict[str, int | str | None]()
        for number, wire, a, b in self.read(start, end):
            if wire != LENGTH:
                continue
            if number == 1:
                inputs.append(self.text(a, b))
            elif number == 2:
                outputs.append(self.text(a, b))
            elif number == 4:
                kind = self.text(a, b)
            elif number == 5:
                name, value = self._attribute(a, b)
                attributes[name] = value
        return Node(kind, tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, start: int, end: int) -> tuple[str, int | str | None]:
        name, value = "", None  # type: str, int | str | None
        for number, wire, a, b in self.read(start, end):
            if number == 1 and wire == LENGTH:
                name = self.text(a, b)
            elif number == 3 and wire == VARINT:
                value = self.integers(wire, a, b)[0]
            elif number == 4 and wire == LENGTH and b - a <= 256:
                value = self.bytes[a:b].decode(errors="replace")
        return name, value

    def _value(self, start: int, end: int) -> tuple[str, Value]:
        name, kind, shape = "", 0, list[int | str | None]()
        for number, wire, a, b in self.read(start, end):
            if number == 1 and wire == LENGTH:
                name = self.text(a, b)
            elif number == 2 and wire == LENGTH:
                for n, w, x, y in self.read(a, b):
                    if n == 1 and w == LENGTH:  # a tensor; neither a sequence nor a map
                        kind, shape = self._tensor_type(x, y)
        return name, (tuple(shape), f"tensor({_TYPES.get(kind, ('?',))[0]})")

    def _tensor_type(self, start: int, end: int) -> tuple[int, list[int | str | None]]:
        kind, shape = 0, list[int | str | None]()
        for number, wire, a, b in self.read(start, end):
            if number == 1 and wire == VARINT:
                kind = a
            elif number == 2 and wire == LENGTH:
                for n, w, x, y in self.read(a, b):
                    if n == 1 and w == LENGTH:
                        shape.append(self._side(x, y))
        return kind, shape

    def _side(self, start: int, end: int) -> int | str | None:
        for number, wire, a, b in self.read(start, end):
            if number == 1 and wire == VARINT:
                return self.integers(wire, a, b)[0]
            if number == 2 and wire == LENGTH:
                return self.text(a, b)
        return None
