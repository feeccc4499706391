# SPDX-License-Identifier: Apache-2.0
"""A backbone in int8: whole numbers, whose scales are calibrated on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from edge_imprint_export.graph import check_graph, default_opset, to_bytes
from edge_imprint_export.precision.rewrite import (
    finish,
    fold_batch_norms,
    lift_constants,
    name_layers,
    named,
)
from edge_imprint_export.precision.tools import quantization_tool
from edge_imprint_export.targets.records import DEFAULT_TARGET, Target
from edge_imprint_export.targets.rules import Facts
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError, ParameterError

__all__ = ["DIALECTS", "Dialect", "int8_dialect", "to_int8"]

_MIN_OPSET = 13  # the first whose QuantizeLinear has a scale for each channel
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")  # they sum in int32 and answer in float32 at no cost
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")


@dataclass(frozen=True)
class Dialect:
    """How Q/DQ is to be written for a runtime.

    Attributes:
        unsigned: Whether activations are uint8 with a zero point, which holds what a ReLU
            leaves in twice as many steps; else int8 around 0, all that TensorRT takes.
        outputs: Whether what a layer makes is quantized too, for runtimes whose integer
            kernels make integers; else what layers with weights read, as TensorRT has it.
        float_weights: Whether weights are stored in float32 behind a Q/DQ pair of their own.
    """

    unsigned: bool
    outputs: bool
    float_weights: bool


# TensorRT 8 takes no int8 weights, and wants float32 ones with Q and DQ
# (https://github.com/microsoft/onnxruntime/issues/11535,
# https://github.com/huggingface/optimum/pull/812); from 10 on it takes both
# (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/
# quantized-types-explicit-quantization.html).
DIALECTS = {
    "portable": Dialect(unsigned=False, outputs=True, float_weights=True),
    "tensorrt-8": Dialect(unsigned=False, outputs=False, float_weights=True),
    "tensorrt": Dialect(unsigned=False, outputs=False, float_weights=False),
    "onnxruntime": Dialect(unsigned=True, outputs=True, float_weights=False),
}


def int8_dialect(target: Target) -> str:
    """Return the name of the dialect that a target runs fastest; ``portable`` runs on all."""
    if target.name == DEFAULT_TARGET:
        return "portable"
    if target.tensorrt is None:
        return "onnxruntime"
    return "tensorrt-8" if target.tensorrt.startswith("8.") else "tensorrt"


def to_int8(
    graph: onnx.ModelProto,
    calibration: Iterable[npt.NDArray[np.float32]],
    *,
    keep_float32: Sequence[str] = (),
    dialect: str = "portable",
) -> onnx.ModelProto:
    """Quantize a backbone graph; its input and output stay float32.

    Layers with weights (Conv, ConvTranspose, Gemm, and MatMul by a constant) compute on int8:
    weights with a scale for each channel, zero point 0; activations with one scale for a
    tensor, by the smallest and largest value that calibration sees; biases stay float32. Batch
    norms are folded into their convolutions first. The quantizing is done by
    ``onnxruntime.quantization``.

    Args:
        graph: A backbone graph (``pixels`` -> ``embedding``) in float32; it is left as it is.
        calibration: Batches (n, 3, H, W) float32 of images as the backbone takes them; a
            hundred images will do. How they are cut into batches does not matter.
        keep_float32: Names of layers that stay float32; ``*`` stands for any part.
        dialect: A name of `DIALECTS`.

    Returns:
        A new graph of the same interface, of opset 13 or newer. Equal arguments give equal
        bytes.

    Raises:
        ParameterError: ``keep_float32`` names a layer that is not there, the dialect is
            unknown, or ``calibration`` is empty.
        BackboneExportError: The graph has nothing to quantize, answers NaN or infinity, or
            can't be brought to opset 13.
        MissingPackageError: ONNX Runtime is not installed.
    """
    if dialect not in DIALECTS:
        raise ParameterError(
            f"there is no int8 dialect {dialect!r}; use one of {', '.join(DIALECTS)}"
        )
    form, tool = DIALECTS[dialect], quantization_tool()
    model = _recent(graph)
    lift_constants(model.graph)
    name_layers(model.graph)
    folded = fold_batch_norms(model.graph)
    kept = named(model.graph, keep_float32, folded)
    chosen = [node for node in _chosen(model.graph, form) if node.name not in kept]
    if not any(node.op_type in _WEIGHTED for node in chosen):
        raise BackboneExportError(
            "the backbone has no layer with constant weights (Conv, Gemm, MatMul) that may be "
            "quantized; keep fewer in float32, or export it in fp16"
        )
    facts = Facts(model)
    ranges = _ranges(model, _activations(chosen, facts), calibration)
    made = _quantized(tool, model, facts, chosen, ranges, form)
    if not form.outputs:
        _quantize_shortcuts(made.graph, ranges)
    elif not form.unsigned:
        _tell_pairs_apart(made.graph)
    finish(made, graph)
    check_graph(made, "the backbone in int8")
    return made


def _recent(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph, raised to the oldest opset that can say a scale for each channel."""
    model = onnx.ModelProto()
    if default_opset(graph) >= _MIN_OPSET:
        model.CopyFrom(graph)
        return model
    try:
        model = version_converter.convert_version(graph, _MIN_OPSET)
        check_graph(model, "the backbone")
    except (RuntimeError, BackboneExportError) as error:
        text = " ".join(str(error).split())[:200]
        raise BackboneExportError(
            f"int8 needs opset {_MIN_OPSET}, and the backbone of opset {default_opset(graph)} "
            f"can't be raised to it ({text}); export it again with a newer opset"
        ) from error
    return model


