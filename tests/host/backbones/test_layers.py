# SPDX-License-Identifier: Apache-2.0
"""Embeddings from a layer: the mean of what it gives, in torch and in the graph alike."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_imprint.backbones import load_backbone
from edge_imprint.backbones.layers import LayerEmbedding
from edge_imprint_export.backbone.cut import spatial_axes
from edge_imprint_export.backbone.torch_export import export_module
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneNotFoundError,
    ParameterError,
)

NAME = "timm/test_efficientnet"


def images(height: int, width: int, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


class Inner(nn.Module):
    """Keeps what a layer gave, as an oracle: the network is run whole."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self.given = network, list[Any]()
        network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output: self.given.append(output)
        )

    def forward(self, x: torch.Tensor) -> Any:
        self.network(x)
        return self.given[-1]


# A map, NHWC maps, tokens with a class token, an attention, a vector; torchvision's forms.
@pytest.mark.parametrize(
    ("name", "layer", "first", "axes"),
    [
        ("timm/test_resnet", "layer2", 0, (2, 3)),
        ("timm/test_convnext", "stages.1.blocks.0.mlp", 0, (1, 2)),
        ("timm/test_vit", "blocks.2", 1, (1,)),
        ("timm/test_vit", "patch_embed", 0, (1, 2)),
        ("timm/test_vit3", "blocks.1.attn", 1, (1,)),
        ("timm/test_efficientnet", "global_pool", 0, ()),
        ("torchvision/swin_t", "features.1", 0, (1, 2)),
        ("torchvision/vit_b_32", "encoder.layers.encoder_layer_0", 1, (1,)),
    ],
)
def test_a_layer_in_torch_and_in_the_graph(
    name: str, layer: str, first: int, axes: tuple[int, ...]
) -> None:
    backbone = load_backbone(name, random_weights=True, layer=layer)
    assert backbone.info.name == f"{name}#{layer}"
    whole = load_backbone(name, random_weights=True)
    assert whole.info.digest != backbone.info.digest
    assert whole.module is not None
    p = backbone.info.preprocess
    x = images(p.height, p.width)
    with torch.inference_mode():
        value = Inner(copy.deepcopy(whole.module), layer)(x)
        want = value[:, first:].mean(axes).numpy() if axes else value.numpy()
        assert backbone.module is not None
        found = backbone.module(x).numpy()
    np.testing.assert_allclose(found, want, atol=1e-6 * np.abs(want).max())
    if name.startswith("torchvision/"):
        return  # large: their graphs were held against them by hand
    graph = backbone.make_graph()
    assert embedding_size(graph) == want.shape[1]
    ort = OrtRunner(to_bytes(graph), "cpu").run(["embedding"], x.numpy())[0]
    assert np.abs(ort - want).max() <= 1e-5 * np.abs(want).max()


def test_what_follows_the_layer_is_in_no_graph() -> None:
    def size_bytes(layer: str | None) -> int:
        return len(
            to_bytes(load_backbone(NAME, random_weights=True, layer=layer).make_graph())
        )

    assert size_bytes("blocks.0") < size_bytes("blocks.2") < size_bytes(None)


class Tiny(nn.Module):
    """One convolution that runs twice, and what comes of it in other forms."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.pair = Pair()
        self.named = Named()
        self.whole_batch = WholeBatch()
        self.count = Count()
        self.flat = nn.Flatten(0)
        self.unused = nn.Identity()
        self.last = Last()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.relu(self.conv(x))))
        self.pair(x), self.named(x), self.whole_batch(x), self.count(x), self.flat(x)
        y: torch.Tensor = self.last(x)
        return y


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x * 2, x.shape


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {"x": x}


class WholeBatch(nn.Module):
    """As windows of an attention: more rows than images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 4, 3)


class Count(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)).long()


class Last(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        return x.mean((2, 3))


def test_a_layer_that_runs_twice_gives_its_last_and_what_follows_is_not_run() -> None:
    network = Tiny().eval()
    embed = LayerEmbedding(network, "conv", 8, 8, "tiny#conv")
    x = images(8, 8)
    with torch.inference_mode():
        want = network.conv(network.relu(network.conv(x))).mean((2, 3))
        Last.calls = 0
        torch.testing.assert_close(embed(x), want)
    assert Last.calls == 0
    graph = export_module(embed, height=8, width=8, name="tiny#conv")
    found = OrtRunner(to_bytes(graph), "cpu").run(["embedding"], x.numpy())[0]
    np.testing.assert_allclose(found, want.numpy(), atol=1e-6)
    # It can be copied, as what embeds on a GPU does, and leaves no hook behind.
    torch.testing.assert_close(copy.deepcopy(embed)(x), want)
    assert not network.conv._forward_hooks


def test_the_first_of_several_outputs_is_taken() -> None:
    network = Tiny().eval()
    x = images(8, 8)
    with torch.inference_mode():
        want = 2 * network.relu(network.conv(network.relu(network.conv(x)))).mean((2, 3))
        found = LayerEmbedding(network, "pair", 8, 8, "tiny#pair")(x)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            "unused",
            "the layer of the backbone tiny#unused is not run when an image is embedded",
        ),
        ("named", "the layer 'named' of the backbone tiny gives a dict for two images; only"),
        ("whole_batch", "gives float32 (32, 4, 3) for two images; only float32 (2, D), "),
        ("count", "gives int64 (2, 3) for two images"),
        ("flat", "gives float32 (384,) for two images"),
    ],
)
def test_layers_that_cannot_be_pooled(layer: str, reason: str) -> None:
    with pytest.raises(BackboneExportError) as caught:
        LayerEmbedding(Tiny().eval(), layer, 8, 8, f"tiny#{layer}")
    assert reason in str(caught.value)


