# SPDX-License-Identifier: Apache-2.0
"""How proxies lie in columns: ragged classes cost little, and answer as the oracle does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.head.layout import layout_of, slots_of
from edge_imprint_export.head.nodes import add_head
from edge_imprint_export.nodes import Nodes
from edge_imprint_export.proof.verify import compare
from edge_imprint_runtime import Head, Predictions, Rule
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import ParameterError

MakeHead = Callable[..., Head]
HeadModel = Callable[..., onnx.ModelProto]
Rows = npt.NDArray[np.float32]

DISTANCES = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
RULES = [Rule(norm, distance=d) for norm in ("none", "l2") for d in DISTANCES]
RULES += [Rule("l2", "mnn", d, 4, "uniform") for d in DISTANCES]
RULES += [Rule("none", "mnn", d, 4, "distance") for d in DISTANCES[1:]]
sizes = st.lists(st.integers(1, 12) | st.sampled_from([40, 41, 100]), min_size=1, max_size=9)


def ragged(
    counts: list[int], rule: Rule | None = None, *, seed: int = 0, whole: bool = False
) -> Head:
    """Make a head of classes with so many random proxies of 6 numbers each."""
    rng = np.random.default_rng(seed)
    rule = Rule() if rule is None else rule
    neighbors = min(rule.neighbors, sum(counts))
    points = rng.standard_normal((sum(counts), 6))
    return Head(
        np.rint(points) if whole else points,
        np.repeat(np.arange(len(counts)), counts),
        [f"class {c}" for c in range(len(counts))],
        Rule(rule.embedding_norm, rule.aggregation, rule.distance, neighbors, rule.weighting),
        metric=rng.standard_normal((6, 7)) if rule.distance == "mahalanobis" else None,
    )


def run(model: onnx.ModelProto, rows: Rows) -> dict[str, npt.NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    runner = OrtRunner(to_bytes(model), "cpu", threads=1)
    names = list(runner.outputs)
    return dict(zip(names, runner.run(names, rows), strict=True))


def best_columns(counts: list[int], worth: int) -> tuple[int, int]:
    """Try every split of the sizes: blocks and columns that cost least within 1.25 P."""
    kinds = sorted(set(counts), reverse=True)
    found = []
    for cuts in range(len(kinds)):
        for inner in itertools.combinations(range(1, len(kinds)), cuts):
            runs = itertools.pairwise((0, *inner, len(kinds)))
            columns = sum(kinds[a] * sum(c in kinds[a:b] for c in counts) for a, b in runs)
            if columns <= 1.25 * sum(counts):
                found.append((columns + worth * cuts, cuts + 1, columns))
    return min(found)[1:]


@given(sizes, st.sampled_from([1, 6, 2_048, 8_192]))
def test_every_proxy_has_its_column(counts: list[int], size: int) -> None:
    index = np.repeat(np.arange(len(counts)), counts)
    head = Head(
        np.ones((len(index), size), np.float32), index, list(map(str, range(len(counts))))
    )
    layout = layout_of(head)
    assert len(layout.rows) <= 1.25 * sum(counts)
    worth = 2**16 // size
    found = len(layout.blocks), len(layout.rows)
    assert found == best_columns(counts, worth)
    own = layout.rows[~layout.padding]
    assert sorted(own) == list(range(sum(counts)))
    assert np.array_equal(head.class_index[layout.rows], layout.classes)
    first = np.searchsorted(head.class_index, layout.classes)
    assert np.array_equal(layout.rows[layout.padding], first[layout.padding])
    expected = [np.repeat(block.classes, block.slots) for block in layout.blocks]
    assert np.array_equal(layout.classes, np.concatenate(expected))
    assert all(np.all(np.diff(block.classes) > 0) for block in layout.blocks)


def test_classes_of_like_size_are_one_block() -> None:
    layout = layout_of(ragged([4, 3, 4]))
    assert [block.slots for block in layout.blocks] == [4]
    assert layout.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 7, 8, 9, 10]
    assert np.flatnonzero(layout.padding).tolist() == [7]


def test_one_large_class_among_small_ones() -> None:
    layout = layout_of(ragged([5] * 50 + [5_000] + [5] * 50))
    assert [(len(block.classes), block.slots) for block in layout.blocks] == [
        (1, 5_000),
        (100, 5),
    ]
    assert not layout.padding.any()


def test_a_block_is_made_only_where_it_is_worth_it() -> None:
    """A sixth block would save 25 columns of 2,048 numbers, and cost as much as 32."""
    counts = [183, 255, 367, 252, 130, 89, 384, 158]
    index = np.repeat(np.arange(8), counts)
    layout = layout_of(Head(np.ones((len(index), 2_048), np.float32), index, list("abcdefgh")))
    assert (len(layout.blocks), len(layout.rows)) == (5, 1_863)


def test_many_sizes() -> None:
    """A thousand classes of 1 to 1,000 proxies are laid out at once, in few blocks."""
    counts = np.random.default_rng(0).permutation(1_000) + 1
    head = Head(
        np.ones((counts.sum(), 1)), np.repeat(range(1_000), counts), list(map(str, counts))
    )
    layout = layout_of(head)
    assert len(layout.rows) <= 1.25 * counts.sum()
    assert len(layout.blocks) <= 16


def test_forced_slots() -> None:
    head = ragged([1, 3, 2])
    assert slots_of(head) == 3
    layout = layout_of(head, 3)
    assert layout.rows.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 4]
    assert np.flatnonzero(layout.padding).tolist() == [1, 2, 8]
    assert layout_of(head, 5).rows.reshape(3, 5).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 2, 3, 1, 1],
        [4, 5, 4, 4, 4],
    ]
    nodes = Nodes(17)
    add_head(nodes, "embedding", head, slots=8)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in nodes.constants}
    assert constants["proxies"].shape == (6, 24)
    assert constants["head/slots"].tolist() == [0, -1, 8]
    message = (
        "slots must be at least 3, the proxies of the class that has most, got 2; "
        "give slots=3 or more"
    )
    with pytest.raises(ParameterError) as error:
        layout_of(head, 2)
    assert str(error.value) == message


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("counts", [[1, 9, 1, 1], [2, 30, 1, 9, 2, 40, 1], [7]])
@pytest.mark.parametrize("opset", [11, 17, 18])
def test_ragged_heads_answer_as_the_oracle(
    head_model: HeadModel, rule: Rule, counts: list[int], opset: int
) -> None:
    head = ragged(counts, rule)
    rows = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
    found = run(head_model(head, opset=opset), rows)
    compare(Predictions(labels=head.labels, **found), head, rows, 1e-5).require()


@given(sizes, st.sampled_from(RULES), st.integers(0, 2**32 - 1))
def test_any_ragged_head_answers_as_the_oracle(
    head_model: HeadModel, counts: list[int], rule: Rule, seed: int
) -> None:
    head = ragged(counts, rule, seed=seed)
    rows = np.random.default_rng(seed).standard_normal((20, 6)).astype(np.float32)
    found = run(head_model(head), rows)
    compare(Predictions(labels=head.labels, **found), head, rows, 1e-5).require()


def test_ties_between_blocks_go_to_the_lowest_class(head_model: HeadModel) -> None:
    """The same proxy in every class; the first class is in the last block."""
    head = Head(np.ones((56, 2)), np.repeat(range(4), [2, 50, 3, 1]), list("abcd"))
    assert len(layout_of(head).blocks) == 2
    found = run(head_model(head, outputs=["proxy"]), np.ones((3, 2), np.float32))
    assert found["label"].tolist() == found["proxy"].tolist() == [0, 0, 0]


def nearest_of_label(head: Head, rows: Rows, label: npt.NDArray[np.int32]) -> list[int]:
    """Find each label's nearest proxy in float64, the first of equal ones."""
    z, p = rows.astype(np.float64), head.proxies.astype(np.float64)
    if head.rule.embedding_norm == "l2":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    gap = z[:, np.newaxis] - p
    metric = np.eye(p.shape[1]) if head.metric is None else head.metric.astype(np.float64)
    near = {
        "inner_product": lambda: z @ p.T,
        "cosine": lambda: z @ (p / np.linalg.norm(p, axis=1, keepdims=True)).T,
        "manhattan": lambda: -np.abs(gap).sum(axis=2),
    }.get(head.rule.distance, lambda: -np.square(gap @ metric).sum(axis=2))()
    near[head.class_index != label[:, np.newaxis]] = -np.inf
    return near.argmax(axis=1).tolist()


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("counts", [[3, 3, 3], [3, 2, 3], [2, 30, 1, 9, 2]])
def test_the_output_proxy(head_model: HeadModel, rule: Rule, counts: list[int]) -> None:
    head = ragged(counts, rule)
    rows = np.random.default_rng(2).standard_normal((60, 6)).astype(np.float32)
    found = run(head_model(head, outputs=["proxy"]), rows)
    assert list(found) == ["scores", "label", "proxy"]
    assert found["proxy"].dtype == np.int32
    assert found["proxy"].tolist() == nearest_of_label(head, rows, found["label"])