def _chosen(graph: onnx.GraphProto, form: Dialect) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that compute on int8."""
    rank = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        made_by = [makers[name].op_type for name in node.input if name in makers]
        if node.op_type in _WEIGHTED:
            weight = rank.get(node.input[1], 0)
            if weight == 2 or (weight and node.op_type in _CONVOLUTIONS):
                yield node
        elif form.outputs and (
            (node.op_type == "Add" and not set(made_by).isdisjoint(_CONVOLUTIONS))
            or (node.op_type in _ACTIVATIONS and made_by)
            or (node.op_type == "MaxPool" and form.unsigned)
        ):
            yield node


def _activations(chosen: Iterable[onnx.NodeProto], facts: Facts) -> list[str]:
    """Name the float32 tensors that these nodes read and make."""
    names = dict.fromkeys(name for node in chosen for name in (*node.input, *node.output))
    return [
        name
        for name in names
        if name and not facts.is_constant(name) and facts.kind(name) == TensorProto.FLOAT
    ]


def _ranges(
    model: onnx.ModelProto, names: list[str], calibration: Iterable[npt.NDArray[np.float32]]
) -> dict[str, tuple[np.float32, np.float32]]:
    """Return the least and the largest value of each tensor over all images."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    outputs = [f"{name}/{kind}" for kind in ("ReduceMin", "ReduceMax") for name in names]
    for output in outputs:
        name, _, kind = output.rpartition("/")
        probe.graph.node.append(helper.make_node(kind, [name], [output], keepdims=0))
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [])
        probe.graph.output.append(value)
    runner = OrtRunner(to_bytes(probe), "cpu")
    del probe
    seen = [np.array(runner.run(outputs, batch)) for batch in calibration if len(batch)]
    if not seen:
        raise ParameterError("int8 is calibrated on images, and there is none")
    stacked = np.stack(seen).astype(np.float32)
    least, most = stacked[:, : len(names)].min(0), stacked[:, len(names) :].max(0)
    for name, low, high in zip(names, least, most, strict=True):
        if not np.isfinite([low, high]).all():
            raise BackboneExportError(
                f"the backbone answers NaN or infinity at {name!r} to the images that int8 is "
                "calibrated on; look at its weights and preprocessing"
            )
    return {name: (least[i], most[i]) for i, name in enumerate(names)}


