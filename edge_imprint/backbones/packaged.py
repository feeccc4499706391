# SPDX-License-Identifier: Apache-2.0
"""``demo``: GlyphNet, which is part of the package."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from edge_imprint.backbones import glyphnet
from edge_imprint.backbones.backbone import Backbone, export_package
from edge_imprint.backbones.names import Name
from edge_imprint.backbones.torch_backbones import digest_of
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import BackboneNotFoundError

if TYPE_CHECKING:
    import onnx

__all__ = ["demo_backbone", "layers"]


def layers() -> list[str]:
    """Name the layers that embed: each convolution, and each with its ReLU."""
    names = []
    for index, layer in enumerate(glyphnet.LAYERS):
        names += [f"conv{index}", *([f"conv{index}.relu"] if layer.relu else [])]
    return names


def demo_backbone(name: Name) -> Backbone:
    """Load GlyphNet, or its first layers; needs neither torch nor onnx.

    Args:
        name: ``demo`` or ``demo#LAYER``; the embedding is then the mean of the layer's map.

    Returns:
        The backbone.

    Raises:
        BackboneNotFoundError: There is no such layer; the message names them.
    """
    weights = glyphnet.load_weights()
    shapes = [(layer.stride, layer.relu) for layer in glyphnet.LAYERS]
    pool_size: int | None = glyphnet.POOL_SIZE
    if name.layer is not None:
        if name.layer not in layers():
            near = difflib.get_close_matches(name.layer, layers(), n=3)
            raise BackboneNotFoundError(
                f"the backbone demo has no layer {name.layer!r}; "
                + (f"nearest: {', '.join(near)}" if near else f"it has {', '.join(layers())}")
            )
        conv, _, relu = name.layer.partition(".")
        last = int(conv[len("conv") :])
        shapes = [*shapes[:last], (shapes[last][0], relu == "relu")]
        weights = {key: value for key, value in weights.items() if int(key[4]) <= last}
        pool_size = None

    def make_graph() -> onnx.ModelProto:
        graph: onnx.ModelProto = export_package("backbone.glyphnet").conv_stack(
            shapes, weights, image_size=glyphnet.IMAGE_SIZE, pool_size=pool_size
        )
        return graph

    side = glyphnet.IMAGE_SIZE
    preprocess = Preprocess(side, side, mean=glyphnet.MEAN, std=glyphnet.STD)
    identity = "glyphnet" if name.layer is None else f"glyphnet#{name.layer}"
    digest = digest_of(identity, weights)
    return Backbone(BackboneInfo(str(name), "packaged", digest, preprocess), make_graph)
