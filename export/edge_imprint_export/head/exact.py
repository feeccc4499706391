# SPDX-License-Identifier: Apache-2.0
"""The nodes that compare the nearest proxies once more, in float32: the label is float32's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edge_imprint_export.head.layout import Columns
from edge_imprint_export.head.similarity import LOWEST, Compared, Similarity
from edge_imprint_export.nodes import Nodes

__all__ = ["CANDIDATES", "Exact", "add_exact", "add_exact_proxy"]

# How many of the proxies that int8 finds nearest float32 looks at again. The label is
# float32's unless as many others come before its proxy, all of them within twice int8's error
# of it (under 0.002 of a cosine). Of 6,697 queries, most of them half way between two proxies,
# none needed more than 4 (benchmarks/large_heads.py).
CANDIDATES = 32


@dataclass(frozen=True)
class Exact:
    """Names of tensors.

    Attributes:
        ranked: (N, C): the nearest similarity of the classes that were looked at again, the
            lowest float32 for all others.
        similarity: (N, R): of the proxies that were looked at again.
        proxies: (N, R) int32: which they are.
    """

    ranked: str
    similarity: str
    proxies: str


def add_exact(
    nodes: Nodes,
    columns: Columns,
    compared: Compared,
    similarity: Similarity,
    nearest: str,
) -> Exact:
    """Add ``scores`` of which the best are float32's.

    ::

        similarity (N,S) -> TopK R -> Gather proxies (N,R,F) -> MatMul x (N,F,1) -> (N,R)
                         -> the greatest of each class (N,C), float32's
        scores: where a class has none of them, int8's, at most the best of float32

    Args:
        nodes: Where they are added.
        columns: Of the similarities.
        compared: What is compared.
        similarity: (N, S), of rounded proxies, padding masked.
        nearest: (N, C): what it says of each class.

    Returns:
        What the label is decided by.
    """
    layout = columns.layout
    count = nodes.constant("head/candidates", [CANDIDATES], np.int64)
    top = ["head/top", "head/top_columns"]
    nodes.add("TopK", [similarity.proxies, count], top, axis=1)
    proxy_of = nodes.constant("head/proxy_of_column", layout.rows, np.int32)
    class_of = nodes.constant("head/class_of_column", layout.classes, np.int32)
    proxies = nodes.add("Gather", [proxy_of, top[1]], "head/candidate", axis=0)
    classes = nodes.add("Gather", [class_of, top[1]], "head/candidate_class", axis=0)
    x = _add_similarity(nodes, compared, proxies)
    if similarity.offset is not None:
        x = nodes.add("Sub", [x, similarity.offset], "head/candidate_nearness")
    ranked = _add_by_class(nodes, x, classes, int(layout.classes.max()) + 1)
    best = nodes.reduce("ReduceMax", ranked, "head/best_exact", 1, keepdims=1)
    rest = nodes.add("Min", [nearest, best], "head/rest")
    again = nodes.add("Less", ["head/lowest", ranked], "head/looked_at_again")
    nodes.add("Where", [again, ranked, rest], "scores")
    return Exact(ranked, x, proxies)


def add_exact_proxy(nodes: Nodes, exact: Exact) -> None:
    """Add ``proxy`` (N,): of the candidates the nearest, of those the first: the label's."""
    near = nodes.not_less(exact.similarity, "head/best_exact", "head/candidate_is_best")
    # The lowest index is the greatest of the negatives: float32 counts to 2^24.
    place = nodes.add("Cast", [exact.proxies], "head/candidate_place", to=TensorProto.FLOAT)
    place = nodes.add("Neg", [place], "head/minus_place")
    place = nodes.add("Where", [near, place, "head/lowest"], "head/winning_place")
    place = nodes.reduce("ReduceMax", place, "head/first_place", 1, keepdims=0)
    place = nodes.add("Neg", [place], "head/first_winner")
    nodes.add("Cast", [place], "proxy", to=TensorProto.INT32)


def _add_similarity(nodes: Nodes, compared: Compared, proxies: str) -> str:
    """Add (N, F) and (N, R) which proxies -> (N, R) similarities."""
    matrix = nodes.constant("head/exact_proxies", compared.points, np.float32)
    matrix = nodes.add("Gather", [matrix, proxies], "head/candidate_proxies", axis=0)
    shape = nodes.constant("head/as_columns", [0, -1, 1], np.int64)
    x = nodes.add("Reshape", [compared.x, shape], "head/column")
    x = nodes.add("MatMul", [matrix, x], "head/candidate_products")
    flat = nodes.constant("head/as_rows", [0, -1], np.int64)
    x = nodes.add("Reshape", [x, flat], "head/candidate_product")
    if not compared.squared:
        return x
    squares_name = nodes.constant("head/exact_squares", compared.squares(), np.float32)
    squares_name = nodes.add("Gather", [squares_name, proxies], "head/candidate_square")
    two = nodes.constant("head/two", 2, np.float32)
    x = nodes.add("Mul", [x, two], "head/candidate_doubled")
    return nodes.add("Sub", [x, squares_name], "head/candidate_similarity")


def _add_by_class(nodes: Nodes, x: str, classes: str, count: int) -> str:
    """Add (N, R) and whose they are -> (N, C): the greatest of each class, or the lowest."""
    columns = nodes.constant("head/each_candidate", [0, -1, 1], np.int64)
    all_classes = nodes.constant("head/classes", np.arange(count), np.int32)
    whose = nodes.add("Reshape", [classes, columns], "head/candidate_class_column")
    own = nodes.add("Equal", [whose, all_classes], "head/candidate_is_of_class")
    value = nodes.add("Reshape", [x, columns], "head/candidate_column")
    lowest = nodes.constant("head/lowest", LOWEST, np.float32)
    x = nodes.add("Where", [own, value, lowest], "head/candidate_by_class")
    return nodes.reduce("ReduceMax", x, "head/nearest_candidate", 1, keepdims=0)
