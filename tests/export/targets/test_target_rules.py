# SPDX-License-Identifier: Apache-2.0
"""Each limit of a target is found where it is, and not in what only looks like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.records import target
from edge_imprint_export.targets.rules import MODEL_RULES, NODE_RULES

Make = Callable[..., onnx.ModelProto]
Made = tuple[tuple[onnx.NodeProto, ...], dict[str, Any]]
Found = list[tuple[str, str]]

INT64S = np.int64
YES = np.array(True)


def node(kind: str, *inputs: str, outputs: Sequence[str] = ("y",), **more: Any) -> Any:
    return helper.make_node(kind, list(inputs or ("x",)), outputs, f"the {kind}", **more)


def of(*nodes: onnx.NodeProto, **more: Any) -> Made:
    return nodes, more


def branch(name: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Relu", ["x"], [name])], name, [], [value])


QUANTIZED = [
    node("QuantizeLinear", "x", "s", "z", outputs=["q"]),
    node("DequantizeLinear", "q", "s", "z"),
]
SIZES = [node("Shape", outputs=["sizes"]), node("ArgMax", "sizes", outputs=["at"], keepdims=1)]
FUNCTION = helper.make_function(
    "own",
    "Mine",
    ["a"],
    ["b"],
    [helper.make_node("Relu", ["a"], ["b"])],
    [helper.make_opsetid("", 17)],
)

# Rule: a model that it speaks of, a target that has it, what is found; and a like one that is
# nothing of the kind, for the same target.
RULES: dict[str, tuple[Made, str, Found, Made]] = {
    "control_flow": (
        of(node("If", "yes", then_branch=branch("a"), else_branch=branch("b")), yes=YES),
        "portable",
        [("note", "If")],
        of(node("Relu")),
    ),
    "cum_sum_axis_computed": (
        of(*SIZES, node("CumSum", "x", "at")),
        "jetpack-6.2",
        [("refused", "CumSum")],
        of(node("CumSum", "x", "at"), at=INT64S(1)),
    ),
    "dequantized_type": (
        of(
            node("DequantizeLinear", "bias", "s", outputs=["b"]),
            node("Add", "x", "b"),
            bias=np.ones(8, np.int32),
            s=np.float32(0.1),
        ),
        "jetpack-7.2",
        [("refused", "DequantizeLinear")],
        of(
            node("DequantizeLinear", "bias", "s", outputs=["b"]),
            node("Add", "x", "b"),
            bias=np.ones(8, np.int8),
            s=np.float32(0.1),
        ),
    ),
    "int8_weights": (
        of(
            node("DequantizeLinear", "w", "s", outputs=["b"]),
            node("Add", "x", "b"),
            w=np.ones(8, np.int8),
            s=np.float32(0.1),
        ),
        "jetpack-6.0",
        [("refused", "DequantizeLinear")],
        of(
            node("QuantizeLinear", "w", "s", "zero", outputs=["q"]),
            node("DequantizeLinear", "q", "s", "zero", outputs=["b"]),
            node("Add", "x", "b"),
            w=np.ones(8, np.float32),
            s=np.float32(0.1),
            zero=np.int8(0),
        ),
    ),
    "domain": (
        of(node("Gelu", domain="com.microsoft"), domain="com.microsoft"),
        "tensorrt-11",
        [("refused", "Gelu")],
        of(node("Gelu"), opset=20),
    ),
    "einsum_ellipsis": (
        of(node("Einsum", equation="n...->n")),
        "jetpack-6.2",
        [("refused", "Einsum")],
        of(node("Einsum", equation="nchw->nhw")),
    ),
    "float64": (
        of(node("Relu"), x=(TensorProto.DOUBLE, ["N", 3]), y=TensorProto.DOUBLE),
        "portable",
        [("note", "x"), ("note", "y")],
        of(node("Relu")),
    ),
    "foreign_domain": (
        of(node("Mine", domain="own"), domain="own"),
        "onnxruntime",
        [("refused", "Mine")],
        of(node("Gelu", domain="com.microsoft"), domain="com.microsoft"),
    ),
    "functions": (
        of(node("Relu")),
        "jetpack-6.0",
        [("refused", "Mine")],
        of(node("Relu")),
    ),
    "instance_norm_weights": (
        of(
            node("InstanceNormalization", "x", "w", "w"),
            more=[("w", TensorProto.FLOAT, [3])],
        ),
        "jetpack-5.1",
        [("refused", "InstanceNormalization")],
        of(node("InstanceNormalization", "x", "w", "w"), w=np.ones(3, np.float32)),
    ),
    "int64_output": (
        of(node("ArgMax"), y=TensorProto.INT64),
        "portable",
        [("note", "y")],
        of(
            node("ArgMax", outputs=["z"]),
            node("Cast", "z", to=TensorProto.INT32),
            y=TensorProto.INT32,
        ),
    ),
    "layer_norm_outputs": (
        of(
            node("LayerNormalization", "x", "w", outputs=["y", "mean"]),
            w=np.ones(8, np.float32),
        ),
        "jetpack-6.0",
        [("refused", "LayerNormalization")],
        of(node("LayerNormalization", "x", "w"), w=np.ones(8, np.float32)),
    ),
    "one_hot_depth": (
        of(
            node("OneHot", "at", "depth", "ends"),
            more=[("at", TensorProto.INT64, ["N"]), ("depth", TensorProto.INT64, [])],
            ends=np.float32([0, 1]),
        ),
        "portable",
        [("refused", "OneHot"), ("note", "at"), ("note", "depth")],
        of(
            node("OneHot", "at", "depth", "ends"),
            more=[("at", TensorProto.INT32, ["N"])],
            ends=np.float32([0, 1]),
            depth=INT64S(4),
        ),
    ),
    "pad_axes_computed": (
        of(*SIZES, node("Pad", "x", "pads", "", "at"), opset=18, pads=INT64S([1, 1])),
        "jetpack-6.2",
        [("refused", "Pad")],
        of(node("Pad", "x", "pads", "", "at"), opset=18, pads=INT64S([1, 1]), at=INT64S([1])),
    ),
    "pool_dilations": (
        of(node("MaxPool", kernel_shape=[2, 2], dilations=[2, 1])),
        "portable",
        [("refused", "MaxPool")],
        of(node("MaxPool", kernel_shape=[2, 2], dilations=[1, 1])),
    ),
    "pool_indices": (
        of(node("MaxPool", outputs=["y", "at"], kernel_shape=[2, 2])),
        "portable",
        [("refused", "MaxPool")],
        of(node("MaxPool", outputs=["y", ""], kernel_shape=[2, 2])),
    ),
    "reduce_axes_computed": (
        of(*SIZES, node("ReduceMax", "x", "at"), opset=18),
        "jetpack-7.2",
        [("refused", "ReduceMax")],
        of(node("ReduceMax", "x", "at"), opset=18, at=INT64S([1])),
    ),
    "reduce_axes_input": (
        of(node("ReduceMax", "x", "at"), opset=18, at=INT64S([1])),
        "jetpack-6.0",
        [("refused", "opset 18"), ("wrong", "ReduceMax")],
        of(node("ReduceSum", "x", "at"), at=INT64S([1])),
    ),
    "resize_antialias": (
        of(
            node("Resize", "x", "", "s", antialias=1, mode="linear"),
            opset=18,
            s=np.float32([1, 1, 2, 2]),
        ),
        "jetpack-6.2",
        [("refused", "Resize")],
        of(node("Resize", "x", "", "s", antialias=0), opset=18, s=np.float32([1, 1, 2, 2])),
    ),
    "resize_aspect": (
        of(
            node("Resize", "x", "", "", "n", keep_aspect_ratio_policy="not_larger"),
            opset=18,
            n=INT64S([1, 3, 4, 6]),
        ),
        "tensorrt-11",
        [("refused", "Resize")],
        of(node("Resize", "x", "", "", "n"), opset=18, n=INT64S([1, 3, 4, 6])),
    ),
    "resize_mode": (
        of(node("Resize", "x", "", "s", mode="cubic"), s=np.float32([1, 1, 2, 2])),
        "portable",
        [("refused", "Resize")],
        of(node("Resize", "x", "", "s", mode="linear"), s=np.float32([1, 1, 2, 2])),
    ),
    "scatter_nd_18": (
        of(
            node("ScatterND", "x", "at", "v"),
            opset=18,
            at=INT64S([[0]]),
            v=np.ones((1, 3, 8, 8)),
        ),
        "jetpack-6.2",
        [("wrong", "ScatterND"), ("note", "v")],
        of(
            node("ScatterND", "x", "at", "v"),
            at=INT64S([[0]]),
            v=np.ones((1, 3, 8, 8), np.float32),
        ),
    ),
    "scatter_reduction": (
        of(
            node("ScatterND", "x", "at", "v", reduction="add"),
            at=INT64S([[0]]),
            v=np.ones((1, 3, 8, 8), np.float32),
        ),
        "portable",
        [("refused", "ScatterND")],
        of(
            node("ScatterND", "x", "at", "v", reduction="none"),
            at=INT64S([[0]]),
            v=np.ones((1, 3, 8, 8), np.float32),
        ),
    ),
    "shape_range": (
        of(node("Shape", outputs=["n"], end=-1), node("Size", "n"), y=TensorProto.INT32),
        "jetpack-6.2",
        [("wrong", "Shape")],
        of(node("Shape", outputs=["n"], start=0), node("Size", "n"), y=TensorProto.INT32),
    ),
    "slice_axes_computed": (
        of(*SIZES, node("Slice", "x", "a", "b", "at"), a=INT64S([0]), b=INT64S([1])),
        "jetpack-6.0",
        [("refused", "Slice")],
        of(node("Slice", "x", "a", "b"), a=INT64S([0]), b=INT64S([1])),
    ),
    "squeeze_axes_computed": (
        of(*SIZES, node("Unsqueeze", "x", "at")),
        "jetpack-6.2",
        [("refused", "Unsqueeze")],
        of(node("Unsqueeze", "x", "at"), at=INT64S([1])),
    ),
    "top_k_computed": (
        of(*SIZES, node("TopK", "x", "at", outputs=["y", "i"])),
        "jetpack-5.1",
        [("refused", "TopK")],
        of(node("TopK", "x", "at", outputs=["y", "i"]), at=INT64S([5])),
    ),
    "top_k_many": (
        of(node("TopK", "x", "k", outputs=["y", "i"]), k=INT64S([3840])),
        "tensorrt-11",
        [("refused", "TopK")],
        of(node("TopK", "x", "k", outputs=["y", "i"]), k=INT64S([3839])),
    ),
    "top_k_unsorted": (
        of(node("TopK", "x", "k", outputs=["y", "i"], sorted=0), k=INT64S([3])),
        "portable",
        [("refused", "TopK")],
        of(node("TopK", "x", "k", outputs=["y", "i"], sorted=1), k=INT64S([3])),
    ),
    "uint8_cast": (
        of(
            node("Cast", to=TensorProto.INT32),
            x=(TensorProto.UINT8, ["N", 8]),
            y=TensorProto.INT32,
        ),
        "jetpack-5.1",
        [("refused", "Cast")],
        of(node("Cast", to=TensorProto.FLOAT), x=(TensorProto.UINT8, ["N", 8])),
    ),
    "uint8_inside": (
        of(
            node("Transpose", outputs=["t"], perm=[0, 3, 1, 2]),
            node("Cast", "t", to=TensorProto.FLOAT),
            x=(TensorProto.UINT8, ["N", 8, 8, 3]),
        ),
        "portable",
        [("refused", "Transpose"), ("refused", "Cast")],
        of(
            node("Cast", outputs=["t"], to=TensorProto.FLOAT),
            node("Transpose", "t", perm=[0, 3, 1, 2]),
            x=(TensorProto.UINT8, ["N", 8, 8, 3]),
        ),
    ),
    "zero_point": (
        of(*QUANTIZED, s=np.float32(0.1), z=np.int8(-3)),
        "portable",
        [("refused", "QuantizeLinear"), ("refused", "DequantizeLinear")],
        of(*QUANTIZED, s=np.float32(0.1), z=np.int8(0)),
    ),
}


def findings(model_of: Make, made: Made, name: str, rule: str = "") -> Found:
    model = model_of(*made[0], **made[1])
    if rule == "functions":
        model.functions.append(FUNCTION)
    before = to_bytes(model)
    found = check(model, target(name))
    assert to_bytes(model) == before
    return [(one.severity, one.op or one.where) for one in found]


def test_every_rule_is_tried() -> None:
    assert set(RULES) == {*NODE_RULES, *MODEL_RULES}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule(rule: str, model_of: Make) -> None:
    made, name, expected, _ = RULES[rule]
    assert target(name).limit(rule) is not None
    assert findings(model_of, made, name, rule) == expected


@pytest.mark.parametrize("rule", RULES)
def test_what_only_looks_like_it(rule: str, model_of: Make) -> None:
    _, name, _, harmless = RULES[rule]
    assert findings(model_of, harmless, name) == []


def test_a_default_that_may_be_replaced_is_no_constant(model_of: Make) -> None:
    """K of a TopK that is an initializer and an input too."""
    made = of(
        node("TopK", "x", "k", outputs=["y", "i"]),
        more=[("k", TensorProto.INT64, [1])],
        k=INT64S([5]),
    )
    assert findings(model_of, made, "jetpack-5.1") == [("refused", "TopK")]


def test_a_zero_point_that_may_be_replaced_is_not_known(model_of: Make) -> None:
    made = of(*QUANTIZED, more=[("z", TensorProto.INT8, [])], s=np.float32(1), z=np.int8(0))
    assert [one[1] for one in findings(model_of, made, "portable")] == [
        "QuantizeLinear",
        "DequantizeLinear",
    ]
