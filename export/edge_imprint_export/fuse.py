# SPDX-License-Identifier: Apache-2.0
"""Graph surgery: preprocessing, backbone and head become one model. No torch, no tracing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_imprint_export.frontend import append, check_input, finish, open_input, parsed
from edge_imprint_export.graph import (
    EMBEDDING,
    PIXELS,
    default_opset,
    embedding_size,
    image_size,
    to_bytes,
)
from edge_imprint_export.head.layout import slots_of
from edge_imprint_export.head.nodes import add_head
from edge_imprint_export.head.teachable import make_teachable
from edge_imprint_export.nodes import Nodes
from edge_imprint_export.precision.int8 import int8_dialect
from edge_imprint_export.targets.records import target as find_target
from edge_imprint_runtime.class_tensors import profile_note
from edge_imprint_runtime.contract import Frame, GraphInfo, Preprocess, Teachable, encode
from edge_imprint_runtime.contract.spec import HEAD_PRECISIONS, PRECISIONS, check_choice
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    NotCalibratedError,
    ParameterError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.head import Head

__all__ = ["OUTPUTS", "form_for", "fuse", "fuse_head", "save"]

OUTPUTS = ("scores", "label", "embedding", "proxy", "known", "probability")
# A backbone's dialect of int8: a head's.
_DIALECTS = {
    "portable": "portable",
    "tensorrt-8": "portable",
    "tensorrt": "tensorrt",
    "onnxruntime": "onnxruntime",
}
_CALIBRATED = ("known", "probability")
_HEAD_OPSET = 17  # of a head alone; behind a backbone it takes the backbone's


def fuse(
    backbone_onnx: bytes | onnx.ModelProto,
    head: Head,
    *,
    input: str = "uint8",
    frame: Frame | None = None,
    teachable: bool | Teachable = False,
    outputs: Sequence[str] = ("scores", "label"),
    target: str = "portable",
    precision: str = "fp32",
    head_precision: str = "fp32",
    notes: Sequence[tuple[str, str]] = (),
) -> onnx.ModelProto:
    """Make one model of a backbone and a head. Equal arguments give equal bytes.

    Args:
        backbone_onnx: A backbone graph (``pixels`` -> ``embedding``), as a backbone's ``onnx``
            gives it, brought into the target's form and precision by `lower`, `to_half` and
            `to_int8`. A `ModelProto` is changed in place.
        head: A head that names its backbone and preprocessing.
        input: ``uint8``: images (N, H, W, 3) RGB, preprocessing in the graph; ``float32``:
            (N, 3, H, W) RGB, normalised by the caller; ``frame``: a camera's frames, crop and
            resize in the graph too.
        frame: What the camera delivers, with ``input="frame"``.
        teachable: Whether the proxies can be replaced at run time, and within which limits;
            True: `Teachable`'s own, in the form that the target takes.
        outputs: ``scores`` (N, C) float32 and ``label`` (N,) int32, optionally ``embedding``
            (N, D) float32 and ``proxy`` (N,) int32, the label's nearest proxy. A calibrated
            head adds ``known`` (N,) int32, 1 or 0, and ``probability`` (N, C) float32.
        target: What it is for; see `edge_imprint_export.targets.records`.
        precision: Of the backbone graph, as it is: ``fp32``, ``fp16`` or ``int8``.
        head_precision: Of the product with the proxies: ``fp32``, ``fp16``, ``int8``, or
            ``exact``: int8, and the best classes once more in float32.
        notes: (name, text) to be written beside the contract.

    Returns:
        The model; it passes ONNX's full check and carries the contract as metadata.

    Raises:
        ParameterError: An option is not among these, or two contradict each other.
        UnsupportedOptionError: The head's rule can't be had in this form.
        NotCalibratedError: ``known`` or ``probability`` of a head that is not calibrated.
        BackboneMismatchError: The head names no backbone, or does not fit this one.
        BackboneExportError: The graph is not valid.
    """
    check_input(input, frame)
    check_choice("precision", precision, PRECISIONS)
    check_choice("head_precision", head_precision, HEAD_PRECISIONS)
    if head.backbone is None:
        raise BackboneMismatchError(
            "the head does not say which backbone and preprocessing it belongs to; "
            "make it with edge_imprint.build, or give Head(..., backbone=...)"
        )
    model = parsed(backbone_onnx)
    _check_fit(model, head, head.backbone.preprocess)
    taught = _teachable(teachable, target, head_precision)
    info = GraphInfo(input, slots_of(head), precision, head_precision, target, frame, taught)
    nodes = Nodes(default_opset(model))
    _add_head(nodes, head, info, outputs)
    append(model, nodes)
    open_input(model, input, head.backbone.preprocess, frame)
    _finish_head(model, head, info, outputs, notes, "edge_imprint")
    return model


def fuse_head(
    head: Head,
    *,
    teachable: bool | Teachable = False,
    outputs: Sequence[str] = ("scores", "label"),
    target: str = "portable",
    head_precision: str = "fp32",
    notes: Sequence[tuple[str, str]] = (),
) -> onnx.ModelProto:
    """Make a model of a head alone: embeddings in, label out.

    Args:
        head: Any head.
        teachable: As in `fuse`.
        outputs: As in `fuse`, without ``embedding``.
        target: As in `fuse`.
        head_precision: As in `fuse`.
        notes: As in `fuse`.

    Returns:
        The model; its input ``embedding`` is (N, D) float32, finite.

    Raises:
        ParameterError, UnsupportedOptionError, NotCalibratedError: As in `fuse`.
    """
    if "embedding" in outputs:
        raise ParameterError("a head alone has the embedding as its input, not as an output")
    check_choice("head_precision", head_precision, HEAD_PRECISIONS)
    info = GraphInfo(
        "embedding",
        slots_of(head),
        head_precision=head_precision,
        target=target,
        teachable=_teachable(teachable, target, head_precision),
    )
    nodes = Nodes(_HEAD_OPSET)
    _add_head(nodes, head, info, outputs)
    shape: list[str | int | None] = ["N", head.embedding_size]
    graph = helper.make_graph(
        nodes.nodes,
        "head",
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, shape)],
        [],
        nodes.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _HEAD_OPSET)],
        ir_version=8,
        producer_name="edge-imprint",
    )
    _finish_head(model, head, info, outputs, notes, "head")
    return model


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


def form_for(target: str) -> str:
    """Return the form of a teachable model for a target; see `Teachable`."""
    # TensorRT takes what has a default for a constant.
    found = find_target(target)
    return "default" if target == "portable" or found.tensorrt is None else "input"


def _teachable(asked: bool | Teachable, target: str, head_precision: str) -> Teachable | None:
    form = form_for(target)
    if asked and head_precision != "fp32":
        raise UnsupportedOptionError(
            "the proxies of a teachable model are fp32, got head precision "
            f"{head_precision!r}; leave one of both out"
        )
    if isinstance(asked, Teachable):
        if asked.form == "default" and form == "input":
            raise UnsupportedOptionError(
                "TensorRT takes what has a default for a constant, so that a teachable model "
                f"for {target} can't have the form 'default'; take the form 'input', or the "
                "target portable"
            )
        return asked
    return Teachable(form) if asked else None


def _add_head(nodes: Nodes, head: Head, info: GraphInfo, outputs: Sequence[str]) -> None:
    if set(outputs) - set(OUTPUTS) or not {"scores", "label"} <= set(outputs):
        raise ParameterError(
            "outputs must hold 'scores' and 'label', and may hold "
            f"{', '.join(map(repr, OUTPUTS[2:]))}, got {tuple(outputs)}"
        )
    if head.temperature is None and set(outputs) & set(_CALIBRATED):
        raise NotCalibratedError(
            "the head is not calibrated, so that a model of it has no output 'known' or "
            "'probability'; build it with --calibrate"
        )
    add_head(
        nodes,
        EMBEDDING,
        head,
        precision=info.head_precision,
        dialect=_DIALECTS[int8_dialect(find_target(info.target))],
        outputs=outputs,
        slots=None if info.teachable is None else _taught_slots(head, info.teachable),
    )


def _taught_slots(head: Head, teachable: Teachable) -> int:
    return slots_of(head) + teachable.taught_proxies


def _finish_head(
    model: onnx.ModelProto,
    head: Head,
    info: GraphInfo,
    outputs: Sequence[str],
    notes: Sequence[tuple[str, str]],
    name: str,
) -> None:
    """Declare the outputs, open the proxies where they can be taught, write the contract."""
    graph, classes = model.graph, len(head.labels)
    declared: dict[str, tuple[int, list[str | int | None]]] = {
        "scores": (TensorProto.FLOAT, ["N", classes]),
        "label": (TensorProto.INT32, ["N"]),
        "known": (TensorProto.INT32, ["N"]),
        "probability": (TensorProto.FLOAT, ["N", classes]),
        "proxy": (TensorProto.INT32, ["N"]),
        "embedding": (TensorProto.FLOAT, ["N", head.embedding_size]),
    }
    wanted = {*outputs, *(() if head.temperature is None else _CALIBRATED)}
    del graph.output[:]
    for output, (kind, shape) in declared.items():
        if output in wanted:
            graph.output.append(helper.make_tensor_value_info(output, kind, shape))
    teachable = info.teachable
    if teachable is not None:
        info = replace(info, slots=_taught_slots(head, teachable))
        make_teachable(model, head, teachable)
        if teachable.form == "input":  # TensorRT compiles for a range of shapes
            profile = profile_note(head, info.slots, teachable.max_classes)
            notes = [*notes, ("profile", profile)]
    contract = replace(
        head.contract,
        graph=info,
        notes=tuple(sorted({**dict(head.contract.notes), **dict(notes)}.items())),
    )
    finish(model, name, dict(sorted(encode(contract).items())))


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
