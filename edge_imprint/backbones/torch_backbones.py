# SPDX-License-Identifier: Apache-2.0
"""Backbones that are torch modules: timm's, torchvision's and a user's own.

Imports no torch itself: what a card remembers is told without it.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones.backbone import Backbone, Once, OwnClasses, export_package
from edge_imprint.backbones.cards import Card, Cards
from edge_imprint.backbones.names import Name
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import (
    BackboneMismatchError,
    MissingPackageError,
    ParameterError,
)

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["Network", "digest_of", "library", "python_backbone", "zoo_backbone"]


@dataclass(frozen=True)
class Network:
    """A torch module that was loaded.

    Attributes:
        module: From (N, 3, H, W) float32, normalised, to (N, D); frozen, without classifier.
        weights: Where its weights are from, as `BackboneInfo` says it.
        preprocess: Its own preprocessing.
        identity: What tells it from networks with the same weights; the digest begins with it.
        notes: What a user should know, each a sentence.
    """

    module: torch.nn.Module
    weights: str
    preprocess: Preprocess
    identity: str
    notes: tuple[str, ...] = ()


def zoo_backbone(
    name: Name, *, weights: Path | None, random_weights: bool, preprocess: Preprocess | None
) -> Backbone:
    """Load a network of timm's or torchvision's, or recall it.

    Args:
        name: Of one of the two.
        weights: As in `load_backbone`.
        random_weights: As in `load_backbone`.
        preprocess: As in `load_backbone`.

    Returns:
        The backbone.

    Raises:
        EdgeImprintError: As in `load_backbone`.
    """

    def load() -> Network:
        models = library(name.kind)
        module, source = models.load(name.rest, weights=weights, random_weights=random_weights)
        # timm's digests were there before torchvision's, and heads hold them.
        identity = name.rest if name.kind == "timm" else name.base
        own = models.preprocess_of(module, name.rest)
        return Network(module, source, own, identity)

    def read_classifier(module: torch.nn.Module) -> OwnClasses:
        models = library(name.kind)
        return OwnClasses(
            *models.read_classifier(
                name.rest, module, weights=weights, random_weights=random_weights
            )
        )

    cards = Cards(name, weights=weights, random_weights=random_weights, preprocess=preprocess)
    return _backbone(name, load, preprocess, cards, read_classifier)


def python_backbone(
    name: Name, *, weights: Path | None, preprocess: Preprocess | None
) -> Backbone:
    """Load what a user's own factory makes.

    There is no card of it: a factory may read whatever it likes, and that can't be known.

    Args:
        name: ``python:MODULE:FACTORY``.
        weights: As in `load_backbone`.
        preprocess: As in `load_backbone`.

    Returns:
        The backbone.

    Raises:
        EdgeImprintError: As in `load_backbone`.
    """

    def load() -> Network:
        network: Network = library("python").load(
            name, weights=weights, assume=preprocess is None
        )
        return network

    return _backbone(name, load, preprocess, None, None)


def digest_of(identity: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Hash a network: its identity and each weight's name, type, shape and bytes.

    Returns:
        SHA-256, 64 hex digits.
    """
    state = hashlib.sha256(f"{identity}\n".encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        state.update(f"{key} {array.dtype} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def library(kind: str) -> Any:
    """Import the module here that loads a kind's networks: ``timm``, ``torchvision``, ...

    Raises:
        MissingPackageError: torch or the kind's own package is not installed.
    """
    homes = {"timm": "timm_models", "torchvision": "torchvision_models"}
    try:
        return importlib.import_module(
            f"edge_imprint.backbones.{homes.get(kind, 'python_factory')}"
        )
    except ModuleNotFoundError as error:
        raise MissingPackageError(str(error.name), f"a {kind} backbone", "host") from error


def _backbone(
    name: Name,
    load: Callable[[], Network],
    preprocess: Preprocess | None,
    cards: Cards | None,
    read_classifier: Callable[[torch.nn.Module], OwnClasses] | None,
) -> Backbone:
    loaded = Once(load)

    def load_whole() -> torch.nn.Module:
        network = loaded()
        if name.layer is None:
            return network.module
        from edge_imprint.backbones.layers import LayerEmbedding

        p = preprocess or network.preprocess
        return LayerEmbedding(network.module, name.layer, p.height, p.width, str(name))

    whole = Once(load_whole)

    def digest() -> str:
        network = loaded()
        arrays = {key: value.numpy() for key, value in network.module.state_dict().items()}
        layer = "" if name.layer is None else f"#{name.layer}"
        return digest_of(network.identity + layer, arrays)

    known = None if cards is None else cards.find()
    if known is None:
        whole()  # an unknown layer is said now
        network = loaded()
        info = BackboneInfo(
            str(name), network.weights, digest(), preprocess or network.preprocess
        )
        card = Card(info, network.notes)
        if cards is not None:
            cards.keep(card)
        checked = whole
    else:
        card = known
        checked = Once(lambda: _checked(whole(), digest(), known.info, cards))

    def make_graph() -> onnx.ModelProto:
        p = card.info.preprocess
        graph: onnx.ModelProto = export_package("backbone.torch_export").export_module(
            checked(), height=p.height, width=p.width, name=str(name)
        )
        return graph

    def classifier() -> OwnClasses:
        assert read_classifier is not None
        if name.layer is not None:
            raise ParameterError(
                f"the backbone {name} embeds from the layer {name.layer!r}, behind which its "
                "own classes stand; leave out the layer, or --keep-classes"
            )
        return read_classifier(checked())

    own = None if read_classifier is None else classifier
    return Backbone(card.info, make_graph, checked, own, card.notes)


def _checked(
    module: torch.nn.Module, digest: str, info: BackboneInfo, cards: Cards | None
) -> torch.nn.Module:
    """Return a module that is the one its card remembers."""
    if digest == info.digest:
        return module
    if cards is not None:
        cards.drop()
    raise BackboneMismatchError(
        f"the weights of {info.name} are no longer those that were remembered (digest "
        f"{digest[:12]}, it was {info.digest[:12]}); run it again, with what there is now"
    )
