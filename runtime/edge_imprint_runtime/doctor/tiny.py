# SPDX-License-Identifier: Apache-2.0
"""A model of a kilobyte whose answer is known, to see whether a provider really computes.

A convolution (which needs cuDNN on NVIDIA's GPUs), a mean, and a matrix product (which needs
cuBLAS), in opset 13 and IR version 7, which every ONNX Runtime and TensorRT since 8 reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["FILE", "answer", "images", "is_right", "weights"]

FILE = Path(__file__).with_name("tiny.onnx")
"""The model: ``images`` float32 [1, 3, 8, 8] to ``scores`` float32 [1, 5]."""

_Floats = npt.NDArray[np.float32]

_CHANNELS, _FEATURES, _SCORES, _SIDE = 3, 4, 5, 8
# Half precision and TF32 are further off than float32; a wrong kernel is off by far more.
_TOLERANCE = 0.02


def weights() -> dict[str, _Floats]:
    """Return the model's weights: quarters, which every precision holds exactly.

    Returns:
        ``kernel`` [4, 3, 3, 3], ``kernel_bias`` [4], ``matrix`` [5, 4], ``matrix_bias`` [5].
    """
    return {
        "kernel": _pattern((_FEATURES, _CHANNELS, 3, 3), 7, 9),
        "kernel_bias": _pattern((_FEATURES,), 3, 5),
        "matrix": _pattern((_SCORES, _FEATURES), 5, 11),
        "matrix_bias": _pattern((_SCORES,), 4, 7),
    }


def images() -> _Floats:
    """Return the input [1, 3, 8, 8]."""
    return _pattern((1, _CHANNELS, _SIDE, _SIDE), 11, 17)


def answer(pixels: _Floats) -> _Floats:
    """Compute in numpy what the model is to answer.

    Args:
        pixels: ``[n, 3, 8, 8]``.

    Returns:
        ``[n, 5]``.
    """
    w = weights()
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    features = np.einsum("ncyxij,fcij->nfyx", windows, w["kernel"])
    features = np.maximum(features + w["kernel_bias"][:, np.newaxis, np.newaxis], 0)
    means = features.mean(axis=(2, 3))
    result: _Floats = (means @ w["matrix"].T + w["matrix_bias"]).astype(np.float32)
    return result


def is_right(got: npt.NDArray[np.generic]) -> bool:
    """Tell whether scores are the model's, up to the rounding of half precision.

    Args:
        got: What a provider answered to `images`.
    """
    expected = answer(images())
    if got.shape != expected.shape:
        return False
    off = np.abs(got.astype(np.float64) - expected).max()  # NaN is never within
    return bool(off <= _TOLERANCE * np.abs(expected).max())


def _pattern(shape: tuple[int, ...], step: int, period: int) -> _Floats:
    """Fill an array with quarters that look random and never change."""
    numbers = np.arange(int(np.prod(shape))) * step % period - period // 2
    return (numbers / 4).astype(np.float32).reshape(shape)
