# SPDX-License-Identifier: Apache-2.0
"""int8 of graphs as they come: batch norms, old opsets, dead layers; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision import to_int8
from edge_imprint_export.precision.int8 import DIALECTS
from edge_imprint_runtime.errors import BackboneExportError, ParameterError

Array: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[onnx.ModelProto, Array], Array]
Linear: TypeAlias = Callable[..., onnx.ModelProto]
MakeGraph: TypeAlias = Callable[..., onnx.ModelProto]

all_dialects = pytest.mark.parametrize("dialect", DIALECTS)


def made_by(model: onnx.ModelProto, tensor: str) -> str | None:
    return next((n.op_type for n in model.graph.node if tensor in n.output), None)


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_batch_norms_are_folded_and_old_opsets_raised(
    normed: Callable[[int], onnx.ModelProto], images: Array, embed: Embed, opset: int
) -> None:
    graph = normed(opset)
    made = to_int8(graph, [images], dialect="tensorrt")
    assert "BatchNormalization" not in {node.op_type for node in made.graph.node}
    assert made.opset_import[0].version == max(13, opset)
    expected = embed(graph, images)
    assert np.linalg.norm(embed(made, images) - expected) < 0.05 * np.linalg.norm(expected)


def test_weights_in_constant_nodes_are_found(
    linear: Linear, images: Array, embed: Embed
) -> None:
    weight = np.random.default_rng(0).standard_normal((192, 4)).astype(np.float32)
    graph = linear(weight)
    other = parse(to_bytes(graph), "it")
    tensor = other.graph.initializer.pop()
    node = helper.make_node("Constant", [], ["weight"], value=tensor)
    other.graph.node.insert(0, node)
    a, b = (to_int8(made, [images], dialect="tensorrt") for made in (graph, other))
    np.testing.assert_array_equal(embed(a, images), embed(b, images))


@all_dialects
def test_dead_channels_and_dead_maps_do_no_harm(
    residual: onnx.ModelProto, images: Array, embed: Embed, dialect: str
) -> None:
    graph = parse(to_bytes(residual), "it")
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "first.w":
            values[2] = 0  # a channel of no weights
        elif tensor.name in ("second.w", "second.b"):
            values[:] = 0  # a layer that answers nothing
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made = to_int8(graph, [images], dialect=dialect)
    expected = embed(graph, images)
    assert np.linalg.norm(embed(made, images) - expected) < 0.03 * np.linalg.norm(expected)
    scales = {n.input[1] for n in made.graph.node if n.op_type == "QuantizeLinear"}
    for tensor in made.graph.initializer:
        assert tensor.name not in scales or (numpy_helper.to_array(tensor) > 0).all()


def test_layers_are_kept_by_name_star_and_folded_norm(
    normed: Callable[[int], onnx.ModelProto], images: Array
) -> None:
    graph = normed(17)
    for pattern, kept in (("one", {"one"}), ("t*o", {"two"}), ("one_norm", {"one"})):
        made = to_int8(graph, [images], keep_float32=[pattern], dialect="tensorrt")
        floats = {
            node.name
            for node in made.graph.node
            if node.op_type == "Conv" and made_by(made, node.input[1]) is None
        }
        assert floats == kept


@all_dialects
@pytest.mark.parametrize("kind", ["Clip", "LeakyRelu", "HardSwish", "Sigmoid", "bias", "Relu"])
def test_what_stands_behind_a_convolution(
    make_graph: MakeGraph, images: Array, embed: Embed, dialect: str, kind: str
) -> None:
    rng, node = np.random.default_rng(6), helper.make_node
    weights: dict[str, npt.NDArray[np.generic]] = {
        "w": (rng.standard_normal((8, 3, 1, 1)) / 2).astype("f4"),
        "low": np.array(-0.5, "f4"),
        "high": np.array(1.5, "f4"),
        "shift": rng.standard_normal((8, 1, 1)).astype("f4"),
        "m": rng.standard_normal((5, 8)).astype("f4"),
        "n": rng.standard_normal(5).astype("f4"),
    }
    behind = {
        "Clip": [node("Clip", ["c", "low", "high"], ["a"], "act")],
        "Sigmoid": [
            node("Sigmoid", ["c"], ["s"], "gate"),
            node("Mul", ["c", "s"], ["a"], "x"),
        ],
        "bias": [node("Add", ["c", "shift"], ["a"], "act")],
    }
    nodes = [
        node("Conv", ["pixels", "w"], ["c"], "conv"),
        *behind.get(kind, [node(kind, ["c"], ["a"], "act")]),
        node("MaxPool", ["a"], ["x"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["x"], ["p"], "mean"),
        node("Flatten", ["p"], ["f"], "flat", axis=1),
        node("Gemm", ["f", "m", "n"], ["embedding"], "gemm", transB=1),
    ]
    graph = make_graph(nodes, weights, size=5)
    made = to_int8(graph, [images], dialect=dialect)
    expected = embed(graph, images)
    assert np.linalg.norm(embed(made, images) - expected) < 0.03 * np.linalg.norm(expected)
    assert made_by(made, node_of(made, "gemm").input[1]) == "DequantizeLinear"


def test_a_product_of_two_activations_stays_float(
    make_graph: MakeGraph, images: Array
) -> None:
    node = helper.make_node
    nodes = [
        node("Reshape", ["pixels", "shape"], ["x"], "rows"),
        node("MatMul", ["x", "weight"], ["y"], "constant"),
        node("Transpose", ["y"], ["z"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["y", "z"], ["s"], "attention"),
        node("Reshape", ["s", "flat"], ["embedding"], "out"),
    ]
    weights: dict[str, npt.NDArray[np.generic]] = {
        "shape": np.array([0, 4, 48]),
        "flat": np.array([0, 16]),
        "weight": np.random.default_rng(0).standard_normal((48, 6)).astype("f4"),
    }
    made = to_int8(make_graph(nodes, weights, size=16), [images])
    assert made_by(made, node_of(made, "constant").input[0]) == "DequantizeLinear"
    assert [made_by(made, name) for name in node_of(made, "attention").input] == [
        "MatMul",
        "Transpose",
    ]


# Refusals ----------------------------------------------------------------------------------


def test_what_is_wrong_is_said(
    linear: Linear, residual: onnx.ModelProto, images: Array, make_graph: MakeGraph
) -> None:
    graph = linear(np.ones((192, 2), np.float32))

    def says(error: type[Exception], text: str, *arguments: object, **options: object) -> None:
        with pytest.raises(error) as caught:
            to_int8(*arguments, **options)  # type: ignore[arg-type]
        assert str(caught.value) == text

    says(
        ParameterError,
        "there is no int8 dialect 'tflite'; use one of portable, tensorrt-8, tensorrt, "
        "onnxruntime",
        graph,
        [images],
        dialect="tflite",
    )
    for empty in ([], [images[:0]]):
        says(
            ParameterError,
            "int8 is calibrated on images, and there is none",
            graph,
            empty,
        )
    says(
        ParameterError,
        "there is no layer 'prodct' to keep in float32; nearest: product",
        graph,
        [images],
        keep_float32=["prodct"],
    )
    says(
        BackboneExportError,
        "the backbone has no layer with constant weights (Conv, Gemm, MatMul) that may be "
        "quantized; keep fewer in float32, or export it in fp16",
        graph,
        [images],
        keep_float32=["*"],
    )
    says(
        BackboneExportError,
        "the backbone answers NaN or infinity at 'embedding' to the images that int8 is "
        "calibrated on; look at its weights and preprocessing",
        linear(np.full((192, 2), 1e38, np.float32)),
        [np.abs(images)],
    )


def test_an_opset_that_cannot_be_raised_is_refused(linear: Linear, images: Array) -> None:
    graph = linear(np.ones((192, 2), np.float32), 11)
    # It says opset 11, and has an operator of opset 14.
    curve = helper.make_node("HardSwish", ["rows"], ["curved"], "curve")
    graph.graph.node.insert(1, curve)
    graph.graph.node[2].input[0] = "curved"
    with pytest.raises(BackboneExportError) as caught:
        to_int8(graph, [images])
    text = str(caught.value)
    assert text.startswith("int8 needs opset 13, and the backbone of opset 11 can't be raised")
    assert text.endswith("; export it again with a newer opset")
