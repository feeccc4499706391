# SPDX-License-Identifier: Apache-2.0
"""Nodes to be added to a graph, and those before a backbone: preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_runtime.contract import Preprocess

__all__ = ["Nodes", "add_normalize", "add_preprocess"]

# From opset 18 on reductions take their axes as an input; before, as an attribute, which is
# the only form that TensorRT 8 reads. ReduceSum alone changed at 13: the sum of what is not
# negative is ReduceL1.
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

    def add(
        self, kind: str, inputs: Sequence[str], output: str | list[str], **attributes: Any
    ) -> str:
        """Add a node named after its (first) output; returns that name."""
        outputs = [output] if isinstance(output, str) else output
        name = f"{outputs[0]}/{kind}"
        self.nodes.append(helper.make_node(kind, inputs, outputs, name, **attributes))
        return outputs[0]

    def reduce(self, kind: str, x: str, output: str, axis: int, *, keepdims: int) -> str:
        """Add a reduction over one axis; returns its output's name."""
        if self.opset < _AXES_INPUT_OPSET:
            return self.add(kind, [x], output, axes=[axis], keepdims=keepdims)
        axes = self.constant(f"{output}/axes", [axis], np.int64)
        return self.add(kind, [x, axes], output, keepdims=keepdims)

    def not_less(self, x: str, y: str, output: str) -> str:
        """Add ``x >= y``, which is a node of its own from opset 12 on."""
        if self.opset >= 12:
            return self.add("GreaterOrEqual", [x, y], output)
        return self.add("Not", [self.add("Less", [x, y], f"{output}_not")], output)


def add_preprocess(nodes: Nodes, images: str, preprocess: Preprocess, pixels: str) -> None:
    """Add the way from uint8 ``images`` to ``pixels``, the backbone's input.

    ::

        images (N,H,W,3) uint8 -> Cast -> Transpose -> Sub 255*mean -> Mul 1/(255*std)
                                       (N,3,H,W) float32                (N,3,H,W) float32

    Numpy: ``(images.astype(float32).transpose(0, 3, 1, 2) - 255 * mean) / (255 * std)``.
    The Cast comes first because TensorRT takes uint8 at the door only; the arithmetic comes
    after the Transpose because a channel is then one run of memory.
    """
    x = nodes.add("Cast", [images], "preprocess/float", to=TensorProto.FLOAT)
    x = nodes.add("Transpose", [x], "preprocess/nchw", perm=[0, 3, 1, 2])
    add_normalize(nodes, x, preprocess, pixels)


def add_normalize(nodes: Nodes, x: str, preprocess: Preprocess, pixels: str) -> None:
    """Add the mean and the standard deviation: from 0..255 to ``pixels``.

    Args:
        nodes: What to add to.
        x: (N, 3, H, W) float32 RGB, 0..255.
        preprocess: Mean and standard deviation.
        pixels: The name of ``(x - 255 * mean) / (255 * std)``, the backbone's input.
    """
    mean = 255.0 * np.array(preprocess.mean).reshape(1, 3, 1, 1)
    scale = 1.0 / (255.0 * np.array(preprocess.std).reshape(1, 3, 1, 1))
    center = nodes.constant("preprocess/mean", mean, np.float32)
    x = nodes.add("Sub", [x, center], "preprocess/centered")
    nodes.add("Mul", [x, nodes.constant("preprocess/scale", scale, np.float32)], pixels)
