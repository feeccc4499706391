# SPDX-License-Identifier: Apache-2.0
"""A user's own ONNX file becomes a backbone, or one sentence says why it can't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export import fuse
from edge_imprint_export.backbone.onnx_file import read_backbone
from edge_imprint_export.graph import embedding_size, image_size, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.images import normalize

MakeHead = Callable[..., Head]

WEIGHTS = np.random.default_rng(5).standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
FLOATS = np.random.default_rng(6).standard_normal((3, 3, 16, 16)).astype(np.float32)


def user_model(
    *,
    names: tuple[str, ...] = ("input", "w", "map", "pooled", "features"),
    batch: str | int | None = "batch",
    shape: tuple[str | int, ...] = (3, 16, 16),
    dtype: int = TensorProto.FLOAT,
    tail: Callable[[str, str], list[onnx.NodeProto]] | None = None,
    opset: int = 17,
    extra: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """Return Conv -> GlobalAveragePool -> a tail (Flatten) under the given tensor names."""
    x, weight, feature_map, pooled, features = names
    nodes = [
        helper.make_node("Conv", [x, weight], [feature_map], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", [feature_map], [pooled]),
    ]
    flatten = [helper.make_node("Flatten", [pooled], [features])]
    graph = helper.make_graph(
        nodes + (tail(pooled, features) if tail else flatten),
        "user",
        [helper.make_tensor_value_info(x, dtype, [batch, *shape])],
        [helper.make_tensor_value_info(features, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHTS, weight), *(extra or [])],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def expected(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what the user's model computes, by ONNX Runtime on the file as it was."""
    runner = OrtRunner(to_bytes(user_model()), "cpu")
    return np.asarray(runner.run(["features"], floats)[0], np.float32)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(to_bytes(model))
    return path