def _quantized(
    tool: Any,
    model: onnx.ModelProto,
    facts: Facts,
    chosen: list[onnx.NodeProto],
    ranges: dict[str, tuple[np.float32, np.float32]],
    form: Dialect,
) -> onnx.ModelProto:
    """Let ONNX Runtime's tool put Q and DQ around these nodes."""
    for name in ranges:  # the tool quantizes what it finds typed
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, facts.shape(name))
        model.graph.value_info.append(value)
    silent = _PRODUCTS if form.outputs else _WEIGHTED
    quantizer = tool.QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=tool.QuantType.QInt8,
        activation_qType=tool.QuantType.QUInt8 if form.unsigned else tool.QuantType.QInt8,
        tensors_range=tool.TensorsData(tool.CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in chosen],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in chosen}),
        extra_options={
            "ActivationSymmetric": not form.unsigned,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": form.float_weights,
            "DedicatedQDQPair": not form.unsigned,
            "OpTypesToExcludeOutputQuantization": list(silent),
        },
    )
    quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _tell_pairs_apart(graph: onnx.GraphProto) -> None:
    """Give each Q/DQ pair of one tensor a scale that is the next float32, in place.

    Each reader has a pair of its own. ONNX Runtime would make one of equal pairs, and on x86
    it then leaves the layers around it in float32: its integer kernels there take uint8, and
    it turns only pairs of one reader from int8 to uint8.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    pairs: dict[str, int] = {}
    for quantize in graph.node:
        if quantize.op_type != "QuantizeLinear" or quantize.input[0] in constants:
            continue
        before = pairs.get(quantize.input[0], 0)
        pairs[quantize.input[0]] = before + 1
        if before:
            scale = numpy_helper.to_array(constants[quantize.input[1]])
            for _ in range(before):
                scale = np.nextafter(scale, np.float32(np.inf))
            name = f"{quantize.input[1]}/{before}"
            graph.initializer.append(numpy_helper.from_array(scale, name))
            quantize.input[1] = readers[quantize.output[0]].input[1] = name


def _quantize_shortcuts(
    graph: onnx.GraphProto, ranges: dict[str, tuple[np.float32, np.float32]]
) -> None:
    """Quantize what is added to the output of a layer with weights, in place.

    TensorRT then adds within the layer, on int8
    (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/
    quantized-types-explicit-quantization.html).
    """
    makers = {name: node for node in graph.node for name in node.output}
    scales = {
        node.input[0]: node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"
    }
    zero = numpy_helper.from_array(np.zeros((), np.int8), "shortcut/zero_point")
    graph.initializer.append(zero)
    for add in [node for node in graph.node if node.op_type == "Add"]:
        weighted = [name in makers and makers[name].op_type in _WEIGHTED for name in add.input]
        if not any(weighted):
            continue
        position = 1 if weighted[0] else 0  # where both are, the later is the shortcut
        shortcut = add.input[position]
        if shortcut in makers and makers[shortcut].op_type == "DequantizeLinear":
            shortcut = makers[makers[shortcut].input[0]].input[0]  # shared with a layer
        if shortcut not in ranges:
            continue
        if shortcut not in scales:
            largest = np.abs(np.array(ranges[shortcut])).max() or np.float32(1)
            scales[shortcut] = f"{shortcut}/scale"
            scale = np.asarray(largest / 127, np.float32)
            graph.initializer.append(numpy_helper.from_array(scale, scales[shortcut]))
        whole, back = f"{add.output[0]}/shortcut/int8", f"{add.output[0]}/shortcut"
        by = [scales[shortcut], zero.name]
        for kind, name, made in (
            ("QuantizeLinear", shortcut, whole),
            ("DequantizeLinear", whole, back),
        ):
            graph.node.append(helper.make_node(kind, [name, *by], [made], f"{made}/{kind}"))
        add.input[position] = back
