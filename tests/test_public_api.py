# SPDX-License-Identifier: Apache-2.0
"""What is public is listed here, so that it grows in plain sight."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "edge_imprint": [
        "Backbone",
        "Build",
        "Export",
        "ImprintClassifier",
        "__version__",
        "build",
        "export",
        "load_backbone",
    ],
    "edge_imprint_export": [
        "Verification",
        "embedder",
        "fuse",
        "fuse_head",
        "save",
        "verify",
    ],
    "edge_imprint_runtime": [
        "BackboneInfo",
        "Contract",
        "EdgeImprintError",
        "Frame",
        "GraphInfo",
        "Head",
        "Model",
        "Prediction",
        "Predictions",
        "Preprocess",
        "Rule",
        "Teachable",
        "forget",
        "open_image",
        "open_model",
        "prepare",
        "teach",
    ],
    "edge_imprint_runtime.contract": [
        "EPSILON",
        "MAX_LABELS",
        "MAX_LABEL_BYTES",
        "VERSION",
        "BackboneInfo",
        "Contract",
        "Frame",
        "GraphInfo",
        "Preprocess",
        "Rule",
        "Teachable",
        "decode",
        "encode",
    ],
}


def all_modules() -> list[str]:
    names = []
    for home in ("edge_imprint", "export/edge_imprint_export", "runtime/edge_imprint_runtime"):
        root = (ROOT / home).parent
        for file in sorted((ROOT / home).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if not any(part.startswith("_") for part in parts if part != "__init__"):
                names.append(".".join(parts).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    assert importlib.import_module(package).__all__ == PUBLIC[package]


@pytest.mark.parametrize("name", all_modules())
def test_every_public_module_lists_names_that_resolve(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert module.__all__ or hasattr(module, "__path__")  # a folder may be just that
    for public in module.__all__:
        assert getattr(module, public) is not None
        assert not public.startswith("_") or public == "__version__"


@pytest.mark.parametrize("name", all_modules())
def test_every_public_name_of_ours_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in module.__all__:
        value = getattr(module, public)
        if isinstance(value, type) or callable(value):
            home = getattr(value, "__module__", "")
            if home.startswith("edge_imprint"):
                assert value.__doc__, f"{home}.{public}"


def test_an_unknown_name_of_the_lazy_package() -> None:
    import edge_imprint

    with pytest.raises(AttributeError) as caught:
        edge_imprint.nothing  # noqa: B018 - reading it is the test
    assert str(caught.value) == "module 'edge_imprint' has no attribute 'nothing'"
