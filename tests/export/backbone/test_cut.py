# SPDX-License-Identifier: Apache-2.0
"""An ONNX file cut at a tensor inside: what is found there, averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.backbone.onnx_file import read_backbone, weight_files
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError, BackboneNotFoundError

RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
FLOATS = RNG.standard_normal((3, 3, 12, 20)).astype(np.float32)


def network(batch: str | int = "N") -> onnx.ModelProto:
    """Return a network with a map, the same channels last, tokens, a vector, and oddities."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["map"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make("Transpose", ["map"], ["last"], perm=[0, 2, 3, 1]),
        make("Reshape", ["last", "as_tokens"], ["/block/tokens:0"]),
        make("ReduceMean", ["map"], ["vector"], axes=[2, 3], keepdims=0),
        make("Reshape", ["map", "as_windows"], ["windows"]),
        make("Cast", ["vector"], ["doubled"], to=TensorProto.DOUBLE),
        make("Unsqueeze", ["map", "one"], ["five"]),
        make("Neg", ["w"], ["constant"]),
        make("ReduceMean", ["constant"], ["constant_mean"], axes=[0, 1, 2, 3], keepdims=0),
        make("Add", ["vector", "constant_mean"], ["features"]),
        make("MatMul", ["features", "classifier"], ["logits"]),
    ]
    weights = {
        "w": WEIGHTS,
        "as_tokens": np.array([0, -1, 8]),
        "as_windows": np.array([-1, 5, 8]),
        "one": np.array([1]),
        "classifier": np.ones((8, 1000), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 12, 20])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def given(tensor: str) -> npt.NDArray[np.generic]:
    """Return what the network holds there, by ONNX Runtime on the whole of it."""
    model = network()
    model.graph.output.append(helper.make_tensor_value_info(tensor, 1, None))
    return OrtRunner(to_bytes(model), "cpu").run([tensor], FLOATS)[0]


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize(
    ("tensor", "axes"),
    [
        ("map", (2, 3)),
        ("last", (1, 2)),
        ("/block/tokens:0", (1,)),
        ("vector", ()),
        ("features", ()),
    ],
)
def test_any_tensor_can_be_the_embedding(
    tensor: str, axes: tuple[int, ...], batch: str | int, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(network(batch)))
    model = read_backbone(tmp_path / "m.onnx", tensor=tensor)
    onnx.checker.check_model(model, full_check=True)
    value = given(tensor)
    want = value.mean(axes) if axes else value
    assert embedding_size(model) == want.shape[1] == 8
    found = OrtRunner(to_bytes(model), "cpu").run(["embedding"], FLOATS)[0]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert len(to_bytes(model)) < 3_000  # the classifier, 32 kB, is left out


def test_the_last_tensor_is_the_output(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(to_bytes(network()))
    assert to_bytes(read_backbone(file, tensor="logits")) == to_bytes(read_backbone(file))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ("windows", r"is float32 \(12, 5, 8\) for 1 image"),
        ("doubled", r"is float64 \(1, 8\) for 1 image\(s\); only float32 \(N, D\), "),
        ("five", r"is float32 \(1, 1, 8, 6, 10\) for 1 image"),
        ("constant", r"tensor 'constant' of the backbone .* is the same for all images"),
    ],
)
def test_tensors_that_cannot_be_one(tensor: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(network()))
    with pytest.raises(BackboneExportError, match=reason):
        read_backbone(tmp_path / "m.onnx", tensor=tensor)


@pytest.mark.parametrize(
    ("tensor", "nearest"),
    [
        ("/block/token", "nearest: /block/tokens:0"),
        ("Vector", "nearest: vector"),
        ("w", "nearest: constant_mean, features, logits"),  # a weight, which nothing computes
        ("x", "nearest: constant_mean, features, logits"),
        ("", "nearest: constant_mean, features, logits"),
    ],
)
def test_no_such_tensor(tensor: str, nearest: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(network()))
    with pytest.raises(BackboneNotFoundError) as caught:
        read_backbone(tmp_path / "m.onnx", tensor=tensor)
    start = f"the backbone {tmp_path / 'm.onnx'} computes no tensor {tensor!r}; "
    assert str(caught.value) == start + nearest


def test_weights_beside_the_model_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(network()))
    assert weight_files(tmp_path / "m.onnx") == []
    onnx.save_model(
        network(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    assert weight_files(tmp_path / "m.onnx") == [tmp_path / "w.bin"]
