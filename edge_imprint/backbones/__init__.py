# SPDX-License-Identifier: Apache-2.0
"""Frozen backbones by name, each with its weights' digest and its own preprocessing."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    BackboneNotFoundError,
    MissingPackageError,
    ParameterError,
    WeightsError,
)
from edge_imprint_runtime.head import Head

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["Backbone", "OwnClasses", "graph_for", "load_backbone"]

# ImageNet's, for ONNX files, which do not say what they were trained with.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DEFAULT_CROP = 0.875


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """The classes that a backbone was trained to tell apart: its classifier.

    The bias is left out: an imprinted class has none. Both are then directions on one sphere,
    compared by their cosine with the embedding (Qi et al. 2018, arXiv 1712.07136).

    Attributes:
        weights: (C, D) float32, a row a class, not normalised.
        labels: C unique names.
    """

    weights: npt.NDArray[np.float32]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Backbone:
    """A frozen network that embeds images.

    Attributes:
        info: Name, weights, digest and preprocessing; what a head remembers.
        module: The torch module where there is one (timm), in evaluation mode, float32.
        classifier: Reads its own classes (timm); see `timm_models.read_classifier` for what
            it raises. Not part of the digest.
    """

    info: BackboneInfo
    make_graph: Callable[[], onnx.ModelProto]
    module: torch.nn.Module | None = None
    classifier: Callable[[], OwnClasses] | None = None

    @property
    def onnx(self) -> onnx.ModelProto:
        """Its graph, ``pixels`` (N, 3, H, W) -> ``embedding`` (N, D), cached."""
        from edge_imprint_export.backbone.cache import cached

        return cached(self.info, self.make_graph)

    def with_interpolation(self, interpolation: str) -> Backbone:
        """Return the same network, photos resized by another filter; see `Preprocess`."""
        own = replace(self.info.preprocess, interpolation=interpolation)
        return replace(self, info=replace(self.info, preprocess=own))


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: ``demo`` (the packaged GlyphNet), ``timm/NAME`` or ``onnx:FILE``.
        weights: A local safetensors file or torch checkpoint (timm only).
        random_weights: Seeded random weights, to try without a download (timm only).
        preprocess: Instead of the backbone's own; its size too, where timm's network takes it.

    Returns:
        The backbone.

    Raises:
        BackboneNotFoundError: There is none of this name; the message suggests the nearest.
        WeightsError: The weights can't be had or don't fit.
        BackboneExportError: The backbone can't be a graph of one image input.
        MissingPackageError: torch, timm or onnx is not installed.
        ParameterError: The options contradict each other.
    """
    if weights is not None and random_weights:
        raise ParameterError("give --weights FILE or --random-weights, not both")
    kind, separator, rest = name.partition("/")
    if kind == "timm" and separator:
        return _timm(rest, weights, random_weights, preprocess)
    if name != "demo" and not name.startswith("onnx:"):
        raise BackboneNotFoundError(
            f"there is no backbone {name!r}; use 'demo', 'timm/NAME' or 'onnx:FILE'"
            + (f"; nearest: onnx:{name}" if name.endswith(".onnx") else _suggestion(name))
        )
    if weights is not None or random_weights:
        raise ParameterError(f"the backbone {name} brings its own weights; give none")
    backbone = _demo() if name == "demo" else _onnx(Path(name[len("onnx:") :]))
    if preprocess is None:
        return backbone
    own = backbone.info.preprocess
    if (preprocess.height, preprocess.width) != (own.height, own.width):
        raise ParameterError(
            f"the backbone {name} takes {own.height}x{own.width} pixels, "
            f"the preprocessing makes {preprocess.height}x{preprocess.width}"
        )
    return replace(backbone, info=replace(backbone.info, preprocess=preprocess))


