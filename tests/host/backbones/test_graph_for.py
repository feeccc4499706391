# SPDX-License-Identifier: Apache-2.0
"""A head goes with its own backbone and no other, of whatever kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_imprint import Backbone, export
from edge_imprint.backbones import graph_for, load_backbone
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import BackboneMismatchError, WeightsError

KINDS = {
    "demo": "demo",
    "demo layer": "demo#conv2.relu",
    "timm": "timm/test_efficientnet",
    "timm layer": "timm/test_efficientnet#blocks.1",
    "torchvision": "torchvision/squeezenet1_1",
    "onnx": "onnx:tiny.onnx",
    "onnx tensor": "onnx:tiny.onnx#backbone/conv1.relu",
    "python": "python:a_net_of_mine:make",
}
NET = """
import torch
from edge_imprint_runtime import Preprocess
def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1))
    return torch.nn.Sequential(net, torch.nn.Flatten()), Preprocess(8, 8)
"""


@pytest.fixture(params=KINDS)
def backbone(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_backbone: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Backbone]:
    """A backbone of each kind, files in the current folder, the cache empty."""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("tiny.onnx").write_bytes(tiny_backbone)
    Path("a_net_of_mine.py").write_text(NET)
    name = KINDS[request.param]
    with torch.random.fork_rng(devices=[]):
        yield load_backbone(name, random_weights=name.startswith(("timm/", "torchvision/")))


def head_of(backbone: Backbone) -> Head:
    size = embedding_size(backbone.onnx)
    return Head(np.eye(2, size), [0, 1], ["a", "b"], backbone=backbone.info)


def test_its_own_graph_with_and_without_the_cache(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_of(backbone)
    want = to_bytes(backbone.onnx)
    assert to_bytes(graph_for(head)) == want
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert to_bytes(graph_for(head)) == want


def test_another_backbone_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    info = replace(backbone.info, digest="0" * 64)
    other = Head(np.eye(2, 8), [0, 1], ["a", "b"], backbone=info)
    with pytest.raises(BackboneMismatchError) as caught:
        graph_for(other)
    assert str(caught.value) == (
        f"the backbone {backbone.info.name} at hand has other weights than the head was built "
        f"with (digest {backbone.info.digest[:12]}, the head says 000000000000); build the "
        "head again"
    )
    other.save(tmp_path / "head.safetensors")
    with pytest.raises(BackboneMismatchError):
        export(tmp_path / "head.safetensors", out=tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_was_moved_is_asked_for(
    tiny_backbone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.onnx").write_bytes(tiny_backbone)
    head = head_of(load_backbone("onnx:tiny.onnx"))
    Path("tiny.onnx").rename("moved.onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(WeightsError) as caught:
        graph_for(head)
    assert str(caught.value) == (
        "the backbone's file tiny.onnx is neither here nor cached; "
        "say where it is with --backbone onnx:FILE"
    )
    assert embedding_size(graph_for(head, backbone="onnx:moved.onnx")) == head.embedding_size
