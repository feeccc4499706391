# SPDX-License-Identifier: Apache-2.0
"""What a backbone is, whatever it came from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import MissingPackageError
from edge_imprint_runtime.graph_files import has_graph

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["Backbone", "Once", "OwnClasses", "export_package"]

T = TypeVar("T")


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
        make_graph: Makes its graph, without the cache; see `onnx`.
        load_module: Loads its torch module where there is one: in evaluation mode, float32,
            from (N, 3, H, W) normalised to (N, D). What was remembered needs no torch until
            then.
        classifier: Reads its own classes; see `timm_models.read_classifier` for what it
            raises. Not part of the digest.
        notes: What a user should know of it, each a sentence.
    """

    info: BackboneInfo
    make_graph: Callable[[], onnx.ModelProto]
    load_module: Callable[[], torch.nn.Module] | None = None
    classifier: Callable[[], OwnClasses] | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_module(self) -> bool:
        """Whether there is a torch module; asking does not load it."""
        return self.load_module is not None

    @property
    def module(self) -> torch.nn.Module | None:
        """Its torch module, or None where there is none; loaded when first asked for.

        Raises:
            MissingPackageError: torch is not installed.
            WeightsError: The weights can't be had any more.
            BackboneMismatchError: They are others than those that were remembered.
        """
        return None if self.load_module is None else self.load_module()

    @property
    def onnx(self) -> onnx.ModelProto:
        """Its graph, ``pixels`` (N, 3, H, W) -> ``embedding`` (N, D), cached."""
        cache = export_package("backbone.cache")
        graph: onnx.ModelProto = cache.cached(self.info, self.make_graph)
        return graph

    def ensure_graph(self) -> None:
        """See that its graph is in the cache; imports no onnx where it is there already."""
        if not has_graph(self.info):
            _ = self.onnx

    def with_interpolation(self, interpolation: str) -> Backbone:
        """Return the same network, photos resized by another filter; see `Preprocess`."""
        own = replace(self.info.preprocess, interpolation=interpolation)
        return replace(self, info=replace(self.info, preprocess=own))


class Once(Generic[T]):
    """Calls a function once, and gives its result to all who ask; from any thread."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._lock = threading.Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        """Return the result; what the function raises, each caller gets anew."""
        with self._lock:
            if not self._made:
                assert self._make is not None
                self._made.append(self._make())
                self._make = None  # and what it holds on to
            return self._made[0]


def export_package(module: str) -> Any:
    """Import a module of the exporter, which needs onnx.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"edge_imprint_export.{module}")
    except ImportError as error:
        raise MissingPackageError("onnx", "a backbone's graph", "host") from error
