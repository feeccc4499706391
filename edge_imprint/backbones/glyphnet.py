# SPDX-License-Identifier: Apache-2.0
"""GlyphNet, the built-in demonstration backbone.

A small plain convolutional network that was trained to tell letters apart, letters drawn
from the fonts that matplotlib ships, and that has never been shown a digit. The command
that trains it is ``benchmarks/train_glyphnet.py``.

The network is a stack of 3x3 convolutions with bias, an average pooling and a flattening;
batch normalisation is already folded into the convolutions. ``LAYERS``, ``POOL_SIZE`` and
the two weights of each layer describe it completely::

    image (N, 3, IMAGE_SIZE, IMAGE_SIZE), float32, pixels / 255, then (x - MEAN) / STD
    for i, layer in enumerate(LAYERS):
        Conv conv{i} (3x3, padding 1, layer.stride), then Relu if layer.relu
    AveragePool (POOL_SIZE x POOL_SIZE, stride POOL_SIZE, no padding)
    Flatten -> embedding (N, EMBEDDING_SIZE), float32, not normalised

The module itself needs only NumPy and safetensors; torch is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "EMBEDDING_SIZE",
    "IMAGE_SIZE",
    "KERNEL_SIZE",
    "LAYERS",
    "MEAN",
    "PADDING",
    "POOL_SIZE",
    "STD",
    "WEIGHTS_PATH",
    "ConvLayer",
    "load_weights",
    "torch_module",
    "weight_shapes",
]


class ConvLayer(NamedTuple):
    """One 3x3 convolution with bias and padding 1.

    Attributes:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step in both directions; with padding 1, a stride of 2 halves an even side.
        relu: Whether a ReLU follows.
    """

    in_channels: int
    out_channels: int
    stride: int
    relu: bool = True


LAYERS: tuple[ConvLayer, ...] = (
    ConvLayer(3, 32, 2),
    ConvLayer(32, 48, 1),
    ConvLayer(48, 64, 2),
    ConvLayer(64, 96, 1),
    ConvLayer(96, 96, 2),
    ConvLayer(96, 128, 1, relu=False),
)
"""The convolutions, in order; layer ``i`` has the weights ``conv{i}.weight`` and ``.bias``."""

KERNEL_SIZE = 3
"""Side of every convolution kernel."""

PADDING = 1
"""Zero padding on each side of every convolution."""

POOL_SIZE = 2
"""Side and stride of the average pooling after the last convolution."""

IMAGE_SIZE = 32
"""Side of the input image in pixels."""

EMBEDDING_SIZE = 512
"""Length of the embedding: channels x 2 x 2 cells of the pooled map, channel first."""

MEAN: tuple[float, float, float] = (0.0, 0.0, 0.0)
"""Mean per channel taken off the pixels (0..1); none, so black is the padding's zero."""

STD: tuple[float, float, float] = (0.5, 0.5, 0.5)
"""Divisor per channel, after the mean is taken off."""

WEIGHTS_PATH = Path(__file__).parent / "data" / "glyphnet.safetensors"
"""The packaged weights."""


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that ``LAYERS`` asks for.

    Returns:
        ``conv{i}.weight``: (out, in, 3, 3) and ``conv{i}.bias``: (out,) for each layer.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(LAYERS):
        kernel = (KERNEL_SIZE, KERNEL_SIZE)
        shapes[f"conv{i}.weight"] = (layer.out_channels, layer.in_channels, *kernel)
        shapes[f"conv{i}.bias"] = (layer.out_channels,)
    return shapes


def load_weights() -> dict[str, npt.NDArray[np.float32]]:
    """Read the packaged weights.

    Returns:
        float32 arrays named and shaped as in :func:`weight_shapes`.

    Raises:
        FileNotFoundError: The package was installed without its weights.
        ValueError: A weight is missing, left over, or of another shape or type.
    """
    weights: dict[str, npt.NDArray[np.float32]] = load_file(WEIGHTS_PATH)
    _check(weights)
    return weights


def torch_module(weights: Mapping[str, npt.NDArray[np.float32]]) -> torch.nn.Module:
    """Build the network in torch.

    Args:
        weights: float32 arrays named and shaped as in :func:`weight_shapes`; copied.

    Returns:
        A frozen module in evaluation mode, on the CPU: (N, 3, IMAGE_SIZE, IMAGE_SIZE)
        float32 in, (N, EMBEDDING_SIZE) float32 out.

    Raises:
        ValueError: A weight is missing, left over, or of another shape or type.
    """
    import torch

    _check(weights)
    modules: list[torch.nn.Module] = []
    for i, layer in enumerate(LAYERS):
        conv = torch.nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            KERNEL_SIZE,
            stride=layer.stride,
            padding=PADDING,
        )
        conv.load_state_dict(
            {
                "weight": torch.tensor(weights[f"conv{i}.weight"]),
                "bias": torch.tensor(weights[f"conv{i}.bias"]),
            }
        )
        modules.append(conv)
        if layer.relu:
            modules.append(torch.nn.ReLU())
    modules += [torch.nn.AvgPool2d(POOL_SIZE), torch.nn.Flatten()]
    return torch.nn.Sequential(*modules).eval().requires_grad_(False)


def _check(weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Raise ValueError unless the weights are exactly the ones ``LAYERS`` asks for."""
    shapes = weight_shapes()
    if set(weights) != set(shapes):
        wrong = ", ".join(sorted(set(weights) ^ set(shapes)))
        raise ValueError(f"GlyphNet weights missing or left over: {wrong}")
    for name, shape in shapes.items():
        array = weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"GlyphNet weight {name} is {array.dtype} {array.shape}, "
                f"expected float32 {shape}"
            )
