# SPDX-License-Identifier: Apache-2.0
"""A stack of convolutions written as ONNX computes what torch computes."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import nn

from edge_imprint_export.backbone.glyphnet import conv_stack
from edge_imprint_export.graph import embedding_size, image_size, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner

Layers = list[tuple[int, bool]]
Weights = dict[str, npt.NDArray[np.float32]]


def random_weights(channels: tuple[int, ...], seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    weights = {}
    for i, (into, out) in enumerate(itertools.pairwise(channels)):
        kernel = rng.standard_normal((out, into, 3, 3)) / np.sqrt(9 * into)
        weights[f"conv{i}.weight"] = kernel.astype(np.float32)
        weights[f"conv{i}.bias"] = rng.standard_normal(out).astype(np.float32)
    return weights


def in_torch(layers: Layers, weights: Weights, pool_size: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for i, (stride, relu) in enumerate(layers):
        out, into = weights[f"conv{i}.weight"].shape[:2]
        convolution = nn.Conv2d(into, out, 3, stride=stride, padding=1)
        convolution.weight.data = torch.from_numpy(weights[f"conv{i}.weight"])
        convolution.bias.data = torch.from_numpy(weights[f"conv{i}.bias"])
        modules += [convolution, nn.ReLU()] if relu else [convolution]
    return nn.Sequential(*modules, nn.AvgPool2d(pool_size), nn.Flatten())


@pytest.mark.parametrize(
    ("channels", "layers", "side", "pool_size", "size"),
    [
        ((3, 4), [(1, True)], 8, 8, 4),
        ((3, 4), [(1, False)], 8, 4, 16),
        ((3, 6, 5), [(2, True), (2, False)], 16, 4, 5),
        ((3, 6, 5), [(2, True), (2, True)], 15, 2, 20),
        ((3, 4, 4, 7), [(1, True), (2, True), (3, False)], 17, 3, 7),
        ((3, 4, 4), [(2, True), (1, False)], 10, 2, 16),
    ],
)
def test_conv_stack_is_torchs(
    channels: tuple[int, ...], layers: Layers, side: int, pool_size: int, size: int
) -> None:
    weights = random_weights(channels)
    model = conv_stack(layers, weights, image_size=side, pool_size=pool_size)
    onnx.checker.check_model(model, full_check=True)
    assert (embedding_size(model), image_size(model)) == (size, (side, side))
    runner = OrtRunner(to_bytes(model), "cpu", threads=1)
    for batch in (1, 3):
        pixels = np.random.default_rng(batch).standard_normal((batch, 3, side, side))
        floats = pixels.astype(np.float32)
        with torch.inference_mode():
            want = in_torch(layers, weights, pool_size)(torch.from_numpy(floats)).numpy()
        found = runner.run(["embedding"], floats)[0]
        assert found.shape == (batch, size)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def test_equal_weights_give_equal_bytes() -> None:
    one, two, other = (
        to_bytes(conv_stack([(1, True)], random_weights((3, 4), s), image_size=8, pool_size=8))
        for s in (0, 0, 1)
    )
    assert one == two != other


def test_the_dialect() -> None:
    model = conv_stack([(1, True)], random_weights((3, 4)), image_size=8, pool_size=8)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
