# SPDX-License-Identifier: Apache-2.0
"""How the limits of `edge_imprint_export.targets.limits` are found in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from edge_imprint_export.graph import (
    all_graphs,
    all_nodes,
    default_opset,
    without_weights,
)
from edge_imprint_runtime.errors import BackboneExportError

__all__ = ["DOMAIN_RULES", "MODEL_RULES", "NODE_RULES", "Facts", "attribute", "is_standard"]

_SMALL = 65_536  # elements; axes, sizes and zero points are fewer by far
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
# What TensorRT dequantises; uint8 is the rule "uint8_inside", 0 is what is not known.
_QUANTIZED = (
    TensorProto.UNDEFINED,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.INT4,
    TensorProto.FLOAT4E2M1,
)
_ONNX_RUNTIME_DOMAINS = ("ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc")
_MAX_TOP_K = 3840


class Facts:
    """What rules ask about a model. It is read when asked, and must not change meanwhile.

    Args:
        model: Any ONNX model. Weights are not copied.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = default_opset(model)
        graph = model.graph
        self.constants = {
            tensor.name: tensor for part in all_graphs(graph) for tensor in part.initializer
        }
        self.constants |= {
            node.output[0]: value.t
            for node in all_nodes(graph)
            if node.op_type == "Constant"
            and is_standard(node)
            and (value := _find(node, "value")) is not None
        }
        # An initializer that is an input too is only a default.
        self.inputs = [v.name for v in graph.input if v.name not in self.constants]
        self.defaults = {v.name for v in graph.input if v.name in self.constants}
        self.outputs = {value.name for value in graph.output}
        self.functions = {(entry.domain, entry.name) for entry in model.functions}

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of a small tensor that is the same in every run, else None."""
        tensor = self.constants.get(name)
        if tensor is None or name in self.defaults or int(np.prod(tensor.dims)) > _SMALL:
            return None
        array: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
        return array

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is the same in every run."""
        return name in self.constants and name not in self.defaults

    def kind(self, name: str) -> int:
        """Return a tensor's element type (`onnx.TensorProto`), 0 where it is not known."""
        tensor = self.constants.get(name)
        return int(tensor.data_type) if tensor is not None else self.values.get(name, (0,))[0]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape, 0 for a dimension that is not known; None without rank."""
        tensor = self.constants.get(name)
        if tensor is not None:
            return tuple(tensor.dims)
        return self.values.get(name, (0, None))[1]

    @cached_property
    def values(self) -> dict[str, tuple[int, tuple[int, ...] | None]]:
        """Element type and shape of all other tensors that are known, inferred."""
        if self.opset > defs.onnx_opset_version():
            return {}  # newer than this package onnx: what it would infer is not to be trusted
        bare = without_weights(self.model)
        # A function that calls itself would never be worked out.
        del bare.functions[:]
        try:
            graph = shape_inference.infer_shapes(bare, data_prop=True).graph
        except shape_inference.InferenceError as error:
            text = " ".join(str(error).split())[:300]
            raise BackboneExportError(f"the graph is not valid ONNX: {text}") from error
        found = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            shape = None
            if tensor.HasField("shape"):
                shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
            found[value.name] = (int(tensor.elem_type), shape)
        return found


def is_standard(node: onnx.NodeProto) -> bool:
    """Tell whether a node's operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return a node's attribute (text as `str`), or the default where it has none."""
    found = _find(node, name)
    if found is None:
        return default
    value = helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def _find(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((entry for entry in node.attribute if entry.name == name), None)


def _input(node: onnx.NodeProto, position: int) -> str:
    """Return an input's name, "" where it is left out."""
    return node.input[position] if position < len(node.input) else ""


def _is_computed(facts: Facts, node: onnx.NodeProto, position: int) -> bool:
    name = _input(node, position)
    return bool(name) and not facts.is_constant(name)


def _is_foreign(facts: Facts, node: onnx.NodeProto) -> bool:
    # What the file defines itself is the rule "functions".
    return not is_standard(node) and (node.domain, node.op_type) not in facts.functions


def _axes_input(facts: Facts, node: onnx.NodeProto) -> bool:
    # ReduceSum has axes as an input from opset 13 on, and TensorRT 8 reads that one.
    return (
        _reduces(node)
        and bool(_input(node, 1))
        and not (node.op_type == "ReduceSum" and facts.opset >= 13)
    )


