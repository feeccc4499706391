# SPDX-License-Identifier: Apache-2.0
"""The host side: photos -> head. Nothing heavy is imported before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_imprint.backbones import Backbone, load_backbone
    from edge_imprint.builder import Build, build
    from edge_imprint.classifier import ImprintClassifier
    from edge_imprint.exporter import Export, export

__all__ = [
    "Backbone",
    "Build",
    "Export",
    "ImprintClassifier",
    "__version__",
    "build",
    "export",
    "load_backbone",
]

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbones",
    "Build": "builder",
    "Export": "exporter",
    "ImprintClassifier": "classifier",
    "build": "builder",
    "export": "exporter",
    "load_backbone": "backbones",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package for every `--help`; scikit-learn alone takes 1 s.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"edge_imprint.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
