# SPDX-License-Identifier: Apache-2.0
"""A user's own ONNX file -> a backbone graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_imprint_export.backbone.cut import add_pooling, cut
from edge_imprint_export.files.external_data import vet
from edge_imprint_export.files.guard import read_model
from edge_imprint_export.graph import (
    MIN_OPSET,
    check_graph,
    default_opset,
    image_size,
    tidy,
    to_bytes,
)
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError, EdgeImprintError, ModelFileError

__all__ = ["read_backbone", "weight_files"]

_BATCH_TOLERANCE = 1e-4


def read_backbone(path: str | Path, *, tensor: str | None = None) -> onnx.ModelProto:
    """Read an ONNX file as a backbone graph.

    Its one input must be float32 (N, 3, H, W) with known H and W, its first output (N, D) or
    (N, D, 1, 1). A fixed batch is made dynamic; two images are then run together and apart,
    and must give the same.

    Args:
        path: The file; weights beside it (external data) are read too.
        tensor: What is taken as the embedding instead of the first output, any tensor that
            the model computes: (N, D); a map (N, C, h, w) or (N, h, w, C), averaged over h
            and w; or tokens (N, T, C), averaged over T. What follows it is left out.

    Returns:
        The backbone graph.

    Raises:
        BackboneExportError: The file is missing, is no ONNX model, or is not of this form.
        BackboneNotFoundError: There is no such tensor; the message suggests the nearest.
        UnsafeModelError: The file is not sound, or reaches outside its folder; see
            `guard.read_model`.
        MissingPackageError: ONNX Runtime is not installed.
    """
    file = Path(path)
    where = f"the backbone {file}"
    try:
        model = read_model(file, where)
    except ModelFileError as error:
        raise BackboneExportError(str(error)) from error
    if default_opset(model) < MIN_OPSET:
        raise BackboneExportError(
            f"{where} is of opset {default_opset(model)}; export it again with "
            f"opset {MIN_OPSET} or newer"
        )
    _without_initializer_inputs(model.graph)
    _check_input(model.graph, where)
    if tensor is not None:
        cut(model, tensor, where)
    size = _two_dimensions(model, where, pool=tensor is not None)
    model = tidy(model, size=size)
    check_graph(model, where)
    _check_batch(model, where)
    return model


def weight_files(path: str | Path) -> list[Path]:
    """Name the files beside a model that was read in which its weights lie.

    Args:
        path: A file that `read_backbone` has read.

    Returns:
        They, each once; none where all weights are in the file itself.

    Raises:
        ModelFileError: A file is missing by now.
    """
    file = Path(path)
    model = onnx.load_model(file, load_external_data=False)
    spans = vet(model, file.parent, str(file))
    names = [
        e.value for span in spans for e in span.tensor.external_data if e.key == "location"
    ]
    return [file.parent / name for name in dict.fromkeys(names)]


def _without_initializer_inputs(graph: onnx.GraphProto) -> None:
    # Old exporters list each weight among the inputs too.
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)


def _check_input(graph: onnx.GraphProto, where: str) -> None:
    if len(graph.input) != 1 or not graph.output:
        raise BackboneExportError(
            f"{where} has {len(graph.input)} inputs and {len(graph.output)} outputs; "
            "it must have one input, and its first output is taken as the embedding"
        )
    tensor = graph.input[0].type.tensor_type
    dims = [int(dim.dim_value) for dim in tensor.shape.dim]
    if (
        tensor.elem_type != TensorProto.FLOAT
        or len(dims) != 4
        or dims[1] != 3
        or 0 in dims[2:]
    ):
        kind = (
            helper.tensor_dtype_to_string(tensor.elem_type) if tensor.elem_type else "unknown"
        )
        raise BackboneExportError(
            f"{where} takes {kind} {dims}; it must take float32 (N, 3, H, W) "
            "with fixed H and W"
        )


def _two_dimensions(model: onnx.ModelProto, where: str, *, pool: bool) -> int:
    """Make the first output (N, D); returns D."""
    graph = model.graph
    name = graph.output[0].name
    batch, first = _first_output(model, where)
    shape: tuple[int, ...] = first.shape
    if pool:
        if first.dtype != np.float32 or not 2 <= len(shape) <= 4 or shape[0] != batch:
            raise BackboneExportError(
                f"the tensor {name!r} of {where} is {first.dtype} {shape} for {batch} "
                "image(s); only float32 (N, D), (N, C, h, w), (N, h, w, C) and (N, T, C) can "
                "be an embedding, so name another"
            )
        if len(shape) == 2:
            return shape[1]
        height, width = image_size(model)
        return add_pooling(graph, shape, (height, width))
    if len(shape) == 4 and shape[2:] == (1, 1):
        graph.node.append(helper.make_node("Flatten", [name], [f"{name}/flat"], axis=1))
        graph.output[0].name = f"{name}/flat"
        shape = shape[:2]
    if len(shape) != 2:
        raise BackboneExportError(
            f"the first output of {where} has shape {shape}; it must be an embedding (N, D): "
            "export the model with pooled features, or name a tensor in it: onnx:FILE#TENSOR"
        )
    return shape[1]


def _first_output(model: onnx.ModelProto, where: str) -> tuple[int, npt.NDArray[np.generic]]:
    """Run the model once: what a graph declares of its output is often nothing.

    Returns:
        How many images it was given, and its first output for them.
    """
    runner = _runner(model, where)
    shape, _ = next(iter(runner.inputs.values()))
    batch = shape[0] if isinstance(shape[0], int) else 1
    pixels = np.zeros((batch, *shape[1:]), np.float32)
    try:
        return batch, runner.run([next(iter(runner.outputs))], pixels)[0]
    except EdgeImprintError as error:
        raise BackboneExportError(f"{where} does not run: {error}") from error


def _check_batch(model: onnx.ModelProto, where: str) -> None:
    runner = _runner(model, where)
    shape, _ = next(iter(runner.inputs.values()))
    pixels = np.random.default_rng(0).standard_normal((2, *shape[1:])).astype(np.float32)
    names = list(runner.outputs)
    try:
        both = runner.run(names, pixels)[0]
        apart = np.concatenate([runner.run(names, pixels[i : i + 1])[0] for i in range(2)])
    except EdgeImprintError as error:
        raise BackboneExportError(
            f"{where} runs one batch size only; export it with a dynamic batch ({error})"
        ) from error
    # Useless weights may answer infinity or NaN; that is said when a photo is embedded.
    scale = float(np.abs(apart[np.isfinite(apart)]).max(initial=0)) or 1.0
    if both.shape != apart.shape or not np.allclose(
        both, apart, rtol=0, atol=_BATCH_TOLERANCE * scale, equal_nan=True
    ):
        raise BackboneExportError(
            f"{where} answers otherwise for two images than for each alone; "
            "export it with a dynamic batch, in evaluation mode"
        )


def _runner(model: onnx.ModelProto, where: str) -> OrtRunner:
    try:
        return OrtRunner(to_bytes(model), "cpu")
    except EdgeImprintError as error:
        raise BackboneExportError(f"{where} does not load: {error}") from error
