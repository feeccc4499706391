# SPDX-License-Identifier: Apache-2.0
"""A backbone as an ONNX graph: one float32 input ``pixels``, one output ``embedding``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, checker, helper

from edge_imprint_runtime.contract.codec import NOTE_PREFIX
from edge_imprint_runtime.errors import BackboneExportError

__all__ = [
    "EMBEDDING",
    "PIXELS",
    "add_notes",
    "all_graphs",
    "all_nodes",
    "check_graph",
    "default_opset",
    "embedding_size",
    "graphs_of",
    "image_size",
    "parse",
    "tidy",
    "to_bytes",
    "without_weights",
]

PIXELS = "pixels"
EMBEDDING = "embedding"

# ONNX Runtime and TensorRT each refuse files newer than they are, and tools write the newest
# they know: IR 8 is read by all of them, and the opset's own demand may only raise it.
_IR_VERSION = 8
MIN_OPSET = 11
_MAX_BYTES = 2**31 - 1  # protobuf's own limit for one file
_SMALL_BYTES = 65_536  # what may be a shape, and must be there for shapes to be inferred


def parse(data: bytes, where: str) -> onnx.ModelProto:
    """Read an ONNX model from bytes.

    Raises:
        BackboneExportError: The bytes are no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BackboneExportError(f"{where} is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise BackboneExportError(f"{where} is not an ONNX model: it has no nodes")
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Write a model as bytes; equal models give equal bytes.

    Raises:
        BackboneExportError: The model is above the 2 GiB that one ONNX file can hold.
    """
    if model.ByteSize() > _MAX_BYTES:
        raise BackboneExportError(
            f"the model has {model.ByteSize():,} bytes, one ONNX file holds {_MAX_BYTES:,}; "
            "use a smaller backbone"
        )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def default_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    return 0


def embedding_size(model: onnx.ModelProto) -> int:
    """Return D, the length of a backbone graph's embedding."""
    return int(model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)


def image_size(model: onnx.ModelProto) -> tuple[int, int]:
    """Return height and width of a backbone graph's input, pixels (0 where it is dynamic)."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return int(dims[2].dim_value), int(dims[3].dim_value)


def tidy(model: onnx.ModelProto, *, size: int) -> onnx.ModelProto:
    """Bring a backbone's graph into the house's form, in place.

    Node notes of exporters go (they hold file names of the machine that exported), and so do
    nodes and weights that the embedding does not need; names get the prefix ``backbone/`` so
    that nothing can clash, the batch is named N, and IR version and producer are set by hand.

    Args:
        model: One input, one output.
        size: D, the length of its embedding.

    Returns:
        The same model.
    """
    graph = model.graph
    _drop_notes(graph)
    _drop_unused(graph)
    pixels, embedding = graph.input[0].name, graph.output[0].name
    _add_prefix(graph, "backbone/")
    height, width = image_size(model)
    _rename(graph, {f"backbone/{pixels}": PIXELS, f"backbone/{embedding}": EMBEDDING})
    del graph.input[:], graph.output[:]
    shape: list[str | int | None] = ["N", 3, height, width]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, shape))
    graph.output.append(
        helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", size])
    )
    graph.name = "backbone"
    graph.doc_string = model.doc_string = ""
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "edge-imprint", ""
    model.model_version, model.domain = 0, ""
    # Unknown: the domains of other tools, such as ONNX Runtime's own com.microsoft.
    demanded = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(_IR_VERSION, demanded)
    return model


def add_notes(model: onnx.ModelProto, notes: Mapping[str, str]) -> None:
    """Write notes into a model's metadata, beside what is there; see the contract."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties |= {NOTE_PREFIX + name: text for name, text in notes.items()}
    helper.set_model_props(model, dict(sorted(properties.items())))


def check_graph(model: onnx.ModelProto, where: str) -> None:
    """Run ONNX's full check.

    Raises:
        BackboneExportError: The model is not valid.
    """
    try:
        checker.check_model(without_weights(model), full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = " ".join(str(error).split())[:300]
        raise BackboneExportError(f"{where} is not a valid ONNX model: {text}") from error


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model, its large weights as inputs of their type and shape.

    ONNX's check serialises what it is given, and copies that twice more: with 344 MB of
    weights it took longer than all the rest, and four times the memory.

    Args:
        model: Any model; it is left as it is.

    Returns:
        The copy, in which shapes can be inferred as in the model.
    """
    copy = onnx.ModelProto(ir_version=model.ir_version)
    for field in ("opset_import", "metadata_props", "functions"):
        getattr(copy, field).extend(getattr(model, field))
    graph = copy.graph
    graph.name = model.graph.name
    for field in ("input", "output", "value_info", "sparse_initializer"):
        getattr(graph, field).extend(getattr(model.graph, field))
    listed = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if _is_small(tensor):
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(_as_input(tensor, tensor.name))
    for node in model.graph.node:
        constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        large = [
            a.t
            for a in (node.attribute if constant and node.output else ())
            if a.HasField("t") and not _is_small(a.t)
        ]
        if large:
            graph.input.append(_as_input(large[0], node.output[0]))
        else:
            graph.node.append(node)
    return copy


def _is_small(tensor: onnx.TensorProto) -> bool:
    # Not len(raw_data), which copies it.
    item_bytes = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return bool(math.prod(tensor.dims) * item_bytes <= _SMALL_BYTES)


def _as_input(tensor: onnx.TensorProto, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))


def all_nodes(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """Yield a graph's nodes and those of the graphs inside them (If, Loop, Scan)."""
    for part in all_graphs(graph):
        yield from part.node


def all_graphs(graph: onnx.GraphProto) -> Iterable[onnx.GraphProto]:
    """Yield a graph and the graphs inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for subgraph in graphs_of(node):
            yield from all_graphs(subgraph)


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside a node (If, Loop, Scan)."""
    graphs: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        graphs += [attribute.g] if attribute.HasField("g") else []
        graphs += attribute.graphs
    return graphs


def _add_prefix(graph: onnx.GraphProto, prefix: str) -> None:
    # Not onnx.compose.add_prefix (1.23): inside an If or a Loop it renames what is made there,
    # but not what is read from the graph around it.
    for part in all_graphs(graph):
        for node in part.node:
            node.name = node.name and prefix + node.name
            for tensors in (node.input, node.output):
                tensors[:] = [name and prefix + name for name in tensors]  # "": left out
        for entries in (part.initializer, part.input, part.output):
            for entry in entries:
                entry.name = prefix + entry.name
        for sparse in part.sparse_initializer:
            sparse.values.name = prefix + sparse.values.name


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in all_nodes(graph):
        for tensors in (node.input, node.output):
            for position, tensor in enumerate(tensors):
                if tensor in names:
                    tensors[position] = names[tensor]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop what the first output does not need: a classifier behind it, say."""
    needed = {graph.output[0].name}
    kept = []
    for node in reversed(graph.node):  # nodes are in topological order
        if needed.intersection(node.output):
            kept.append(node)
            inside = [inner for part in graphs_of(node) for inner in all_nodes(part)]
            needed.update(name for user in (node, *inside) for name in user.input)
            needed.update(value.name for part in graphs_of(node) for value in part.output)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _drop_notes(graph: onnx.GraphProto) -> None:
    for part in all_graphs(graph):
        part.doc_string = ""
        del part.value_info[:], part.metadata_props[:]
        for entries in (part.node, part.initializer, part.input, part.output):
            for entry in entries:
                entry.doc_string = ""
                if hasattr(entry, "metadata_props"):
                    del entry.metadata_props[:]
