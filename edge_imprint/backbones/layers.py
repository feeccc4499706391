# SPDX-License-Identifier: Apache-2.0
"""Embeddings from inside a torch module: what one of its layers gives, pooled.

Imported where a layer is asked for: torch takes seconds.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch

from edge_imprint_export.backbone.cut import spatial_axes
from edge_imprint_runtime.errors import BackboneExportError, BackboneNotFoundError

__all__ = ["LayerEmbedding"]

_MOST_NAMED = 5


class _Reached(Exception):  # noqa: N818 - nothing is wrong: the layer has answered
    """The layer has run for the last time; what follows it is not needed."""


class LayerEmbedding(torch.nn.Module):
    """A network cut at a layer: (N, 3, H, W) -> (N, D), the mean of what the layer gives.

    ::

        (N, D)          as it is
        (N, C, h, w)    mean over h and w
        (N, h, w, C)    mean over h and w; see `spatial_axes`
        (N, T, C)       mean over the T tokens, without the network's prefix tokens

    A layer that runs several times gives what it gave last. Once it has, the network is left:
    what follows is not computed, and not in the exported graph. One thread at a time.

    Args:
        network: The whole network, in evaluation mode, on the CPU.
        layer: The submodule's name.
        height: Of the network's input, pixels.
        width: Of the network's input, pixels.
        name: The backbone's name, for messages.

    Raises:
        BackboneNotFoundError: There is no such layer; the message suggests the nearest.
        BackboneExportError: It does not run, or gives nothing that can be pooled.
    """

    def __init__(
        self, network: torch.nn.Module, layer: str, height: int, width: int, name: str
    ) -> None:
        super().__init__()
        names = [found for found, _ in network.named_modules() if found]
        if layer not in names:
            raise BackboneNotFoundError(
                f"the backbone {name.rpartition('#')[0]} has no layer {layer!r}; "
                f"nearest: {', '.join(_near_layers(layer, names))}"
            )
        self.network = network
        self._layer = layer
        self._runs = 0
        found = self._probe(height, width, name)
        self._axes = _axes(network, layer, found, (height, width), name)
        self.eval().requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed: (N, 3, H, W) float32, normalised -> (N, D) float32."""
        first, axes = self._axes
        value: torch.Tensor = self._run(pixels)
        if first:
            value = value[:, first:]
        return value.mean(axes) if axes else value

    def _probe(self, height: int, width: int, name: str) -> Any:
        """Run two images through; counts the layer's runs and returns what it gave last."""
        try:
            # Not inference mode: what a network keeps of this run must do for all others.
            with torch.no_grad():
                value = self._run(torch.zeros(2, 3, height, width))
        except Exception as error:  # a network asserts and raises as it likes
            text = " ".join(str(error).split())[:300]
            raise BackboneExportError(
                f"the backbone {name} does not run on {height}x{width} pixels: {text}"
            ) from error
        if not self._runs:
            raise BackboneExportError(
                f"the layer of the backbone {name} is not run when an image is embedded; "
                "name another"
            )
        return value

    def _run(self, pixels: torch.Tensor) -> Any:
        """Return what the layer gave last, an output's first part where there are several."""
        given: list[Any] = []

        def take(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            given.append(output[0] if isinstance(output, (tuple, list)) and output else output)
            # The exporter drops what nothing needs; it can't follow an exception.
            if len(given) == self._runs and not torch.compiler.is_exporting():
                raise _Reached

        hook = self.network.get_submodule(self._layer).register_forward_hook(take)
        try:
            self.network(pixels)
        except _Reached:
            pass
        finally:
            hook.remove()
        self._runs = self._runs or len(given)
        return given[-1] if given else None


def _near_layers(layer: str, names: list[str]) -> list[str]:
    """Suggest up to five of a network's layers for one that it lacks."""
    near = difflib.get_close_matches(layer, names, n=_MOST_NAMED, cutoff=0.5)
    return near or [name for name in names if "." not in name][:_MOST_NAMED]


def _axes(
    network: torch.nn.Module, layer: str, value: Any, size: tuple[int, int], name: str
) -> tuple[int, tuple[int, ...]]:
    """Return how many tokens to leave out in front, and the axes to average over."""
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    fits = bool(shape) and shape[0] == 2 and 2 <= len(shape) <= 4 and 0 not in shape
    if not fits or not value.is_floating_point():
        what = f"a {type(value).__name__}"
        if isinstance(value, torch.Tensor):
            what = f"{str(value.dtype).removeprefix('torch.')} {shape}"
        raise BackboneExportError(
            f"the layer {layer!r} of the backbone {name.rpartition('#')[0]} gives {what} for "
            "two images; only float32 (2, D), (2, C, h, w), (2, h, w, C) and (2, T, C) can be "
            "pooled, so name another"
        )
    if len(shape) == 2:
        return 0, ()
    if len(shape) == 4:
        return 0, spatial_axes(shape, size)
    return _prefix_tokens(network, shape[1], size), (1,)


def _prefix_tokens(network: torch.nn.Module, tokens: int, size: tuple[int, int]) -> int:
    """Count the tokens in front that stand for no place: a class token, registers."""
    stated = getattr(network, "num_prefix_tokens", None)  # timm's
    if not isinstance(stated, int):
        stated = 1 if isinstance(getattr(network, "class_token", None), torch.Tensor) else 0
    rest = tokens - stated
    # Before they are put in front, and where a stage has dropped them, there are places only.
    return stated if rest > 0 and not _is_grid(tokens, size) and _is_grid(rest, size) else 0


def _is_grid(tokens: int, size: tuple[int, int]) -> bool:
    """Tell whether so many tokens are the cells of a grid over the input."""
    high = round(math.sqrt(tokens * size[0] / size[1]))
    return any(
        side > 0
        and tokens % side == 0
        and abs(side * size[1] - tokens // side * size[0]) < max(size)
        for side in (high - 1, high, high + 1)
    )
