# SPDX-License-Identifier: Apache-2.0
"""Small graphs with what reductions must get right: residuals, batch norms, norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import check_graph
from edge_imprint_export.graph import to_bytes as as_bytes
from edge_imprint_runtime.backends.ort import OrtRunner

Array = npt.NDArray[np.float32]


def build(
    nodes: list[onnx.NodeProto],
    weights: dict[str, npt.NDArray[np.generic]],
    *,
    opset: int = 17,
    side: int = 8,
    size: int = 8,
) -> onnx.ModelProto:
    """Make a backbone graph of ``side`` pixels and ``size`` numbers out of nodes."""
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "backbone",
        [values("pixels", TensorProto.FLOAT, ["N", 3, side, side])],
        [values("embedding", TensorProto.FLOAT, ["N", size])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version, model.producer_name = 8, "edge-imprint"
    check_graph(model, "the test's graph")
    return model


def conv(name: str, x: str, out: str, *, bias: bool = True) -> onnx.NodeProto:
    """Make a 3x3 convolution of padding 1 with the weights ``name.w`` and ``name.b``."""
    inputs = [x, f"{name}.w", *([f"{name}.b"] if bias else [])]
    return helper.make_node(
        "Conv", inputs, [out], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )


def conv_weights(
    rng: np.random.Generator, name: str, into: int, out: int, *, bias: bool = True
) -> dict[str, npt.NDArray[np.generic]]:
    """Draw a convolution's weights."""
    drawn = (rng.standard_normal((out, into, 3, 3)) * np.sqrt(2 / (9 * into))).astype("f4")
    return {f"{name}.w": drawn} | (
        {f"{name}.b": (rng.standard_normal(out) / 10).astype("f4")} if bias else {}
    )


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., onnx.ModelProto]:
    """Return `build`."""
    return build


@pytest.fixture(scope="session")
def residual() -> onnx.ModelProto:
    """Three convolutions, the last two with a shortcut around them, and a mean."""
    rng = np.random.default_rng(3)
    weights: dict[str, npt.NDArray[np.generic]] = {}
    for name, into in (("stem", 3), ("first", 8), ("second", 8)):
        weights |= conv_weights(rng, name, into, 8)
    nodes = [
        conv("stem", "pixels", "a"),
        helper.make_node("Relu", ["a"], ["b"], "stem_relu"),
        conv("first", "b", "c"),
        helper.make_node("Relu", ["c"], ["d"], "first_relu"),
        conv("second", "d", "e"),
        helper.make_node("Add", ["e", "b"], ["f"], "add"),
        helper.make_node("Relu", ["f"], ["g"], "last_relu"),
        helper.make_node("GlobalAveragePool", ["g"], ["h"], "pool"),
        helper.make_node("Flatten", ["h"], ["embedding"], "flat", axis=1),
    ]
    return build(nodes, weights)


@pytest.fixture(scope="session")
def normed() -> Callable[[int], onnx.ModelProto]:
    """Return a function of the opset: a convolution and a batch norm, twice."""

    def make(opset: int) -> onnx.ModelProto:
        rng = np.random.default_rng(4)
        weights: dict[str, npt.NDArray[np.generic]] = {}
        nodes, x = [], "pixels"
        for name, into in (("one", 3), ("two", 8)):
            weights |= conv_weights(rng, name, into, 8, bias=name == "two")
            weights |= {
                f"{name}.scale": rng.uniform(0.5, 2, 8).astype("f4"),
                f"{name}.shift": rng.standard_normal(8).astype("f4"),
                f"{name}.mean": rng.standard_normal(8).astype("f4"),
                f"{name}.var": rng.uniform(1e-9, 3, 8).astype("f4"),
            }
            inputs = [f"{name}.c", *(f"{name}.{part}" for part in NORM_PARTS)]
            nodes += [
                conv(name, x, f"{name}.c", bias=name == "two"),
                helper.make_node("BatchNormalization", inputs, [f"{name}.n"], f"{name}_norm"),
                helper.make_node("Relu", [f"{name}.n"], [f"{name}.r"], f"{name}_relu"),
            ]
            x = f"{name}.r"
        nodes += [
            helper.make_node("GlobalAveragePool", [x], ["p"], "pool"),
            helper.make_node("Flatten", ["p"], ["embedding"], "flat", axis=1),
        ]
        return build(nodes, weights, opset=opset)

    return make


NORM_PARTS = ("scale", "shift", "mean", "var")


@pytest.fixture(scope="session")
def linear() -> Callable[..., onnx.ModelProto]:
    """Return a function of (weight (D, E), opset): the flat pixels times the weight."""

    def make(weight: Array, opset: int = 17) -> onnx.ModelProto:
        side = int(np.sqrt(len(weight) // 3))
        nodes = [
            helper.make_node("Flatten", ["pixels"], ["rows"], "flat", axis=1),
            helper.make_node("MatMul", ["rows", "weight"], ["embedding"], "product"),
        ]
        return build(nodes, {"weight": weight}, opset=opset, side=side, size=weight.shape[1])

    return make


@pytest.fixture(scope="session")
def images() -> Array:
    """32 images of 8 x 8 pixels, normalised."""
    return np.random.default_rng(11).standard_normal((32, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def embed() -> Callable[[onnx.ModelProto, Array], Array]:
    """Return a function that runs a graph in ONNX Runtime."""

    def run(model: onnx.ModelProto, pixels: Array) -> Array:
        rows = OrtRunner(as_bytes(model), "cpu").run(["embedding"], pixels)[0]
        assert rows.dtype == np.float32
        return rows.astype(np.float32)

    return run
