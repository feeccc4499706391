# SPDX-License-Identifier: Apache-2.0
"""Which types a graph asks for, and how a TensorRT that chooses types itself is held to them.

A strongly typed network computes in the types of its graph. Older TensorRTs choose for each
layer among those that flags allow: what the graph has in float32 (norms, the product with the
proxies, maxima) is then constrained layer by layer, because a norm in float16 overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_imprint_runtime.engine.onnx_facts import FLOAT, FLOAT16, OnnxFacts
from edge_imprint_runtime.engine.tensorrt_api import TensorRT

__all__ = ["hold_float32", "set_precision", "tensor_kinds", "wanted_flags"]

_INT8, _INT64, _BOOL = 3, 7, 9
_OF_ONE_KIND = {
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "NonZero"), _INT64),
    **dict.fromkeys(
        ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or"),
        _BOOL,
    ),
}
_WORDS = {
    "tensor(float)": FLOAT,
    "tensor(uint8)": 2,
    "tensor(int8)": _INT8,
    "tensor(int32)": 6,
    "tensor(int64)": _INT64,
    "tensor(bool)": _BOOL,
    "tensor(float16)": FLOAT16,
}
# What has no arithmetic of its own: constants, and what only changes a type or a shape.
_FREE = ("CONSTANT", "SHAPE", "IDENTITY", "CAST", "QUANTIZE", "DEQUANTIZE", "ASSERTION")


def tensor_kinds(facts: OnnxFacts) -> dict[str, int]:
    """Say of which type each tensor of a graph is.

    Args:
        facts: The graph.

    Returns:
        ONNX's number of the type by name; what can't be told is left out.
    """
    kinds = {name: constant.kind for name, constant in facts.tensors.items()}
    for name, (_, word) in facts.inputs.items():
        if word in _WORDS:
            kinds[name] = _WORDS[word]
    for node in facts.nodes:
        kind = _kind_of(node.kind, node.inputs, node.attributes, kinds)
        for place, name in enumerate(node.outputs):
            if name and kind:
                kinds[name] = _INT64 if node.kind == "TopK" and place == 1 else kind
    return kinds


def _kind_of(
    operator: str,
    inputs: tuple[str, ...],
    attributes: Mapping[str, int | str | None],
    kinds: Mapping[str, int],
) -> int | None:
    if operator == "Cast":
        to = attributes.get("to")
        return to if isinstance(to, int) else None
    if operator in _OF_ONE_KIND:
        return _OF_ONE_KIND[operator]
    if operator == "QuantizeLinear":
        return kinds.get(inputs[2], _INT8) if len(inputs) > 2 else _INT8
    # Its scale's type; of Where the condition comes first; of others the first is the data.
    start = 1 if operator in ("DequantizeLinear", "Where") else 0
    return next((kinds[name] for name in inputs[start:] if name in kinds), None)


def wanted_flags(facts: OnnxFacts) -> list[str]:
    """Say which builder flags a TensorRT that chooses types itself needs.

    Args:
        facts: The graph.

    Returns:
        ``FP16`` where the graph has float16, ``INT8`` where it quantizes.
    """
    flags = ["FP16"] if FLOAT16 in tensor_kinds(facts).values() else []
    quantizes = {"QuantizeLinear", "DequantizeLinear"} & facts.operators.keys()
    return flags + (["INT8"] if quantizes else [])


def set_precision(api: TensorRT, network: Any, config: Any, facts: OnnxFacts) -> list[str]:
    """Make TensorRT compute in the graph's own types.

    TF32 is always off: what is float32 in the graph was proved as float32.

    Args:
        api: TensorRT.
        network: Filled from the graph.
        config: The builder's configuration.
        facts: The graph.

    Returns:
        The flags that were set.
    """
    api.clear_flag(config, "TF32")
    if api.types_strongly:
        return []
    flags = wanted_flags(facts)
    if "FP16" in flags:
        # What can't be held is an error there and then, not a norm that overflows later.
        flags.append("OBEY_PRECISION_CONSTRAINTS")
        hold_float32(api, network, tensor_kinds(facts))
    for name in flags:
        api.set_flag(config, name)
    return flags


def hold_float32(api: TensorRT, network: Any, kinds: Mapping[str, int]) -> int:
    """Constrain the layers that make the graph's float32 tensors.

    A node of the graph may become several layers, of which the last bears its output's name.

    Args:
        api: TensorRT.
        network: Filled from the graph.
        kinds: As `tensor_kinds` has them.

    Returns:
        How many layers are constrained.
    """
    float32, real = api.find("DataType", "FLOAT"), ("FLOAT", "HALF")
    free = {kind for name in _FREE if (kind := api.find("LayerType", name)) is not None}
    held, of_node = 0, list[Any]()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        of_node.append(layer)
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        named = [kinds[tensor.name] for tensor in outputs if tensor.name in kinds]
        if not named:
            continue
        for each in of_node if named[0] == FLOAT else []:
            tensors = [each.get_output(i) for i in range(each.num_outputs)]
            floats = [i for i, tensor in enumerate(tensors) if tensor.dtype.name in real]
            shapes = any(tensor.is_shape_tensor for tensor in tensors)
            if each.type in free or shapes or not floats:
                continue
            each.precision = float32
            for i in floats:  # a TopK has whole numbers, too
                each.set_output_type(i, float32)
            held += 1
        of_node = []
    return held
