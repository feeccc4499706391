# SPDX-License-Identifier: Apache-2.0
"""An operator written as plainer ones computes what it computed, by another evaluator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edge_imprint_export.graph import to_bytes
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
SCALE = {"w": RNG.standard_normal(6).astype(np.float32)}
BOTH = SCALE | {"b": RNG.standard_normal(6).astype(np.float32)}
PLANE = {"w": RNG.standard_normal((4, 6)).astype(np.float32)}
GROUP_18 = {"w": np.float32([2, 3]), "b": np.float32([0.5, -1])}
GROUP_21 = {"w": np.float32([1, 2, 3, 4]), "b": np.float32([0.5, -1, 2, 0])}


@pytest.mark.parametrize(
    ("opset", "made", "weights"),
    [
        (17, node("LayerNormalization", "x", "w", "b"), BOTH),
        (18, node("LayerNormalization", "x", "w", epsilon=0.25), SCALE),
        (17, node("LayerNormalization", "x", "w", axis=2), SCALE),
        (17, node("LayerNormalization", "x", "w", axis=1), PLANE),
        (17, node("LayerNormalization", "x", "w", axis=-2), PLANE),
        (20, node("Gelu"), {}),
        (20, node("Gelu", approximate="tanh"), {}),
        (18, node("Mish"), {}),
        (24, node("Swish"), {}),
        (24, node("Swish", alpha=1.5), {}),
        (23, node("RMSNormalization", "x", "w"), SCALE),
        (23, node("RMSNormalization", "x", "w", axis=1, epsilon=0.5), PLANE),
        (18, node("GroupNormalization", "x", "w", "b", num_groups=2), GROUP_18),
        (21, node("GroupNormalization", "x", "w", "b", num_groups=2), GROUP_21),
        (17, node("CastLike", "x", "w"), {"w": np.float32([1])}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
@pytest.mark.parametrize("name", ["portable", "jetpack-6.0", "jetpack-7.0", "jetpack-7.2"])
def test_an_operator_becomes_arithmetic(
    name: str,
    opset: int,
    made: onnx.NodeProto,
    weights: dict[str, Any],
    model_of: Make,
    lowers_alike: Make,
) -> None:
    model = lowers_alike(model_of(made, x=X, opset=opset, **weights), X, name)
    if name == "portable":
        assert made.op_type not in kinds(model)


@pytest.mark.parametrize("name", ["portable", "jetpack-6.0"])
def test_a_layer_normalization_gives_mean_and_deviation(
    name: str, model_of: Make, lowers_alike: Make
) -> None:
    normal = helper.make_node("LayerNormalization", ["x", "w"], ["z", "mean", "inverse"])
    both = helper.make_node("Concat", ["mean", "inverse", "z"], ["y"], axis=2)
    lowers_alike(model_of(normal, both, x=X, opset=17, **SCALE), X, name)


@pytest.mark.parametrize(
    ("made", "weights"),
    [
        (node("LayerNormalization", "x", "w", "b"), BOTH),
        (node("Gelu"), {}),
        (node("GroupNormalization", "x", "w", "b", num_groups=2), GROUP_18),
        (node("Mish"), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_half_stays_half(
    made: onnx.NodeProto, weights: dict[str, Any], model_of: Make, lowers_alike: Make
) -> None:
    x = (X * 30).astype(np.float16)  # squares of these do not all fit into float16
    halves = {name: value.astype(np.float16) for name, value in weights.items()}
    model = model_of(made, x=x, opset=20, **halves)
    lowers_alike(model, x, "portable", 3e-3)


def test_what_a_target_knows_stays(model_of: Make) -> None:
    model = model_of(node("LayerNormalization", "x", "w", "b"), x=X, **BOTH)
    before = to_bytes(model)
    assert to_bytes(lower(model, target("jetpack-6.0"))) == before
    assert to_bytes(lower(model, target("onnxruntime"))) == before


def test_the_arithmetic_is_what_onnx_runtime_fuses(tmp_path: Path, model_of: Make) -> None:
    """So that a plain graph costs nothing there: one LayerNormalization and one Gelu again."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "w", "b"], ["z"]),
        helper.make_node("Gelu", ["z"], ["y"]),
    ]
    model = lower(model_of(*nodes, x=X, opset=20, **BOTH), target("portable"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    path = tmp_path / "fused.onnx"
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    assert sorted(kinds(onnx.load(path))) == ["Gelu", "LayerNormalization"]


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    axis=st.integers(-4, 3),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.5]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_a_layer_normalization_over_any_axes(
    shape: list[int], axis: int, epsilon: float, scale: float, model_of: Make, run_y: Run
) -> None:
    """By numpy, in float64."""
    axis = max(-len(shape), min(axis, len(shape) - 1))
    rng = np.random.default_rng(len(shape) + axis)
    x = (scale * rng.standard_normal(shape)).astype(np.float32)
    weights = {
        name: rng.standard_normal(shape[axis % len(shape) :]).astype(np.float32)
        for name in ("w", "b")
    }
    made = node("LayerNormalization", "x", "w", "b", axis=axis, epsilon=epsilon)
    model = lower(model_of(made, x=x, **weights), target("portable"))
    axes = tuple(range(axis % len(shape), len(shape)))
    centered = x - x.mean(axes, keepdims=True, dtype=np.float64)
    variance = np.square(centered).mean(axes, keepdims=True)
    expected = centered / np.sqrt(variance + epsilon) * weights["w"] + weights["b"]
    np.testing.assert_allclose(run_y(model, x), expected, rtol=0, atol=2e-4)
