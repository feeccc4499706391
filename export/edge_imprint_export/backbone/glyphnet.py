# SPDX-License-Identifier: Apache-2.0
"""A plain stack of convolutions, such as GlyphNet, written as ONNX without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_imprint_export.graph import EMBEDDING, PIXELS, tidy
from edge_imprint_export.nodes import Nodes

__all__ = ["conv_stack"]

_OPSET = 17


def conv_stack(
    layers: Sequence[tuple[int, bool]],
    weights: Mapping[str, npt.NDArray[np.float32]],
    *,
    image_size: int,
    pool_size: int | None,
) -> onnx.ModelProto:
    """Write 3x3 convolutions, an average pooling and a flattening as a backbone graph.

    ::

        pixels (N,3,S,S) -> [Conv 3x3, padding 1, stride s -> [Relu]] * L
          -> AveragePool (p x p, stride p), or GlobalAveragePool
          -> Flatten -> embedding (N,D)

    Args:
        layers: Stride of each convolution, and whether a ReLU follows.
        weights: float32 ``conv{i}.weight`` (out, in, 3, 3) and ``conv{i}.bias`` (out,).
        image_size: S, pixels.
        pool_size: p, pixels of the last map; None for the whole map.

    Returns:
        The backbone graph.
    """
    nodes = Nodes(_OPSET)
    x, side = PIXELS, image_size
    for index, (stride, relu) in enumerate(layers):
        name = f"conv{index}"
        w = nodes.constant(f"{name}.weight", weights[f"{name}.weight"], np.float32)
        b = nodes.constant(f"{name}.bias", weights[f"{name}.bias"], np.float32)
        shape = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
        x = nodes.add("Conv", [x, w, b], name, **shape)
        x = nodes.add("Relu", [x], f"{name}.relu") if relu else x
        side = (side - 1) // stride + 1
    if pool_size is None:
        x, cells = nodes.add("GlobalAveragePool", [x], "pool"), 1
    else:
        pool = [pool_size, pool_size]
        x = nodes.add("AveragePool", [x], "pool", kernel_shape=pool, strides=pool)
        cells = (side // pool_size) ** 2
    nodes.add("Flatten", [x], EMBEDDING, axis=1)
    size = len(weights[f"conv{len(layers) - 1}.bias"]) * cells
    graph = helper.make_graph(
        nodes.nodes,
        "backbone",
        [
            helper.make_tensor_value_info(
                PIXELS, TensorProto.FLOAT, ["N", 3, image_size, image_size]
            )
        ],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", size])],
        nodes.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    return tidy(model, size=size)
