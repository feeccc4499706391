# SPDX-License-Identifier: Apache-2.0
"""Operators written as plainer ones: what `targets.lower` puts in their place.

The forms are those that ONNX Runtime and TensorRT know as a pattern and run as one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_imprint_export.nodes import Nodes
from edge_imprint_export.targets.records import Target
from edge_imprint_export.targets.rules import Facts, attribute
from edge_imprint_runtime.errors import BackboneExportError

__all__ = ["EXPANSIONS", "Place", "refusal"]

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715  # of the tanh form (arXiv 1606.08415)


@dataclass(frozen=True)
class Place:
    """Where a node is rewritten.

    Attributes:
        nodes: Takes what stands in its place, in the opset of the target.
        facts: Of the graph as it was.
        target: What it is written for.
    """

    nodes: Nodes
    facts: Facts
    target: Target


def refusal(node: onnx.NodeProto, target: str, why: str) -> BackboneExportError:
    """Make the error that says which node can't be written for a target, and what to do."""
    name = node.name or next(iter(node.output), "")
    return BackboneExportError(
        f"the {node.op_type} node {name!r} can't be written for {target}: {why}"
    )


def _number(place: Place, name: str, value: float, kind: int) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return place.nodes.constant(name, value, dtype)


def _kind(place: Place, node: onnx.NodeProto) -> int:
    """Return the type of a node's inputs, which are floating and all of one type."""
    facts = place.facts
    name = next((n for n in node.input if n in facts.constants), node.input[0])
    kind = facts.kind(name)
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        why = f"its input {name!r} is not known to be floating; export with opset 17"
        raise refusal(node, place.target.name, why)
    return kind


def _in_float32(place: Place, x: str, kind: int, output: str) -> str:
    if kind == TensorProto.FLOAT:
        return x
    return place.nodes.add("Cast", [x], f"{output}/float32", to=TensorProto.FLOAT)


def _mean(nodes: Nodes, x: str, output: str, axes: list[int]) -> str:
    """Add the mean over some axes, which is that over one of them after the other."""
    for number, axis in enumerate(reversed(axes), 1):
        name = output if number == len(axes) else f"{output}/{number}"
        x = nodes.reduce("ReduceMean", x, name, axis, keepdims=1)
    return x


def _axes_after(place: Place, node: onnx.NodeProto) -> list[int]:
    """Return the axes from ``axis`` to the last, counted from the end."""
    axis = attribute(node, "axis", -1)
    if axis >= 0:
        shape = place.facts.shape(node.input[0])
        if shape is None:
            raise refusal(
                node,
                place.target.name,
                "the rank of its input is not known; export with axis counted from the end",
            )
        axis -= len(shape)
    return list(range(axis, 0))


def _normalized(
    place: Place, node: onnx.NodeProto, output: str, *, center: bool
) -> tuple[str, list[str]]:
    """Add ``(x - mean) / sqrt(mean((x - mean)^2) + epsilon)`` over the last axes, in float32.

    Returns:
        The result, in the type of x, and the names of mean and deviation.
    """
    nodes, axes = place.nodes, _axes_after(place, node)
    kind = _kind(place, node)
    x = _in_float32(place, node.input[0], kind, output)
    mean = ""
    if center:
        mean = _mean(nodes, x, f"{output}/mean", axes)
        x = nodes.add("Sub", [x, mean], f"{output}/centered")
    two = nodes.constant(f"{output}/two", 2, np.float32)
    square = nodes.add("Pow", [x, two], f"{output}/square")
    square = _mean(nodes, square, f"{output}/variance", axes)
    epsilon = attribute(node, "epsilon", 1e-5)
    floor = nodes.constant(f"{output}/epsilon", epsilon, np.float32)
    square = nodes.add("Add", [square, floor], f"{output}/variance_not_zero")
    deviation = nodes.add("Sqrt", [square], f"{output}/deviation")
    x = nodes.add("Div", [x, deviation], f"{output}/normalized")
    if kind != TensorProto.FLOAT:
        x = nodes.add("Cast", [x], f"{output}/normalized_cast", to=kind)
    return x, [mean, deviation]


def _layer_normalization(place: Place, node: onnx.NodeProto) -> None:
    output, nodes = node.output[0], place.nodes
    x, (mean, deviation) = _normalized(place, node, output, center=True)
    bias = node.input[2] if len(node.input) > 2 else ""
    x = nodes.add("Mul", [x, node.input[1]], f"{output}/scaled" if bias else output)
    if bias:
        nodes.add("Add", [x, bias], output)
    for name, (kind, source) in zip(
        node.output[1:],
        (("Identity", mean), ("Reciprocal", deviation)),
        strict=False,
    ):
        if name:
            nodes.add(kind, [source], name)


def _rms_normalization(place: Place, node: onnx.NodeProto) -> None:
    x, _ = _normalized(place, node, node.output[0], center=False)
    place.nodes.add("Mul", [x, node.input[1]], node.output[0])


