# SPDX-License-Identifier: Apache-2.0
"""Small graphs made by hand, and what it takes for one of them to be lowered rightly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_imprint_export.graph import default_opset, to_bytes
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target
from edge_imprint_runtime.backends.ort import OrtRunner

Array = np.ndarray[Any, Any]


def _model_of(
    *nodes: onnx.NodeProto,
    opset: int = 17,
    x: tuple[int, Sequence[Any] | None] | Array = (TensorProto.FLOAT, ("N", 3, 8, 8)),
    y: int = TensorProto.FLOAT,
    more: Sequence[tuple[str, int, Sequence[Any]]] = (),
    ir_version: int = 0,
    domain: str = "",
    **weights: Any,
) -> onnx.ModelProto:
    if isinstance(x, np.ndarray):
        x = (helper.np_dtype_to_tensor_dtype(x.dtype), ("N", *x.shape[1:]))
    values = helper.make_tensor_value_info
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    graph = helper.make_graph(
        nodes,
        "made",
        [values("x", *x), *(values(*entry) for entry in more)],
        [values("y", y, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    demanded = helper.find_min_ir_version_for(imports[:1], ignore_unknown=True)
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version or max(8, demanded)
    )


def _run(model: onnx.ModelProto, x: Array) -> Array:
    # Optimised, it would find the operators again that were written as plainer ones.
    return OrtRunner(to_bytes(model), "cpu", optimization="disable").run(["y"], x)[0]


def _lowers_alike(
    model: onnx.ModelProto, x: Array, name: str, tolerance: float = 5e-6
) -> onnx.ModelProto:
    expected = ReferenceEvaluator(model).run(["y"], {"x": x})[0]
    kind = helper.np_dtype_to_tensor_dtype(expected.dtype)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", kind, [None] * expected.ndim)
    )
    chosen = target(name)
    lower(model, chosen)
    checker.check_model(model, full_check=True)
    assert not [finding for finding in check(model, chosen) if finding.fails]
    assert default_opset(model) <= chosen.max_opset
    assert model.ir_version <= chosen.max_ir_version
    found = _run(model, x)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = max(1.0, float(np.abs(expected.astype(np.float64)).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
    once = to_bytes(model)
    assert to_bytes(lower(model, chosen)) == once  # lowered once, lowered for good
    return model


@pytest.fixture(scope="session")
def model_of() -> Callable[..., onnx.ModelProto]:
    """A function of nodes: a model from ``x`` to ``y``; further arguments are weights.

    ``x`` is (type, shape), or an array like what comes in, whose batch is then dynamic.
    """
    return _model_of


@pytest.fixture(scope="session")
def run_y() -> Callable[[onnx.ModelProto, Array], Array]:
    """A function of (model, x): its y in ONNX Runtime."""
    return _run


@pytest.fixture(scope="session")
def lowers_alike() -> Callable[..., onnx.ModelProto]:
    """A function of (model, x, target): lower it, in place, and hold it against itself.

    Once lowered, in ONNX Runtime, against what it was, in ONNX's own evaluator.
    """
    return _lowers_alike