def graph_for(
    head: Head,
    *,
    weights: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
) -> onnx.ModelProto:
    """Get the graph of the backbone that a head was made with.

    From the cache where it is there, which needs no torch; else the backbone is loaded anew.

    Args:
        head: A head that names its backbone.
        weights: The file that the head was built with, where it was one.
        backbone: Where the backbone is now, if not where it was: ``onnx:FILE``.

    Returns:
        The backbone graph.

    Raises:
        BackboneMismatchError: The head names no backbone, or the one loaded is another.
        WeightsError: Its weights can't be had.
        BackboneNotFoundError, BackboneExportError, MissingPackageError: As in `load_backbone`.
    """
    from edge_imprint_export.backbone.cache import lookup

    info = head.backbone
    if info is None:
        raise BackboneMismatchError(
            "the head does not say which backbone it belongs to; "
            "make it with edge-imprint build"
        )
    kind = info.weights.partition(":")[0]
    if weights is not None and kind != "file":
        raise ParameterError(
            f"the head was built with the {info.weights} weights of {info.name}; "
            "give no weights file"
        )
    found = lookup(info)
    if found is not None:
        return found
    if kind == "file" and weights is None:
        raise WeightsError(
            f"the head was built with the weights {info.weights[5:]!r}, which are no longer "
            "cached; pass --weights FILE"
        )
    loaded = load_backbone(
        backbone or info.name,
        weights=weights,
        random_weights=kind == "random",
        preprocess=info.preprocess if info.name.startswith("timm/") else None,
    )
    if loaded.info.digest != info.digest:
        raise BackboneMismatchError(
            f"the backbone {info.name} at hand has other weights than the head was built with "
            f"(digest {loaded.info.digest[:12]}, the head says {info.digest[:12]}); "
            "build the head again"
        )
    return replace(loaded, info=info).onnx


def _demo() -> Backbone:
    from edge_imprint.backbones import glyphnet

    weights = glyphnet.load_weights()

    def make_graph() -> onnx.ModelProto:
        glyph_graph = _export_package("backbone.glyphnet")
        layers = [(layer.stride, layer.relu) for layer in glyphnet.LAYERS]
        size, pool = glyphnet.IMAGE_SIZE, glyphnet.POOL_SIZE
        graph: onnx.ModelProto = glyph_graph.conv_stack(
            layers, weights, image_size=size, pool_size=pool
        )
        return graph

    side = glyphnet.IMAGE_SIZE
    preprocess = Preprocess(side, side, mean=glyphnet.MEAN, std=glyphnet.STD)
    digest = _digest("glyphnet", weights)
    return Backbone(BackboneInfo("demo", "packaged", digest, preprocess), make_graph)


def _onnx(file: Path) -> Backbone:
    onnx_file, graphs = _export_package("backbone.onnx_file"), _export_package("graph")
    graph = onnx_file.read_backbone(file)
    height, width = graphs.image_size(graph)
    preprocess = Preprocess(
        height,
        width,
        resize="crop",
        resize_height=math.floor(height / _DEFAULT_CROP),
        resize_width=math.floor(width / _DEFAULT_CROP),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )
    # The tidied graph, not the file: external weights count, notes and producers don't.
    digest = hashlib.sha256(graphs.to_bytes(graph)).hexdigest()
    info = BackboneInfo(f"onnx:{file}", "own", digest, preprocess)
    return Backbone(info, lambda: graph)


def _timm(
    name: str,
    weights: str | os.PathLike[str] | None,
    random_weights: bool,
    preprocess: Preprocess | None,
) -> Backbone:
    timm_models = _timm_models()
    file = None if weights is None else Path(weights)
    module, source = timm_models.load(name, weights=file, random_weights=random_weights)
    own: Preprocess = preprocess or timm_models.preprocess_of(module, name)
    arrays = {key: value.numpy() for key, value in module.state_dict().items()}
    info = BackboneInfo(f"timm/{name}", source, _digest(name, arrays), own)

    def make_graph() -> onnx.ModelProto:
        graph: onnx.ModelProto = _export_package("backbone.torch_export").export_module(
            module, height=own.height, width=own.width, name=info.name
        )
        return graph

    def classifier() -> OwnClasses:
        return OwnClasses(
            *timm_models.read_classifier(
                name, module, weights=file, random_weights=random_weights
            )
        )

    return Backbone(info, make_graph, module, classifier)


def _digest(name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Hash a network: its name and each weight's name, type, shape and bytes."""
    state = hashlib.sha256(f"{name}\n".encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        state.update(f"{key} {array.dtype} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _suggestion(name: str) -> str:
    try:
        near = _timm_models().nearest(name.rpartition("/")[2])
    except MissingPackageError:
        return ""
    return f"; nearest: {', '.join(f'timm/{match}' for match in near)}" if near else ""


def _timm_models() -> Any:
    try:
        return importlib.import_module("edge_imprint.backbones.timm_models")
    except ModuleNotFoundError as error:
        raise MissingPackageError(str(error.name), "a timm backbone", "host") from error


def _export_package(module: str) -> Any:
    try:
        return importlib.import_module(f"edge_imprint_export.{module}")
    except ImportError as error:
        raise MissingPackageError("onnx", "a backbone's graph", "host") from error
