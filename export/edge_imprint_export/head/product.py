# SPDX-License-Identifier: Apache-2.0
"""The product of embeddings and proxies in fewer bits: a large head is bound by memory.

Norms, sums and maxima stay float32; only the two factors of the product are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edge_imprint_export.nodes import Nodes

__all__ = ["Rounding", "add_product", "square_sums"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

_STEP = np.float32(1 / 127)  # of what lies in -1..1
# uint8 about 128 is int8: ONNX Runtime multiplies unsigned numbers exactly on every CPU, and
# unsigned with signed ones only where the CPU has VNNI; elsewhere pairs of products saturate.
_MIDDLE = 128


@dataclass(frozen=True)
class Rounding:
    """How the factors of a product are rounded.

    Attributes:
        precision: ``fp16``, or ``int8``: 255 steps, a scale a point.
        dialect: How int8 is written. ``onnxruntime``: MatMulInteger; ``portable``:
            QuantizeLinear and DequantizeLinear about a MatMul, symmetric, the proxies float32
            before them, since TensorRT 8 takes no int8 weights; ``tensorrt``: the same, the
            proxies int8.
    """

    precision: str
    dialect: str


def add_product(
    nodes: Nodes,
    x: str,
    points: Float32,
    rows: Int64,
    rounding: Rounding,
    *,
    factor: float = 1.0,
) -> tuple[str, Float64]:
    """Add ``factor * x @ points[rows].T`` with rounded factors: (N, E) -> (N, S).

    ::

        x / max|x|  (N,E) -> rounded -> product with the rounded proxies (N,S) float32
                             -> Mul each proxy's scale (S,) -> Mul each row's max|x| (N,1)

    Each row is divided by its own largest number, so that an image's answer never depends on
    what else is in its batch, and nothing is beyond float16.

    Args:
        nodes: Where it is added.
        x: (N, E) float32.
        points: (P, E) float32.
        rows: (S,) int64: which point is in which column of the product.
        rounding: How they are rounded.
        factor: What the product is multiplied by.

    Returns:
        The product's name, and (P,) the squared lengths of the rounded points.
    """
    magnitude = nodes.add("Abs", [x], "head/magnitude")
    largest = nodes.reduce("ReduceMax", magnitude, "head/largest", 1, keepdims=1)
    # A row of zeros stays one.
    tiny = nodes.constant("head/tiny", np.finfo(np.float32).tiny, np.float32)
    largest = nodes.add("Max", [largest, tiny], "head/largest_not_zero")
    x = nodes.add("Div", [x, largest], "head/within_one")
    if rounding.precision == "fp16":
        scale, halves = _half(points)
        squares = np.square(scale) * square_sums(halves)
        product, unit = _add_half(nodes, x, halves[rows]), 1.0
    else:
        scale, steps = _steps(points)
        squares = np.square(scale) * square_sums(steps)
        if rounding.dialect == "onnxruntime":
            product, unit = _add_integer(nodes, x, steps[rows])
        else:
            kept = rounding.dialect == "portable"
            product, unit = _add_quantized(nodes, x, steps[rows], float_weights=kept)
    scales = nodes.constant("head/proxy_scale", factor * unit * scale[rows], np.float32)
    x = nodes.add("Mul", [product, scales], "head/scaled_by_proxy")
    x = nodes.add("Mul", [x, largest], "head/product")
    return x, squares


def square_sums(points: npt.NDArray[Any]) -> Float64:
    """Return (P,) squared lengths."""
    sums: Float64 = np.square(points.astype(np.float64)).sum(axis=1)
    return sums


def _half(points: Float32) -> tuple[Float64, npt.NDArray[np.float16]]:
    """Return (P,) powers of two, and (P, E) points divided by them, about 1 long."""
    squares = square_sums(points)
    scale = np.exp2(np.round(np.log2(np.where(squares > 0, squares, 1)) / 2))
    return scale, (points / scale[:, np.newaxis].astype(np.float32)).astype(np.float16)


def _steps(points: Float32) -> tuple[Float64, npt.NDArray[np.int8]]:
    """Return (P,) steps, 1/127 of the largest magnitude, and (P, E) points in steps."""
    scale = np.maximum(points.max(axis=1), -points.min(axis=1)) / np.float64(127)
    scale[scale < np.finfo(np.float32).tiny] = 1
    steps = points / scale[:, np.newaxis].astype(np.float32)
    return scale, np.rint(steps, out=steps).astype(np.int8)


def _add_half(nodes: Nodes, x: str, proxies: npt.NDArray[Any]) -> str:
    x = nodes.add("Cast", [x], "head/half", to=TensorProto.FLOAT16)
    matrix = nodes.constant("proxies", np.ascontiguousarray(proxies.T), np.float16)
    x = nodes.add("MatMul", [x, matrix], "head/half_product")
    return nodes.add("Cast", [x], "head/rounded_product", to=TensorProto.FLOAT)


def _add_integer(nodes: Nodes, x: str, proxies: npt.NDArray[Any]) -> tuple[str, float]:
    """Add a product of whole numbers; both factors are in steps."""
    step = nodes.constant("head/step", _STEP, np.float32)
    middle = nodes.constant("head/middle", _MIDDLE, np.uint8)
    x = nodes.add("QuantizeLinear", [x, step, middle], "head/in_steps")
    # Adding 128 to what is signed flips its first bit.
    shifted = np.ascontiguousarray(proxies.T).view(np.uint8) ^ np.uint8(_MIDDLE)
    matrix = nodes.constant("proxies", shifted, np.uint8)
    x = nodes.add("MatMulInteger", [x, matrix, middle, middle], "head/whole_product")
    x = nodes.add("Cast", [x], "head/rounded_product", to=TensorProto.FLOAT)
    return x, float(_STEP)


def _add_quantized(
    nodes: Nodes, x: str, proxies: npt.NDArray[Any], *, float_weights: bool
) -> tuple[str, float]:
    """Add a product of what was rounded to steps; the proxies are in steps still."""
    # Their scales wait behind the product: an axis of scales came with opset 13 only.
    step = nodes.constant("head/step", _STEP, np.float32)
    zero = nodes.constant("head/zero_point", 0, np.int8)
    one = nodes.constant("head/one_step", 1, np.float32)
    x = nodes.add("QuantizeLinear", [x, step, zero], "head/in_steps")
    x = nodes.add("DequantizeLinear", [x, step, zero], "head/from_steps")
    dtype = np.float32 if float_weights else np.int8
    matrix = nodes.constant("proxies", np.ascontiguousarray(proxies.T), dtype)
    if float_weights:
        matrix = nodes.add("QuantizeLinear", [matrix, one, zero], "head/whole_proxies")
    matrix = nodes.add("DequantizeLinear", [matrix, one, zero], "head/proxies_in_steps")
    return nodes.add("MatMul", [x, matrix], "head/rounded_product"), 1.0