def _reduces(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Reduce")


def _has_range(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type != "Shape":
        return False
    return attribute(node, "start", 0) != 0 or _find(node, "end") is not None


def _top_k_is_many(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type != "TopK":
        return False
    count = facts.constant(_input(node, 1))
    return count is not None and int(count.astype(np.int64).max(initial=0)) >= _MAX_TOP_K


def _resize_aspect(facts: Facts, node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and (
        attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
        or attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    )


def _zero_point(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or not _input(node, 2):
        return False
    value = facts.constant(_input(node, 2))
    return value is None or bool(np.any(value.astype(np.float32) != 0))


def _dequantized_type(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type != "DequantizeLinear":
        return False
    return facts.kind(node.input[0]) not in _QUANTIZED


def _uint8_inside(facts: Facts, node: onnx.NodeProto) -> bool:
    for name in node.input:
        at_the_door = node.op_type == "Cast" and name in facts.inputs
        if name and facts.kind(name) == TensorProto.UINT8 and not at_the_door:
            return True
    return any(
        facts.kind(name) == TensorProto.UINT8 and name not in facts.outputs
        for name in node.output
        if name
    )


def _uint8_cast(facts: Facts, node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Cast"
        and facts.kind(node.input[0]) == TensorProto.UINT8
        and attribute(node, "to", 0) not in _FLOATS
    )


def _einsum(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type != "Einsum":
        return False
    equation = attribute(node, "equation", "").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    return "..." in equation or any(len(set(term)) < len(term) for term in terms)


def _dilated(facts: Facts, node: onnx.NodeProto) -> bool:
    if node.op_type not in ("MaxPool", "AveragePool", "LpPool"):
        return False
    found = _find(node, "dilations")
    return found is not None and any(step != 1 for step in found.ints)


def _uses(facts: Facts, node: onnx.NodeProto, kind: str, first: int) -> bool:
    return node.op_type == kind and any(node.output[first:])


# The rules that speak of other operators than ONNX's own, whatever those are called.
DOMAIN_RULES = ("domain", "foreign_domain")
# Whether a node is what the rule of this name speaks of.
NODE_RULES: dict[str, Callable[[Facts, onnx.NodeProto], bool]] = {
    "control_flow": lambda f, n: n.op_type in ("If", "Loop", "Scan"),
    "cum_sum_axis_computed": lambda f, n: n.op_type == "CumSum" and _is_computed(f, n, 1),
    "dequantized_type": _dequantized_type,
    "domain": _is_foreign,
    "einsum_ellipsis": _einsum,
    "foreign_domain": lambda f, n: _is_foreign(f, n) and n.domain not in _ONNX_RUNTIME_DOMAINS,
    "instance_norm_weights": lambda f, n: (
        n.op_type == "InstanceNormalization"
        and (_is_computed(f, n, 1) or _is_computed(f, n, 2))
    ),
    "int8_weights": lambda f, n: (
        n.op_type == "DequantizeLinear" and f.is_constant(_input(n, 0))
    ),
    "layer_norm_outputs": lambda f, n: _uses(f, n, "LayerNormalization", 1),
    "one_hot_depth": lambda f, n: n.op_type == "OneHot" and _is_computed(f, n, 1),
    "pad_axes_computed": lambda f, n: n.op_type == "Pad" and _is_computed(f, n, 3),
    "pool_dilations": _dilated,
    "pool_indices": lambda f, n: _uses(f, n, "MaxPool", 1),
    "reduce_axes_computed": lambda f, n: _reduces(n) and _is_computed(f, n, 1),
    "reduce_axes_input": _axes_input,
    "resize_antialias": lambda f, n: (
        n.op_type == "Resize" and attribute(n, "antialias", 0) == 1
    ),
    "resize_aspect": _resize_aspect,
    "resize_mode": lambda f, n: n.op_type == "Resize" and attribute(n, "mode", "") == "cubic",
    "scatter_nd_18": lambda f, n: n.op_type == "ScatterND" and f.opset >= 18,
    "scatter_reduction": lambda f, n: (
        n.op_type == "ScatterND" and attribute(n, "reduction", "none") != "none"
    ),
    "shape_range": _has_range,
    "slice_axes_computed": lambda f, n: n.op_type == "Slice" and _is_computed(f, n, 3),
    "squeeze_axes_computed": lambda f, n: (
        n.op_type in ("Squeeze", "Unsqueeze") and _is_computed(f, n, 1)
    ),
    "top_k_computed": lambda f, n: n.op_type == "TopK" and _is_computed(f, n, 1),
    "top_k_many": _top_k_is_many,
    "top_k_unsorted": lambda f, n: n.op_type == "TopK" and attribute(n, "sorted", 1) == 0,
    "uint8_cast": _uint8_cast,
    "uint8_inside": _uint8_inside,
    "zero_point": _zero_point,
}


def _of_kind(facts: Facts, names: list[str], kind: int) -> list[str]:
    return [name for name in names if facts.kind(name) == kind]


# Which tensors (or functions) the rule of this name speaks of.
MODEL_RULES: dict[str, Callable[[Facts], list[str]]] = {
    "float64": lambda f: _of_kind(f, [*f.values, *f.constants], TensorProto.DOUBLE),
    "functions": lambda f: [function.name for function in f.model.functions],
    "int64_output": lambda f: _of_kind(f, [*f.inputs, *sorted(f.outputs)], TensorProto.INT64),
}
