# SPDX-License-Identifier: Apache-2.0
"""What stands before a head: the input, preprocessing and the backbone."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edge_imprint_export.frames.nodes import add_frame
from edge_imprint_export.graph import (
    PIXELS,
    all_nodes,
    check_graph,
    default_opset,
    parse,
)
from edge_imprint_export.nodes import Nodes, add_normalize, add_preprocess
from edge_imprint_runtime.contract import Frame, Preprocess
from edge_imprint_runtime.contract.spec import check_choice
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.frames import frame_shape

__all__ = [
    "INPUTS",
    "append",
    "check_input",
    "embedder",
    "finish",
    "open_input",
    "parsed",
]

INPUTS = ("uint8", "float32", "frame")


def embedder(
    backbone_onnx: bytes | onnx.ModelProto,
    preprocess: Preprocess,
    *,
    input: str = "uint8",
    frame: Frame | None = None,
) -> onnx.ModelProto:
    """Make the part of a fused model that ends at the embedding.

    What a host embeds with is then, node for node, what a device runs.

    Args:
        backbone_onnx: A backbone graph. A `ModelProto` is changed in place.
        preprocess: From pixels to its input.
        input: As in `fuse`.
        frame: As in `fuse`.

    Returns:
        A model from ``images`` to ``embedding`` (N, D) float32.

    Raises:
        BackboneExportError: The graph is not valid.
    """
    check_input(input, frame)
    model = parsed(backbone_onnx)
    open_input(model, input, preprocess, frame)
    finish(model, "embedder", {})
    return model


def check_input(input_form: str, frame: Frame | None) -> None:
    """Refuse what `fuse` would refuse as ``input`` and ``frame``.

    Raises:
        ParameterError: There is no such input, or only one of both is given.
    """
    check_choice("input", input_form, INPUTS)
    if (frame is not None) != (input_form == "frame"):
        raise ParameterError(
            "input='frame' and a frame go together; give both, such as "
            "frame=Frame('rgb', 720, 1280), or neither"
        )


def parsed(backbone_onnx: bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Return a backbone graph that may come as bytes."""
    if isinstance(backbone_onnx, bytes):
        return parse(backbone_onnx, "the backbone")
    return backbone_onnx


def append(model: onnx.ModelProto, nodes: Nodes) -> None:
    """Put nodes behind those of a model."""
    model.graph.node.extend(nodes.nodes)
    model.graph.initializer.extend(nodes.constants)


def open_input(
    model: onnx.ModelProto, input_form: str, preprocess: Preprocess, frame: Frame | None
) -> None:
    """Put what leads to the backbone's pixels before it."""
    if input_form == "float32":
        _rename_input(model)
        return
    graph, nodes = model.graph, Nodes(default_opset(model))
    shape: list[str | int | None] = ["N", preprocess.height, preprocess.width, 3]
    if frame is None:
        add_preprocess(nodes, "images", preprocess, PIXELS)
    else:
        pixels = add_frame(nodes, "images", frame, preprocess, "preprocess/resized")
        add_normalize(nodes, pixels, preprocess, PIXELS)
        sides: tuple[int | str, ...] = frame_shape(frame)
        shape = ["N", *(("height", "width", 3) if frame.any_size else sides)]
    backbone = list(graph.node)
    del graph.node[:]
    append(model, nodes)
    graph.node.extend(backbone)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))


def _rename_input(model: onnx.ModelProto) -> None:
    for node in all_nodes(model.graph):
        for position, name in enumerate(node.input):
            if name == PIXELS:
                node.input[position] = "images"
    model.graph.input[0].name = "images"


def finish(model: onnx.ModelProto, name: str, metadata: dict[str, str]) -> None:
    """Name a model, give it its metadata, and run ONNX's full check.

    Raises:
        BackboneExportError: The model is not valid.
    """
    model.graph.name = name
    helper.set_model_props(model, metadata)
    check_graph(model, "the fused model")