class Tokens(nn.Module):
    """Gives so many tokens, the first of them far off from all others."""

    def __init__(self, tokens: int, prefix: int | None, *, torchvisions: bool = False) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.tokens, self.far = tokens, prefix or 0
        if torchvisions:
            self.class_token = nn.Parameter(torch.zeros(1))
        elif prefix is not None:
            self.num_prefix_tokens = prefix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.ones(len(x), self.tokens, 4)
        value[:, : self.far] = 1000
        y: torch.Tensor = self.layer(value).mean(1)
        return y


@pytest.mark.parametrize(
    ("tokens", "prefix", "size", "left_out"),
    [
        (197, 1, (224, 224), 1),
        (196, 1, (224, 224), 0),  # before the class token is put in front
        (198, 2, (224, 224), 2),
        (201, 5, (224, 224), 5),
        (261, 5, (224, 224), 5),
        (50, 1, (224, 224), 1),
        (61, 1, (96, 160), 1),  # 6 x 10
        (60, 1, (96, 160), 0),
        (1370, 1, (518, 518), 1),
        (2, 1, (16, 16), 1),
        (1, 1, (224, 224), 0),  # an attention pooling: the class token is all there is
        (196, None, (224, 224), 0),
        (197, None, (224, 224), 0),  # of which nothing is known
    ],
)
def test_tokens_that_stand_for_no_place_are_left_out(
    tokens: int, prefix: int | None, size: tuple[int, int], left_out: int
) -> None:
    networks = [Tokens(tokens, prefix)]
    networks += [Tokens(tokens, prefix, torchvisions=True)] if prefix == 1 else []
    for network in networks:
        network.far = left_out
        found = LayerEmbedding(network, "layer", *size, "tokens#layer")(
            torch.zeros(1, 3, 1, 1)
        )
        torch.testing.assert_close(found, torch.ones(1, 4))


def test_a_size_that_the_network_does_not_take() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    with pytest.raises(
        BackboneExportError, match=r"tiny#1 does not run on 5x5 pixels: .*mat1"
    ):
        LayerEmbedding(network, "1", 5, 5, "tiny#1")


@pytest.mark.parametrize(
    ("layer", "nearest"),
    [("block.2", "blocks.2"), ("blocks.7", "blocks.2"), ("zzz", "conv_stem")],
)
def test_no_such_layer(layer: str, nearest: str) -> None:
    with pytest.raises(BackboneNotFoundError) as caught:
        load_backbone(NAME, random_weights=True, layer=layer)
    start = f"the backbone {NAME} has no layer '{layer}'; nearest: "
    assert str(caught.value).startswith(start)
    assert nearest in str(caught.value)[len(start) :].split(", ")


def test_a_layer_has_no_classes_of_its_own() -> None:
    backbone = load_backbone(f"{NAME}#blocks.1", random_weights=True)
    assert backbone.classifier is not None
    with pytest.raises(ParameterError) as caught:
        backbone.classifier()
    assert str(caught.value) == (
        f"the backbone {NAME}#blocks.1 embeds from the layer 'blocks.1', behind which its own "
        "classes stand; leave out the layer, or --keep-classes"
    )


# Which axes are height and width -----------------------------------------------------------

SIDES = st.integers(7, 1024)


@given(SIDES, SIDES, st.sampled_from([2, 4, 8, 16, 32]), st.integers(1, 4096), st.booleans())
def test_the_axes_of_a_map_are_those_that_look_like_the_input(
    height: int, width: int, stride: int, channels: int, last: bool
) -> None:
    high, wide = -(-height // stride), -(-width // stride)
    shape = (2, high, wide, channels) if last else (2, channels, high, wide)
    found = spatial_axes(shape, (height, width))
    if last:
        # Where channels first would do as well, it is taken.
        assert found in ((1, 2), (2, 3))
        if channels > 4 * max(high, wide) + 4 and min(high, wide) > 3:
            assert found == (1, 2)
    elif not (channels < 4 * max(high, wide) + 4 and channels * 4 + 4 > min(high, wide)):
        assert found == (2, 3)


@pytest.mark.parametrize(
    ("shape", "size", "axes"),
    [
        ((2, 512, 7, 7), (224, 224), (2, 3)),
        ((2, 7, 7, 768), (224, 224), (1, 2)),
        ((2, 7, 7, 7), (224, 224), (2, 3)),
        ((2, 14, 14, 12), (224, 224), (1, 2)),
        ((2, 96, 6, 10), (96, 160), (2, 3)),
        ((2, 6, 10, 96), (96, 160), (1, 2)),
        ((2, 64, 1, 1), (224, 224), (2, 3)),
        ((2, 1, 1, 64), (224, 224), (1, 2)),
        ((1, 8, 8, 9), (224, 224), (1, 2)),
    ],
)
def test_maps_as_they_come(
    shape: tuple[int, ...], size: tuple[int, int], axes: tuple[int, int]
) -> None:
    assert spatial_axes(shape, size) == axes
