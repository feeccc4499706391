# SPDX-License-Identifier: Apache-2.0
"""The nodes that compare embeddings with proxies, by every distance and in every precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_export.head.layout import Layout
from edge_imprint_export.head.product import Rounding, add_product, square_sums
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.contract import EPSILON
from edge_imprint_runtime.head import Head

__all__ = ["LOWEST", "Compared", "Similarity", "add_compared", "add_similarity"]

LOWEST = np.finfo(np.float32).min  # not -inf: sums with it stay numbers


@dataclass(frozen=True)
class Compared:
    """What is compared: <x, p>, or 2 <x, p> - |p|^2 where squared distances are.

    Attributes:
        x: Name of the embeddings, (N, F) float32: about the mean proxy and times ``metric``
            where squared distances are compared.
        points: (P, F) float32: the proxies likewise.
        squared: Whether squared distances are compared.
    """

    x: str
    points: npt.NDArray[np.float32]
    squared: bool = False

    def squares(self) -> npt.NDArray[np.float64]:
        """Return (P,): |p|^2."""
        return square_sums(self.points)


@dataclass(frozen=True)
class Similarity:
    """Names of tensors.

    Attributes:
        proxies: (N, S) similarities, or ``offset`` above them.
        offset: (N, 1) what is to be taken off, the same for all proxies; None for nothing.
    """

    proxies: str
    offset: str | None = None


def add_compared(nodes: Nodes, x: str, head: Head) -> Compared:
    """Add what a distance does to embeddings before they meet the proxies: (N, E) -> (N, F).

    cosine: the proxies are normalised beforehand. euclidean, mahalanobis:
    ``-|x - p|^2 = 2 <x, p> - |p|^2 - |x|^2``, both about the mean proxy so that little
    cancels, both times ``metric``; the last term ranks nothing and waits.
    """
    if head.rule.distance not in ("cosine", "euclidean", "mahalanobis"):
        return Compared(x, head.proxies)
    points = head.proxies.astype(np.float64)
    if head.rule.distance == "cosine":
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        return Compared(x, (points / np.maximum(norms, EPSILON)).astype(np.float32))
    mean = nodes.constant("head/mean", points.mean(axis=0), np.float32)
    x = nodes.add("Sub", [x, mean], "head/about_the_mean")
    points -= points.mean(axis=0)
    if head.metric is not None:
        points = points @ head.metric
        metric = nodes.constant("metric", head.metric, np.float32)
        x = nodes.add("MatMul", [x, metric], "head/in_the_metric")
    return Compared(x, points.astype(np.float32), squared=True)


def add_similarity(
    nodes: Nodes,
    compared: Compared,
    head: Head,
    layout: Layout,
    *,
    precision: str,
    dialect: str,
    masked: bool,
) -> Similarity:
    """Add the comparison with every column: (N, F) -> (N, S).

    Args:
        nodes: Where it is added.
        compared: What is compared.
        head: Its rule.
        layout: Of the columns.
        precision: ``fp32``, ``fp16`` or ``int8``.
        dialect: See `add_product`.
        masked: Whether what pads the columns gets the lowest float32.

    Returns:
        The similarities. Under manhattan ``-sum |x - p|``, (N, S, E) numbers on the way.
    """
    masked = masked and bool(layout.padding.any())
    if head.rule.distance == "manhattan":
        return Similarity(_add_manhattan(nodes, compared, layout, masked))
    if precision == "fp32":
        product = _add_full(nodes, compared, layout, masked)
    else:
        add = _add_rounded_square if compared.squared else _add_rounded
        product = add(nodes, compared, layout, masked, Rounding(precision, dialect))
    if not (compared.squared and _needs_offset(head)):
        return Similarity(product)
    square = nodes.reduce("ReduceSumSquare", compared.x, "head/square", 1, keepdims=1)
    return Similarity(product, square)


def _add_full(nodes: Nodes, compared: Compared, layout: Layout, masked: bool) -> str:
    matrix = np.ascontiguousarray(compared.points[layout.rows].T)
    proxies = nodes.constant("proxies", matrix, np.float32)
    bias = _add_bias(nodes, layout, masked, compared.squares() if compared.squared else None)
    terms, name = [compared.x, proxies], "head/similarity"
    if bias is None:
        return nodes.add("MatMul", terms, name)
    alpha = {"alpha": 2.0} if compared.squared else {}
    return nodes.add("Gemm", [*terms, bias], name, **alpha)


def _add_rounded(
    nodes: Nodes, compared: Compared, layout: Layout, masked: bool, rounding: Rounding
) -> str:
    """Add ``<x, p>`` with rounded factors, but for what all proxies have in common.

    With u the direction of the mean proxy, ``<x, p> = <x, u> <p, u> + <x', p'>``, where x' and
    p' are what is left of x and p across u. Only these are rounded: embeddings often lie in a
    narrow cone, and then they are short, and so are the steps.
    """
    points = compared.points
    mean = points.mean(axis=0, dtype=np.float64)
    shared = (mean / max(float(np.sqrt((mean**2).sum())), EPSILON)).astype(np.float32)
    direction = nodes.constant("head/shared", shared[:, np.newaxis], np.float32)
    along = nodes.add("MatMul", [compared.x, direction], "head/along_shared")
    row = nodes.constant("head/shared_row", shared, np.float32)
    part = nodes.add("Mul", [along, row], "head/shared_part")
    x = nodes.add("Sub", [compared.x, part], "head/across_shared")
    # Not by BLAS, whose sums depend on the number of threads: equal heads, equal bytes.
    lengths = np.einsum("ij,j->i", points, shared, dtype=np.float64).astype(np.float32)
    across = points - lengths[:, np.newaxis] * shared
    product, _ = add_product(nodes, x, across, layout.rows, rounding)
    scales = nodes.constant("head/proxy_along_shared", lengths[layout.rows], np.float32)
    part = nodes.add("Mul", [along, scales], "head/shared_product")
    product = nodes.add("Add", [product, part], "head/similarity")
    bias = _add_bias(nodes, layout, masked, None)
    return product if bias is None else nodes.add("Add", [product, bias], "head/masked")


def _add_rounded_square(
    nodes: Nodes, compared: Compared, layout: Layout, masked: bool, rounding: Rounding
) -> str:
    """Add ``2 <x, p> - |p|^2`` for rounded proxies p."""
    product, squares = add_product(
        nodes, compared.x, compared.points, layout.rows, rounding, factor=2.0
    )
    bias = _add_bias(nodes, layout, masked, squares)
    assert bias is not None
    return nodes.add("Add", [product, bias], "head/similarity")


def _add_bias(
    nodes: Nodes, layout: Layout, masked: bool, squares: npt.NDArray[np.float64] | None
) -> str | None:
    """Add (S,) what is added to each column's product, if anything."""
    if squares is None and not masked:
        return None
    bias = np.zeros(len(layout.rows)) if squares is None else -squares[layout.rows]
    bias[layout.padding & masked] = LOWEST
    return nodes.constant("head/mask" if squares is None else "head/squares", bias, np.float32)


def _add_manhattan(nodes: Nodes, compared: Compared, layout: Layout, masked: bool) -> str:
    proxies = nodes.constant("proxies", compared.points[layout.rows], np.float32)
    shape = nodes.constant("head/one_by_one", [0, 1, -1], np.int64)
    x = nodes.add("Reshape", [compared.x, shape], "head/for_each_proxy")
    x = nodes.add("Sub", [x, proxies], "head/gap")
    x = nodes.reduce("ReduceL1", x, "head/distance", 2, keepdims=0)
    mask = np.where(layout.padding, LOWEST, 0) if masked else 0
    zero = nodes.constant("head/mask", mask, np.float32)
    return nodes.add("Sub", [zero, x], "head/similarity")


def _needs_offset(head: Head) -> bool:
    """Tell whether similarities themselves are asked for, and not only their order."""
    rule = head.rule
    votes_alike = rule.aggregation == "mnn" and rule.weighting == "uniform"
    return not votes_alike or head.temperature is not None
