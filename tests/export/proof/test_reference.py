# SPDX-License-Identifier: Apache-2.0
"""ONNX's own evaluator runs a model as any other runner does, or says why it can't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.proof.reference import ReferenceRunner
from edge_imprint_runtime import Head, Model, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import InputError, ModelFileError

MakeHead = Callable[..., Head]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_a_model_answers_as_in_onnx_runtime(tiny_model: Path) -> None:
    runner = ReferenceRunner(onnx.load(tiny_model))
    fast = OrtRunner(tiny_model, "cpu")
    assert runner.metadata == fast.metadata
    assert (runner.inputs, runner.outputs) == (fast.inputs, fast.outputs)
    ours, theirs = Model(runner, "m").predict(PIXELS), open_model(tiny_model).predict(PIXELS)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
    np.testing.assert_array_equal(ours.label, theirs.label)


def test_a_teachable_model_takes_its_default_or_what_is_given(
    tiny_backbone: bytes, make_head: MakeHead
) -> None:
    head, other = make_head(), make_head(5, seed=3)
    model = fuse(tiny_backbone, head, teachable=True)
    runner, fast = ReferenceRunner(model), OrtRunner(to_bytes(model), "cpu")
    assert runner.defaults == fast.defaults
    for given in (None, other):
        ours = Model(runner, "m", head=given).predict(PIXELS)
        theirs = Model(fast, "m", head=given).predict(PIXELS)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)


def dequantized(opset: int, axis: int | None, zero: bool) -> onnx.ModelProto:
    """Return x int8 (2, 3) -> y float32, by one scale or one a column."""
    scale = np.float32([0.5, 0.25, 2.0]) if axis is not None else np.float32(0.5)
    constants = [numpy_helper.from_array(np.asarray(scale), "scale")]
    if zero:
        zeros = np.full_like(scale, 3, dtype=np.int8)
        constants.append(numpy_helper.from_array(np.asarray(zeros), "zero"))
    node = helper.make_node(
        "DequantizeLinear",
        ["x", "scale", *(["zero"] if zero else [])],
        ["y"],
        **({} if axis is None else {"axis": axis}),
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.INT8, [2, 3])],
        [value("y", TensorProto.FLOAT, [2, 3])],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
@pytest.mark.parametrize(
    ("axis", "zero"), [(None, True), (None, False), (1, True), (1, False)]
)
def test_what_the_evaluator_lacks_is_as_onnx_runtime_has_it(
    opset: int, axis: int | None, zero: bool
) -> None:
    model = dequantized(opset, axis, zero)
    x = np.int8([[-128, 0, 127], [3, 4, 5]])
    (ours,) = ReferenceRunner(model).run(["y"], x)
    (theirs,) = OrtRunner(to_bytes(model), "cpu").run(["y"], x)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.float32


def test_an_operator_that_it_lacks() -> None:
    model = dequantized(17, None, True)
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(
        ModelFileError, match="ONNX's reference evaluator can't load the model: "
    ):
        ReferenceRunner(model)


def test_what_it_can_not_run(tiny_model: Path) -> None:
    runner = ReferenceRunner(onnx.load(tiny_model))
    with pytest.raises(
        InputError, match="ONNX's reference evaluator could not run the model: "
    ):
        runner.run(["scores"], PIXELS[..., :2])
