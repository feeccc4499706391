# SPDX-License-Identifier: Apache-2.0
"""What TensorRT reads badly or not at all is said before its parser is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision.int8 import to_int8
from edge_imprint_export.targets.records import TARGETS
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Contract, decode
from edge_imprint_runtime.engine.legible import _TARGETS, check_legible
from edge_imprint_runtime.engine.onnx_facts import read_facts
from edge_imprint_runtime.errors import TargetError
from tests.standins import VERSIONS

NUMBERS = [tuple(int(part) for part in version.split(".")) for version in VERSIONS]


@pytest.fixture
def contract(forms: dict[str, bytes]) -> Contract:
    return decode(read_facts(forms["plain"], "m").metadata, model=True)


def refusal(data: bytes, contract: Contract, version: tuple[int, ...]) -> str:
    try:
        check_legible(read_facts(data, "m"), contract, version, "shop.onnx")
    except TargetError as error:
        return str(error)
    return ""


def graph(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto, opset: int = 18) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    made = helper.make_graph(nodes, "g", [value], [], list(constants))
    ids = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=ids).SerializeToString()


@pytest.mark.parametrize("version", NUMBERS)
def test_what_export_writes_is_read_by_all(
    forms: dict[str, bytes], contract: Contract, version: tuple[int, ...]
) -> None:
    for form, data in forms.items():
        assert refusal(data, contract, version) == "", form


AXES = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
INT8 = helper.make_tensor("w", TensorProto.INT8, [2], [1, 2])
WRONG: list[tuple[Any, tuple[Any, ...], tuple[int, ...], str]] = [
    (
        helper.make_node("ReduceL2", ["x", "axes"], ["y"]),
        (AXES,),
        (10,),
        (
            "gives the axes of ReduceL2 as an input, which TensorRT 8.6 ignores, so that it "
            "would compute other numbers"
        ),
    ),
    (
        helper.make_node("Shape", ["x"], ["y"], start=1),
        (),
        (10, 6),
        "asks for a part of a shape, and TensorRT 8.6 gives the whole",
    ),
    (
        helper.make_node("DequantizeLinear", ["w", "s"], ["y"]),
        (INT8,),
        (10,),
        "keeps weights as int8, which TensorRT 8.6 does not read",
    ),
    (
        helper.make_node("Resize", ["x"], ["y"], mode="cubic"),
        (),
        (99,),
        "has a cubic or antialiased Resize, which no TensorRT reads",
    ),
    (
        helper.make_node("Resize", ["x"], ["y"], mode="linear", antialias=1),
        (),
        (99,),
        "has a cubic or antialiased Resize, which no TensorRT reads",
    ),
    (
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"]),
        (),
        (99,),
        "has the operator DynamicQuantizeLinear, which no TensorRT reads",
    ),
]


@pytest.mark.parametrize(("node", "constants", "until", "reason"), WRONG)
def test_until_which_version(
    contract: Contract, node: Any, constants: Any, until: tuple[int, ...], reason: str
) -> None:
    data = graph([node], *constants)
    assert refusal(data, contract, (8, 6, 2, 3)) == (
        f"shop.onnx (exported for 'portable') {reason}; export it again with: edge-imprint "
        "export --target jetpack-6.0"
    )
    for version in NUMBERS:
        assert bool(refusal(data, contract, version)) == (version < until)


def test_what_looks_alike_and_is_read(contract: Contract) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["a"]),  # 8.5 reads these axes
        helper.make_node("ReduceMax", ["x"], ["b"], axes=[1]),
        helper.make_node("Resize", ["x"], ["c"], mode="linear", antialias=0),
        helper.make_node("Shape", ["x"], ["d"]),
        helper.make_node("DequantizeLinear", ["x", "s"], ["e"]),
    ]
    assert refusal(graph(nodes, AXES), contract, (8, 5, 3, 1)) == ""


def test_a_model_whose_proxies_have_a_default(
    tiny_backbone: bytes, make_head: Callable[..., Head]
) -> None:
    data = to_bytes(fuse(tiny_backbone, make_head(), teachable=True))
    contract = decode(read_facts(data, "m").metadata, model=True)
    assert refusal(data, contract, (10, 3, 0, 30)) == (
        "shop.onnx (exported for 'portable') is teachable in the form that ONNX Runtime "
        "takes, and TensorRT takes what has a default for a constant; export it again with: "
        "edge-imprint export --target jetpack-6.2"
    )


def test_int8_weights_as_each_target_takes_them(
    tiny_backbone: bytes, make_head: Callable[..., Head], contract: Contract
) -> None:
    import numpy as np

    pixels = np.zeros((1, 3, 16, 16), np.float32) + np.arange(16, dtype=np.float32)
    made = to_int8(parse(tiny_backbone, "b"), [pixels], dialect="tensorrt")
    data = to_bytes(fuse(made, make_head(), precision="int8", target="jetpack-6.2"))
    assert [bool(refusal(data, contract, v)) for v in NUMBERS] == [True, True] + [False] * 3


def test_the_targets_named_are_those_of_export() -> None:
    for since, name in _TARGETS:
        tensorrt = TARGETS[name].tensorrt
        assert tensorrt is not None
        assert tuple(map(int, tensorrt.split(".")))[: len(since)] >= since
    named = {name for _, name in _TARGETS}
    assert named == {n for n, t in TARGETS.items() if t.tensorrt and n != "portable"}
