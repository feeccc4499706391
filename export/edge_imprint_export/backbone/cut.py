# SPDX-License-Identifier: Apache-2.0
"""An embedding from inside a graph: cut at a tensor, averaged over space or tokens."""

from __future__ import annotations

import difflib
import math

import onnx
from onnx import helper

from edge_imprint_export.graph import all_nodes, graphs_of
from edge_imprint_runtime.errors import BackboneExportError, BackboneNotFoundError

__all__ = ["add_pooling", "cut", "spatial_axes"]

_MOST_NAMED = 3


def cut(model: onnx.ModelProto, tensor: str, where: str) -> None:
    """Make a tensor the one output of a model, in place; what follows it stays unused.

    Args:
        model: One input.
        tensor: Its name, as in the file.
        where: What messages call the model.

    Raises:
        BackboneNotFoundError: The model computes no such tensor; the nearest are named.
        BackboneExportError: The tensor does not depend on the image.
    """
    graph = model.graph
    made = [name for node in graph.node for name in node.output if name]
    if tensor not in made:
        near = difflib.get_close_matches(tensor, made, n=_MOST_NAMED, cutoff=0.5)
        raise BackboneNotFoundError(
            f"{where} computes no tensor {tensor!r}; "
            f"nearest: {', '.join(near or made[-_MOST_NAMED:])}"
        )
    reached = {graph.input[0].name}
    for node in graph.node:
        inside = [inner for part in graphs_of(node) for inner in all_nodes(part)]
        if any(name in reached for user in (node, *inside) for name in user.input):
            reached.update(node.output)
    if tensor not in reached:
        raise BackboneExportError(
            f"the tensor {tensor!r} of {where} is the same for all images; name another"
        )
    del graph.output[:]
    graph.output.append(onnx.ValueInfoProto(name=tensor))  # of a type that is not known yet


def add_pooling(graph: onnx.GraphProto, shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Average a graph's first output over space or tokens, in place.

    ::

        (N, C, h, w) -------------------> GlobalAveragePool -> Flatten -> (N, C)
        (N, h, w, C) -> Transpose ------> GlobalAveragePool -> Flatten -> (N, C)
        (N, T, C) ----> Transpose ------> GlobalAveragePool -> Flatten -> (N, C)

    Args:
        graph: Its first output becomes the average.
        shape: Of its first output.
        size: Height and width of the network's input, pixels.

    Returns:
        C.
    """
    name = graph.output[0].name
    taken = {made for node in graph.node for made in node.output}
    # A name that nobody has: the longest there is, and more.
    stem = max(taken, key=len) + "/pool"
    perm = [0, 2, 1]
    if len(shape) == 4:
        perm = [0, 1, 2, 3] if spatial_axes(shape, size) == (2, 3) else [0, 3, 1, 2]
    if perm != sorted(perm):
        turned = f"{stem}/channels_first"
        graph.node.append(helper.make_node("Transpose", [name], [turned], perm=perm))
        name = turned
    graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{stem}/mean"]))
    graph.node.append(helper.make_node("Flatten", [f"{stem}/mean"], [f"{stem}/flat"], axis=1))
    graph.output[0].name = f"{stem}/flat"
    return shape[perm[1]]


def spatial_axes(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Tell which two axes of a map are height and width.

    They are the two whose ratio is that of the input, up to the rounding of one cell;
    (N, C, h, w) where both would do.

    Args:
        shape: (N, C, h, w) or (N, h, w, C), none of them 0.
        size: Height and width of the network's input, pixels.

    Returns:
        (2, 3) or (1, 2).
    """
    aspect = math.log(size[0] / size[1])

    def off(high: int, wide: int) -> float:
        return max(0.0, abs(math.log(high / wide) - aspect) - math.log1p(1 / min(high, wide)))

    return (1, 2) if off(*shape[1:3]) < off(*shape[2:4]) else (2, 3)
