# SPDX-License-Identifier: Apache-2.0
"""What the tests of heads share: the head's nodes as a graph, and heads as embeddings are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from edge_imprint_export.graph import EMBEDDING, to_bytes
from edge_imprint_export.head.nodes import add_head
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.backends.ort import OrtRunner

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def head_model() -> Callable[..., onnx.ModelProto]:
    """Return a function of a head, an opset and `add_head`'s options: a graph of it alone.

    Its input is ``embedding``; its outputs are those that the nodes make, in their order.
    """

    def make(head: Head, opset: int = 17, **options: Any) -> onnx.ModelProto:
        nodes = Nodes(opset)
        add_head(nodes, EMBEDDING, head, **options)
        made = {name for node in nodes.nodes for name in node.output}
        by_class = TensorProto.FLOAT, ["N", len(head.labels)]
        known = {"scores": by_class, "label": (TensorProto.INT32, ["N"])}
        known |= {"known": known["label"], "probability": by_class, "proxy": known["label"]}
        values = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes.nodes,
            "head",
            [values(EMBEDDING, TensorProto.FLOAT, ["N", head.embedding_size])],
            [values(name, *known[name]) for name in known if name in made],
            nodes.constants,
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = max(8, helper.find_min_ir_version_for(model.opset_import))
        return model

    return make


def _run(model: onnx.ModelProto, rows: Rows) -> dict[str, npt.NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    runner = OrtRunner(to_bytes(model), "cpu", threads=1)
    names = list(runner.outputs)
    return dict(zip(names, runner.run(names, rows), strict=True))


def _cone(
    classes: int, slots: int, size: int, *, queries: int = 200, seed: int = 0, **options: Any
) -> tuple[Head, Rows]:
    """Make what embeddings look like: not negative, in a cone, classes of several modes.

    The queries lie between two proxies each, so that many labels hang on little.
    """
    rng = np.random.default_rng(seed)
    points = 1 + rng.standard_normal(size) + 0.7 * rng.standard_normal((classes, 1, size))
    points = points + 0.4 * rng.standard_normal((classes, slots, size))
    points = np.maximum(points, 0).reshape(-1, size)
    one, other = rng.integers(0, len(points), (2, queries))
    share = rng.uniform(0.4, 0.6, (queries, 1))
    rows = share * points[one] + (1 - share) * points[other]
    rows = np.maximum(rows + 0.5 * rng.standard_normal(rows.shape), 0)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    labels = [f"class {c}" for c in range(classes)]
    rule = Rule(**options)
    metric = rng.standard_normal((size, size)) / size**0.5
    index = np.repeat(np.arange(classes), slots)
    given = metric if rule.distance == "mahalanobis" else None
    return Head(points, index, labels, rule, metric=given), rows.astype(np.float32)


def _int8_bound(head: Head, rows: Rows) -> npt.NDArray[np.float64]:
    """Bound |score - oracle| of int8, (N, 1): half a step of each factor, element by element.

    Written for normalised rows and proxies, without what they share: looser than the graph.
    """
    x = rows / np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float64)
    p = head.proxies / np.linalg.norm(head.proxies, axis=1, keepdims=True).astype(np.float64)
    shared = p.mean(axis=0) / np.linalg.norm(p.mean(axis=0))
    x, p = x - np.outer(x @ shared, shared), p - np.outer(p @ shared, shared)
    step_x = np.abs(x).max(axis=1, keepdims=True) / 127
    step_p = np.abs(p).max(axis=1) / 127
    error = step_x / 2 * np.abs(p).sum(axis=1) + step_p / 2 * np.abs(x).sum(
        axis=1, keepdims=True
    )
    error += x.shape[1] * step_x * step_p / 4
    bound: npt.NDArray[np.float64] = error.max(axis=1, keepdims=True) + 1e-6
    return bound


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, npt.NDArray[Any]]]:
    """Return a function of (model, rows): its outputs in ONNX Runtime, by name."""
    return _run


@pytest.fixture(scope="session")
def cone() -> Callable[..., tuple[Head, Rows]]:
    """Return a function of (classes, slots, size): a head, and queries hard for it."""
    return _cone


@pytest.fixture(scope="session")
def int8_bound() -> Callable[[Head, Rows], npt.NDArray[np.float64]]:
    """Return a function of (head, rows): what int8's scores may be off by."""
    return _int8_bound
