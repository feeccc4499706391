# SPDX-License-Identifier: Apache-2.0
"""A backbone in float16: half the size, and what a GPU computes fastest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import all_nodes, check_graph
from edge_imprint_export.precision.layers import layer_name
from edge_imprint_export.precision.rewrite import (
    finish,
    fold_batch_norms,
    name_layers,
    named,
)
from edge_imprint_export.precision.tools import float16_tool
from edge_imprint_export.targets.rules import Facts
from edge_imprint_runtime.errors import BackboneExportError

__all__ = ["to_half"]

_LARGEST = float(np.finfo(np.float16).max)
_LARGE_SIZE = 1_024  # numbers

# Sums of many numbers or of squares, which pass float16's 65,504 where their inputs do not;
# and what holds a variance, which may be below its smallest.
_SUMS = (
    "BatchNormalization",
    "CumSum",
    "GlobalLpPool",
    "InstanceNormalization",
    "LRN",
    "LpNormalization",
    "LpPool",
    "MeanVarianceNormalization",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MADE_CASTS = ("_cast_to_fp32_node", "_cast_to_fp16_node", "graph_input_cast0")
_LAST_CAST = "graph_output_cast0"
_MEANS = ("ReduceMean", "Add", "Max", "Clip")  # between squares and their root
_BEFORE_DIVISION = ("Add", "Max", "Clip", "Expand", "Reciprocal")


def to_half(graph: onnx.ModelProto, *, keep_float32: Sequence[str] = ()) -> onnx.ModelProto:
    """Turn a backbone graph into float16, its input and output still float32.

    The work is done by ``onnxruntime.transformers.float16``. In float32 stay, whole and
    without a rounding in between, the norms: from the mean to the division by the root, be
    they one operator's or written out; sums of many numbers; and layers whose weights are
    above float16's largest.

    Args:
        graph: A backbone graph (``pixels`` -> ``embedding``), opset 11 or newer; it is left
            as it is.
        keep_float32: Names of layers that stay float32; ``*`` stands for any part.

    Returns:
        A new graph of the same interface, opset and tensor names. Equal arguments give equal
        bytes.

    Raises:
        ParameterError: ``keep_float32`` names a layer that is not there.
        BackboneExportError: The graph has control flow, or the result is not valid.
        MissingPackageError: ONNX Runtime is not installed.
    """
    convert = float16_tool()
    _refuse_graphs(graph.graph)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    name_layers(model.graph)
    folded = fold_batch_norms(model.graph)
    blocked = named(model.graph, keep_float32, folded)
    blocked |= {*_norms(model.graph), *_large(model.graph)}
    _declare_types(model)
    weights = _take_weights(model.graph)
    made: onnx.ModelProto = convert.convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*convert.DEFAULT_OP_BLOCK_LIST, *_SUMS],
        node_block_list=sorted(blocked),
    )
    _give_weights(made.graph, weights)
    _join_casts(made.graph)
    finish(made, graph)
    check_graph(made, "the backbone in fp16")
    return made


def _norms(graph: onnx.GraphProto) -> Iterator[str]:
    """Name the nodes of norms that are written out: mean, square, root and division."""
    makers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    for root in graph.node:
        inside = list(_behind(root, makers)) if root.op_type == "Sqrt" else []
        if root.op_type != "ReduceL2" and not any(_is_square(node) for node in inside):
            continue
        yield root.name
        yield from (node.name for node in inside)
        ahead = list(readers.get(root.output[0], ()))
        while ahead:
            node = ahead.pop()
            yield node.name  # the division, or what keeps it from being one by 0
            if node.op_type in _BEFORE_DIVISION:
                ahead.extend(readers.get(node.output[0], ()))


def _behind(
    root: onnx.NodeProto, makers: dict[str, onnx.NodeProto]
) -> Iterable[onnx.NodeProto]:
    """Yield what a root is taken of, back to the squares and to what was centred for them."""
    seen: dict[str, onnx.NodeProto] = {}
    ahead = [root.input[0]]
    while ahead:
        node = makers.get(ahead.pop())
        if node is None or node.name in seen:
            continue
        if _is_square(node):
            seen[node.name] = node
            centred = makers.get(node.input[0])
            if centred is not None and centred.op_type == "Sub":
                seen[centred.name] = centred
                mean = makers.get(centred.input[1])
                if mean is not None and mean.op_type == "ReduceMean":
                    seen[mean.name] = mean
        elif node.op_type in _MEANS:
            seen[node.name] = node
            ahead.extend(node.input)
    return seen.values()


def _is_square(node: onnx.NodeProto) -> bool:
    return node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])


def _large(graph: onnx.GraphProto) -> Iterator[str]:
    """Name the layers whose weights float16 does not hold; masks it may cut off."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input if node.op_type in _WEIGHTED else ():
            tensor = constants.get(name)
            if tensor is not None and tensor.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor)
                if values.size and np.abs(values).max() > _LARGEST:
                    yield node.name


