# SPDX-License-Identifier: Apache-2.0
"""What both reductions do to a graph: name layers, fold batch norms, put nodes in order."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edge_imprint_export.graph import all_nodes
from edge_imprint_export.precision.layers import layer_name
from edge_imprint_runtime.errors import ParameterError

__all__ = ["finish", "fold_batch_norms", "lift_constants", "name_layers", "named"]

_FOLDED_INTO = {"Conv": 0, "ConvTranspose": 1}  # and the axis of a weight's output channels


def name_layers(graph: onnx.GraphProto) -> None:
    """Give each node without a name the one that `layer_errors` calls it by, in place."""
    for node in graph.node:
        node.name = layer_name(node)


def lift_constants(graph: onnx.GraphProto) -> None:
    """Make an initializer of each node Constant that holds a tensor, in place."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def named(
    graph: onnx.GraphProto, patterns: Sequence[str], folded: dict[str, str]
) -> frozenset[str]:
    """Find the layers that patterns name.

    Args:
        graph: Its nodes are named.
        patterns: Exact names, or with ``*`` for any part of one.
        folded: From layers that are gone to those that they were folded into.

    Returns:
        The names of the nodes meant.

    Raises:
        ParameterError: A pattern names no layer.
    """
    names = [*(node.name for node in graph.node), *folded]
    found: set[str] = set()
    for pattern in patterns:
        # A name may hold brackets: only the star is special.
        meant = fnmatch.filter(names, pattern.replace("[", "[[]").replace("?", "[?]"))
        if not meant:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
            raise ParameterError(
                f"there is no layer {pattern!r} to keep in float32; "
                + (f"nearest: {', '.join(near)}" if near else f"the first is {names[0]!r}")
            )
        found.update(folded.get(name, name) for name in meant)
    return frozenset(found)


def fold_batch_norms(graph: onnx.GraphProto) -> dict[str, str]:
    """Put each batch norm behind a convolution into that one's weights, in place.

    Its variance may be too small or too large for fp16, and in int8 it would be a rounding of
    its own. Exporters mostly fold it themselves.

    Returns:
        From the names of the batch norms that are gone to those of their convolutions.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, int] = dict.fromkeys((value.name for value in graph.output), 1)
    for node in all_nodes(graph):
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    makers = {node.output[0]: node for node in graph.node}
    folded = {}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type not in _FOLDED_INTO or readers[conv.output[0]] > 1:
            continue
        needed = [*conv.input[1:], *norm.input[1:]]
        if len(norm.output) > 1 or any(name not in constants for name in needed if name):
            continue
        if conv.op_type == "ConvTranspose" and _attribute(conv, "group", 1) != 1:
            continue
        if any(readers[name] > 1 for name in conv.input[1:]):
            continue  # shared weights
        _fold(graph, conv, norm, constants)
        makers[norm.output[0]] = conv
        folded[norm.name] = conv.name
    kept = [node for node in graph.node if node.name not in folded]
    del graph.node[:]
    graph.node.extend(kept)
    return folded


def _fold(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    norm: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
) -> None:
    scale, shift, mean, variance = (_float64(constants[name]) for name in norm.input[1:])
    factor = scale / np.sqrt(variance + float(_attribute(norm, "epsilon", 1e-5)))
    weight = constants[conv.input[1]]
    along = [1] * len(weight.dims)
    along[_FOLDED_INTO[conv.op_type]] = -1
    _replace(weight, _float64(weight) * factor.reshape(along))
    before = _float64(constants[conv.input[2]]) if len(conv.input) > 2 else 0.0
    name = f"{weight.name}/folded_bias"
    graph.initializer.append(_float32((before - mean) * factor + shift, name))
    conv.input[:] = [*conv.input[:2], name]
    conv.output[0] = norm.output[0]


def finish(model: onnx.ModelProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """Put nodes in order, drop weights that nothing reads, and set what tools have set.

    Args:
        model: Made by a tool of ``like``; changed in place.
        like: Its producer, versions and interface are taken over.

    Returns:
        The same model.
    """
    graph = model.graph
    _sort(graph)
    used = {name for node in all_nodes(graph) for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:], graph.input[:], graph.output[:]
    graph.initializer.extend(weights)
    graph.input.extend(like.graph.input)
    graph.output.extend(like.graph.output)
    graph.name, graph.doc_string = like.graph.name, ""
    model.producer_name, model.producer_version = like.producer_name, like.producer_version
    del model.metadata_props[:]
    model.doc_string = ""
    demanded = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(like.ir_version, demanded)
    return model


def _sort(graph: onnx.GraphProto) -> None:
    """Bring nodes into topological order, each as early as its inputs allow."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    ordered: list[onnx.NodeProto] = []
    done: set[int] = set()
    for start in range(len(graph.node)):
        stack = [start]
        while stack:
            top = stack[-1]
            needs = [
                makers[name]
                for name in _reads(graph.node[top])
                if name in makers and makers[name] not in done
            ]
            if top not in done and not needs:
                done.add(top)
                ordered.append(graph.node[top])
            if needs:
                stack.extend(reversed(needs))
            else:
                stack.pop()
    del graph.node[:]
    graph.node.extend(ordered)


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return all that a node reads, and the graphs inside it."""
    inner = onnx.GraphProto(node=[node])
    return list(dict.fromkeys(name for part in all_nodes(inner) for name in part.input))


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            value: float = helper.get_attribute_value(attribute)
            return value
    return default


def _float64(tensor: onnx.TensorProto) -> npt.NDArray[np.float64]:
    return numpy_helper.to_array(tensor).astype(np.float64)


def _float32(values: npt.NDArray[np.float64], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def _replace(tensor: onnx.TensorProto, values: npt.NDArray[np.float64]) -> None:
    tensor.CopyFrom(_float32(values, tensor.name))
