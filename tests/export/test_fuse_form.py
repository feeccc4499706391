# SPDX-License-Identifier: Apache-2.0
"""The form of a fused graph: what every target reads, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export import embedder, fuse, save
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime import BackboneInfo, Frame, Head, Preprocess, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneMismatchError,
    NoContractError,
    NotCalibratedError,
    OutputExistsError,
    ParameterError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.headless import headless

MakeHead = Callable[..., Head]
ALL_OUTPUTS = ("scores", "label", "embedding")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def declared(values: object) -> list[tuple[str, int, list[str | int]]]:
    """Return name, type and shape of graph inputs or outputs."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values  # type: ignore[attr-defined]
    ]


def with_opset(backbone: bytes, opset: int) -> onnx.ModelProto:
    """Return the tiny backbone in another opset; its operators are the same in all of them."""
    model = parse(backbone, "tiny")
    model.opset_import[0].version = opset
    model.ir_version = max(8, helper.find_min_ir_version_for(model.opset_import))
    return model


@pytest.mark.parametrize("input_form", ["uint8", "float32"])
@pytest.mark.parametrize("outputs", [("scores", "label"), ALL_OUTPUTS, ALL_OUTPUTS[::-1]])
def test_inputs_and_outputs(
    tiny_backbone: bytes, make_head: MakeHead, input_form: str, outputs: tuple[str, ...]
) -> None:
    model = fuse(tiny_backbone, make_head(5, 2), input=input_form, outputs=outputs)
    images = {
        "uint8": ("images", TensorProto.UINT8, ["N", 16, 16, 3]),
        "float32": ("images", TensorProto.FLOAT, ["N", 3, 16, 16]),
    }
    assert declared(model.graph.input) == [images[input_form]]
    want = [
        ("scores", TensorProto.FLOAT, ["N", 5]),
        ("label", TensorProto.INT32, ["N"]),
        ("embedding", TensorProto.FLOAT, ["N", 8]),
    ]
    assert declared(model.graph.output) == want[: len(outputs)]


@pytest.mark.parametrize("input_form", ["uint8", "float32"])
def test_the_default_dialect(
    tiny_backbone: bytes, make_head: MakeHead, input_form: str
) -> None:
    head = make_head(3, 4, center=True, transform=True)
    model = fuse(tiny_backbone, head, input=input_form)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert (model.producer_name, model.producer_version) == ("edge-imprint", "")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"LayerNormalization", "Gelu", "DynamicQuantizeLinear", "Resize"}
    assert not any(node.doc_string for node in model.graph.node)


def test_a_graph_without_loose_ends(tiny_backbone: bytes, make_head: MakeHead) -> None:
    """Every name is made once, every tensor is used, nothing lies outside the file."""
    graph = fuse(tiny_backbone, make_head(3, 2, center=True, transform=True)).graph
    made = [name for node in graph.node for name in node.output]
    made += [tensor.name for tensor in graph.initializer] + [i.name for i in graph.input]
    used = {name for node in graph.node for name in node.input}
    assert len(made) == len(set(made))
    assert used | {"scores", "label"} == set(made)
    nodes = [node.name for node in graph.node]
    assert len(nodes) == len(set(nodes))
    assert all(nodes)
    for tensor in graph.initializer:
        assert tensor.data_location == TensorProto.DEFAULT
        assert not tensor.external_data


@pytest.mark.parametrize(
    ("opset", "ir_version"), [(11, 8), (13, 8), (17, 8), (18, 8), (19, 9), (20, 9), (21, 10)]
)
def test_reductions_name_their_axes_as_the_opset_wants(
    tiny_backbone: bytes, make_head: MakeHead, opset: int, ir_version: int
) -> None:
    head = make_head(4, 3)
    model = fuse(with_opset(tiny_backbone, opset), head)
    assert model.opset_import[0].version == opset
    assert model.ir_version == ir_version
    constants = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    reductions = {n.op_type: n for n in model.graph.node if n.op_type.startswith("Reduce")}
    for kind, axis in (("ReduceL2", 1), ("ReduceMax", 2)):
        node = reductions.pop(kind)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if opset < 18:
            assert attributes["axes"] == [axis]
            assert len(node.input) == 1
        else:
            assert "axes" not in attributes
            assert constants[node.input[1]] == [axis]
    assert not reductions
    scores = OrtRunner(to_bytes(model), "cpu").run(["scores"], PIXELS)[0]
    want = OrtRunner(to_bytes(fuse(tiny_backbone, head)), "cpu").run(["scores"], PIXELS)[0]
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-6)


