# SPDX-License-Identifier: Apache-2.0
"""Graph surgery: preprocessing, backbone and head become one model. No torch, no tracing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_imprint_export.graph import (
    EMBEDDING,
    PIXELS,
    all_nodes,
    check_graph,
    default_opset,
    embedding_size,
    image_size,
    parse,
    to_bytes,
)
from edge_imprint_export.head_nodes import add_head, slots_of
from edge_imprint_export.nodes import Nodes, add_preprocess
from edge_imprint_runtime.contract import GraphInfo, Preprocess, encode
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    ParameterError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.head import Head

__all__ = ["OUTPUTS", "embedder", "fuse", "headless", "save"]

OUTPUTS = ("scores", "label", "embedding")


def fuse(
    backbone_onnx: bytes | onnx.ModelProto,
    head: Head,
    *,
    input: str = "uint8",
    teachable: bool = False,
    outputs: Sequence[str] = ("scores", "label"),
) -> onnx.ModelProto:
    """Make one model of a backbone and a head. Equal arguments give equal bytes.

    Args:
        backbone_onnx: A backbone graph (``pixels`` -> ``embedding``), as a backbone's ``onnx``
            gives it. A `ModelProto` is changed in place.
        head: A head that names its backbone and preprocessing.
        input: ``uint8``: images (N, H, W, 3) RGB, preprocessing in the graph; ``float32``:
            (N, 3, H, W) RGB, normalised by the caller.
        teachable: Not in this release.
        outputs: ``scores`` (N, C) float32 and ``label`` (N,) int32, optionally ``embedding``
            (N, D) float32. A calibrated head adds ``known`` (N,) int32, 1 or 0, and
            ``probability`` (N, C) float32.

    Returns:
        The model; it passes ONNX's full check and carries the contract as metadata.

    Raises:
        ParameterError: ``input`` or ``outputs`` are not among these.
        UnsupportedOptionError: ``teachable`` is asked for.
        BackboneMismatchError: The head names no backbone, or does not fit this one.
        BackboneExportError: The graph is not valid.
    """
    _check_options(input, teachable, outputs)
    if head.backbone is None:
        raise BackboneMismatchError(
            "the head does not say which backbone and preprocessing it belongs to; "
            "make it with edge_imprint.build, or give Head(..., backbone=...)"
        )
    model = _parsed(backbone_onnx)
    _check_fit(model, head, head.backbone.preprocess)
    nodes = Nodes(default_opset(model))
    add_head(nodes, EMBEDDING, head)
    _append(model, nodes)
    if input == "uint8":
        _open_to_uint8(model, head.backbone.preprocess)
    else:
        _rename_input(model)
    graph = model.graph
    size = embedding_size(model)
    declared: dict[str, tuple[int, list[str | int | None]]] = {
        "scores": (TensorProto.FLOAT, ["N", len(head.labels)]),
        "label": (TensorProto.INT32, ["N"]),
        "known": (TensorProto.INT32, ["N"]),
        "probability": (TensorProto.FLOAT, ["N", len(head.labels)]),
        "embedding": (TensorProto.FLOAT, ["N", size]),
    }
    wanted = {*outputs, *(() if head.temperature is None else ("known", "probability"))}
    del graph.output[:]
    for name, (kind, shape) in declared.items():
        if name in wanted:
            graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    contract = replace(head.contract, graph=GraphInfo(input, slots_of(head)))
    _finish(model, "edge_imprint", dict(sorted(encode(contract).items())))
    return model


def embedder(
    backbone_onnx: bytes | onnx.ModelProto, preprocess: Preprocess
) -> onnx.ModelProto:
    """Make the part of a fused model that ends at the embedding.

    What a host embeds with is then, node for node, what a device runs.

    Args:
        backbone_onnx: A backbone graph. A `ModelProto` is changed in place.
        preprocess: From pixels to its input.

    Returns:
        A model from ``images`` (N, H, W, 3) uint8 RGB to ``embedding`` (N, D) float32.

    Raises:
        BackboneExportError: The graph is not valid.
    """
    model = _parsed(backbone_onnx)
    _open_to_uint8(model, preprocess)
    _finish(model, "embedder", {})
    return model


def headless(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the head off a fused model, to measure what it costs.

    Args:
        model: What `fuse` made; it is left as it is.

    Returns:
        The same model up to the output ``embedding``, without metadata.

    Raises:
        BackboneMismatchError: The graph has no tensor ``embedding``.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    made_by = [i for i, node in enumerate(graph.node) if EMBEDDING in node.output]
    if not made_by:
        raise BackboneMismatchError("the model has no embedding; export it with edge-imprint")
    # fuse appends the head's nodes, so all that follows belongs to it.
    del graph.node[made_by[0] + 1 :]
    used = {name for node in all_nodes(graph) for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.output[:]
    graph.initializer.extend(kept)
    graph.output.append(
        helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", None])
    )
    _finish(cut, "headless", {})
    return cut


def save(model: onnx.ModelProto, path: str | Path, *, force: bool = False) -> Path:
    """Write a model as one self-contained file, atomically.

    Args:
        model: What `fuse` made.
        path: The file.
        force: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        OutputExistsError: The file is there and ``force`` is false.
        OutputWriteError: It can't be written.
        BackboneExportError: The model is above 2 GiB.
    """
    return write_atomic(path, to_bytes(model), force=force)


def _check_options(input_form: str, teachable: bool, outputs: Sequence[str]) -> None:
    if input_form not in ("uint8", "float32"):
        if input_form == "frame":
            raise UnsupportedOptionError(
                "input='frame' is not available in this release; use 'uint8' or 'float32'"
            )
        raise ParameterError(f"input must be 'uint8' or 'float32', got {input_form!r}")
    if teachable:
        raise UnsupportedOptionError("teachable=True is not available in this release")
    if set(outputs) - set(OUTPUTS) or not {"scores", "label"} <= set(outputs):
        raise ParameterError(
            f"outputs must hold 'scores' and 'label', and may hold 'embedding', got {outputs}"
        )


def _parsed(backbone_onnx: bytes | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(backbone_onnx, bytes):
        return parse(backbone_onnx, "the backbone")
    return backbone_onnx


def _check_fit(model: onnx.ModelProto, head: Head, preprocess: Preprocess) -> None:
    names = [model.graph.input[0].name, model.graph.output[0].name]
    if names != [PIXELS, EMBEDDING]:
        raise BackboneMismatchError(
            f"a backbone graph goes from {PIXELS!r} to {EMBEDDING!r}, this one from "
            f"{names[0]!r} to {names[1]!r}; load it with load_backbone('onnx:FILE')"
        )
    if embedding_size(model) != head.embedding_size:
        raise BackboneMismatchError(
            f"the backbone's embeddings have {embedding_size(model)} numbers, "
            f"the head takes {head.embedding_size}; build the head with this backbone"
        )
    if image_size(model) != (preprocess.height, preprocess.width):
        raise BackboneMismatchError(
            f"the backbone takes {image_size(model)} pixels, the head's preprocessing makes "
            f"{(preprocess.height, preprocess.width)}; build the head with this backbone"
        )


def _append(model: onnx.ModelProto, nodes: Nodes) -> None:
    model.graph.node.extend(nodes.nodes)
    model.graph.initializer.extend(nodes.constants)


def _open_to_uint8(model: onnx.ModelProto, preprocess: Preprocess) -> None:
    graph, nodes = model.graph, Nodes(default_opset(model))
    add_preprocess(nodes, "images", preprocess, PIXELS)
    backbone = list(graph.node)
    del graph.node[:]
    _append(model, nodes)
    graph.node.extend(backbone)
    del graph.input[:]
    shape: list[str | int | None] = ["N", preprocess.height, preprocess.width, 3]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))


def _rename_input(model: onnx.ModelProto) -> None:
    for node in all_nodes(model.graph):
        for position, name in enumerate(node.input):
            if name == PIXELS:
                node.input[position] = "images"
    model.graph.input[0].name = "images"


def _finish(model: onnx.ModelProto, name: str, metadata: dict[str, str]) -> None:
    model.graph.name = name
    helper.set_model_props(model, metadata)
    check_graph(model, "the fused model")