def _group_normalization(place: Place, node: onnx.NodeProto) -> None:
    """Write ``GroupNormalization`` as a normalisation of (N, groups, rest), then scale.

    Scale and bias are one a group before opset 21, and one a channel from there on.
    """
    output, nodes, facts = node.output[0], place.nodes, place.facts
    kind = _kind(place, node)
    groups = attribute(node, "num_groups", 0)
    shape = nodes.add("Shape", [node.input[0]], f"{output}/shape")
    parts = nodes.constant(f"{output}/groups", [0, groups, -1], np.int64)
    x = nodes.add("Reshape", [node.input[0], parts], f"{output}/by_group")
    x = _in_float32(place, x, kind, f"{output}/by_group")
    mean = _mean(nodes, x, f"{output}/mean", [-1])
    x = nodes.add("Sub", [x, mean], f"{output}/centered")
    square = nodes.add("Mul", [x, x], f"{output}/square")
    square = _mean(nodes, square, f"{output}/variance", [-1])
    epsilon = attribute(node, "epsilon", 1e-5)
    floor = nodes.constant(f"{output}/epsilon", epsilon, np.float32)
    square = nodes.add("Add", [square, floor], f"{output}/variance_not_zero")
    deviation = nodes.add("Sqrt", [square], f"{output}/deviation")
    x = nodes.add("Div", [x, deviation], f"{output}/normalized")
    if kind != TensorProto.FLOAT:
        x = nodes.add("Cast", [x], f"{output}/normalized_cast", to=kind)
    if facts.opset >= 21:
        size = facts.shape(node.input[1])
        if not size or not size[0]:
            raise refusal(node, place.target.name, "its number of channels is not known")
        parts = nodes.constant(f"{output}/channels", [0, size[0], -1], np.int64)
        x = nodes.add("Reshape", [x, parts], f"{output}/by_channel")
    column = nodes.constant(f"{output}/column", [-1, 1], np.int64)
    scale = nodes.add("Reshape", [node.input[1], column], f"{output}/scale")
    bias = nodes.add("Reshape", [node.input[2], column], f"{output}/bias")
    x = nodes.add("Mul", [x, scale], f"{output}/scaled")
    x = nodes.add("Add", [x, bias], f"{output}/shifted")
    nodes.add("Reshape", [x, shape], output)


def _gelu(place: Place, node: onnx.NodeProto) -> None:
    x, output, nodes = node.input[0], node.output[0], place.nodes
    kind = _kind(place, node)
    one = _number(place, f"{output}/one", 1, kind)
    half = _number(place, f"{output}/half", 0.5, kind)
    if attribute(node, "approximate", "none") == "tanh":
        three = _number(place, f"{output}/three", 3, kind)
        cubic = _number(place, f"{output}/cubic", _GELU_CUBIC, kind)
        scale = _number(place, f"{output}/scale", _SQRT_2_OVER_PI, kind)
        y = nodes.add("Pow", [x, three], f"{output}/cube")
        y = nodes.add("Mul", [y, cubic], f"{output}/cubic_part")
        y = nodes.add("Add", [x, y], f"{output}/sum")
        y = nodes.add("Mul", [y, scale], f"{output}/scaled")
        y = nodes.add("Tanh", [y], f"{output}/tanh")
        y = nodes.add("Add", [y, one], f"{output}/share")
        x = nodes.add("Mul", [x, half], f"{output}/halved")
        nodes.add("Mul", [x, y], output)
        return
    root = _number(place, f"{output}/root", math.sqrt(2), kind)
    y = nodes.add("Div", [x, root], f"{output}/scaled")
    y = nodes.add("Erf", [y], f"{output}/erf")
    y = nodes.add("Add", [y, one], f"{output}/share")
    y = nodes.add("Mul", [x, y], f"{output}/shared")
    nodes.add("Mul", [y, half], output)


def _mish(place: Place, node: onnx.NodeProto) -> None:
    nodes, output = place.nodes, node.output[0]
    y = nodes.add("Softplus", [node.input[0]], f"{output}/softplus")
    y = nodes.add("Tanh", [y], f"{output}/tanh")
    nodes.add("Mul", [node.input[0], y], output)


def _swish(place: Place, node: onnx.NodeProto) -> None:
    x, output, nodes = node.input[0], node.output[0], place.nodes
    y, alpha = x, attribute(node, "alpha", 1.0)
    if alpha != 1:
        factor = _number(place, f"{output}/alpha", alpha, _kind(place, node))
        y = nodes.add("Mul", [x, factor], f"{output}/scaled")
    y = nodes.add("Sigmoid", [y], f"{output}/sigmoid")
    nodes.add("Mul", [x, y], output)


def _cast_like(place: Place, node: onnx.NodeProto) -> None:
    kind = place.facts.kind(node.input[1])
    if kind == TensorProto.UNDEFINED:
        raise refusal(
            node, place.target.name, f"the type of its input {node.input[1]!r} is not known"
        )
    place.nodes.add("Cast", [node.input[0]], node.output[0], to=kind)


# Adds what stands in place of a node of this operator.
EXPANSIONS: dict[str, Callable[[Place, onnx.NodeProto], None]] = {
    "CastLike": _cast_like,
    "Gelu": _gelu,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    "Mish": _mish,
    "RMSNormalization": _rms_normalization,
    "Swish": _swish,
}
