# SPDX-License-Identifier: Apache-2.0
"""ONNX files that can't be a backbone; each refused in one sentence, none half understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.backbone.onnx_file import read_backbone
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.errors import BackboneExportError, UnsafeModelError

Nodes = list[onnx.NodeProto]
SHAPE = ["N", 3, 8, 8]


def model_of(
    nodes: Nodes,
    *,
    shape: list[str | int] | None = None,
    dtype: int = TensorProto.FLOAT,
    constants: list[onnx.TensorProto] | None = None,
    opset: int = 17,
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """Return a model from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info(name, dtype, shape or SHAPE) for name in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        constants or [],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def node(kind: str, x: str = "x", y: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, x.split(), [y], **attributes)


def mean_over_the_batch() -> onnx.ModelProto:
    nodes = [node("Flatten", y="f"), node("ReduceMean", "f", "m", axes=[0])]
    return model_of([*nodes, node("Sub", "f m")])


def reshape_to_one_row() -> onnx.ModelProto:
    row = numpy_helper.from_array(np.array([1, -1]), "row")
    return model_of([node("Reshape", "x row")], shape=[1, 3, 8, 8], constants=[row])


def reshape_to_fixed_rows() -> onnx.ModelProto:
    rows = numpy_helper.from_array(np.array([1, 192]), "rows")
    return model_of([node("Reshape", "x rows")], shape=[1, 3, 8, 8], constants=[rows])


FLATTEN = [node("Flatten")]
CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a map": (
        lambda: model_of([node("Relu")]),
        r"shape \(1, 3, 8, 8\); it must be an embedding",
    ),
    "a number": (
        lambda: model_of([node("ReduceMean", keepdims=0)]),
        r"shape \(\); it must be an embedding",
    ),
    "integers": (
        lambda: model_of(FLATTEN, dtype=TensorProto.UINT8),
        "takes TensorProto.UINT8|uint8",
    ),
    "half": (lambda: model_of(FLATTEN, dtype=TensorProto.FLOAT16), "must take float32"),
    "grey": (lambda: model_of(FLATTEN, shape=["N", 1, 8, 8]), r"\(N, 3, H, W\)"),
    "channels last": (lambda: model_of(FLATTEN, shape=["N", 8, 8, 3]), r"\(N, 3, H, W\)"),
    "any size": (lambda: model_of(FLATTEN, shape=["N", 3, "H", "W"]), "fixed H and W"),
    "rows": (lambda: model_of(FLATTEN, shape=["N", 3]), r"\(N, 3, H, W\)"),
    "two inputs": (
        lambda: model_of([node("Add", "x z", "s"), node("Flatten", "s")], inputs=("x", "z")),
        "has 2 inputs",
    ),
    "no input": (
        lambda: model_of([node("Constant", "", value_float=1.0)], inputs=()),
        "has 0 inputs",
    ),
    "no output": (lambda: model_of(FLATTEN, outputs=()), "0 outputs"),
    "opset 10": (
        lambda: model_of(FLATTEN, opset=10),
        "of opset 10; export it again with opset 11",
    ),
    "opset 9999": (lambda: model_of(FLATTEN, opset=9_999), "does not load|valid"),
    "unknown operator": (
        lambda: model_of([node("Nonsense")]),
        "No Op registered for Nonsense",
    ),
    "missing tensor": (
        lambda: model_of([node("Add", "x nothing")]),
        "takes 'nothing', which nothing makes",
    ),
    "mean over the batch": (mean_over_the_batch, "answers otherwise for two images"),
    "one row": (reshape_to_one_row, "answers otherwise for two images"),
    "fixed rows": (reshape_to_fixed_rows, "runs one batch size only"),
}


@pytest.mark.parametrize(("make", "reason"), CASES.values(), ids=CASES.keys())
def test_a_model_of_another_form(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], reason: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises((BackboneExportError, UnsafeModelError), match=reason) as caught:
        read_backbone(path)
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08", b"\xff" * 100])
def test_a_file_that_is_no_model(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BackboneExportError, match="is not an ONNX model"):
        read_backbone(tmp_path / "m.onnx")


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path, tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(BackboneExportError, match="cannot read the backbone"):
            read_backbone(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "missing.bin"])
def test_external_weights_from_elsewhere(tmp_path: Path, location: str) -> None:
    """A model file must not make us read files outside its folder."""
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 192))
    folder = tmp_path / "folder"
    folder.mkdir()
    weight = TensorProto(name="w", dims=[192, 1], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    nodes = [node("Flatten", y="f"), node("MatMul", "f w")]
    path = folder / "m.onnx"
    path.write_bytes(to_bytes(model_of(nodes, constants=[weight])))
    error = BackboneExportError if location == "missing.bin" else UnsafeModelError
    with pytest.raises(error, match=r"the backbone .*m\.onnx.* put .* beside the model"):
        read_backbone(path)
