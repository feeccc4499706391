# SPDX-License-Identifier: Apache-2.0
"""A backbone by its name, and a head's backbone by what the head remembers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_imprint.backbones.backbone import Backbone, export_package
from edge_imprint.backbones.names import Name, parse_name
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    BackboneNotFoundError,
    ParameterError,
    WeightsError,
)
from edge_imprint_runtime.head import Head

if TYPE_CHECKING:
    import onnx

__all__ = ["graph_for", "load_backbone"]


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    layer: str | None = None,
) -> Backbone:
    """Load a frozen backbone.

    What was loaded before under the same options, from unchanged files, is recalled: torch is
    then imported only where the module itself is asked for.

    Args:
        name: ``demo`` (the packaged GlyphNet), ``timm/NAME``, ``torchvision/NAME``,
            ``onnx:FILE`` or ``python:MODULE:FACTORY``; with ``#LAYER`` behind it, embeddings
            are the mean of what that layer (of an ONNX file: that tensor) holds.
        weights: A local safetensors file or torch checkpoint (torch networks only).
        random_weights: Seeded random weights, to try without a download (timm and
            torchvision).
        preprocess: Instead of the backbone's own; its size too, where the network takes it.
        layer: The layer, instead of ``#LAYER``.

    Returns:
        The backbone.

    Raises:
        BackboneNotFoundError: There is none of this name, or it has no such layer; the
            message suggests the nearest.
        WeightsError: The weights can't be had or don't fit.
        BackboneExportError: The backbone can't be a graph of one image input.
        UnsafeModelError: An ONNX file is not sound, or reaches outside its folder.
        MissingPackageError: torch, timm, torchvision or onnx is not installed.
        ParameterError: The options contradict each other.
    """
    if weights is not None and random_weights:
        raise ParameterError("give --weights FILE or --random-weights, not both")
    named = _named(name, layer)
    file = None if weights is None else Path(weights)
    if file is not None and not os.path.exists(file) and named.kind not in ("demo", "onnx"):
        raise WeightsError(f"there is no weights file {file}")  # before torch takes seconds
    if named.kind in ("timm", "torchvision"):
        from edge_imprint.backbones.torch_backbones import zoo_backbone

        return zoo_backbone(
            named, weights=file, random_weights=random_weights, preprocess=preprocess
        )
    if random_weights or (file is not None and named.kind != "python"):
        raise ParameterError(
            f"the backbone {name} brings its own weights; "
            f"leave out {'--random-weights' if random_weights else '--weights'}"
        )
    if named.kind == "python":
        from edge_imprint.backbones.torch_backbones import python_backbone

        return python_backbone(named, weights=file, preprocess=preprocess)
    if named.kind == "demo":
        from edge_imprint.backbones.packaged import demo_backbone

        return _prepared_by(demo_backbone(named), preprocess)
    from edge_imprint.backbones.onnx_files import onnx_backbone

    return _prepared_by(onnx_backbone(named, assume=preprocess is None), preprocess)


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
        backbone: Where the backbone is now, if not where it was: ``onnx:FILE``. The head's
            own layer is taken where it names none.

    Returns:
        The backbone graph.

    Raises:
        BackboneMismatchError: The head names no backbone, or the one loaded is another.
        WeightsError: Its weights can't be had.
        BackboneNotFoundError, BackboneExportError, MissingPackageError: As in `load_backbone`.
    """
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
            "leave out --weights"
        )
    found: onnx.ModelProto | None = export_package("backbone.cache").lookup(info)
    if found is not None:
        return found
    if kind == "file" and weights is None:
        raise WeightsError(
            f"the head was built with the weights {info.weights[5:]!r}, which are no longer "
            "cached; pass --weights FILE"
        )
    own = parse_name(info.name)
    there = own if backbone is None else parse_name(backbone)
    if backbone is None and own.kind == "onnx" and not os.path.exists(own.rest):
        raise WeightsError(
            f"the backbone's file {own.rest} is neither here nor cached; "
            "say where it is with --backbone onnx:FILE"
        )
    sized = own.kind in ("timm", "torchvision", "python")
    loaded = load_backbone(
        there.base,
        layer=own.layer if there.layer is None else there.layer,
        weights=weights,
        random_weights=kind == "random",
        preprocess=info.preprocess if sized else None,
    )
    if loaded.info.digest != info.digest:
        raise BackboneMismatchError(
            f"the backbone {info.name} at hand has other weights than the head was built with "
            f"(digest {loaded.info.digest[:12]}, the head says {info.digest[:12]}); "
            "build the head again"
        )
    return replace(loaded, info=info).onnx


def _named(name: str, layer: str | None) -> Name:
    try:
        return parse_name(name, layer)
    except BackboneNotFoundError as error:
        if name.endswith(".onnx"):
            near = [f"onnx:{name}"]
        else:
            from edge_imprint.backbones.listing import near_names

            near = near_names(name)
        raise BackboneNotFoundError(
            str(error) + (f"; nearest: {', '.join(near)}" if near else "")
        ) from error


def _prepared_by(backbone: Backbone, preprocess: Preprocess | None) -> Backbone:
    """Give a backbone of one input size another preprocessing."""
    if preprocess is None:
        return backbone
    own = backbone.info.preprocess
    if (preprocess.height, preprocess.width) != (own.height, own.width):
        raise ParameterError(
            f"the backbone {backbone.info.name} takes {own.height}x{own.width} pixels, "
            f"the preprocessing makes {preprocess.height}x{preprocess.width}; "
            "give another --preprocess"
        )
    return replace(backbone, info=replace(backbone.info, preprocess=preprocess))