@given(sizes, st.integers(0, 2**32 - 1))
def test_of_equal_proxies_the_first(
    head_model: HeadModel, counts: list[int], seed: int
) -> None:
    """Small whole numbers are exact, and so are their ties."""
    head = ragged(counts, Rule("none"), seed=seed, whole=True)
    rows = np.random.default_rng(seed).integers(-2, 3, (20, 6)).astype(np.float32)
    found = run(head_model(head, outputs=["proxy"]), rows)
    assert found["label"].tolist() == head.predict(rows).tolist()
    assert found["proxy"].tolist() == nearest_of_label(head, rows, found["label"])


def test_a_calibrated_ragged_head(head_model: HeadModel, make_head: MakeHead) -> None:
    head = make_head(6, 40, calibrated=True)
    rows = np.random.default_rng(3).standard_normal((30, 8)).astype(np.float32)
    found = run(head_model(head, outputs=["proxy"]), rows)
    assert list(found) == ["scores", "label", "known", "probability", "proxy"]
    del found["proxy"]
    found["known"] = found["known"].astype(bool)
    compare(Predictions(labels=head.labels, **found), head, rows, 1e-5).require()


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("opset", [11, 17, 18, 21])
def test_the_form_of_a_ragged_head(head_model: HeadModel, rule: Rule, opset: int) -> None:
    model = head_model(ragged([2, 30, 1, 9, 2], rule), opset=opset, outputs=["proxy"])
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    kinds = {node.op_type for node in graph.node}
    assert {"Slice", "Concat", "Gather", "GatherElements"} <= kinds
    assert not kinds & {"NonZero", "Loop", "If", "Scatter", "ScatterElements", "OneHot"}
    made = [name for node in graph.node for name in node.output]
    made += [tensor.name for tensor in graph.initializer] + ["embedding"]
    used = {name for node in graph.node for name in node.input}
    assert len(made) == len(set(made))
    assert set(made) - used - {value.name for value in graph.output} <= {"head/top_slots"}
    assert len({node.name for node in graph.node}) == len(graph.node)
