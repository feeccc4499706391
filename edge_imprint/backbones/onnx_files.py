# SPDX-License-Identifier: Apache-2.0
"""``onnx:FILE#TENSOR``: a user's own ONNX file, whole or cut at a tensor. Needs no torch."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_imprint.backbones.backbone import Backbone, Once, export_package
from edge_imprint.backbones.cards import Card, Cards
from edge_imprint.backbones.names import Name
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.contract.codec import format_preprocess
from edge_imprint_runtime.errors import BackboneMismatchError

if TYPE_CHECKING:
    import onnx

__all__ = ["assumed_preprocess", "onnx_backbone"]

# ImageNet's: what most networks for photos were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_CROP = 0.875


def onnx_backbone(name: Name, *, assume: bool) -> Backbone:
    """Read an ONNX file, or recall what it was found to be.

    Args:
        name: ``onnx:FILE`` or ``onnx:FILE#TENSOR``.
        assume: Whether the preprocessing that is assumed is worth a note.

    Returns:
        The backbone; see `onnx_file.read_backbone` for what is refused.

    Raises:
        BackboneNotFoundError: The file has no such tensor; the message suggests the nearest.
        BackboneExportError: It can't be a graph of one image input.
        UnsafeModelError: The file is not sound, or reaches outside its folder.
        MissingPackageError: onnx or ONNX Runtime is not installed.
    """
    file = Path(name.rest)
    # Not by the preprocessing: what a file is does not depend on it.
    cards = Cards(name)

    def read() -> onnx.ModelProto:
        reader = export_package("backbone.onnx_file")
        graph: onnx.ModelProto = reader.read_backbone(file, tensor=name.layer)
        return graph

    card = cards.find()
    if card is None:
        # The tidied graph is kept, whatever becomes of the file meanwhile.
        graph = read()
        graphs, reader = export_package("graph"), export_package("backbone.onnx_file")
        # The graph, not the file: external weights count, notes and producers don't.
        digest = hashlib.sha256(graphs.to_bytes(graph)).hexdigest()
        info = BackboneInfo(
            str(name), "own", digest, assumed_preprocess(*graphs.image_size(graph))
        )
        card = Card(info, ())
        cards.keep(card, reader.weight_files(file))
        make = Once(lambda: graph)
    else:
        make = Once(lambda: _checked(read(), card.info, cards))

    note = (
        "an ONNX file does not say how photos are prepared for it; assumed: "
        f"{format_preprocess(card.info.preprocess)} (give another with --preprocess)"
    )
    return Backbone(card.info, lambda: _copy(make()), notes=(note,) if assume else ())


def assumed_preprocess(height: int, width: int) -> Preprocess:
    """Return what is assumed of a network that does not say how its photos are prepared."""
    return Preprocess(
        height,
        width,
        resize="crop",
        resize_height=math.floor(height / _CROP),
        resize_width=math.floor(width / _CROP),
        mean=_MEAN,
        std=_STD,
    )


def _checked(graph: onnx.ModelProto, info: BackboneInfo, cards: Cards) -> onnx.ModelProto:
    digest = hashlib.sha256(export_package("graph").to_bytes(graph)).hexdigest()
    if digest != info.digest:
        cards.drop()
        raise BackboneMismatchError(
            f"the file of {info.name} is no longer the one that was remembered (digest "
            f"{digest[:12]}, it was {info.digest[:12]}); run it again, with what it is now"
        )
    return graph


def _copy(graph: onnx.ModelProto) -> Any:
    # Whoever gets a graph may change it in place, as `fuse` does.
    copy = type(graph)()
    copy.CopyFrom(graph)
    return copy
