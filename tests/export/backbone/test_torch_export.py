# SPDX-License-Identifier: Apache-2.0
"""A torch module as a backbone graph computes what the module computes, for any batch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from edge_imprint_export.backbone.torch_export import OPSET, export_module
from edge_imprint_export.graph import embedding_size, image_size, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError


class Tiny(nn.Module):
    """A convolution, and whatever is done with its map."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.finish(torch.relu(self.convolution(pixels)))

    def finish(self, feature_map: torch.Tensor) -> Any:
        return feature_map.mean((2, 3))


class AsMap(Tiny):
    def finish(self, feature_map: torch.Tensor) -> Any:
        return feature_map


class AsPair(Tiny):
    def finish(self, feature_map: torch.Tensor) -> Any:
        return feature_map.mean((2, 3)), feature_map


class AsOneRow(Tiny):
    def finish(self, feature_map: torch.Tensor) -> Any:
        return feature_map.mean((0, 2, 3))[None]


class DecidesByData(Tiny):
    def finish(self, feature_map: torch.Tensor) -> Any:
        pooled = feature_map.mean((2, 3))
        return pooled if pooled.sum().item() > 0 else -pooled


def check(module: nn.Module, height: int, width: int) -> onnx.ModelProto:
    """Export, and hold the graph against the module for batches of one and three."""
    model = export_module(module, height=height, width=width, name="tiny")
    onnx.checker.check_model(model, full_check=True)
    assert image_size(model) == (height, width)
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["pixels", "embedding"]
    runner = OrtRunner(to_bytes(model), "cpu", threads=1)
    for batch in (1, 3):
        pixels = torch.randn(
            batch, 3, height, width, generator=torch.Generator().manual_seed(batch)
        )
        with torch.inference_mode():
            want = module(pixels).numpy()
        found = runner.run(["embedding"], pixels.numpy())[0]
        assert found.shape == want.shape == (batch, embedding_size(model))
        assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()
    return model


def test_a_module(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the exporter's chatter nor this machine's paths come through."""
    before = logging.getLogger("torch.onnx").level
    model = check(Tiny().eval(), 12, 20)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == before
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == 8
    assert b".py" not in to_bytes(model)
    assert not any(t.external_data for t in model.graph.initializer)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_timm_model(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, pretrained=False, num_classes=0).eval()
    _, height, width = timm.data.resolve_model_data_config(module)["input_size"]
    check(module, height, width)


def test_equal_modules_give_equal_bytes() -> None:
    one, two = (
        to_bytes(export_module(Tiny().eval(), height=8, width=8, name="tiny"))
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (AsMap, r"answers shape \(2, 6, 5, 5\) for two images, not \(2, D\)"),
        (AsOneRow, r"answers shape \(1, 6\) for two images"),
        (AsPair, "the backbone tiny"),
        (DecidesByData, "torch can't export the backbone tiny"),
    ],
)
def test_a_module_that_does_not_embed(kind: type[Tiny], reason: str) -> None:
    with pytest.raises(BackboneExportError, match=reason) as caught:
        export_module(kind().eval(), height=12, width=12, name="tiny")
    assert "\n" not in str(caught.value)


def test_a_size_that_the_module_does_not_take() -> None:
    with pytest.raises(BackboneExportError, match="does not run on 2x2 pixels"):
        export_module(Tiny().eval(), height=2, width=2, name="tiny")
