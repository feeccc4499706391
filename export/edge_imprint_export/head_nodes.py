# SPDX-License-Identifier: Apache-2.0
"""The nodes behind a backbone: the head, every rule of it, out of what every target reads.

No NonZero, Loop, Scatter or OneHot. TensorRT's TopK takes up to 3,840 neighbors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.contract import EPSILON
from edge_imprint_runtime.contract.spec import SHARE_TIE
from edge_imprint_runtime.head import Head

__all__ = ["add_head", "padded_rows", "slots_of"]

_LOWEST = np.finfo(np.float32).min  # not -inf: sums with it stay numbers
_TINY = 1e-30  # as many votes as there can be, divided by it, are within float32


@dataclass(frozen=True)
class _Similarity:
    """Names of tensors.

    Attributes:
        proxies: (N, C*K) similarities, or ``offset`` above them.
        offset: (N, 1) what is to be taken off, the same for all proxies; None for nothing.
    """

    proxies: str
    offset: str | None = None


def add_head(nodes: Nodes, embedding: str, head: Head) -> None:
    """Add the way from embeddings to ``scores`` and ``label``.

    ::

        embedding (N,D) -> [Sub center] -> [MatMul transform] -> Div max(ReduceL2, eps)   (N,E)
          -> MatMul proxies (E,C*K) -> Reshape (N,C,K) -> ReduceMax -> scores (N,C) float32
                                                scores -> ArgMax -> Cast -> label (N,) int32

    Numpy: ``(norm((z - center) @ transform) @ proxies).reshape(N, C, K).max(2)``. ArgMax takes
    the first of equal scores, so ties go to the lowest class index, as in the oracle. Other
    distances replace the MatMul (`_add_similarity`), votes the ReduceMax (`_add_votes`), and a
    calibrated head adds ``known`` and ``probability`` (`_add_calibration`).

    The center is taken off before the product: folded into one product and a bias, as
    ``z @ transform - center @ transform``, what is common to all embeddings would cancel after
    it was rounded, and the Sub costs next to nothing.
    """
    similarity = _add_similarity(nodes, _add_map(nodes, embedding, head), head)
    by_class = _by_class(nodes, similarity.proxies, head, "head/similarity_by_class")
    if head.rule.aggregation == "max":
        ranked = _add_nearest(nodes, by_class, similarity.offset, "scores")
    else:
        # Taken off only where a threshold asks how near is near.
        offset = None if head.temperature is None else similarity.offset
        nearest = _add_nearest(nodes, by_class, offset, "head/nearest")
        _add_votes(nodes, similarity, head)
        ranked = _add_vote_ranking(nodes, nearest)
    best = nodes.add("ArgMax", [ranked], "head/argmax", axis=1, keepdims=0)
    nodes.add("Cast", [best], "label", to=TensorProto.INT32)
    if head.temperature is not None:
        _add_calibration(nodes, ranked, best, head)


def slots_of(head: Head) -> int:
    """Return K, the number of proxies of the class that has most."""
    return int(np.bincount(head.class_index).max())


def padded_rows(head: Head) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Lay a head's proxies out in C times K slots.

    Args:
        head: C classes of up to K proxies.

    Returns:
        (C*K,) int64: which proxy is in slot ``c*K + k``: proxy k of class c, or its first
        where it has fewer than K, which changes nothing under the maximum; and (C*K,) bool:
        which slots are such padding, to be masked where slots are counted.
    """
    slots = slots_of(head)
    counts = np.bincount(head.class_index)[:, np.newaxis]
    first = np.cumsum(counts)[:, np.newaxis] - counts
    slot = np.arange(slots)[np.newaxis]
    rows = first + np.where(slot < counts, slot, 0)
    return rows.ravel(), (slot >= counts).ravel()


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


