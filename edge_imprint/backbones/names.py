# SPDX-License-Identifier: Apache-2.0
"""Backbones' names: ``KIND/NAME#LAYER``, read and written in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_imprint_runtime.errors import BackboneNotFoundError, ParameterError

__all__ = ["FORMS", "Name", "onnx_path", "parse_name"]

FORMS = "'demo', 'timm/NAME', 'torchvision/NAME', 'onnx:FILE' or 'python:MODULE:FACTORY'"
"""The forms of a name, for messages."""

_PREFIXES = {
    "timm": "timm/",
    "torchvision": "torchvision/",
    "onnx": "onnx:",
    "python": "python:",
}


@dataclass(frozen=True)
class Name:
    """A backbone's name, taken apart.

    Attributes:
        kind: ``demo``, ``timm``, ``torchvision``, ``onnx`` or ``python``.
        rest: What follows the kind: timm's name, a file, ``MODULE:FACTORY``; empty for demo.
        layer: The layer that embeds (for ONNX a tensor), or None for the network's end.
    """

    kind: str
    rest: str
    layer: str | None = None

    @property
    def base(self) -> str:
        """The name without its layer."""
        return _PREFIXES.get(self.kind, self.kind) + self.rest

    def __str__(self) -> str:
        """The whole name, as the contract holds it."""
        return self.base if self.layer is None else f"{self.base}#{self.layer}"


def parse_name(text: str, layer: str | None = None) -> Name:
    """Take a backbone's name apart.

    A ``#`` parts the layer from the name, the last one where there are several; but an ONNX
    file whose own name holds one is found where it lies.

    Args:
        text: The name.
        layer: The layer, where it is not in the name.

    Returns:
        Its parts.

    Raises:
        BackboneNotFoundError: It is of no known kind.
        ParameterError: Two layers are named, or an empty one.
    """
    kind = next((kind for kind, prefix in _PREFIXES.items() if text.startswith(prefix)), "")
    rest = text[len(_PREFIXES[kind]) :] if kind else text
    rest, own = _split(rest, is_file=kind == "onnx")
    if not kind or not rest:
        if rest != "demo":
            raise BackboneNotFoundError(f"there is no backbone {text!r}; use {FORMS}")
        kind, rest = "demo", ""
    if own is not None and layer is not None and own != layer:
        raise ParameterError(
            f"the backbone {text} names the layer {own!r} and --layer another, {layer!r}; "
            "give one"
        )
    chosen = layer if own is None else own
    if chosen == "":
        raise ParameterError(
            f"the backbone {text!r} names an empty layer; give --layer NAME, or leave it out"
        )
    return Name(kind, rest, chosen)


def onnx_path(text: str) -> Path | None:
    """Return the file of a backbone that is an ONNX file, or None where it is none."""
    if not text.startswith("onnx:"):
        return None
    return Path(parse_name(text).rest)


def _split(text: str, *, is_file: bool) -> tuple[str, str | None]:
    if is_file:  # the longest name that is a file, so that both may hold a '#'
        cut = len(text)
        while cut > 0:
            if os.path.isfile(text[:cut]):
                return text[:cut], None if cut == len(text) else text[cut + 1 :]
            cut = text.rfind("#", 0, cut)
    name, mark, layer = text.rpartition("#")
    return (name, layer) if mark else (text, None)
