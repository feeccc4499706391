# SPDX-License-Identifier: Apache-2.0
"""What each target reads, as data: versions, operators, types, and what it gets wrong.

Every value names its source: a page, or a repository and a file in it. What no source said is
not here. `edge_imprint_export.targets.limits` holds the limits that targets share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from edge_imprint_export.targets.limits import (
    AXES_IGNORED,
    COMMON,
    CUM_SUM_AXIS_COMPUTED,
    EINSUM_ELLIPSIS,
    FUNCTIONS,
    INSTANCE_NORM_WEIGHTS,
    INT8_WEIGHTS,
    LAYER_NORM_OUTPUTS,
    ONNX_RUNTIME,
    PAD_AXES_COMPUTED,
    SCATTER_ND_18,
    SHAPE_RANGE_IGNORED,
    SLICE_AXES_COMPUTED,
    SQUEEZE_AXES_COMPUTED,
    TOP_K_COMPUTED,
    UINT8_CAST,
    Limit,
)
from edge_imprint_runtime.errors import ParameterError

__all__ = ["DEFAULT_TARGET", "TARGETS", "Target", "target"]

DEFAULT_TARGET = "portable"


@dataclass(frozen=True)
class Target:
    """One place where models run, and what it takes there.

    Attributes:
        name: As ``--target`` takes it.
        device: What it stands for, for people.
        tensorrt: Version of TensorRT; None where there is none.
        cuda: Version of CUDA; None where it needs none.
        cudnn: Version of cuDNN; None where it needs none.
        onnxruntime: Newest ONNX Runtime that installs there from packages.
        python: The system's Python.
        compute_capabilities: Of its GPUs.
        min_opset: Oldest opset that it takes.
        max_opset: Newest one.
        max_ir_version: Newest form of the file.
        operators: The standard operators that it knows; None: all of its opset.
        types: Element types that a tensor may have (`onnx.TensorProto`); None: all.
        limits: What it refuses or computes wrongly beyond that.
        sources: Where each of these values is from, by attribute.
    """

    name: str
    device: str
    tensorrt: str | None
    cuda: str | None
    cudnn: str | None
    onnxruntime: str
    python: str
    compute_capabilities: tuple[str, ...]
    min_opset: int
    max_opset: int
    max_ir_version: int
    operators: frozenset[str] | None
    types: frozenset[int] | None
    limits: tuple[Limit, ...]
    sources: Mapping[str, str]

    def limit(self, rule: str) -> Limit | None:
        """Return its limit of this rule, or None where it has none."""
        return next((limit for limit in self.limits if limit.rule == rule), None)

    def knows(self, operator: str) -> bool:
        """Tell whether it knows a standard operator."""
        return self.operators is None or operator in self.operators


def target(name: str) -> Target:
    """Return a target by name.

    Raises:
        ParameterError: There is none of this name; the message lists them all.
    """
    if name not in TARGETS:
        raise ParameterError(f"there is no target {name!r}; use one of {', '.join(TARGETS)}")
    return TARGETS[name]


_PARSER = "https://github.com/onnx/onnx-tensorrt"
_TEGRA = "https://github.com/OE4T/meta-tegra"
_MIGRATION = (
    "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/"
    "tensorrt-10x-to-11x-jetson.html"
)
_CAPABILITY = "https://github.com/rbonghi/jetson_stats jtop/core/jetson_variables.py"
# No document tells the newest opset and IR version of an ONNX Runtime; each wheel was asked.
_ASKED = "of the wheels named under onnxruntime, each asked to load a model of it"

_TRT_8_5_NAMES = (
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool "
    "BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv "
    "ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu "
    "Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm "
    "GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "HardSigmoid HardSwish Identity If ImageScaler InstanceNormalization IsNaN LRN LSTM "
    "LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max "
    "MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not "
    "OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 "
    "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScaledTanh Scan "
    "Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice "
    "Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh "
    "ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor"
)
_TRT_8_5 = frozenset(_TRT_8_5_NAMES.split())
_TRT_8_6 = _TRT_8_5 | {"GroupNormalization", "IsInf", "LayerNormalization"}
_TRT_10_3 = _TRT_8_6 | {"CastLike", "DeformConv", "Gelu", "Hardmax", "Mish"}
_TRT_10_13 = _TRT_10_3 | {"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"}
_TRT_10_16 = _TRT_10_13 | {
    "Attention",
    "RMSNormalization",
    "RotaryEmbedding",
    "TensorScatter",
}

_TYPES_8 = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.UINT8,  # at the door only: the limit "uint8_inside"
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.BOOL,
    }
)
_TYPES_10 = _TYPES_8 | {
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.INT4,
}
_TYPES_10_8 = _TYPES_10 | {TensorProto.FLOAT4E2M1}

_LIMITS_10_3 = (
    *COMMON,
    LAYER_NORM_OUTPUTS,
    PAD_AXES_COMPUTED,
    SQUEEZE_AXES_COMPUTED,
    CUM_SUM_AXIS_COMPUTED,
    EINSUM_ELLIPSIS,
)
_LIMITS_8_6 = (
    *_LIMITS_10_3,
    AXES_IGNORED,
    SHAPE_RANGE_IGNORED,
    SLICE_AXES_COMPUTED,
    INSTANCE_NORM_WEIGHTS,
    INT8_WEIGHTS,
    FUNCTIONS,
)


def _operators(version: str, where: str) -> dict[str, str]:
    """Name the source of what the ONNX parser of a TensorRT takes."""
    matrix = f"{_PARSER} {where} docs/operators.md"
    changes = f"{matrix}, and docs/Changelog.md for what came after {version}"
    return {"operators": changes, "types": matrix, "min_opset": matrix, "max_opset": matrix}


# What the lists of TensorRT 8 leave open.
_OLDEST = "https://github.com/microsoft/onnxruntime docs/Versioning.md"


_JETPACK_5_1 = Target(
    name="jetpack-5.1",
    device="JetPack 5.1 to 5.1.6: Xavier NX, AGX Xavier, Orin",
    tensorrt="8.5.2",
    cuda="11.4",
    cudnn="8.6",
    onnxruntime="1.16.3 (CPU, PyPI) or 1.18.1 (CUDA)",
    python="3.8",
    compute_capabilities=("7.2", "8.7"),
    min_opset=7,
    max_opset=17,
    max_ir_version=9,
    operators=_TRT_8_5,
    types=_TYPES_8,
    limits=(*_LIMITS_8_6, TOP_K_COMPUTED, UINT8_CAST),
    sources={
        "tensorrt": f"{_TEGRA} branch kirkstone",
        "cuda": f"{_TEGRA} branch kirkstone",
        "cudnn": f"{_TEGRA} branch kirkstone",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.16.3 (cp38 aarch64); "
        "the wheels that onnxruntime-gpu-extended-auto publishes",
        "python": "https://github.com/ultralytics/ultralytics docs/en/guides/nvidia-jetson.md",
        "compute_capabilities": _CAPABILITY,
        "max_ir_version": _ASKED,
        **_operators("8.4", "release/8.5-GA (commit 6d0ab7be)"),
        "min_opset": _OLDEST,
    },
)

_JETPACK_6_0 = Target(
    name="jetpack-6.0",
    device="JetPack 6.0: Orin",
    tensorrt="8.6.2",
    cuda="12.2",
    cudnn="8.9",
    onnxruntime="1.23.2 (CPU, PyPI) or 1.22.2 (CUDA)",
    python="3.10",
    compute_capabilities=("8.7",),
    min_opset=7,
    max_opset=17,
    max_ir_version=10,
    operators=_TRT_8_6,
    types=_TYPES_8,
    limits=_LIMITS_8_6,
    sources={
        "tensorrt": f"{_TEGRA} commit 98e065a4",
        "cuda": f"{_TEGRA} commit 98e065a4",
        "cudnn": f"{_TEGRA} commit 98e065a4",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.23.2 (cp310 aarch64); "
        "the wheels that onnxruntime-gpu-extended-auto publishes",
        "python": "https://github.com/guyin24/onnxruntime-gpu-for-jetson README.md",
        "compute_capabilities": _CAPABILITY,
        "max_ir_version": _ASKED,
        **_operators("8.5", "release/8.6-GA"),
        "min_opset": _OLDEST,
    },
)

_JETPACK_6_2 = Target(
    name="jetpack-6.2",
    device="JetPack 6.1 and 6.2: Orin",
    tensorrt="10.3.0",
    cuda="12.6",
    cudnn="9.3",
    onnxruntime="1.23.2",
    python="3.10",
    compute_capabilities=("8.7",),
    min_opset=9,
    max_opset=20,
    max_ir_version=10,
    operators=_TRT_10_3,
    types=_TYPES_10,
    limits=(*_LIMITS_10_3, SHAPE_RANGE_IGNORED, SCATTER_ND_18),
    sources={
        "tensorrt": "https://github.com/anduril/jetpack-nixos sourceinfo/r36.5-debs.json",
        "cuda": f"{_TEGRA} branch scarthgap",
        "cudnn": f"{_TEGRA} branch scarthgap",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.23.2 (cp310 aarch64); "
        "https://github.com/dusty-nv/jetson-containers packages/ml/onnxruntime/config.py",
        "python": "https://github.com/Shattered217/Jetson-Orin-Wheels README.md",
        "compute_capabilities": _CAPABILITY,
        "max_ir_version": "ONNX Runtime 1.19, the oldest of dusty-nv/jetson-containers: "
        "https://onnxruntime.ai/docs/reference/compatibility.html",
        **_operators("8.6", "release/10.1-GA"),
    },
)

_JETPACK_7_0 = Target(
    name="jetpack-7.0",
    device="JetPack 7.0 and 7.1: Thor",
    tensorrt="10.13.3",
    cuda="13.0",
    cudnn="9.12",
    onnxruntime="1.31.1 (CPU, PyPI)",
    python="3.12",
    # CUDA 12.8 called Thor 10.1, CUDA 13 calls it 11.0.
    compute_capabilities=("11.0", "10.1"),
    min_opset=9,
    max_opset=20,
    max_ir_version=13,
    operators=_TRT_10_13,
    types=_TYPES_10_8,
    limits=(*COMMON, LAYER_NORM_OUTPUTS),
    sources={
        "tensorrt": f"{_TEGRA} branch master-l4t-r38.2.x",
        "cuda": f"{_TEGRA} branch master-l4t-r38.2.x",
        "cudnn": f"{_TEGRA} branch master-l4t-r38.2.x",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.31.1 (cp312 aarch64)",
        "python": "https://developer.nvidia.com/embedded/jetpack/downloads/archive-7.0.md",
        "compute_capabilities": f"{_CAPABILITY}; https://developer.nvidia.com/docs/drive/"
        "drive-os/7.0.3 release-properties.html",
        "max_ir_version": _ASKED,
        **_operators("10.1", "release/10.1-GA"),
    },
)

_JETPACK_7_2 = Target(
    name="jetpack-7.2",
    device="JetPack 7.2: Orin and Thor",
    tensorrt="10.16.2",
    cuda="13.2",
    cudnn="9.20",
    onnxruntime="1.31.1 (CPU, PyPI) or 1.28 (CUDA)",
    python="3.12",
    compute_capabilities=("8.7", "11.0"),
    min_opset=9,
    max_opset=24,
    max_ir_version=13,
    operators=_TRT_10_16,
    types=_TYPES_10_8,
    limits=(*COMMON, LAYER_NORM_OUTPUTS),
    sources={
        "tensorrt": f"{_TEGRA} docs/release-notes/JetPack-7.2-L4T-R39.2.0-Notes.md",
        "cuda": f"{_TEGRA} docs/release-notes/JetPack-7.2-L4T-R39.2.0-Notes.md",
        "cudnn": f"{_TEGRA} docs/release-notes/JetPack-7.2-L4T-R39.2.0-Notes.md",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.31.1 (cp312 aarch64); "
        "https://github.com/Shattered217/Jetson-Orin-Wheels 7.2.0",
        "python": "https://github.com/Shattered217/Jetson-Orin-Wheels README.md",
        "compute_capabilities": _CAPABILITY,
        "max_ir_version": _ASKED,
        **_operators("10.15", "commit 6bde6596"),
    },
)

_TENSORRT_11 = Target(
    name="tensorrt-11",
    device="TensorRT 11: AGX Orin and Thor from JetPack 7.2.2 on, servers",
    tensorrt="11.4.1",
    cuda="13.2",
    cudnn=None,
    onnxruntime="1.31.1 (CPU, PyPI)",
    python="3.12",
    compute_capabilities=("8.7", "11.0"),
    min_opset=9,
    max_opset=24,
    max_ir_version=13,
    operators=_TRT_10_16,
    types=_TYPES_10_8,
    limits=(*COMMON, LAYER_NORM_OUTPUTS),
    sources={
        "tensorrt": _MIGRATION,
        "cuda": f"{_TEGRA} docs/release-notes/JetPack-7.2-L4T-R39.2.0-Notes.md",
        "cudnn": "https://github.com/NVIDIA/TensorRT release/11.1 "
        "python/src/infer/pyCore.cpp: no tactic source of cuDNN is left",
        "onnxruntime": "the wheels that onnxruntime publishes, 1.31.1 (cp312 aarch64)",
        "python": "https://github.com/Shattered217/Jetson-Orin-Wheels README.md",
        "compute_capabilities": f"{_MIGRATION}; {_CAPABILITY}",
        "max_ir_version": _ASKED,
        **_operators("10.15", "commit 7c51a63a"),
    },
)

_ONNX_RUNTIME = Target(
    name="onnxruntime",
    device="ONNX Runtime 1.31, without TensorRT",
    tensorrt=None,
    cuda=None,
    cudnn=None,
    onnxruntime="1.31.1",
    python="3.11 to 3.14",
    compute_capabilities=(),
    min_opset=7,
    max_opset=26,
    max_ir_version=13,
    operators=None,
    types=None,
    limits=ONNX_RUNTIME,
    sources={
        "onnxruntime": "the wheels that onnxruntime publishes, 1.31.1",
        "python": "the wheels that onnxruntime publishes, 1.31.1",
        "min_opset": _OLDEST,
        "max_opset": _ASKED,
        "max_ir_version": _ASKED,
    },
)

_JETPACKS = (_JETPACK_5_1, _JETPACK_6_0, _JETPACK_6_2, _JETPACK_7_0, _JETPACK_7_2)


def _portable(parts: tuple[Target, ...]) -> Target:
    """Make the target that is all of these at once: what every one of them takes."""
    operators, types = _TRT_10_16, _TYPES_10_8
    limits: dict[str, Limit] = {}
    for part in parts:
        operators &= part.operators if part.operators is not None else operators
        types &= part.types if part.types is not None else types
        # Of two that are alike but for their severity, the oldest target's comes first.
        limits = {limit.rule: limit for limit in part.limits} | limits
    least, most = parts[0], parts[-1]
    assert most.tensorrt is not None
    union = "what all targets have in common"
    return Target(
        name=DEFAULT_TARGET,
        device="every JetPack from 5.1 on, TensorRT 11 and ONNX Runtime",
        tensorrt=f"{least.tensorrt} to {most.tensorrt}",
        cuda=f"{least.cuda} to {most.cuda}",
        cudnn=f"{least.cudnn} to {_JETPACK_7_2.cudnn}",
        onnxruntime="1.14 or newer",
        python=f"{least.python} or newer",
        compute_capabilities=tuple(
            dict.fromkeys(number for part in parts for number in part.compute_capabilities)
        ),
        min_opset=max(part.min_opset for part in parts),
        max_opset=min(part.max_opset for part in parts),
        max_ir_version=8,
        operators=operators,
        types=types,
        limits=tuple(limits.values()),
        sources=dict.fromkeys(
            ("tensorrt", "cuda", "cudnn", "python", "compute_capabilities"), union
        )
        | dict.fromkeys(("operators", "types", "min_opset", "max_opset"), union)
        | {
            "onnxruntime": "https://github.com/NVIDIA/TensorRT/issues/3841: 1.14 reads up to "
            "IR version 8",
            "max_ir_version": "https://github.com/NVIDIA/TensorRT/issues/3841",
        },
    )


# In the order in which help and documents list them.
TARGETS: dict[str, Target] = {
    entry.name: entry
    for entry in (
        _portable((*_JETPACKS, _TENSORRT_11)),
        *_JETPACKS,
        _TENSORRT_11,
        _ONNX_RUNTIME,
    )
}