def _add_similarity(nodes: Nodes, x: str, head: Head) -> _Similarity:
    """Add the comparison with every slot: (N, E) -> (N, C*K).

    inner product, cosine: ``x @ proxies``, the proxies normalised beforehand. euclidean,
    mahalanobis: ``-|x - p|^2 = 2 <x, p> - |p|^2 - |x|^2``, both about the mean proxy so that
    little cancels, both times ``metric``; the last term ranks nothing and waits. manhattan:
    ``-sum |x - p|``, (N, C*K, E) numbers on the way. Masked slots get the lowest float32.
    """
    rows, padding = padded_rows(head)
    masked = head.rule.aggregation == "mnn" and bool(padding.any())
    mask = np.where(padding & masked, _LOWEST, 0)
    name, points = "head/similarity", head.proxies.astype(np.float64)
    if head.rule.distance == "manhattan":
        proxies = nodes.constant("proxies", points[rows], np.float32)
        shape = nodes.constant("head/one_by_one", [0, 1, -1], np.int64)
        x = nodes.add("Reshape", [x, shape], "head/for_each_proxy")
        x = nodes.add("Sub", [x, proxies], "head/gap")
        x = nodes.reduce("ReduceL1", x, "head/distance", 2, keepdims=0)
        zero = nodes.constant("head/mask", mask if masked else 0, np.float32)
        return _Similarity(nodes.add("Sub", [zero, x], name))
    if head.rule.distance in ("euclidean", "mahalanobis"):
        mean = nodes.constant("head/mean", points.mean(axis=0), np.float32)
        x = nodes.add("Sub", [x, mean], "head/about_the_mean")
        points = points - points.mean(axis=0)
        if head.metric is not None:
            points = points @ head.metric
            metric = nodes.constant("metric", head.metric, np.float32)
            x = nodes.add("MatMul", [x, metric], "head/in_the_metric")
        points = points.astype(np.float32).astype(np.float64)
        bias = np.where(padding & masked, _LOWEST, -np.square(points).sum(axis=1)[rows])
        proxies = nodes.constant("proxies", points[rows].T, np.float32)
        squares = nodes.constant("head/squares", bias, np.float32)
        product = nodes.add("Gemm", [x, proxies, squares], name, alpha=2.0)
        if not _needs_offset(head):
            return _Similarity(product)
        square = nodes.reduce("ReduceSumSquare", x, "head/square", 1, keepdims=1)
        return _Similarity(product, square)
    if head.rule.distance == "cosine":
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        points = points / np.maximum(norms, EPSILON)
    proxies = nodes.constant("proxies", np.ascontiguousarray(points[rows].T), np.float32)
    if masked:
        bias_name = nodes.constant("head/mask", mask, np.float32)
        return _Similarity(nodes.add("Gemm", [x, proxies, bias_name], name))
    return _Similarity(nodes.add("MatMul", [x, proxies], name))


def _needs_offset(head: Head) -> bool:
    """Tell whether similarities themselves are asked for, and not only their order."""
    rule = head.rule
    votes_alike = rule.aggregation == "mnn" and rule.weighting == "uniform"
    return not votes_alike or head.temperature is not None


def _by_class(nodes: Nodes, x: str, head: Head, output: str) -> str:
    """Add (N, C*K) -> (N, C, K)."""
    if not any(tensor.name == "head/slots" for tensor in nodes.constants):
        # -1: the number of classes comes from the matrix, so that a wider one is more classes.
        nodes.constant("head/slots", [0, -1, slots_of(head)], np.int64)
    return nodes.add("Reshape", [x, "head/slots"], output)


def _add_nearest(nodes: Nodes, by_class: str, offset: str | None, output: str) -> str:
    """Add (N, C, K) -> (N, C): the similarity of each class's nearest proxy."""
    if offset is None:
        return nodes.reduce("ReduceMax", by_class, output, 2, keepdims=0)
    x = nodes.reduce("ReduceMax", by_class, "head/nearest_above_offset", 2, keepdims=0)
    return nodes.add("Sub", [x, offset], output)


def _add_votes(nodes: Nodes, similarity: _Similarity, head: Head) -> None:
    """Add the votes of the m nearest proxies and of what ties with the last of them.

    ::

        similarity (N,C*K) -> TopK m -> ReduceMin -> last (N,1)
        (similarity >= last) -> Cast [-> Div distance] -> Reshape (N,C,K) -> ReduceL1 -> (N,C)
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
    votes = _by_class(nodes, votes, head, "head/vote_by_class")
    votes = nodes.reduce("ReduceL1", votes, "head/votes", 2, keepdims=0)
    total = nodes.reduce("ReduceL1", votes, "head/all_votes", 1, keepdims=1)
    nodes.add("Div", [votes, total], "scores")


def _add_vote_distance(nodes: Nodes, similarity: _Similarity, head: Head) -> str:
    """Add what each slot's vote is divided by: ``max(distance, floor)``, (N, C*K)."""
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


def _add_vote_ranking(nodes: Nodes, nearest: str) -> str:
    """Add (N, C): the nearest similarity of the classes with most votes, else the lowest."""
    most = nodes.reduce("ReduceMax", "scores", "head/most_votes", 1, keepdims=1)
    tie = nodes.constant("head/share_tie", SHARE_TIE, np.float32)
    enough = nodes.add("Sub", [most, tie], "head/votes_that_tie")
    fewer = nodes.add("Less", ["scores", enough], "head/fewer_votes")
    lowest = nodes.constant("head/lowest", _LOWEST, np.float32)
    return nodes.add("Where", [fewer, lowest, nearest], "head/nearest_of_most_votes")


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
