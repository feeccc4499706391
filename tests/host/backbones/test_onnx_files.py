# SPDX-License-Identifier: Apache-2.0
"""ONNX files as backbones: cut at a tensor, and without torch from photos to a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_imprint.backbones import Backbone, graph_for, load_backbone
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime import Head, Preprocess
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneMismatchError, BackboneNotFoundError

TENSOR = "backbone/conv1.relu"


def test_a_tensor_of_a_file(onnx_file: Path, network: Backbone) -> None:
    cut = load_backbone(f"onnx:{onnx_file}#{TENSOR}")
    assert cut.info.name == f"onnx:{onnx_file}#{TENSOR}"
    assert cut.info.digest != network.info.digest
    assert cut.info.preprocess == network.info.preprocess
    assert load_backbone(f"onnx:{onnx_file}", layer=TENSOR).info == cut.info
    assert embedding_size(cut.onnx) == 16
    model = onnx.load(onnx_file)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(TENSOR, 1, None))
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    want = OrtRunner(to_bytes(model), "cpu").run([TENSOR], images)[0].mean((2, 3))
    found = OrtRunner(to_bytes(cut.onnx), "cpu").run(["embedding"], images)[0]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_no_such_tensor(onnx_file: Path) -> None:
    with pytest.raises(BackboneNotFoundError, match=r"computes no tensor 'conv1'; nearest: "):
        load_backbone(f"onnx:{onnx_file}#conv1")


def test_what_is_assumed_is_said(onnx_file: Path, network: Backbone) -> None:
    (note,) = network.notes
    assert note.startswith(
        "an ONNX file does not say how photos are prepared for it; assumed: resize=crop:18x18 "
    )
    assert load_backbone(f"onnx:{onnx_file}", preprocess=Preprocess(16, 16)).notes == ()


def test_a_graph_is_the_callers_own(onnx_file: Path) -> None:
    backbone = load_backbone(f"onnx:{onnx_file}")
    backbone.make_graph().graph.name = "changed"
    assert backbone.make_graph().graph.name == "backbone"


def test_the_same_file_elsewhere_keeps_the_heads_tensor(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = load_backbone(f"onnx:{onnx_file}#{TENSOR}")
    head = Head(np.eye(2, 16), [0, 1], ["a", "b"], backbone=cut.info)
    moved = tmp_path / "moved#2.onnx"
    moved.write_bytes(onnx_file.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    want = to_bytes(cut.make_graph())
    assert to_bytes(graph_for(head, backbone=f"onnx:{moved}")) == want
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty too"))
    with pytest.raises(BackboneMismatchError):
        graph_for(head, backbone=f"onnx:{moved}#backbone/conv0")


WITHOUT_TORCH = """
import sys


class Missing:
    # three packages are not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
import numpy as np
import edge_imprint_export
from edge_imprint import ImprintClassifier, load_backbone
from edge_imprint.backbones import graph_for
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_runtime import open_model

backbone = load_backbone(sys.argv[1])
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
rows = ort_embedder(backbone)(images)
labels = np.arange(8) % 2
head = ImprintClassifier("mean").fit(rows, labels).head_.replaced(backbone=backbone.info)
model = edge_imprint_export.fuse(graph_for(head), head)
open(sys.argv[2], "wb").write(model.SerializeToString())
found = open_model(sys.argv[2], "cpu").predict(images)
print([int(label) for label in head.predict(rows)])
print(found.label.tolist())
assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)
"""


@pytest.mark.parametrize("tail", ["", f"#{TENSOR}"])
def test_from_photos_to_a_model_without_torch(
    tail: str, onnx_file: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, f"onnx:{onnx_file}{tail}", tmp_path / "m.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_head, by_model = done.stdout.splitlines()
    assert by_head == by_model
