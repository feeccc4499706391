# SPDX-License-Identifier: Apache-2.0
"""Models whose classes change at run time: constants become inputs, and back.

An initializer that is also a graph input has a default and can be replaced at each call, with
more columns too where its declared dimension is a name. ONNX Runtime knows that; TensorRT does
not, and there the same tensors are inputs without a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import EMBEDDING, check_graph
from edge_imprint_export.head.layout import slots_of
from edge_imprint_runtime.class_tensors import (
    CLASSES,
    ClassTensor,
    check_head,
    class_tensors,
)
from edge_imprint_runtime.contract import Contract, GraphInfo, Teachable, decode, encode
from edge_imprint_runtime.errors import NotTeachableError, UnsupportedOptionError
from edge_imprint_runtime.head import Head

__all__ = ["bake", "make_teachable"]


def make_teachable(model: onnx.ModelProto, head: Head, teachable: Teachable) -> None:
    """Turn a head's constants into inputs, in place, and the embedding into an output.

    Args:
        model: A model whose head was made by ``add_head(..., slots=K)``, K being the proxies
            of the class that has most and those that may be taught; its outputs declared.
        head: The head.
        teachable: Under ``default`` the head's numbers stay in the file, under ``input`` they
            don't.

    Raises:
        UnsupportedOptionError: ``proxy`` is an output: it would number slots.
    """
    graph = model.graph
    if any(value.name == "proxy" for value in graph.output):
        raise UnsupportedOptionError(
            "a teachable model can't give the output 'proxy', whose numbers change with what "
            "is taught; leave one of both out"
        )
    slots = slots_of(head) + teachable.taught_proxies
    tensors = class_tensors(head, slots)
    _drop_constants(graph, tensors)
    for name, tensor in tensors.items():
        if teachable.form == "default":
            graph.initializer.append(numpy_helper.from_array(tensor.values, name))
        graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(tensor.shape))
        )
    _declare_classes(graph, CLASSES)
    made = any(EMBEDDING in node.output for node in graph.node)
    if made and not any(value.name == EMBEDDING for value in graph.output):
        # What is taught is what the backbone gives.
        shape: list[str | int | None] = ["N", head.embedding_size]
        graph.output.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, shape))


def bake(model: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Make an ordinary model of a teachable one and a head: its classes become constants.

    The metadata's proof goes: it was of the classes that the model was exported with. So does
    its profile: no class tensor is an input any more.

    Args:
        model: A teachable model; it is changed in place.
        head: What it is to know, as `edge_imprint_runtime.teaching` gave it.

    Returns:
        The same model with one input, as many slots as the head needs, and its labels.

    Raises:
        NotTeachableError: The model is not teachable.
        HeadMismatchError: The head does not fit it.
        BackboneExportError: The result is not valid.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    contract = decode(metadata, model=True, where="the model")
    if contract.graph is None or contract.graph.teachable is None:
        raise NotTeachableError(
            "the model was exported without --teachable, so that its classes can't change; "
            "export it again with it"
        )
    check_head(head, contract, "the head")
    slots = slots_of(head)
    tensors, graph = class_tensors(head, slots), model.graph
    _drop_constants(graph, tensors)
    kept = [value for value in graph.input if value.name not in tensors]
    del graph.input[:]
    graph.input.extend(kept)
    for name, tensor in tensors.items():
        graph.initializer.append(numpy_helper.from_array(tensor.values, name))
    _set_slots(graph, slots)
    _declare_classes(graph, len(head.labels))
    baked = _baked(contract, contract.graph, head, slots)
    helper.set_model_props(model, dict(sorted(encode(baked).items())))
    check_graph(model, "the baked model")
    return model


def _baked(contract: Contract, graph: GraphInfo, head: Head, slots: int) -> Contract:
    return replace(
        head.contract,
        graph=replace(graph, slots=slots, teachable=None),
        notes=tuple(note for note in contract.notes if note[0] not in ("proof", "profile")),
    )


def _drop_constants(graph: onnx.GraphProto, tensors: Mapping[str, ClassTensor]) -> None:
    kept = [tensor for tensor in graph.initializer if tensor.name not in tensors]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _set_slots(graph: onnx.GraphProto, slots: int) -> None:
    for tensor in graph.initializer:
        if tensor.name == "head/slots":
            shape = np.array([0, -1, slots], np.int64)
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _declare_classes(graph: onnx.GraphProto, classes: int | str) -> None:
    for position, value in enumerate(graph.output):
        if value.name in ("scores", "probability"):
            batch = value.type.tensor_type.shape.dim[0].dim_param
            declared = helper.make_tensor_value_info(
                value.name, TensorProto.FLOAT, [batch, classes]
            )
            graph.output[position].CopyFrom(declared)
