# SPDX-License-Identifier: Apache-2.0
"""The head is taken off a file's bytes, and ONNX's own library reads what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime import Head, Teachable
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.class_tensors import class_tensors
from edge_imprint_runtime.errors import ModelFileError, OutputMissingError
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.onnx_scan import scan

MakeHead = Callable[..., Head]

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("form", ["plain", "half", "votes", "teachable", "taught as input"])
def test_what_is_left_embeds_as_before(
    tiny_backbone: bytes, make_head: MakeHead, form: str
) -> None:
    head, options = make_head(center=True, transform=True), {}
    if form == "half":
        options = {"head_precision": "fp16"}
    elif form == "votes":
        head = make_head(aggregation="mnn", neighbors=3)
    elif form != "plain":
        kind = "default" if form == "teachable" else "input"
        options = {"teachable": Teachable(kind, 8, 2)}
    outputs = ("scores", "label", "embedding")
    fused = to_bytes(fuse(tiny_backbone, head, outputs=outputs, **options))  # type: ignore[arg-type]
    cut = headless(fused, "m")
    model = onnx.load_from_string(cut)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["embedding"]
    assert not model.metadata_props
    assert not any("prox" in tensor.name for tensor in model.graph.initializer)
    assert scan(cut, "m").nodes < scan(fused, "m").nodes
    assert len(cut) < len(fused)
    whole = OrtRunner(fused, "cpu")
    slots = int(whole.metadata["edge_imprint.slots"])
    known = class_tensors(head, slots) if form == "taught as input" else {}
    want = whole.run(["embedding"], PIXELS, {n: t.values for n, t in known.items()})[0]
    (found,) = OrtRunner(cut, "cpu").run(["embedding"], PIXELS)
    np.testing.assert_array_equal(found, want)
    value = model.graph.output[0].type.tensor_type
    assert value.elem_type == TensorProto.FLOAT
    assert [side.dim_param for side in value.shape.dim] == ["N", ""]


def test_what_head_and_backbone_share_is_kept(
    tiny_backbone: bytes, make_head: MakeHead
) -> None:
    """A constant that nodes behind the embedding use too, as exporters share them."""
    backbone = parse(tiny_backbone, "tiny")
    shared = backbone.graph.initializer[0].name
    backbone.graph.node.append(helper.make_node("Identity", [shared], ["dead"]))
    fused = to_bytes(fuse(backbone, make_head(), outputs=("scores", "label", "embedding")))
    embeddings = [
        OrtRunner(m, "cpu").run(["embedding"], PIXELS)[0]
        for m in (fused, headless(fused, "m"))
    ]
    assert np.array_equal(*embeddings)


def test_what_a_graph_within_a_node_reads_is_kept() -> None:
    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Add", ["images", weight], ["o"])], name, [], [value("o", 1, 2)]
        )
        for name, weight in (("then", "a"), ("else", "b"))
    }
    nodes = [
        helper.make_node("If", ["yes"], ["embedding"], **branches),
        helper.make_node("Mul", ["embedding", "c"], ["scores"]),
    ]
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, [1, 2], [1.0, 2.0]) for name in "abc"
    ]
    tensors.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph = helper.make_graph(
        nodes, "g", [value("images", 1, 2)], [value("scores", 1, 2)], tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cut = onnx.load_from_string(headless(to_bytes(model), "m"))
    onnx.checker.check_model(cut, full_check=True)
    assert {tensor.name for tensor in cut.graph.initializer} == {"a", "b", "yes"}


def test_what_has_no_embedding(tiny_backbone: bytes) -> None:
    model = parse(tiny_backbone, "tiny")
    model.graph.node[-1].output[0] = model.graph.output[0].name = "features"
    with pytest.raises(OutputMissingError) as error:
        headless(to_bytes(model), "m.onnx")
    assert str(error.value) == ("m.onnx has no embedding; export it with: edge-imprint export")


@given(st.data())
def test_a_file_that_is_cut_off_is_refused(tiny_model: Path, data: st.DataObject) -> None:
    whole = tiny_model.read_bytes()
    end = data.draw(st.integers(0, len(whole) // 2))  # within the graph
    with pytest.raises((ModelFileError, OutputMissingError)):
        headless(whole[:end], "m")
