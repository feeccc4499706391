# SPDX-License-Identifier: Apache-2.0
"""The C runtime takes the head off a model as Python's does: the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime import Head, Teachable
from edge_imprint_runtime.errors import EdgeImprintError, ModelFileError, OutputMissingError
from edge_imprint_runtime.headless import headless
from tests.c.ort_tools import Program

MakeHead = Callable[..., Head]
Cut = Callable[[bytes], "bytes | str"]
STATUS = {ModelFileError: "EI_MODEL_FILE", OutputMissingError: "EI_OUTPUT_MISSING"}


@pytest.fixture(scope="module")
def cut(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    """Return a function: a model -> what C left of it, found to be what Python leaves."""
    folder = tmp_path_factory.mktemp("headless")
    with Program(c_build / "tests" / "scan_check") as program:

        def ask(data: bytes) -> bytes | str:
            (folder / "m.onnx").write_bytes(data)
            (status,) = program.ask(
                "headless", folder / "m.onnx", folder / "out.onnx", between="\t"
            )
            try:
                wanted = headless(data, "m")
            except EdgeImprintError as error:
                assert status == f"{STATUS[type(error)]}: {error}"
                return status
            assert status == "EI_OK: "
            found = (folder / "out.onnx").read_bytes()
            assert found == wanted
            return found

        yield ask


@pytest.mark.parametrize("form", ["plain", "half", "votes", "teachable", "taught as input"])
def test_every_form(cut: Cut, tiny_backbone: bytes, make_head: MakeHead, form: str) -> None:
    head, options = make_head(center=True, transform=True), dict[str, Any]()
    if form == "half":
        options = {"head_precision": "fp16"}
    elif form == "votes":
        head = make_head(aggregation="mnn", neighbors=3)
    elif form != "plain":
        kind = "default" if form == "teachable" else "input"
        options = {"teachable": Teachable(kind, 8, 2)}
    outputs = ("scores", "label", "embedding")
    fused = to_bytes(fuse(tiny_backbone, head, outputs=outputs, **options))
    left = cut(fused)
    assert isinstance(left, bytes)
    onnx.checker.check_model(onnx.load_from_string(left), full_check=True)


def test_what_a_graph_within_a_node_reads_is_kept(cut: Cut) -> None:
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
    left = cut(to_bytes(helper.make_model(graph, ir_version=8)))
    assert isinstance(left, bytes)
    names = {tensor.name for tensor in onnx.load_from_string(left).graph.initializer}
    assert names == {"a", "b", "yes"}


def test_many_names(cut: Cut) -> None:
    """More than fit at first, each of several nodes' own."""
    nodes = [helper.make_node("Sum", [f"x{i}" for i in range(3000)], ["embedding"])]
    nodes.append(helper.make_node("Relu", ["embedding"], ["scores"]))
    tensors = [helper.make_tensor(f"x{i}", TensorProto.FLOAT, [1], [1.0]) for i in range(4000)]
    value = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [], [value], tensors)
    left = cut(helper.make_model(graph).SerializeToString())
    assert isinstance(left, bytes)
    assert len(onnx.load_from_string(left).graph.initializer) == 3000


def test_what_has_no_embedding(cut: Cut, tiny_backbone: bytes) -> None:
    model = parse(tiny_backbone, "tiny")
    model.graph.node[-1].output[0] = model.graph.output[0].name = "features"
    assert cut(to_bytes(model)) == (
        "EI_OUTPUT_MISSING: m has no embedding; export it with: edge-imprint export"
    )


def test_what_has_no_graph(cut: Cut) -> None:
    assert cut(b"\x08\x08") == "EI_MODEL_FILE: m is not an ONNX model: it holds no graph"
    assert cut(b"\x72\x01\x00\x0d") == (
        "EI_MODEL_FILE: m is not an ONNX model: it is cut off, or no protobuf message"
    )


def test_graphs_without_end(c_build: Path, tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["embedding"])], "g", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["embedding"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with Program(c_build / "tests" / "scan_check") as program:
        (status,) = program.ask("headless", path, tmp_path / "out", between="\t")
    assert status == (
        "EI_UNSAFE_MODEL: m nests graphs more than 16 deep; export it without If and Loop"
    )


@given(st.data())
def test_a_file_that_is_cut_off(cut: Cut, tiny_model: Path, data: st.DataObject) -> None:
    whole = tiny_model.read_bytes()
    end = data.draw(st.integers(0, len(whole) // 2))  # within the graph
    assert isinstance(cut(whole[:end]), str)


@given(st.integers(0, 100_000), st.integers(0, 255))
def test_a_damaged_file(cut: Cut, tiny_model: Path, at: int, byte: int) -> None:
    whole = bytearray(tiny_model.read_bytes())
    whole[at % len(whole)] = byte
    cut(bytes(whole))