def run(model: onnx.ModelProto, floats: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    return OrtRunner(to_bytes(model), "cpu").run(["embedding"], floats)[0]


def check(path: Path) -> onnx.ModelProto:
    """Read a file, and compare what it computes with what it should."""
    model = read_backbone(path)
    onnx.checker.check_model(model, full_check=True)
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["pixels", "embedding"]
    assert (embedding_size(model), image_size(model)) == (8, (16, 16))
    for batch in (FLOATS, FLOATS[:1]):
        np.testing.assert_allclose(run(model, batch), expected(batch), rtol=1e-5, atol=1e-6)
    return model


@pytest.mark.parametrize("batch", ["N", None, 1, 2, 3])
def test_any_batch_becomes_dynamic(tmp_path: Path, batch: str | int | None) -> None:
    model = check(write(tmp_path / "m.onnx", user_model(batch=batch)))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_pooled_map_is_flattened(tmp_path: Path) -> None:
    def identity(x: str, y: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Identity", [x], [y])]

    check(write(tmp_path / "m.onnx", user_model(tail=identity)))


def test_the_first_output_is_the_embedding(tmp_path: Path) -> None:
    """Logits beside it are left out, and what they share with the backbone stays."""
    model = user_model()
    model.graph.node.append(helper.make_node("Sigmoid", ["features"], ["logits"]))
    model.graph.node.append(helper.make_node("Identity", ["w"], ["weights"]))
    for name in ("logits", "weights"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    found = check(write(tmp_path / "m.onnx", model))
    assert len(found.graph.output) == 1


def test_weights_listed_among_the_inputs(tmp_path: Path) -> None:
    model = user_model()
    weight = helper.make_tensor_value_info("w", TensorProto.FLOAT, WEIGHTS.shape)
    model.graph.input.insert(0, weight)
    check(write(tmp_path / "m.onnx", model))


def test_notes_of_the_exporter_go(tmp_path: Path) -> None:
    """They hold names of files and people of the machine that exported."""
    model = user_model()
    model.producer_name = model.producer_version = model.domain = model.doc_string = "secret"
    model.graph.doc_string = model.graph.name = model.graph.node[0].doc_string = "secret"
    model.graph.initializer[0].doc_string = model.graph.input[0].doc_string = "secret"
    helper.set_model_props(model, {"secret": "secret"})
    model.graph.node[0].metadata_props.add(key="secret", value="secret")
    model.model_version = 7
    assert b"secret" not in to_bytes(check(write(tmp_path / "m.onnx", model)))


NAMES = [
    ("images", "proxies", "scores", "label", "embedding"),
    ("embedding", "pixels", "images", "center", "pixels_"),
    ("scores", "transform", "head/similarity", "preprocess/nchw", "label"),
    ("pixels", "head/slots", "preprocess/mean", "backbone/pixels", "embedding"),
    ("x", "head/epsilon", "preprocess/scale", "embedding", "images"),
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
@pytest.mark.parametrize("input_form", ["uint8", "float32"])
def test_names_that_clash_with_ours(
    tmp_path: Path, make_head: MakeHead, names: tuple[str, ...], input_form: str
) -> None:
    backbone = check(write(tmp_path / "m.onnx", user_model(names=names)))
    info = BackboneInfo("user", "packaged", "0" * 64, Preprocess(16, 16))
    head = make_head(4, 3, center=True, transform=True, backbone=info)
    model = OrtRunner(to_bytes(fuse(backbone, head, input=input_form)), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    floats = normalize(pixels, info.preprocess)
    scores = model.run(["scores"], pixels if input_form == "uint8" else floats)[0]
    np.testing.assert_allclose(scores, head.scores(expected(floats)), rtol=0, atol=1e-5)


def branch(name: str) -> onnx.GraphProto:
    """Return a graph inside a graph, which reads the outer graph's input and weights."""
    nodes = [
        helper.make_node("Conv", ["input", "inner_w"], ["inner"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["inner"], ["inner_pooled"]),
        helper.make_node("Flatten", ["inner_pooled"], [name]),
    ]
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output])


@pytest.mark.parametrize("input_form", ["uint8", "float32"])
def test_a_branch_that_reads_the_images(
    tmp_path: Path, make_head: MakeHead, input_form: str
) -> None:
    constants = [
        numpy_helper.from_array(np.array(True), "condition"),
        numpy_helper.from_array(WEIGHTS, "inner_w"),
    ]

    def choose(_: str, y: str) -> list[onnx.NodeProto]:
        branches = {"then_branch": branch("a"), "else_branch": branch("b")}
        return [helper.make_node("If", ["condition"], [y], **branches)]

    backbone = check(write(tmp_path / "m.onnx", user_model(tail=choose, extra=constants)))
    info = BackboneInfo("user", "packaged", "0" * 64, Preprocess(16, 16))
    outputs = ("scores", "label", "embedding")
    fused = fuse(backbone, make_head(backbone=info), input=input_form, outputs=outputs)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    floats = normalize(pixels, info.preprocess)
    given = pixels if input_form == "uint8" else floats
    for model in (to_bytes(fused), headless(to_bytes(fused), "m")):
        found = OrtRunner(model, "cpu").run(["embedding"], given)[0]
        np.testing.assert_allclose(found, expected(floats), rtol=1e-5, atol=1e-6)


def test_external_weights_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(
        user_model(), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (tmp_path / "w.bin").exists()
    model = check(path)
    (tmp_path / "w.bin").unlink()
    np.testing.assert_allclose(run(model, FLOATS), expected(FLOATS), rtol=1e-5, atol=1e-6)
    with pytest.raises(BackboneExportError, match=r"cannot read the backbone .*m\.onnx"):
        read_backbone(path)


def test_other_domains_are_kept(tmp_path: Path) -> None:
    """ONNX Runtime's optimizer and quantizer write operators of their own domain."""

    def fused_gelu(x: str, y: str) -> list[onnx.NodeProto]:
        flat = helper.make_node("Flatten", [x], ["flat"])
        return [flat, helper.make_node("Gelu", ["flat"], [y], domain="com.microsoft")]

    model = user_model(tail=fused_gelu)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = read_backbone(write(tmp_path / "m.onnx", model))
    assert run(found, FLOATS).shape == (3, 8)


def test_what_the_embedding_does_not_need_goes(tmp_path: Path) -> None:
    """A second output, such as a classifier's, costs a device nothing."""
    model = user_model()
    weights = np.ones((8, 1000), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "classifier"))
    model.graph.node.append(helper.make_node("MatMul", ["features", "classifier"], ["logits"]))
    model.graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 1000])
    )
    (tmp_path / "two.onnx").write_bytes(to_bytes(model))
    (tmp_path / "one.onnx").write_bytes(to_bytes(user_model()))
    two, one = read_backbone(tmp_path / "two.onnx"), read_backbone(tmp_path / "one.onnx")
    assert to_bytes(two) == to_bytes(one)
