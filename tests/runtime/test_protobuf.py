# SPDX-License-Identifier: Apache-2.0
"""What protobuf merges, cuts or drops, so that a walk over the bytes sees another file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_runtime.errors import ModelFileError, UnsafeModelError
from edge_imprint_runtime.onnx_scan import scan

Change = Callable[[onnx.ModelProto], bytes]


def small_model() -> onnx.ModelProto:
    """Return a model of one node."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight() -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")


def varint(value: int) -> bytes:
    text = bytearray()
    while value >= 0x80:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])


def parts(message: Message, *more: tuple[int, Message]) -> bytes:
    """Return a message's bytes and further fields: number, content."""
    data: bytes = message.SerializeToString()
    for number, content in more:
        inner = content.SerializeToString()
        data += varint(number << 3 | 2) + varint(len(inner)) + inner
    return data


def attribute_of(number: int, content: Message) -> Change:
    """Return a change that adds a node whose attribute has a field twice."""

    def change(model: onnx.ModelProto) -> bytes:
        node = b"\x2a" + varint(len(attribute)) + attribute
        graph = parts(model.graph) + b"\x0a" + varint(len(node)) + node
        return b"\x3a" + varint(len(graph)) + graph

    named = onnx.AttributeProto(name="a")
    attribute = parts(named, (number, content), (number, content))
    return change


def in_sparse(number: int) -> Change:
    """Return a change that adds a sparse tensor with one of its two tensors twice."""

    def change(model: onnx.ModelProto) -> bytes:
        tensor = weight()
        data = parts(onnx.SparseTensorProto(dims=[9]), (number, tensor), (number, tensor))
        graph = parts(model.graph) + b"\x7a" + varint(len(data)) + data
        return b"\x3a" + varint(len(graph)) + graph

    return change


def place_twice(model: onnx.ModelProto) -> bytes:
    # Protobuf keeps the first: 7 is a place that it does not know.
    tensor = parts(weight()) + b"\x70\x01" + b"\x70\x07"
    assert TensorProto.FromString(tensor).data_location == TensorProto.EXTERNAL
    graph = parts(model.graph) + b"\x2a" + varint(len(tensor)) + tensor
    return b"\x3a" + varint(len(graph)) + graph


def with_place(model: onnx.ModelProto, place: int) -> bytes:
    tensor = parts(weight()) + b"\x70" + varint(place)
    graph = parts(model.graph) + b"\x2a" + varint(len(tensor)) + tensor
    return b"\x3a" + varint(len(graph)) + graph


def training_twice(model: onnx.ModelProto) -> bytes:
    training = parts(onnx.TrainingInfoProto(), (1, model.graph), (1, model.graph))
    return parts(model) + b"\xa2\x01" + varint(len(training)) + training


TWICE: dict[str, tuple[Change, str]] = {
    "an attribute's tensor twice": (
        attribute_of(5, weight()),
        "states a tensor of an attribute twice; export it again",
    ),
    "an attribute's graph twice": (
        attribute_of(6, small_model().graph),
        "states a graph of an attribute twice; export it again",
    ),
    "an attribute's sparse tensor twice": (
        attribute_of(22, helper.make_sparse_tensor(weight(), weight(), [9])),
        "states a sparse tensor of an attribute twice; export it again",
    ),
    "values twice": (in_sparse(1), "states a part of a sparse tensor twice; export it again"),
    "indices twice": (in_sparse(2), "states a part of a sparse tensor twice; export it again"),
    "a training graph twice": (
        training_twice,
        "states a training graph twice; export it again",
    ),
    "a place twice": (
        place_twice,
        "states the place of a tensor's numbers twice; export it again",
    ),
    "an unknown place": (
        lambda m: with_place(m, 2**32 + 1),
        "keeps a tensor's numbers in a place that ONNX does not have; export it again",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), TWICE.values(), ids=TWICE.keys())
def test_what_protobuf_would_read_otherwise_is_refused(change: Change, sentence: str) -> None:
    data = change(small_model())
    onnx.ModelProto.FromString(data)  # it takes the file without a word
    with pytest.raises(UnsafeModelError) as caught:
        scan(data, "the model")
    assert str(caught.value) == f"the model {sentence}"


def test_two_tensors_of_one_attribute_become_one() -> None:
    """Why it is refused: each of the two is sound, and what is read is not."""
    one = TensorProto(data_type=TensorProto.FLOAT, dims=[2], raw_data=bytes(8))
    data = parts(onnx.AttributeProto(name="a"), (5, one), (5, one))
    merged = onnx.AttributeProto.FromString(data).t
    assert (list(merged.dims), len(merged.raw_data)) == ([2, 2], 8)


@pytest.mark.parametrize("number", [2**29, 2**29 + 7, 2**40 + 7])
def test_a_number_that_no_field_has(number: int) -> None:
    """Cut to 32 bits, these would be field 0 or 7: the graph, unseen by the walk."""
    data = small_model().SerializeToString() + varint(number << 3 | 2) + b"\x00"
    with pytest.raises(ModelFileError) as caught:
        scan(data, "the model")
    assert str(caught.value) == (
        "the model is not an ONNX model: it is cut off, or no protobuf message"
    )
    scan(small_model().SerializeToString() + varint((2**29 - 1) << 3 | 2) + b"\x00", "m")
