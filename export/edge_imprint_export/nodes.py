# SPDX-License-Identifier: Apache-2.0
"""The nodes around a backbone: preprocessing before it, the head behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_runtime.contract import EPSILON, Preprocess
from edge_imprint_runtime.head import Head

__all__ = ["Nodes", "add_head", "add_preprocess", "padded_proxies", "slots_of"]

# From opset 18 on ReduceMax and ReduceL2 take their axes as an input; before, as an attribute,
# which is the only form that TensorRT 8 reads.
_AXES_INPUT_OPSET = 18


@dataclass
class Nodes:
    """Nodes and constants to be added to a graph of a given opset.

    Attributes:
        opset: The graph's opset; decides how reductions name their axes.
        nodes: In topological order.
        constants: Their initializers.
    """

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add an initializer; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node named after its output; returns that name."""
        name = f"{output}/{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def reduce(self, kind: str, x: str, output: str, axis: int, *, keepdims: int) -> str:
        """Add a reduction over one axis; returns its output's name."""
        if self.opset < _AXES_INPUT_OPSET:
            return self.add(kind, [x], output, axes=[axis], keepdims=keepdims)
        axes = self.constant(f"{output}/axes", [axis], np.int64)
        return self.add(kind, [x, axes], output, keepdims=keepdims)


def add_preprocess(nodes: Nodes, images: str, preprocess: Preprocess, pixels: str) -> None:
    """Add the way from uint8 ``images`` to ``pixels``, the backbone's input.

    ::

        images (N,H,W,3) uint8 -> Cast -> Transpose -> Sub 255*mean -> Mul 1/(255*std)
                                       (N,3,H,W) float32                (N,3,H,W) float32

    Numpy: ``(images.astype(float32).transpose(0, 3, 1, 2) - 255 * mean) / (255 * std)``.
    The Cast comes first because TensorRT takes uint8 at the door only; the arithmetic comes
    after the Transpose because a channel is then one run of memory.
    """
    mean = 255.0 * np.array(preprocess.mean).reshape(1, 3, 1, 1)
    scale = 1.0 / (255.0 * np.array(preprocess.std).reshape(1, 3, 1, 1))
    x = nodes.add("Cast", [images], "preprocess/float", to=TensorProto.FLOAT)
    x = nodes.add("Transpose", [x], "preprocess/nchw", perm=[0, 3, 1, 2])
    center = nodes.constant("preprocess/mean", mean, np.float32)
    x = nodes.add("Sub", [x, center], "preprocess/centered")
    nodes.add("Mul", [x, nodes.constant("preprocess/scale", scale, np.float32)], pixels)


def add_head(nodes: Nodes, embedding: str, head: Head) -> None:
    """Add the way from embeddings to ``scores`` and ``label``.

    ::

        embedding (N,D) -> [Sub center] -> [MatMul transform] -> Div max(ReduceL2, eps)   (N,E)
          -> MatMul proxies (E,C*K) -> Reshape (N,C,K) -> ReduceMax -> scores (N,C) float32
                                                scores -> ArgMax -> Cast -> label (N,) int32

    Numpy: ``(norm((z - center) @ transform) @ proxies).reshape(N, C, K).max(2)``. ArgMax takes
    the first of equal scores, so ties go to the lowest class index, as in the oracle.
    """
    x = embedding
    if head.center is not None:
        center = nodes.constant("center", head.center, np.float32)
        x = nodes.add("Sub", [x, center], "head/centered")
    if head.transform is not None:
        transform = nodes.constant("transform", head.transform, np.float32)
        x = nodes.add("MatMul", [x, transform], "head/transformed")
    if head.rule.embedding_norm == "l2":
        norm = nodes.reduce("ReduceL2", x, "head/norm", 1, keepdims=1)
        epsilon = nodes.constant("head/epsilon", EPSILON, np.float32)
        norm = nodes.add("Max", [norm, epsilon], "head/norm_not_zero")
        x = nodes.add("Div", [x, norm], "head/normalized")
    proxies = nodes.constant("proxies", padded_proxies(head), np.float32)
    x = nodes.add("MatMul", [x, proxies], "head/similarity")
    # -1: the number of classes comes from the matrix, so that a wider one is more classes.
    shape = nodes.constant("head/slots", [0, -1, slots_of(head)], np.int64)
    x = nodes.add("Reshape", [x, shape], "head/similarity_by_class")
    x = nodes.reduce("ReduceMax", x, "scores", 2, keepdims=0)
    x = nodes.add("ArgMax", [x], "head/argmax", axis=1, keepdims=0)
    nodes.add("Cast", [x], "label", to=TensorProto.INT32)


def slots_of(head: Head) -> int:
    """Return K, the number of proxies of the class that has most."""
    return int(np.bincount(head.class_index).max())


def padded_proxies(head: Head) -> npt.NDArray[np.float32]:
    """Lay a head's proxies out as one matrix.

    Args:
        head: C classes of up to K proxies.

    Returns:
        (E, C*K) float32; column ``c*K + k`` is proxy k of class c. A class with fewer than K
        repeats its first, which changes nothing under the maximum.
    """
    slots = slots_of(head)
    counts = np.bincount(head.class_index)
    first = np.cumsum(counts) - counts
    slot = np.arange(slots)[np.newaxis]
    rows = first[:, np.newaxis] + np.where(slot < counts[:, np.newaxis], slot, 0)
    return np.ascontiguousarray(head.proxies[rows.ravel()].T)
