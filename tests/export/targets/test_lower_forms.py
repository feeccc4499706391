# SPDX-License-Identifier: Apache-2.0
"""An operator in the form of an older opset computes what it computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import default_opset, to_bytes
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target

Make = Callable[..., onnx.ModelProto]
Run = Callable[[onnx.ModelProto, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs or ["x"], ["y"], kind.lower(), **attributes)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [entry.op_type for entry in model.graph.node]


RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6)).astype(np.float32)
IMAGES = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)


# Reductions ----------------------------------------------------------------------------------

REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)


@given(
    kind=st.sampled_from(REDUCTIONS.split()),
    axes=st.lists(st.integers(-3, 2), max_size=3, unique_by=lambda axis: axis % 3),
    given_axes=st.booleans(),
    keepdims=st.integers(0, 1),
)
def test_a_reduction_keeps_its_axes(
    kind: str,
    axes: list[int],
    given_axes: bool,
    keepdims: int,
    model_of: Make,
    lowers_alike: Make,
) -> None:
    x = np.abs(X) + 0.1  # a logarithm of their sum is a number
    inputs, weights = ["x"], {}
    if given_axes:
        inputs, weights = ["x", "axes"], {"axes": np.array(axes, np.int64)}
    model = model_of(node(kind, *inputs, keepdims=keepdims), x=x, opset=18, **weights)
    lowers_alike(model, x, "portable", 1e-5)
    (reduction,) = model.graph.node
    if kind != "ReduceSum":  # which alone is read rightly with its axes as an input
        assert list(reduction.input) == ["x"]
        assert not model.graph.initializer


@pytest.mark.parametrize("kind", REDUCTIONS.split())
def test_every_reduction_keeps_its_axes(kind: str, model_of: Make, lowers_alike: Make) -> None:
    x = np.abs(X) + 0.1
    model = model_of(node(kind, "x", "axes"), x=x, opset=18, axes=np.array([-2]))
    lowers_alike(model, x, "portable", 1e-5)


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMean", "ReduceSum"])
def test_a_reduction_over_nothing_stays_one(
    kind: str, model_of: Make, lowers_alike: Make
) -> None:
    weights = {"axes": np.array([], np.int64)}
    made = node(kind, "x", "axes", noop_with_empty_axes=1)
    lowers_alike(model_of(made, x=X, opset=18, **weights), X, "portable")


def test_axes_by_a_constant_node(model_of: Make, lowers_alike: Make) -> None:
    axes = numpy_helper.from_array(np.array([-1], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        node("ReduceMean", "x", "axes"),
    ]
    model = lowers_alike(model_of(*nodes, x=X, opset=18), X, "portable")
    assert kinds(model) == ["ReduceMean"]


def test_axes_that_others_need_stay(model_of: Make, lowers_alike: Make) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["z"]),
        node("Squeeze", "z", "axes"),
    ]
    model = lowers_alike(model_of(*nodes, x=X, opset=18, axes=np.array([1])), X, "portable")
    assert [tensor.name for tensor in model.graph.initializer] == ["axes"]


# Forms of other opsets -----------------------------------------------------------------------


@given(
    start=st.one_of(st.none(), st.integers(-6, 6)),
    end=st.one_of(st.none(), st.integers(-6, 6)),
)
def test_a_part_of_a_shape(
    start: int | None, end: int | None, model_of: Make, run_y: Run
) -> None:
    range_ = {"start": start, "end": end}
    made = node("Shape", **{key: value for key, value in range_.items() if value is not None})
    # Not by ONNX's evaluator (1.23): it does not clamp an end that is before the first axis.
    bounds = [x if x is None else max(-3, x) for x in (start, end)]
    for name in ("portable", "jetpack-6.2", "jetpack-7.2"):
        model = lower(model_of(made, x=X, opset=18, y=TensorProto.INT64), target(name))
        assert run_y(model, X).tolist() == list(X.shape[slice(*bounds)])
        split = start not in (None, 0) or end is not None
        assert kinds(model) == ["Shape", "Slice"] if split and "7" not in name else ["Shape"]


@pytest.mark.parametrize(
    ("opset", "made", "weights"),
    [
        (18, node("Pad", "x", "pads", "", "axes"), {"pads": [1, 2], "axes": [-1]}),
        (18, node("Pad", "x", "pads", "fill", "axes"), {"pads": [1, 0, 2, 3], "axes": [3, 2]}),
        (18, node("Pad", "x", "pads", mode="reflect"), {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}),
        (18, node("Resize", "x", "", "scales", axes=[2, 3]), {"scales": [2.0, 1.5]}),
        (18, node("Resize", "x", "", "scales", mode="linear"), {"scales": [1.0, 1, 2, 3]}),
        (18, node("Resize", "x", "", "scales", antialias=0), {"scales": [1.0, 1, 2, 2]}),
        (19, node("AveragePool", kernel_shape=[2, 2], dilations=[1, 1]), {}),
        (18, node("LpPool", kernel_shape=[2, 2], dilations=[1, 1], ceil_mode=0), {}),
        (19, node("Cast", to=TensorProto.FLOAT, saturate=1), {}),
        (21, node("Transpose", perm=[0, 2, 3, 1]), {}),
        (26, node("Softmax", axis=1), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_a_form_of_a_newer_opset(
    opset: int,
    made: onnx.NodeProto,
    weights: dict[str, Any],
    model_of: Make,
    lowers_alike: Make,
) -> None:
    arrays = {
        name: np.array(value, np.float32 if name == "scales" else np.int64)
        for name, value in (weights | {"fill": [0]}).items()
    }
    arrays["fill"] = np.float32(-3)
    used = {name: array for name, array in arrays.items() if name in made.input}
    lowers_alike(model_of(made, x=IMAGES, opset=opset, **used), IMAGES, "portable")


@pytest.mark.parametrize(("axis", "parts"), [(1, 2), (2, 4), (-1, 4), (1, 3)])
def test_a_split_into_parts(axis: int, parts: int, model_of: Make, lowers_alike: Make) -> None:
    """The last part is smaller where the size is no multiple, as opset 18 has it."""
    x = RNG.standard_normal((2, 4, 10)).astype(np.float32)
    names = [f"part{number}" for number in range(parts)]
    split = helper.make_node("Split", ["x"], names, axis=axis, num_outputs=parts)
    back = helper.make_node("Concat", names[::-1], ["y"], axis=axis)
    lowers_alike(model_of(split, back, x=x, opset=18), x, "portable")


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_a_grid_sample_takes_the_older_names(mode: str, model_of: Make, run_y: Run) -> None:
    grid = RNG.uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32)
    model = model_of(node("GridSample", "x", "grid", mode=mode), x=IMAGES, opset=20, grid=grid)
    expected = run_y(model, IMAGES)
    lower(model, target("portable"))
    assert model.graph.node[0].attribute[0].s.decode() == {
        "linear": "bilinear",
        "nearest": "nearest",
        "cubic": "bicubic",
    }.get(mode)
    np.testing.assert_allclose(run_y(model, IMAGES), expected, atol=1e-6)


def test_a_quantization_names_its_type(model_of: Make, lowers_alike: Make) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.INT8),
        node("DequantizeLinear", "q", "s"),
    ]
    model = lowers_alike(model_of(*nodes, x=X, opset=21, s=np.float32(0.05)), X, "portable")
    assert model.graph.initializer[-1].data_type == TensorProto.INT8


def test_graphs_inside_are_lowered_too(model_of: Make, lowers_alike: Make) -> None:
    values = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node("ReduceMean", ["most", "axes"], [name], keepdims=1)],
            name,
            [],
            [values(name, TensorProto.FLOAT, None)],
        )
        for name in ("one", "other")
    ]
    nodes = [
        # Rewritten too: the graph gets new nodes, and with them copies of the branches.
        helper.make_node("ReduceMax", ["x", "axes"], ["most"]),
        node("If", "yes", then_branch=branches[0], else_branch=branches[1]),
    ]
    weights = {"yes": np.array(True), "axes": np.array([1], np.int64)}
    model = lowers_alike(model_of(*nodes, x=X, opset=18, **weights), X, "portable")
    inside = model.graph.node[1].attribute[0].g.node[0]
    assert list(inside.input) == ["most"]
    assert [tensor.name for tensor in model.graph.initializer] == ["yes"]


def test_a_scatter_that_a_target_misreads_makes_the_opset_older(
    model_of: Make, lowers_alike: Make
) -> None:
    scatter = node("ScatterND", "x", "at", "with")
    weights = {"at": np.array([[0, 1]], np.int64), "with": np.ones((1, 6), np.float32)}
    for name, opset in (("jetpack-6.2", 17), ("jetpack-7.0", 18)):
        model = lowers_alike(model_of(scatter, x=X, opset=18, **weights), X, name)
        assert default_opset(model) == opset


@pytest.mark.parametrize(("name", "opset"), [("portable", 11), ("jetpack-7.2", 18)])
def test_an_older_opset_stays(name: str, opset: int, model_of: Make) -> None:
    model = model_of(node("Relu"), x=X, opset=opset)
    before = to_bytes(model)
    assert to_bytes(lower(model, target(name))) == before
