# SPDX-License-Identifier: Apache-2.0
"""Where graphs are kept: a name of all that decides them, asked for without onnx."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from edge_imprint_runtime import BackboneInfo
from edge_imprint_runtime.graph_files import (
    cache_folder,
    graph_path,
    has_graph,
    tool_versions,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_graph_is_there_or_not(tiny_info: BackboneInfo) -> None:
    path = graph_path(tiny_info)
    assert path.parent == cache_folder()
    assert not has_graph(tiny_info)
    path.parent.mkdir(parents=True)
    path.touch()
    assert not has_graph(tiny_info)  # what a full disk leaves
    path.write_bytes(b"graph")
    assert has_graph(tiny_info)


@pytest.mark.parametrize("tool", ["torch", "timm", "torchvision", "onnx", "onnxscript"])
def test_another_version_of_a_tool_makes_another_graph(
    tool: str, tiny_info: BackboneInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = graph_path(tiny_info), metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "99.0" if name == tool else real(name)
    )
    assert graph_path(tiny_info) != before


def test_tools_that_are_not_installed() -> None:
    assert tool_versions(("numpy", "no-such-package"))[1] == "no-such-package=none"
