# SPDX-License-Identifier: Apache-2.0
"""The nodes that let the nearest proxies vote."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edge_imprint_export.head.layout import Columns
from edge_imprint_export.head.similarity import LOWEST, Similarity
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.contract import EPSILON
from edge_imprint_runtime.contract.spec import SHARE_TIE
from edge_imprint_runtime.head import Head

__all__ = ["add_vote_ranking", "add_votes"]

_TINY = 1e-30  # as many votes as there can be, divided by it, are within float32


def add_votes(nodes: Nodes, columns: Columns, similarity: Similarity, head: Head) -> None:
    """Add the votes of the m nearest proxies and of what ties with the last of them.

    ::

        similarity (N,S) -> TopK m -> ReduceMin -> last (N,1)
        (similarity >= last) -> Cast [-> Div distance] -> ReduceL1 by class -> votes (N,C)
                                                 votes / ReduceL1(votes) -> scores (N,C)

    A Cast and not a Where: ONNX Runtime takes twice as long over that as over the TopK.
    """
    x = similarity.proxies
    count = nodes.constant("head/neighbors", [head.rule.neighbors], np.int64)
    top = nodes.add("TopK", [x, count], ["head/top", "head/top_slots"], axis=1)
    last = nodes.reduce("ReduceMin", top, "head/last_voter", 1, keepdims=1)
    voters = nodes.not_less(x, last, "head/voter")
    votes = nodes.add("Cast", [voters], "head/vote", to=TensorProto.FLOAT)
    if head.rule.weighting == "distance":
        distance = _add_vote_distance(nodes, similarity, head)
        votes = nodes.add("Div", [votes, distance], "head/weighted_vote")
    votes = columns.reduce("ReduceL1", votes, "head/vote_by_class", "head/votes")
    total = nodes.reduce("ReduceL1", votes, "head/all_votes", 1, keepdims=1)
    nodes.add("Div", [votes, total], "scores")


def add_vote_ranking(nodes: Nodes, nearest: str) -> str:
    """Add (N, C): the nearest similarity of the classes with most votes, else the lowest."""
    most = nodes.reduce("ReduceMax", "scores", "head/most_votes", 1, keepdims=1)
    tie = nodes.constant("head/share_tie", SHARE_TIE, np.float32)
    enough = nodes.add("Sub", [most, tie], "head/votes_that_tie")
    fewer = nodes.add("Less", ["scores", enough], "head/fewer_votes")
    lowest = nodes.constant("head/lowest", LOWEST, np.float32)
    return nodes.add("Where", [fewer, lowest, nearest], "head/nearest_of_most_votes")


def _add_vote_distance(nodes: Nodes, similarity: Similarity, head: Head) -> str:
    """Add what each column's vote is divided by: ``max(distance, floor)``, (N, S)."""
    x, output = similarity.proxies, "head/vote_distance"
    if head.rule.distance == "cosine":
        one = nodes.constant("head/one", 1, np.float32)
        x = nodes.add("Sub", [one, x], output)
    elif head.rule.distance == "manhattan":
        x = nodes.add("Mul", [x, x], output)
    else:
        assert similarity.offset is not None
        x = nodes.add("Sub", [similarity.offset, x], output)
    floor = nodes.constant("head/vote_floor", max(_vote_floor(head), _TINY), np.float32)
    return nodes.add("Max", [x, floor], "head/vote_distance_not_zero")


def _vote_floor(head: Head) -> float:
    """Return the smallest distance that divides a vote: 1e-6 of the proxies' spread."""
    if head.rule.distance == "cosine":
        return 1e-6
    gap = head.proxies - head.proxies.mean(axis=0, dtype=np.float64)
    if head.rule.distance == "manhattan":
        spread = (np.abs(gap).sum(axis=1) ** 2).mean()
    else:
        gap = gap if head.metric is None else gap @ head.metric
        spread = (gap**2).sum(axis=1).mean()
    return float(1e-6 * spread) or EPSILON
