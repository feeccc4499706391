# SPDX-License-Identifier: Apache-2.0
"""What `check` says of opsets, operators and types, and how it says it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_imprint_export.graph import parse
from edge_imprint_export.targets.check import Finding, check, grouped
from edge_imprint_export.targets.records import TARGETS, target
from edge_imprint_runtime.errors import BackboneExportError

SO = "edge-imprint export --target writes it so"
Make = Callable[..., onnx.ModelProto]


def node(kind: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **more: Any) -> Any:
    return helper.make_node(kind, list(inputs or ("x",)), outputs, f"the {kind}", **more)


def found(model: onnx.ModelProto, name: str) -> list[tuple[str, str]]:
    return [(one.severity, one.op or one.where) for one in check(model, target(name))]


@pytest.mark.parametrize(
    ("opset", "ir_version"), [(17, 8), (18, 8), (20, 9), (24, 12), (26, 13)]
)
def test_opset_and_ir_version(opset: int, ir_version: int, model_of: Make) -> None:
    model = model_of(node("Relu"), opset=opset, ir_version=ir_version)
    for chosen in TARGETS.values():
        expected = []
        if opset > chosen.max_opset:
            expected.append(("refused", f"opset {opset}"))
        if ir_version > chosen.max_ir_version:
            expected.append(("refused", f"IR version {ir_version}"))
        assert found(model, chosen.name) == expected


def test_an_old_opset_and_the_newest_of_all(model_of: Make) -> None:
    assert found(model_of(node("Relu"), opset=8), "tensorrt-11") == [("refused", "opset 8")]
    assert found(model_of(node("Relu"), opset=9), "tensorrt-11") == []
    assert found(model_of(node("Relu"), opset=8), "onnxruntime") == []
    # Newer than the package onnx: no more can be said of it than that.
    future = model_of(node("Unheard"), opset=99, ir_version=8)
    assert found(future, "onnxruntime") == [("refused", "opset 99")]


@pytest.mark.parametrize(
    ("made", "flaw"),
    [
        (node("Gelu"), "opset 17 has no Gelu"),
        (node("Relu", fancy=1), "Relu of opset 17 has no attribute fancy"),
        (node("Relu", "x", "x"), "Relu of opset 17 does not take 2 inputs"),
    ],
)
def test_what_is_not_of_its_own_opset(made: onnx.NodeProto, flaw: str, model_of: Make) -> None:
    findings = check(model_of(made), target("onnxruntime"))
    assert findings == [
        Finding(
            "refused",
            f"the {made.op_type}",
            made.op_type,
            "y",
            flaw,
            "export the model again, or state the opset that it is written in",
        )
    ]


def test_operators_that_no_tensorrt_has(model_of: Make) -> None:
    weights = {"w": np.ones((8, 8), np.uint8)}
    model = model_of(
        node("DynamicQuantizeLinear", outputs=("q", "s", "z")),
        node("MatMulInteger", "q", "w", "z"),
        y=TensorProto.INT32,
        **weights,
    )
    for chosen in TARGETS.values():
        refusals = {
            finding.op: finding.remedy
            for finding in check(model, chosen)
            if finding.what == f"{chosen.name} has no {finding.op}"
        }
        assert set(refusals) == (
            set() if chosen.tensorrt is None else {"DynamicQuantizeLinear", "MatMulInteger"}
        )
        assert all("Q/DQ" in remedy for remedy in refusals.values())


def test_types_that_a_target_lacks(model_of: Make) -> None:
    half = model_of(
        node("Cast", outputs=("h",), to=TensorProto.BFLOAT16),
        node("Cast", "h", to=TensorProto.FLOAT),
    )
    assert check(half, target("jetpack-6.0")) == [
        Finding(
            "refused",
            "the Cast",
            "Cast",
            "h",
            "jetpack-6.0 has no bfloat16",
            "cast it, or export the model in float32",
        )
    ]
    assert check(half, target("jetpack-6.2")) == []
    text = model_of(node("Identity"), x=(TensorProto.STRING, [1]), y=TensorProto.STRING)
    assert found(text, "portable") == [("refused", "x"), ("refused", "Identity")]
    numbers = model_of(node("Relu"), spare=np.ones(3, np.uint16))
    assert found(numbers, "portable") == [("refused", "spare")]


def test_what_is_inside_a_branch_is_found(model_of: Make) -> None:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    inner, other = (
        helper.make_graph([helper.make_node(kind, inputs, ["z"])], kind, [], [value])
        for kind, inputs in (("LayerNormalization", ["x", "w"]), ("Relu", ["x"]))
    )
    model = model_of(
        node("If", "yes", then_branch=inner, else_branch=other),
        yes=np.array(True),
        w=np.ones(8, np.float32),
    )
    assert found(model, "jetpack-5.1") == [("refused", "LayerNormalization"), ("note", "If")]


def test_an_invalid_graph_is_refused(model_of: Make) -> None:
    model = model_of(node("DynamicQuantizeLinear"), y=TensorProto.UINT8)
    with pytest.raises(BackboneExportError, match=r"^the graph is not valid ONNX: "):
        check(model, target("portable"))


def test_findings_of_one_cause_are_one_line(model_of: Make) -> None:
    names = ["x", *(f"t{number}" for number in range(39)), "y"]
    weights = {"w": np.ones(8, np.float32), "at": np.int64([1])}
    nodes = [
        helper.make_node("LayerNormalization", [a, "w"], [b], f"norm {b}")
        for a, b in itertools.pairwise(names)
    ]
    nodes.append(helper.make_node("ReduceMean", ["t0", "at"], ["r"]))
    model = model_of(*nodes, opset=18, **weights)
    findings = check(model, target("jetpack-5.1"))
    assert len(findings) == 42
    axes = target("jetpack-5.1").limit("reduce_axes_input")
    assert axes is not None
    lines = [str(group) for group in grouped(findings)]
    assert lines[0] == (
        "refused: opset 18: jetpack-5.1 takes up to opset 17; export with an older opset; "
        f"{SO}"
    )
    assert lines[1] == (
        "refused: 40 LayerNormalization (norm t0, norm t1, norm t2, ...): jetpack-5.1 has no "
        "LayerNormalization; edge-imprint export --target writes it as plain arithmetic"
    )
    assert lines[2:] == [f"wrong: 1 ReduceMean (r): {axes.what}; {axes.remedy}"]
    assert str(findings[-1]) == f"the ReduceMean node 'r': {axes.what}; {axes.remedy}"
    assert all(finding.fails for finding in findings)


@pytest.mark.parametrize("name", TARGETS)
def test_our_own_backbone_is_taken_everywhere(name: str, tiny_backbone: bytes) -> None:
    assert check(parse(tiny_backbone, "tiny"), target(name)) == []
