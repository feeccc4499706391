# SPDX-License-Identifier: Apache-2.0
"""float16 graphs: half the size, few Casts, and norms that do not overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision import to_half
from edge_imprint_export.precision.rewrite import finish
from edge_imprint_export.precision.tools import float16_tool
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target
from edge_imprint_runtime.errors import BackboneExportError, ParameterError

Array: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[onnx.ModelProto, Array], Array]
Linear: TypeAlias = Callable[..., onnx.ModelProto]
MakeGraph: TypeAlias = Callable[..., onnx.ModelProto]

_SIDE = 32  # 3,072 pixels: enough of them for a sum of squares to pass 65,504


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Count the elements of floating initializers by their type."""
    count: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            count[TensorProto.DataType.Name(tensor.data_type)] += int(np.prod(tensor.dims))
    return dict(count)


def casts(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.node)


def in_numpy(model: onnx.ModelProto, pixels: Array) -> Array:
    """Run a graph in onnx's own evaluator, where float16 overflows as it should."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    assert isinstance(rows, list)
    return np.asarray(rows[0])


def norm_graph(make_graph: MakeGraph, form: str) -> onnx.ModelProto:
    """A norm over a row of pixels, written in one of the ways that exporters have."""
    node = helper.make_node
    nodes = [node("Flatten", ["pixels"], ["x"], "flat", axis=1)]
    weights: dict[str, npt.NDArray[np.generic]] = {
        "two": np.array(2, "f4"),
        "epsilon": np.array(1e-6, "f4"),
        "scale": np.ones(3 * _SIDE**2, "f4"),
    }
    if form == "layer norm":
        nodes += [
            node("ReduceMean", ["x"], ["mean"], "mean", axes=[-1]),
            node("Sub", ["x", "mean"], ["c"], "centred"),
            node("Pow", ["c", "two"], ["s"], "square"),
            node("ReduceMean", ["s"], ["v"], "variance", axes=[-1]),
            node("Add", ["v", "epsilon"], ["ve"], "plus"),
            node("Sqrt", ["ve"], ["d"], "root"),
            node("Div", ["c", "d"], ["n"], "divided"),
        ]
    elif form == "rms":
        nodes += [
            node("Mul", ["x", "x"], ["s"], "square"),
            node("ReduceMean", ["s"], ["v"], "variance", axes=[-1]),
            node("Add", ["v", "epsilon"], ["ve"], "plus"),
            node("Sqrt", ["ve"], ["d"], "root"),
            node("Reciprocal", ["d"], ["r"], "reciprocal"),
            node("Mul", ["x", "r"], ["n"], "divided"),
        ]
    else:
        nodes += [
            node("ReduceL2", ["x"], ["d"], "length", axes=[-1]),
            node("Div", ["x", "d"], ["n"], "divided"),
        ]
    nodes.append(node("Mul", ["n", "scale"], ["embedding"], "scaled"))
    return make_graph(nodes, weights, side=_SIDE, size=3 * _SIDE**2)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_a_linear_layer_is_that_of_rounded_weights_and_pixels(
    linear: Linear, images: Array, embed: Embed, opset: int
) -> None:
    weight = np.random.default_rng(0).standard_normal((192, 5)).astype(np.float32)
    graph = linear(weight, opset)
    made = to_half(graph)
    rows = images.reshape(len(images), -1).astype(np.float16).astype(np.float64)
    expected = rows @ weight.astype(np.float16).astype(np.float64)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(embed(made, images), expected, atol=1e-3 * scale)
    assert made.opset_import[0].version == opset
    assert kinds(made) == {"FLOAT16": weight.size}
    assert casts(made) == 2


def test_interface_names_and_given_graph_stay(residual: onnx.ModelProto) -> None:
    before = to_bytes(residual)
    made = to_half(residual)
    assert to_bytes(residual) == before
    assert list(made.graph.input) == list(residual.graph.input)
    assert list(made.graph.output) == list(residual.graph.output)
    names = {name for node in made.graph.node for name in node.output}
    assert {node.output[0] for node in residual.graph.node} <= names
    assert (made.producer_name, made.ir_version) == ("edge-imprint", 8)
    assert len(to_bytes(made)) < 0.6 * len(before)


@pytest.mark.parametrize("form", ["layer norm", "rms", "length"])
def test_a_norm_of_large_numbers_does_not_overflow(
    make_graph: MakeGraph, form: str, embed: Embed
) -> None:
    graph = norm_graph(make_graph, form)
    pixels = 300 * np.random.default_rng(1).standard_normal((4, 3, _SIDE, _SIDE))
    pixels = pixels.astype(np.float32)
    rows = pixels.reshape(4, -1).astype(np.float16).astype(np.float64)
    if form == "layer norm":
        rows -= rows.mean(axis=1, keepdims=True)
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    expected = rows / (length if form == "length" else length / np.sqrt(rows.shape[1]))
    limit = 2e-3 * np.abs(expected).max()
    made = to_half(graph)
    np.testing.assert_allclose(embed(made, pixels), expected, atol=limit)
    # ONNX Runtime computes float16 in float32 on a CPU; numpy does as a GPU does.
    np.testing.assert_allclose(in_numpy(made, pixels), expected, atol=limit)
    plain = float16_tool().convert_float_to_float16(graph, keep_io_types=True)
    plain = finish(plain, graph)
    assert not np.allclose(in_numpy(plain, pixels), expected, atol=100 * limit)


def test_a_norm_costs_two_casts(make_graph: MakeGraph) -> None:
    made = to_half(norm_graph(make_graph, "layer norm"))
    narrow = {node.output[0] for node in made.graph.node if node.op_type == "Cast"}
    for node in made.graph.node:
        if node.name in ("centred", "square", "variance", "plus", "root", "divided"):
            inside = {name for name in node.input if name in narrow}
            assert inside <= {"x_cast_to_fp32"}, node.name
    # In and out of the norm, and of the graph.
    assert casts(made) == 4


def test_a_norm_that_lowering_wrote_out_stays_whole(
    make_graph: MakeGraph, embed: Embed
) -> None:
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["x"], "flat", axis=1),
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["embedding"], "norm"),
    ]
    size = 3 * _SIDE**2
    weights = {"scale": np.ones(size, "f4"), "shift": np.zeros(size, "f4")}
    graph = make_graph(nodes, weights, side=_SIDE, size=size)
    pixels = (300 * np.random.default_rng(2).standard_normal((2, 3, _SIDE, _SIDE))).astype(
        "f4"
    )
    expected = embed(graph, pixels)
    lowered = lower(parse(to_bytes(graph), "it"), target("portable"))
    assert "LayerNormalization" not in {node.op_type for node in lowered.graph.node}
    made = to_half(lowered)
    np.testing.assert_allclose(embed(made, pixels), expected, atol=5e-3)
    assert casts(made) == 4


@pytest.mark.parametrize("opset", [11, 15])
def test_batch_norms_are_folded_for_their_variances_are_small(
    normed: Callable[[int], onnx.ModelProto], images: Array, embed: Embed, opset: int
) -> None:
    graph = normed(opset)
    made = to_half(graph)
    assert "BatchNormalization" not in {node.op_type for node in made.graph.node}
    expected = embed(graph, images)
    np.testing.assert_allclose(
        embed(made, images), expected, atol=5e-3 * np.abs(expected).max()
    )


def test_weights_that_float16_does_not_hold_stay(
    linear: Linear, images: Array, embed: Embed
) -> None:
    weight = np.full((192, 2), 1e5, np.float32)
    graph = linear(weight)
    made = to_half(graph)
    assert kinds(made) == {"FLOAT": weight.size}
    assert casts(made) == 2  # none behind it: the embedding itself is above 65,504
    rows = images.reshape(len(images), -1).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(embed(made, images), rows @ weight, rtol=1e-4, atol=10)


def test_layers_are_kept_by_name_and_star(residual: onnx.ModelProto) -> None:
    whole = kinds(to_half(residual))
    assert whole == {"FLOAT16": 1392}  # 216 + 576 + 576, and 8 biases each
    one = kinds(to_half(residual, keep_float32=["first"]))
    assert one == {"FLOAT16": 1392 - 584, "FLOAT": 584}
    some = kinds(to_half(residual, keep_float32=["s*d", "stem"]))
    assert some == {"FLOAT16": 584, "FLOAT": 1392 - 584}


def test_a_kept_layer_that_is_not_there_is_an_error(residual: onnx.ModelProto) -> None:
    with pytest.raises(ParameterError) as caught:
        to_half(residual, keep_float32=["secnd"])
    assert str(caught.value) == (
        "there is no layer 'secnd' to keep in float32; nearest: second"
    )
    with pytest.raises(ParameterError) as caught:
        to_half(residual, keep_float32=["stem", "[x]*"])
    assert str(caught.value) == (
        "there is no layer '[x]*' to keep in float32; the first is 'stem'"
    )


def test_equal_arguments_give_equal_bytes(residual: onnx.ModelProto) -> None:
    assert to_bytes(to_half(residual)) == to_bytes(to_half(residual))


def test_control_flow_is_refused(make_graph: MakeGraph) -> None:
    node = helper.make_node
    out = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    inner = helper.make_graph([node("Relu", ["rows"], ["inner"])], "branch", [], out)
    nodes = [
        node("Flatten", ["pixels"], ["rows"], "flat", axis=1),
        node("If", ["yes"], ["embedding"], "choice", then_branch=inner, else_branch=inner),
    ]
    with pytest.raises(BackboneExportError) as caught:
        to_half(make_graph(nodes, {"yes": np.array(True)}, size=192))
    assert str(caught.value) == (
        "the backbone has the If node 'choice', whose inner graph can't be turned into fp16; "
        "export it as fp32 or int8, or make the backbone without control flow"
    )
