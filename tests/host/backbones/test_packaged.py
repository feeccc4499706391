# SPDX-License-Identifier: Apache-2.0
"""The demo backbone's layers against torch's own run through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_imprint.backbones import glyphnet, load_backbone
from edge_imprint.backbones.packaged import layers
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneNotFoundError


@pytest.mark.parametrize("layer", layers())
def test_a_layer_is_the_mean_of_its_map(layer: str) -> None:
    backbone = load_backbone(f"demo#{layer}")
    assert (backbone.info.name, backbone.info.weights) == (f"demo#{layer}", "packaged")
    conv, _, relu = layer.partition(".")
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    value = torch.from_numpy(images)
    index = int(conv[4:])
    # conv0, relu, conv1, relu, ...: the module is a plain sequence.
    steps = list(glyphnet.torch_module(glyphnet.load_weights()).children())
    with torch.inference_mode():
        for step in steps[: 2 * index + 1 + (relu == "relu")]:
            value = step(value)
    want = value.mean((2, 3)).numpy()
    found = OrtRunner(to_bytes(backbone.onnx), "cpu").run(["embedding"], images)[0]
    assert embedding_size(backbone.onnx) == glyphnet.LAYERS[index].out_channels
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


def test_every_layer_has_a_digest_of_its_own() -> None:
    found = [load_backbone("demo").info.digest]
    found += [load_backbone("demo", layer=layer).info.digest for layer in layers()]
    assert len(set(found)) == len(found) == 12


def test_no_such_layer() -> None:
    with pytest.raises(BackboneNotFoundError) as caught:
        load_backbone("demo#conv6")
    assert str(caught.value).startswith(
        "the backbone demo has no layer 'conv6'; nearest: conv"
    )
    with pytest.raises(BackboneNotFoundError, match=r"it has conv0, conv0\.relu, "):
        load_backbone("demo", layer="zzz")