def test_the_metadata_are_the_contract(
    tiny_backbone: bytes, tiny_info: BackboneInfo, make_head: MakeHead
) -> None:
    head = make_head(4, 3, norm="none")
    model = fuse(tiny_backbone, head, input="float32")
    contract = decode({p.key: p.value for p in model.metadata_props}, model=True)
    assert contract.labels == head.labels
    assert contract.rule == head.rule
    assert contract.recipe == "random"
    assert contract.backbone == tiny_info
    assert contract.embedding_size == 8
    assert contract.graph is not None
    assert (contract.graph.input, contract.graph.slots) == ("float32", 3)


def test_parts_carry_no_contract(
    tiny_backbone: bytes, tiny_preprocess: Preprocess, make_head: MakeHead, tmp_path: Path
) -> None:
    fused = fuse(tiny_backbone, make_head())
    cut = onnx.load_from_string(headless(to_bytes(fused), "m"))
    for name, part in (("e", embedder(tiny_backbone, tiny_preprocess)), ("h", cut)):
        onnx.checker.check_model(part, full_check=True)
        assert declared(part.graph.input) == [("images", TensorProto.UINT8, ["N", 16, 16, 3])]
        assert [value.name for value in part.graph.output] == ["embedding"]
        assert len(to_bytes(part)) < len(to_bytes(fused))
        with pytest.raises(NoContractError):
            open_model(save(part, tmp_path / name))


def test_save(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> None:
    model = fuse(tiny_backbone, make_head())
    path = save(model, tmp_path / "m.onnx")
    assert path.read_bytes() == to_bytes(model)
    assert os.listdir(tmp_path) == ["m.onnx"]
    with pytest.raises(OutputExistsError):
        save(model, path)
    assert save(model, path, force=True) == path


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"input": "frame"}, ParameterError),
        ({"frame": Frame("rgb", 16, 16)}, ParameterError),
        ({"input": "embedding"}, ParameterError),
        ({"precision": "int4"}, ParameterError),
        ({"head_precision": "bf16"}, ParameterError),
        ({"target": "jetpack-4"}, ParameterError),
        ({"outputs": ("scores", "label", "known")}, NotCalibratedError),
        ({"outputs": ("scores", "label", "proxy"), "teachable": True}, UnsupportedOptionError),
        ({"input": "int8"}, ParameterError),
        ({"input": "UINT8"}, ParameterError),
        ({"outputs": ()}, ParameterError),
        ({"outputs": ("scores",)}, ParameterError),
        ({"outputs": ("label", "embedding")}, ParameterError),
        ({"outputs": ("scores", "label", "logits")}, ParameterError),
        ({"outputs": "scores"}, ParameterError),
    ],
)
def test_bad_options(
    tiny_backbone: bytes,
    make_head: MakeHead,
    options: dict[str, object],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        fuse(tiny_backbone, make_head(), **options)  # type: ignore[arg-type]


def test_a_head_that_does_not_fit(
    tiny_backbone: bytes, tiny_info: BackboneInfo, make_head: MakeHead
) -> None:
    with pytest.raises(BackboneMismatchError, match="does not say which backbone"):
        fuse(tiny_backbone, make_head(backbone=None))
    with pytest.raises(BackboneMismatchError, match="have 8 numbers, the head takes 9"):
        fuse(tiny_backbone, make_head(dim=9))
    for size in ((32, 32), (16, 32), (32, 16)):
        info = BackboneInfo("tiny", "packaged", tiny_info.digest, Preprocess(*size))
        with pytest.raises(BackboneMismatchError, match=r"takes \(16, 16\) pixels"):
            fuse(tiny_backbone, make_head(backbone=info))


def test_a_graph_that_is_no_backbone(tiny_backbone: bytes, make_head: MakeHead) -> None:
    other = parse(tiny_backbone, "tiny")
    other.graph.input[0].name = other.graph.node[0].input[0] = "x"
    with pytest.raises(BackboneMismatchError, match="this one from 'x' to 'embedding'"):
        fuse(other, make_head())
    with pytest.raises(BackboneMismatchError):
        fuse(to_bytes(fuse(tiny_backbone, make_head())), make_head())
    for data in (b"", b"no model", tiny_backbone[:100]):
        with pytest.raises(BackboneExportError, match="the backbone is not an ONNX model"):
            fuse(data, make_head())
