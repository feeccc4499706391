# SPDX-License-Identifier: Apache-2.0
"""Batch norms folded, nodes in order: the same numbers as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edge_imprint_export.graph import check_graph, parse, to_bytes
from edge_imprint_export.precision.rewrite import finish, fold_batch_norms

Array: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[onnx.ModelProto, Array], Array]
MakeGraph: TypeAlias = Callable[..., onnx.ModelProto]


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return parse(to_bytes(model), "a copy")


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def norm_nodes(kind: str, group: int) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node(kind, ["pixels", "w", "b"], ["c"], "layer", group=group),
        node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], "norm", epsilon=1e-3),
        node("GlobalAveragePool", ["n"], ["p"], "pool"),
        node("Flatten", ["p"], ["embedding"], "flat", axis=1),
    ]


@given(
    seed=st.integers(0, 2**32 - 1),
    transposed=st.booleans(),
    group=st.sampled_from([1, 3]),
    side=st.integers(1, 4),
)
def test_folding_changes_no_number(
    make_graph: MakeGraph, embed: Embed, seed: int, transposed: bool, group: int, side: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 6 // group, side, side) if transposed else (6, 3 // group, side, side)
    weights = {
        "w": rng.standard_normal(shape).astype("f4"),
        "b": rng.standard_normal(6).astype("f4"),
        "s": rng.standard_normal(6).astype("f4"),
        "t": rng.standard_normal(6).astype("f4"),
        "m": rng.standard_normal(6).astype("f4"),
        "v": rng.uniform(0, 2, 6).astype("f4"),
    }
    graph = make_graph(
        norm_nodes("ConvTranspose" if transposed else "Conv", group), weights, size=6
    )
    folded = copy(graph)
    names = fold_batch_norms(folded.graph)
    finish(folded, graph)
    check_graph(folded, "folded")
    kept = transposed and group != 1  # its weights hold the channels of a group only
    assert names == ({} if kept else {"norm": "layer"})
    assert ("BatchNormalization" in kinds(folded)) == kept
    pixels = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = embed(graph, pixels)
    np.testing.assert_allclose(
        embed(folded, pixels), expected, atol=1e-5 * max(1, np.abs(expected).max())
    )


@pytest.mark.parametrize("why", ["read twice", "shared weight", "no constant", "output"])
def test_what_others_read_is_not_folded(make_graph: MakeGraph, why: str) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(1, 2, 6).astype("f4") for name in "bstmv"}
    weights["w"] = rng.standard_normal((6, 3, 1, 1)).astype("f4")
    nodes, node = norm_nodes("Conv", 1), helper.make_node
    if why == "read twice":
        nodes.insert(2, node("Add", ["n", "c"], ["n2"], "sum"))
        nodes[3].input[0] = "n2"
    elif why == "shared weight":
        nodes.insert(0, node("Conv", ["pixels", "w", "b"], ["c2"], "other"))
        nodes.insert(3, node("Add", ["n", "c2"], ["n2"], "sum"))
        nodes[4].input[0] = "n2"
    elif why == "no constant":
        nodes.insert(0, node("Identity", ["m"], ["m2"], "made"))
        nodes[2].input[3] = "m2"
    graph = make_graph(nodes, weights, size=6)
    if why == "output":
        graph.graph.output.append(helper.make_tensor_value_info("c", 1, None))
    before = kinds(graph)
    assert fold_batch_norms(graph.graph) == {}
    assert kinds(graph) == before


@given(seed=st.integers(0, 2**32 - 1))
def test_nodes_come_after_what_they_read(residual: onnx.ModelProto, seed: int) -> None:
    shuffled = copy(residual)
    order = np.random.default_rng(seed).permutation(len(shuffled.graph.node))
    nodes = [copy(residual).graph.node[i] for i in order]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    finish(shuffled, residual)
    check_graph(shuffled, "sorted")
    assert sorted(node.name for node in shuffled.graph.node) == sorted(
        node.name for node in residual.graph.node
    )


def test_what_an_inner_graph_reads_counts(make_graph: MakeGraph) -> None:
    node = helper.make_node
    inner = helper.make_graph(
        [node("Add", ["rows", "shift"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", 1, None)],
    )
    nodes = [
        node("Flatten", ["pixels"], ["rows"], "flat", axis=1),
        node("If", ["yes"], ["embedding"], "choice", then_branch=inner, else_branch=inner),
    ]
    weights = {"yes": np.array(True), "shift": np.ones(192, "f4"), "unused": np.ones(3, "f4")}
    graph = make_graph(nodes, weights, size=192)
    swapped = copy(graph)
    swapped.graph.node.append(swapped.graph.node.pop(0))
    finish(swapped, graph)
    assert kinds(swapped) == ["Flatten", "If"]
    assert {tensor.name for tensor in swapped.graph.initializer} == {"yes", "shift"}


def test_order_is_kept_where_it_is_one(residual: onnx.ModelProto) -> None:
    again = finish(copy(residual), residual)
    assert list(again.graph.node) == list(residual.graph.node)
    assert list(again.graph.initializer) == list(residual.graph.initializer)
