# SPDX-License-Identifier: Apache-2.0
"""The nodes behind a backbone: the head, every rule of it, out of what every target reads.

No NonZero, Loop, Scatter or OneHot. TensorRT's TopK takes up to 3,840 neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from edge_imprint_export.head.exact import CANDIDATES, add_exact, add_exact_proxy
from edge_imprint_export.head.layout import Columns, layout_of
from edge_imprint_export.head.similarity import Similarity, add_compared, add_similarity
from edge_imprint_export.head.votes import add_vote_ranking, add_votes
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.contract import EPSILON
from edge_imprint_runtime.contract.spec import HEAD_PRECISIONS, check_choice
from edge_imprint_runtime.errors import UnsupportedOptionError
from edge_imprint_runtime.head import Head

__all__ = ["DIALECTS", "add_head"]

DIALECTS = ("portable", "tensorrt", "onnxruntime")


def add_head(
    nodes: Nodes,
    embedding: str,
    head: Head,
    *,
    precision: str = "fp32",
    dialect: str = "portable",
    outputs: Sequence[str] = (),
    slots: int | None = None,
) -> None:
    """Add the way from embeddings to ``scores`` and ``label``.

    ::

        embedding (N,D) -> [Sub center] -> [MatMul transform] -> Div max(ReduceL2, eps)   (N,E)
          -> MatMul proxies (E,C*K) -> Reshape (N,C,K) -> ReduceMax -> scores (N,C) float32
                                                scores -> ArgMax -> Cast -> label (N,) int32

    Numpy: ``(norm((z - center) @ transform) @ proxies).reshape(N, C, K).max(2)``. ArgMax takes
    the first of equal scores, so ties go to the lowest class index, as in the oracle. Other
    distances replace the MatMul (`add_similarity`), ragged classes the Reshape (`Columns`),
    votes the ReduceMax (`add_votes`), and a calibrated head adds ``known`` and
    ``probability``.

    The center is taken off before the product: folded into one product and a bias, as
    ``z @ transform - center @ transform``, what is common to all embeddings would cancel after
    it was rounded, and the Sub costs next to nothing.

    Args:
        nodes: Where they are added.
        embedding: Name of the embeddings, (N, D) float32.
        head: The head.
        precision: Of the product with the proxies: ``fp32``, ``fp16``, ``int8``, or
            ``exact``: int8, and the nearest `CANDIDATES` proxies once more in float32; where
            there are no more than these, it is fp32.
        dialect: How int8 is written; see `add_product`.
        outputs: ``proxy`` adds an output of that name: (N,) int32, which of the head's
            proxies is the label's nearest, of equal ones the lowest index.
        slots: See `layout_of`.

    Raises:
        ParameterError: ``precision``, ``dialect`` or ``slots`` are out of range.
        UnsupportedOptionError: The rule does not go with the precision.
    """
    check_choice("head precision", precision, HEAD_PRECISIONS)
    check_choice("dialect", dialect, DIALECTS)
    _check_rule(head, precision)
    if precision == "exact" and len(head.proxies) <= CANDIDATES:
        precision = "fp32"
    columns = Columns(nodes, layout_of(head, slots))
    compared = add_compared(nodes, _add_map(nodes, embedding, head), head)
    similarity = add_similarity(
        nodes,
        compared,
        head,
        columns.layout,
        precision="int8" if precision == "exact" else precision,
        dialect=dialect,
        # Where columns are counted, repeated ones don't count.
        masked=precision == "exact" or head.rule.aggregation == "mnn",
    )
    exact = None
    if precision == "exact":
        nearest = _add_nearest(nodes, columns, similarity, "head/nearest")
        exact = add_exact(nodes, columns, compared, similarity, nearest)
        ranked = exact.ranked
    elif head.rule.aggregation == "max":
        ranked = _add_nearest(nodes, columns, similarity, "scores")
    else:
        # Taken off only where a threshold asks how near is near.
        offset = None if head.temperature is None else similarity.offset
        found = Similarity(similarity.proxies, offset)
        nearest = _add_nearest(nodes, columns, found, "head/nearest")
        add_votes(nodes, columns, similarity, head)
        ranked = add_vote_ranking(nodes, nearest)
    best = nodes.add("ArgMax", [ranked], "head/argmax", axis=1, keepdims=0)
    nodes.add("Cast", [best], "label", to=TensorProto.INT32)
    if head.temperature is not None:
        _add_calibration(nodes, ranked, best, head)
    if "proxy" in outputs and exact is not None:
        add_exact_proxy(nodes, exact)
    elif "proxy" in outputs:
        _add_proxy(nodes, columns, similarity.proxies, best, head)


def _check_rule(head: Head, precision: str) -> None:
    if precision == "fp32":
        return
    if head.rule.distance == "manhattan":
        raise UnsupportedOptionError(
            f"head precision {precision!r} rounds the factors of a product, and manhattan "
            "has none; use 'fp32'"
        )
    if precision == "exact" and head.rule.aggregation == "mnn":
        raise UnsupportedOptionError(
            "head precision 'exact' looks again at what is nearest, and under mnn others "
            "vote, too; use 'int8' or 'fp32'"
        )


def _add_map(nodes: Nodes, x: str, head: Head) -> str:
    """Add ``norm((z - center) @ transform)``: (N, D) -> (N, E)."""
    if head.center is not None:
        center = nodes.constant("center", head.center, np.float32)
        x = nodes.add("Sub", [x, center], "head/centered")
    if head.transform is not None:
        transform = nodes.constant("transform", head.transform, np.float32)
        x = nodes.add("MatMul", [x, transform], "head/transformed")
    cosine, l2 = head.rule.distance == "cosine", head.rule.embedding_norm == "l2"
    if cosine or l2:
        norm = nodes.reduce("ReduceL2", x, "head/norm", 1, keepdims=1)
        # Normalised twice is normalised once, but for what the first floor left shorter.
        floor = EPSILON**2 if cosine and l2 else EPSILON
        epsilon = nodes.constant("head/epsilon", floor, np.float32)
        norm = nodes.add("Max", [norm, epsilon], "head/norm_not_zero")
        x = nodes.add("Div", [x, norm], "head/normalized")
    return x


def _add_nearest(nodes: Nodes, columns: Columns, similarity: Similarity, output: str) -> str:
    """Add (N, S) -> (N, C): the similarity of each class's nearest proxy."""
    by_class, x = "head/similarity_by_class", similarity.proxies
    if similarity.offset is None:
        return columns.reduce("ReduceMax", x, by_class, output)
    x = columns.reduce("ReduceMax", x, by_class, "head/nearest_above_offset")
    return nodes.add("Sub", [x, similarity.offset], output)


