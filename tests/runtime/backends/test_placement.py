# SPDX-License-Identifier: Apache-2.0
"""Which provider has which node: asked of real sessions, read in real traces, and judged."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.backends import Placement
from edge_imprint_runtime.backends.ort_session import open_session
from edge_imprint_runtime.backends.placement import (
    PlacedNode,
    assigned_nodes,
    judge_placement,
    layer_times,
    shape_nodes,
    shown_nodes,
    traced_nodes,
)
from edge_imprint_runtime.errors import ModelFileError, ProviderError

MakeHead = Callable[..., Head]

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def placed(*nodes: str) -> list[PlacedNode]:
    """Make nodes of texts such as ``Conv a CUDA``."""
    return [
        PlacedNode(name, operator, f"{provider}ExecutionProvider")
        for operator, name, provider in (node.split() for node in nodes)
    ]


def shaping(nested: bool = False) -> onnx.ModelProto:
    """Return ``y = relu(x).reshape(shape(x)) + 2``, where the shape takes three nodes.

    With ``nested``, a condition that reads x stands behind.
    """
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Relu", ["x"], ["positive"], name="relu"),
        node("Shape", ["x"], ["sides"], name="sides"),
        node("Gather", ["sides", "first"], ["rows"], name="rows"),
        node("Concat", ["rows", "rest"], ["wanted"], name="wanted", axis=0),
        node("Reshape", ["positive", "wanted"], ["shaped"], name="reshape"),
        node("Add", ["one", "one"], ["two"], name="two"),
        node("Add", ["shaped", "two"], ["y"], name="sum"),
    ]
    if nested:
        reads = helper.make_graph(
            [node("Identity", ["x"], ["same"])], "then", [], [value("same", 1, None)]
        )
        nodes.append(
            node("If", ["yes"], ["z"], name="if", then_branch=reads, else_branch=reads)
        )
    tensors = [
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    outputs = [value("y", TensorProto.FLOAT, None)]
    outputs += [value("z", TensorProto.FLOAT, None)] if nested else []
    inputs = [value("x", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, "shaping", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# Read ---------------------------------------------------------------------------------------


def test_a_session_is_asked(tiny_model: Path) -> None:
    session = open_session(onnxruntime, tiny_model, CPU, optimization="disable")
    nodes = assigned_nodes(session)
    if not hasattr(session, "get_provider_graph_assignment_info"):
        assert nodes is None
        return
    graph = onnx.load(tiny_model).graph
    assert nodes is not None
    assert {str(node) for node in nodes} == {f"{n.op_type} {n.name}" for n in graph.node}
    assert {node.provider for node in nodes} == {CPU}


def test_a_trace_is_read(tmp_path: Path, tiny_model: Path) -> None:
    session = open_session(
        onnxruntime, tiny_model, CPU, optimization="disable", trace=tmp_path / "run"
    )
    images = np.zeros((1, 16, 16, 3), np.uint8)
    for _ in range(3):
        session.run(None, {"images": images})
    trace = Path(session.end_profiling())
    nodes, graph = traced_nodes(trace), onnx.load(tiny_model).graph
    assert sorted(map(str, nodes)) == sorted(f"{n.op_type} {n.name}" for n in graph.node)
    assert {node.provider for node in nodes} == {CPU}
    layers = layer_times(trace, 2)
    assert sorted(f"{layer.kind} {layer.name}" for layer in layers) == sorted(map(str, nodes))
    assert all(a.mean_ns >= b.mean_ns for a, b in itertools.pairwise(layers))
    assert layers[0].mean_ns > 0


def test_the_last_runs_count(tmp_path: Path) -> None:
    """A trace as ONNX Runtime writes it: times in microseconds, other events between."""
    trace = tmp_path / "trace.json"
    events = [
        ("Session", "model_run", 90_000, {}),
        ("Node", "a_kernel_time", 90_000, {"op_name": "Conv", "provider": CPU}),
        ("Node", "a_fence_before", 90_000, {"op_name": "Conv"}),
        ("Node", "a_kernel_time", 10, {"op_name": "Conv", "provider": CPU}),
        ("Node", "b_kernel_time", 400, {"op_name": "TRTKernel", "provider": TENSORRT}),
        ("Node", "a_kernel_time", 20, {"op_name": "Conv", "provider": CPU}),
    ]
    text = ",".join(
        f'{{"cat":"{cat}","name":"{name}","dur":{dur},"args":{str(args)!s}}}'.replace("'", '"')
        for cat, name, dur, args in events
    )
    trace.write_text(f"[{text}]")
    found = [(layer.name, layer.kind, layer.mean_ns) for layer in layer_times(trace, 2)]
    assert found == [
        ("b", f"TRTKernel ({TENSORRT})", 400_000.0),
        ("a", "Conv", 15_000.0),
    ]


# Nodes that work on shapes -------------------------------------------------------------------


def test_nodes_that_no_number_reaches(tmp_path: Path) -> None:
    model = shaping()
    found = shape_nodes(to_bytes(model))
    assert found == {"sides", "rows", "wanted", "two"}
    path = tmp_path / "m.onnx"
    path.write_bytes(to_bytes(model))
    assert shape_nodes(path) == found
    session = open_session(onnxruntime, path, CPU)
    np.testing.assert_array_equal(session.run(None, {"x": ROWS})[0], ROWS + 2)


def test_a_graph_within_a_node_may_read_anything() -> None:
    assert "if" not in shape_nodes(to_bytes(shaping(nested=True)))


def test_inputs_with_a_default_are_numbers_too() -> None:
    model = shaping()
    model.graph.input.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, [1]))
    assert shape_nodes(to_bytes(model)) == {"sides", "rows", "wanted"}


def test_a_fused_model_has_none(tiny_model: Path) -> None:
    assert shape_nodes(tiny_model) == frozenset()


def test_shape_nodes_of_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not an ONNX model"):
        shape_nodes(b"\xff\xff no model")
    with pytest.raises(ModelFileError, match=r"cannot read .*missing\.onnx"):
        shape_nodes(tmp_path / "missing.onnx")


# Judged --------------------------------------------------------------------------------------


def test_all_on_the_one_asked_for() -> None:
    nodes = placed("Conv a CUDA", "Relu b CUDA")
    assert judge_placement(CUDA, nodes, strict=True) == (Placement(CUDA, {CUDA: 2}), [])


def test_strays_are_counted_and_named() -> None:
    nodes = placed("Conv a Tensorrt", "TopK b CUDA", "Relu c Tensorrt", "NonZero d CPU")
    placement, strays = judge_placement(TENSORRT, nodes)
    assert placement == Placement(
        TENSORRT, {TENSORRT: 2, CUDA: 1, CPU: 1}, ("TopK b", "NonZero d")
    )
    assert strays == [nodes[1], nodes[3]]
    with pytest.raises(ProviderError) as caught:
        judge_placement(TENSORRT, nodes, strict=True)
    assert str(caught.value) == (
        f"{TENSORRT} left nodes of the model to others, {CPU}, {CUDA} would run TopK b, "
        "NonZero d; open it without strict if they may"
    )


def test_shapes_on_the_cpu_are_no_strays() -> None:
    nodes = placed("Conv a CUDA", "Shape s CPU", "Gather g CPU", "Size t CPU")
    placement, strays = judge_placement(CUDA, nodes, frozenset({"g"}), strict=True)
    assert (placement, strays) == (Placement(CUDA, {CPU: 3, CUDA: 1}), [])
    with pytest.raises(ProviderError, match="Gather g"):
        judge_placement(CUDA, nodes, strict=True)


def test_shapes_alone_do_not_make_a_provider_run_a_model() -> None:
    nodes = placed("Gather g CUDA", "Conv a CPU")
    with pytest.raises(ProviderError) as caught:
        judge_placement(CUDA, nodes, frozenset({"g"}))
    assert str(caught.value) == (
        f"{CUDA} took none of the model's nodes, {CPU} would run Conv a; "
        "choose the backend that can run it"
    )


def test_a_graph_that_computes_nothing() -> None:
    nodes = placed("Gather g CPU")
    placement, strays = judge_placement(CUDA, nodes, frozenset({"g"}), strict=True)
    assert (placement.nodes, strays) == ({CPU: 1}, [])
    assert judge_placement(CUDA, []) == (Placement(CUDA, {}), [])


def test_a_node_without_a_name_is_no_shape() -> None:
    nodes = [PlacedNode("", "Conv", CPU), PlacedNode("", "Conv", CUDA)]
    placement, _ = judge_placement(CUDA, nodes, frozenset({""}))
    assert placement.strays == ("Conv",)


@given(st.lists(st.sampled_from([CPU, CUDA, TENSORRT]), max_size=60), st.booleans())
def test_what_is_counted_adds_up(providers: list[str], strict: bool) -> None:
    nodes = [PlacedNode(f"n{i}", "Conv", provider) for i, provider in enumerate(providers)]
    elsewhere = [node for node in nodes if node.provider != CUDA]
    refused = bool(nodes) and (len(elsewhere) == len(nodes) or bool(strict and elsewhere))
    if refused:
        with pytest.raises(ProviderError):
            judge_placement(CUDA, nodes, strict=strict)
        return
    placement, strays = judge_placement(CUDA, nodes, strict=strict)
    assert sum(placement.nodes.values()) == len(nodes)
    assert strays == elsewhere
    assert placement.strays == tuple(map(str, elsewhere[:20]))


def test_few_are_named_all_are_counted() -> None:
    nodes = [PlacedNode(f"n{i}", "Conv", CPU) for i in range(5)]
    assert shown_nodes(nodes[:3]) == "Conv n0, Conv n1, Conv n2"
    assert shown_nodes(nodes) == "5 of them: Conv n0, Conv n1, Conv n2, ..."
