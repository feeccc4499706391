# SPDX-License-Identifier: Apache-2.0
"""A fused model without its head, to measure what the head costs; the file's bytes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from edge_imprint_runtime.errors import OutputMissingError
from edge_imprint_runtime.protobuf import LENGTH, VARINT, Wire

__all__ = ["headless"]

_EMBEDDING = "embedding"
# Fields of onnx.proto's messages.
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_NAMES = {_INITIALIZER: 8, _INPUT: 1}  # where their own name is
_ATTRIBUTE_GRAPHS = (6, 11)

Part: TypeAlias = "bytes | memoryview"


def headless(data: bytes, where: str) -> bytes:
    """Take the head off a fused model.

    Args:
        data: The ONNX file, whose weights are in it.
        where: Its name, for messages.

    Returns:
        The same model up to the output ``embedding`` (N, D) float32, without metadata.

    Raises:
        OutputMissingError: The graph has no tensor ``embedding``.
        ModelFileError: It is no ONNX file.
    """
    wire, parts, cut = Wire(data, where), list[Part](), False
    for number, kind, a, b in wire.read(0, len(data)):
        if number == _MODEL_GRAPH and kind == LENGTH:
            parts += _message(number, _graph(wire, a, b))
            cut = True
        elif number != _MODEL_METADATA:
            parts += _field(wire, number, kind, a, b)
    if not cut:
        raise wire.broken("it holds no graph")
    return b"".join(parts)


def _graph(wire: Wire, start: int, end: int) -> list[Part]:
    fields = list(wire.read(start, end))
    made = [
        position
        for position, (number, _, a, b) in enumerate(fields)
        if number == _NODE and _EMBEDDING in _texts(wire, a, b, _NODE_OUTPUT)
    ]
    if not made:
        raise OutputMissingError(
            f"{wire.where} has no embedding; export it with: edge-imprint export"
        )
    # The head's nodes stand behind the backbone's, so all that follows belongs to it.
    nodes = [field for field in fields[: made[0] + 1] if field[0] == _NODE]
    used = {name for _, _, a, b in nodes for name in _inputs(wire, a, b)}
    parts: list[Part] = []
    for position, (number, kind, a, b) in enumerate(fields):
        name = _NAMES.get(number)
        if number == _NODE and position > made[0]:
            continue
        if number == _OUTPUT or (name and not used.intersection(_texts(wire, a, b, name))):
            continue
        parts += _field(wire, number, kind, a, b)
    return parts + _message(_OUTPUT, [_EMBEDDING_VALUE])


def _inputs(wire: Wire, start: int, end: int) -> Iterator[str]:
    """Name what a node reads, and what graphs within it do."""
    for number, _, a, b in wire.read(start, end):
        if number == _NODE_INPUT:
            yield wire.text(a, b)
        elif number == _NODE_ATTRIBUTE:
            for kind, _, c, d in wire.read(a, b):
                if kind in _ATTRIBUTE_GRAPHS:
                    for field, _, e, f in wire.read(c, d):
                        if field == _NODE:
                            yield from _inputs(wire, e, f)


def _texts(wire: Wire, start: int, end: int, field: int) -> list[str]:
    return [wire.text(a, b) for number, _, a, b in wire.read(start, end) if number == field]


def _field(wire: Wire, number: int, kind: int, a: int, b: int) -> list[Part]:
    """Return a field as it was; weights are not copied."""
    if kind == LENGTH:
        return _message(number, [memoryview(wire.data)[a:b]])
    # The messages that are taken apart here have no other fields but whole numbers.
    return [_varint(number << 3 | VARINT) + _varint(a)] if kind == VARINT else []


def _message(number: int, parts: list[Part]) -> list[Part]:
    return [_varint(number << 3 | LENGTH) + _varint(sum(map(len, parts))), *parts]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


# A ValueInfoProto: embedding, float32, (N, any).
_EMBEDDING_VALUE = (
    b"\x0a\x09embedding"  # its name
    b"\x12\x0d\x0a\x0b"  # its type, a tensor's
    b"\x08\x01"  # of float32
    b"\x12\x07\x0a\x03\x12\x01N\x0a\x00"  # with two sides
)
