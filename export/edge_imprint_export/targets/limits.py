# SPDX-License-Identifier: Apache-2.0
"""What targets refuse, or take and compute wrongly, beyond opsets, operators and types.

A limit is data; the code that finds it in a graph is in `edge_imprint_export.targets.rules`,
under the limit's ``rule``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AXES_IGNORED",
    "COMMON",
    "CUM_SUM_AXIS_COMPUTED",
    "EINSUM_ELLIPSIS",
    "FUNCTIONS",
    "INSTANCE_NORM_WEIGHTS",
    "INT8_WEIGHTS",
    "LAYER_NORM_OUTPUTS",
    "ONNX_RUNTIME",
    "PAD_AXES_COMPUTED",
    "REMEDIES",
    "SCATTER_ND_18",
    "SEVERITIES",
    "SHAPE_RANGE_IGNORED",
    "SLICE_AXES_COMPUTED",
    "SQUEEZE_AXES_COMPUTED",
    "TOP_K_COMPUTED",
    "UINT8_CAST",
    "UNREAD_FUNCTIONS",
    "Limit",
]

# refused: it does not load. wrong: it loads, and the numbers are others. note: it runs.
SEVERITIES = ("refused", "wrong", "note")


@dataclass(frozen=True)
class Limit:
    """One thing that a target does not take, or takes otherwise than ONNX means it.

    Attributes:
        rule: Which rule of `edge_imprint_export.targets.rules` finds it.
        severity: ``refused``, ``wrong`` (it loads, the numbers are others) or ``note``.
        what: What the target does with it.
        remedy: What to do.
        source: Where this is from.
    """

    rule: str
    severity: str
    what: str
    remedy: str
    source: str


_PARSER = "https://github.com/onnx/onnx-tensorrt"
_MATRIX = f"{_PARSER} docs/operators.md"
_CHANGES = f"{_PARSER} docs/Changelog.md"
_FOLD = "make it a constant: export with fixed axes, or fold constants (onnxslim, polygraphy)"
_EXPORT = "edge-imprint export --target writes it so"

AXES_IGNORED = Limit(
    "reduce_axes_input",
    "wrong",
    "the axes of a reduction are an input, which TensorRT 8 ignores, reducing over all axes",
    f"give the axes as an attribute, in opset 17 or older; {_EXPORT}",
    f"{_PARSER} release/8.5-GA onnx2trt_utils.cpp (reduceTensor); "
    "https://github.com/NVIDIA/TensorRT/issues/3467",
)
SHAPE_RANGE_IGNORED = Limit(
    "shape_range",
    "wrong",
    "start and end of a Shape are ignored: it gives the whole shape",
    f"put a Slice behind a Shape; {_EXPORT}",
    f"{_PARSER} release/8.5-GA builtin_op_importers.cpp (Shape), and a later one before 10.3; "
    "onnxOpImporters.cpp of 10.6 (commit 0137504e) reads them",
)
SLICE_AXES_COMPUTED = Limit(
    "slice_axes_computed",
    "refused",
    "the axes of a Slice are computed; they must be a constant before TensorRT 10.3",
    _FOLD,
    f"{_MATRIX} release/8.5-GA; {_CHANGES} 10.3",
)
SQUEEZE_AXES_COMPUTED = Limit(
    "squeeze_axes_computed",
    "refused",
    "the axes of a Squeeze or Unsqueeze are computed; they must be a constant before "
    "TensorRT 10.7",
    _FOLD,
    f"{_MATRIX} release/8.5-GA; {_CHANGES} 10.7",
)
CUM_SUM_AXIS_COMPUTED = Limit(
    "cum_sum_axis_computed",
    "refused",
    "the axis of a CumSum is computed; it must be a constant before TensorRT 10.8",
    _FOLD,
    f"{_MATRIX} release/8.5-GA; {_CHANGES} 10.8",
)
PAD_AXES_COMPUTED = Limit(
    "pad_axes_computed",
    "refused",
    "the axes of a Pad are computed; they must be a constant before TensorRT 10.4",
    _FOLD,
    f"{_CHANGES} 10.4",
)
TOP_K_COMPUTED = Limit(
    "top_k_computed",
    "refused",
    "K of a TopK is computed; it must be a constant before TensorRT 8.6",
    "make K a constant",
    f"{_MATRIX} release/8.5-GA; {_CHANGES} 8.6",
)
INT8_WEIGHTS = Limit(
    "int8_weights",
    "refused",
    "a DequantizeLinear reads int8 weights, which TensorRT 8 does not take",
    "store them in float32, QuantizeLinear before DequantizeLinear",
    "https://github.com/microsoft/onnxruntime/issues/11535; "
    "https://github.com/huggingface/optimum/pull/812",
)
UINT8_CAST = Limit(
    "uint8_cast",
    "refused",
    "a uint8 input is cast to another type than float32 or float16",
    "cast it to float32 first",
    f"{_PARSER} release/8.5-GA builtin_op_importers.cpp (Cast)",
)
INSTANCE_NORM_WEIGHTS = Limit(
    "instance_norm_weights",
    "refused",
    "scale and bias of an InstanceNormalization are computed; they must be initializers",
    _FOLD,
    f"{_MATRIX} release/8.5-GA",
)
FUNCTIONS = Limit(
    "functions",
    "refused",
    "the file defines functions of its own, which TensorRT reads from 9.0 on",
    "inline them (onnx.inliner.inline_local_functions)",
    f"{_CHANGES} 9.0",
)
UNREAD_FUNCTIONS = Limit(
    "functions",
    "refused",
    "the file defines functions of its own, and what is in them is not checked",
    FUNCTIONS.remedy,
    "edge_imprint_export.targets.check, which reads the graph and no function",
)
EINSUM_ELLIPSIS = Limit(
    "einsum_ellipsis",
    "refused",
    "an Einsum has an ellipsis or a letter twice in one operand",
    "write it as MatMul, Transpose and ReduceSum",
    f"{_MATRIX} release/8.5-GA; {_CHANGES} 10.12",
)
LAYER_NORM_OUTPUTS = Limit(
    "layer_norm_outputs",
    "refused",
    "the mean or deviation of a LayerNormalization is used; there is its first output only",
    "write the normalisation as arithmetic",
    f"{_MATRIX} 10.15",
)
SCATTER_ND_18 = Limit(
    "scatter_nd_18",
    "wrong",
    "a ScatterND of opset 18 or newer, which TensorRT reads rightly from 10.9 on",
    "export with opset 17",
    f"{_CHANGES} 10.9",
)

COMMON = (
    Limit(
        "domain",
        "refused",
        "an operator of no standard domain needs a TensorRT plugin of its name",
        "export without operators of other tools, or provide the plugin",
        f"{_PARSER} docs/TRT_custom_ops.md",
    ),
    Limit(
        "reduce_axes_computed",
        "refused",
        "the axes of a reduction are computed; they must be a constant",
        _FOLD,
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "top_k_many",
        "refused",
        "K of a TopK is 3840 or more",
        "take fewer",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "top_k_unsorted",
        "refused",
        "a TopK asks for no order (sorted=0)",
        "leave out sorted, or set it to 1",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "resize_mode",
        "refused",
        "a Resize is cubic; only nearest and linear are there",
        "resize before the model, by linear, or by two products with constant weights "
        "(edge-imprint export --input frame)",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
    Limit(
        "resize_antialias",
        "refused",
        "a Resize is antialiased",
        "resize before the model, or by two products with constant weights "
        "(edge-imprint export --input frame)",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "resize_aspect",
        "refused",
        "a Resize keeps the aspect ratio, or crops and resizes at once",
        "give the sizes themselves, and crop by a Slice",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "zero_point",
        "refused",
        "a zero point is not 0, or not known: quantisation must be symmetric",
        "quantise symmetrically, activations too (int8, zero point 0)",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
    Limit(
        "dequantized_type",
        "refused",
        "a DequantizeLinear reads another type than int8, such as a bias in int32",
        "quantise to int8, and leave biases in float32 (in onnxruntime.quantization: "
        "extra_options QuantizeBias=False)",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
    Limit(
        "uint8_inside",
        "refused",
        "a uint8 tensor is used inside the graph; uint8 is for inputs that a Cast follows at "
        "once, and for outputs",
        "cast to float32 first, then transpose, slice and the rest",
        f"{_MATRIX} 10.15; {_PARSER} release/8.6-GA ModelImporter.cpp",
    ),
    Limit(
        "pool_indices",
        "refused",
        "the indices of a MaxPool are used",
        "export without them",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
    Limit(
        "pool_dilations",
        "refused",
        "a pooling is dilated",
        "pool without dilations",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "scatter_reduction",
        "refused",
        "a ScatterND reduces; only reduction none is there",
        "write it without a scatter",
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "one_hot_depth",
        "refused",
        "the depth of a OneHot is computed; it must be a constant",
        _FOLD,
        f"{_MATRIX} 10.15",
    ),
    Limit(
        "float64",
        "note",
        "a float64 tensor is computed as float32, clamped to its range",
        "export in float32",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
    Limit(
        "int64_output",
        "note",
        "an int64 input or output is 32 bits wide before TensorRT 9 and 64 from there on",
        "cast outputs to int32 or float32 in the graph",
        f"{_CHANGES} 9.0",
    ),
    Limit(
        "control_flow",
        "note",
        "If, Loop and Scan restrict their branches' shapes and keep parts off the accelerator",
        "export without control flow where it can be had",
        f"{_MATRIX} release/8.5-GA and 10.15",
    ),
)

ONNX_RUNTIME = (
    Limit(
        "foreign_domain",
        "refused",
        "an operator of a domain that ONNX Runtime does not bring",
        "export without operators of other tools, or register the library that has them",
        "https://github.com/microsoft/onnxruntime docs/ContribOperators.md",
    ),
)

_QDQ = "quantise with QuantizeLinear and DequantizeLinear (Q/DQ) instead"
_LOWER = "edge-imprint export --target writes it as plain arithmetic"

# What to do about an operator that a target does not know.
REMEDIES = {
    "ConvInteger": _QDQ,
    "DynamicQuantizeLinear": _QDQ,
    "MatMulInteger": _QDQ,
    "QLinearConv": _QDQ,
    "QLinearMatMul": _QDQ,
    "CastLike": _LOWER,
    "Gelu": _LOWER,
    "GroupNormalization": _LOWER,
    "LayerNormalization": _LOWER,
    "Mish": _LOWER,
    "RMSNormalization": _LOWER,
    "Swish": _LOWER,
    "Attention": "export it as MatMul and Softmax, with opset 18 or older",
    "RotaryEmbedding": "export it as arithmetic, with opset 18 or older",
}