def _refuse_graphs(graph: onnx.GraphProto) -> None:
    """Refuse If, Loop and Scan: the converter does not look at what they read from outside."""
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise BackboneExportError(
                f"the backbone has the {node.op_type} node {layer_name(node)!r}, whose inner "
                "graph can't be turned into fp16; export it as fp32 or int8, or make the "
                "backbone without control flow"
            )


def _declare_types(model: onnx.ModelProto) -> None:
    """Declare the type of each tensor, by which the converter knows where Casts go."""
    facts = Facts(model)
    for node in model.graph.node:
        for name in node.output:
            if facts.kind(name):
                value = helper.make_tensor_value_info(name, facts.kind(name), None)
                model.graph.value_info.append(value)


def _take_weights(graph: onnx.GraphProto) -> dict[str, npt.NDArray[np.float32]]:
    """Empty the large weights, in place, and return them by name.

    The converter needs their types alone, and copies each of them eight times over: for
    ViT-B/16 that were 26 s and 2 GB.
    """
    weights = {}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > _LARGE_SIZE:
            weights[tensor.name] = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, [0], []))
    return weights


def _give_weights(graph: onnx.GraphProto, weights: dict[str, npt.NDArray[np.float32]]) -> None:
    """Put weights back, in the type that they have now, in place."""
    for tensor in graph.initializer:
        values = weights.pop(tensor.name, None)
        if values is None:
            continue
        if tensor.data_type == TensorProto.FLOAT16:
            values = values.clip(-_LARGEST, _LARGEST).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _join_casts(graph: onnx.GraphProto) -> None:
    """Make one Cast of several of a tensor, and none of one there and one back, in place.

    The converter puts Casts around each node that it keeps, so that a value between two of
    them would still be rounded, or overflow.
    """
    narrowed = _casts(graph, TensorProto.FLOAT16)
    widened = _casts(graph, TensorProto.FLOAT)
    back = {wide: narrowed[name] for wide, name in widened.items() if name in narrowed}
    for node in graph.node:
        node.input[:] = [back.get(name, name) for name in node.input]
    # Where the last layer is float32, its answer is the embedding.
    last = [n for n in graph.node if n.name == _LAST_CAST and n.input[0] in narrowed]
    renamed = {narrowed[node.input[0]]: node.output[0] for node in last}
    for node in last:
        graph.node.remove(node)
    _keep_read(graph, set(widened))
    _keep_read(graph, set(narrowed))
    # A tensor that only float32 layers read takes its name back from before its Cast.
    left = {node.output[0] for node in graph.node}
    for name, wide in narrowed.items():
        if name not in left and wide in left:
            renamed.setdefault(wide, name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]


def _casts(graph: onnx.GraphProto, kind: int) -> dict[str, str]:
    """Map what the converter's Casts to a type make to what they make it of."""
    return {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and node.name.endswith(_MADE_CASTS)
        and node.attribute[0].i == kind
    }


def _keep_read(graph: onnx.GraphProto, casts: set[str]) -> None:
    """Drop those of these Casts that nothing reads, and all but one of several, in place."""
    read = {name for node in all_nodes(graph) for name in node.input}
    read.update(value.name for value in graph.output)
    kept = []
    for node in graph.node:
        name = node.output[0]
        if name not in casts:
            kept.append(node)
        elif name in read:
            kept.append(node)
            read.discard(name)
    del graph.node[:]
    graph.node.extend(kept)
