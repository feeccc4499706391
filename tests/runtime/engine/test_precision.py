# SPDX-License-Identifier: Apache-2.0
"""Types of tensors, as far as they are told without an ONNX library."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from edge_imprint_runtime.engine.onnx_facts import read_facts
from edge_imprint_runtime.engine.precision import hold_float32, tensor_kinds, wanted_flags
from edge_imprint_runtime.engine.tensorrt_api import load
from tests.standins import World
from tests.standins.tensorrt_network import Layer, Tensor

F, H, I8, I64, B = 1, 10, 3, 7, 9
make = helper.make_node


def kinds(*nodes: Any) -> dict[str, int]:
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [values("x", F, ["N"]), values("h", H, ["N"]), values("b", B, ["N"])],
        [],
        [helper.make_tensor("zero", TensorProto.UINT8, [], [0])],
    )
    return tensor_kinds(read_facts(helper.make_model(graph).SerializeToString(), "m"))


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (make("Relu", ["h"], ["y"]), H),
        (make("Cast", ["h"], ["y"], to=F), F),
        (make("Where", ["b", "h", "h"], ["y"]), H),
        (make("Where", ["b", "x", "x"], ["y"]), F),
        (make("QuantizeLinear", ["x", "x"], ["y"]), I8),
        (make("QuantizeLinear", ["x", "x", "zero"], ["y"]), 2),
        (make("DequantizeLinear", ["zero", "h"], ["y"]), H),
        (make("ArgMax", ["x"], ["y"]), I64),
        (make("GreaterOrEqual", ["x", "x"], ["y"]), B),
        (make("Gather", ["h", "i"], ["y"]), H),
        (make("Clip", ["", "h"], ["y"]), H),
        (make("RandomNormal", [], ["y"]), None),
        (make("Cast", ["h"], ["y"]), None),
    ],
)
def test_a_nodes_type(node: Any, kind: int | None) -> None:
    assert kinds(node).get("y") == kind


def test_the_places_of_what_is_largest_are_whole_numbers() -> None:
    found = kinds(make("TopK", ["h", "k"], ["y", "i"]))
    assert (found["y"], found["i"]) == (H, I64)


def test_a_graph_without_such_types_needs_no_flag(forms: dict[str, bytes]) -> None:
    assert wanted_flags(read_facts(forms["plain"], "m")) == []


def test_shapes_and_whole_numbers_are_not_held(world: World) -> None:
    """What TensorRT would refuse to be told a precision of, or has none."""
    api = load()
    types, kind = api.module.DataType, api.module.LayerType

    class Network:
        def __init__(self, *layers: Layer) -> None:
            self.layers, self.num_layers = layers, len(layers)

        def get_layer(self, index: int) -> Layer:
            return self.layers[index]

    def layer(name: str, dtype: Any, of: Any = kind.ELEMENTWISE, shape: bool = False) -> Layer:
        tensor = Tensor(name, dtype, (1,))
        tensor.is_shape_tensor = shape
        return Layer(of, name, [tensor])

    network = Network(
        layer("helper", types.FLOAT),
        layer("float", types.FLOAT),
        layer("helper of half", types.FLOAT),
        layer("half", types.HALF),
        layer("constant", types.FLOAT, kind.CONSTANT),
        layer("cast", types.FLOAT, kind.IDENTITY),
        layer("shape", types.INT32, shape=True),
        layer("index", types.INT32),
        layer("last", types.FLOAT),
    )
    network.layers[-1].outputs.append(Tensor("places", types.INT32, (1,)))  # as of a TopK
    named = dict.fromkeys(("float", "cast", "shape", "index", "last"), F) | {"half": H}
    assert hold_float32(api, network, named) == 3
    assert [each.name for each in network.layers if each.held] == ["helper", "float", "last"]
    assert network.layers[-1].held == ["precision FLOAT", "output 0 FLOAT"]