def _add_calibration(nodes: Nodes, ranked: str, best: str, head: Head) -> None:
    """Add ``known`` (N,) int32 and ``probability`` (N, C).

    ::

        ReduceMax(ranked) >= Gather(threshold, label) -> Cast -> known
        scores / temperature -> Softmax -> probability
    """
    thresholds, temperature = head.calibration()
    threshold = nodes.constant("threshold", thresholds, np.float32)
    near = nodes.reduce("ReduceMax", ranked, "head/nearest_of_label", 1, keepdims=0)
    limit = nodes.add("Gather", [threshold, best], "head/threshold_of_label", axis=0)
    close = nodes.not_less(near, limit, "head/known")
    nodes.add("Cast", [close], "known", to=TensorProto.INT32)
    divisor = nodes.constant("temperature", temperature, np.float32)
    x = nodes.add("Div", ["scores", divisor], "head/scaled_scores")
    nodes.add("Softmax", [x], "probability", axis=1)


def _add_proxy(nodes: Nodes, columns: Columns, x: str, best: str, head: Head) -> None:
    """Add ``proxy`` (N,) int32.

    ::

        similarity (N,S) -> ArgMax of each class's columns (N,C) -> Add first proxy (C,)
                         -> GatherElements label (N,1) -> Reshape -> Cast -> proxy
    """
    x = columns.reduce("ArgMax", x, "head/column_by_class", "head/nearest_slot")
    starts = np.flatnonzero(np.diff(head.class_index, prepend=-1))
    first = nodes.constant("head/first_proxy", starts, np.int64)
    x = nodes.add("Add", [x, first], "head/nearest_proxy")
    column = nodes.constant("head/as_column", [-1, 1], np.int64)
    label = nodes.add("Reshape", [best, column], "head/label_column")
    x = nodes.add("GatherElements", [x, label], "head/proxy_column", axis=1)
    flat = nodes.constant("head/as_row", [-1], np.int64)
    x = nodes.add("Reshape", [x, flat], "head/proxy")
    nodes.add("Cast", [x], "proxy", to=TensorProto.INT32)
