# SPDX-License-Identifier: Apache-2.0
"""The records of the targets: whole, sourced, consistent, and true where that can be asked."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields
from pathlib import Path

import onnxruntime
import pytest
from onnx import TensorProto, defs, helper

from edge_imprint_export.targets.limits import REMEDIES, SEVERITIES
from edge_imprint_export.targets.records import DEFAULT_TARGET, TARGETS, Target, target
from edge_imprint_export.targets.rules import MODEL_RULES, NODE_RULES
from edge_imprint_runtime.errors import ParameterError

TENSORRT = [entry for entry in TARGETS.values() if entry.tensorrt is not None]
# Operators of ONNX's first versions, which old exporters still write.
FORGOTTEN = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}


def name_of(entry: Target) -> str:
    return entry.name


def test_the_targets_are_these() -> None:
    assert list(TARGETS) == [
        "portable",
        "jetpack-5.1",
        "jetpack-6.0",
        "jetpack-6.2",
        "jetpack-7.0",
        "jetpack-7.2",
        "tensorrt-11",
        "onnxruntime",
    ]
    assert all(target(name).name == name for name in TARGETS)
    assert DEFAULT_TARGET == "portable"


def test_an_unknown_target_lists_them_all() -> None:
    with pytest.raises(ParameterError) as caught:
        target("jetson")
    assert str(caught.value) == (
        "there is no target 'jetson'; use one of portable, jetpack-5.1, jetpack-6.0, "
        "jetpack-6.2, jetpack-7.0, jetpack-7.2, tensorrt-11, onnxruntime"
    )


@pytest.mark.parametrize("entry", TARGETS.values(), ids=name_of)
def test_every_value_has_its_source(entry: Target) -> None:
    stated = {field.name for field in fields(Target)} - {"name", "device", "limits", "sources"}
    if entry.tensorrt is None:  # it has no GPU, and takes all operators and types
        stated -= {"tensorrt", "cuda", "cudnn", "compute_capabilities", "operators", "types"}
    assert stated == set(entry.sources)
    for source in entry.sources.values():
        assert re.search(r"https://\S+|ONNX Runtime|the wheels|in common", source), source
        hosts = set(re.findall(r"https://([^/]+)", source))
        assert hosts <= {
            "developer.nvidia.com",
            "docs.nvidia.com",
            "github.com",
            "onnxruntime.ai",
        }


@pytest.mark.parametrize("entry", TARGETS.values(), ids=name_of)
def test_every_limit_is_a_rule_with_a_source(entry: Target) -> None:
    rules = [limit.rule for limit in entry.limits]
    assert len(set(rules)) == len(rules)
    for limit in entry.limits:
        assert (limit.rule in NODE_RULES) != (limit.rule in MODEL_RULES)
        assert limit.severity in SEVERITIES
        assert limit.source.startswith("https://")
        for text in (limit.what, limit.remedy):
            assert text
            assert not text.endswith(".")


def test_every_rule_is_used() -> None:
    used = {limit.rule for entry in TARGETS.values() for limit in entry.limits}
    assert used == {*NODE_RULES, *MODEL_RULES}


def test_the_operators_are_operators() -> None:
    known = {schema.name for schema in defs.get_all_schemas_with_history()}
    for entry in TENSORRT:
        assert entry.operators is not None
        assert entry.operators - FORGOTTEN <= known
        assert not entry.operators & {"QLinearConv", "MatMulInteger", "DynamicQuantizeLinear"}
    assert set(REMEDIES) <= known


@pytest.mark.parametrize("other", TARGETS.values(), ids=name_of)
def test_portable_is_what_every_target_takes(other: Target) -> None:
    portable = target("portable")
    assert portable.max_opset <= other.max_opset
    assert portable.min_opset >= other.min_opset
    assert portable.max_ir_version <= other.max_ir_version
    if other.operators is not None:
        assert portable.operators is not None
        assert portable.operators <= other.operators
    if other.types is not None:
        assert portable.types is not None
        assert portable.types <= other.types
    if other.tensorrt is None:
        return
    for limit in other.limits:
        own = portable.limit(limit.rule)
        assert own is not None
        assert SEVERITIES.index(own.severity) <= SEVERITIES.index(limit.severity)
    assert set(other.compute_capabilities) <= set(portable.compute_capabilities)


def test_portable_is_the_dialect_of_the_contract() -> None:
    portable = target("portable")
    assert (portable.max_opset, portable.max_ir_version) == (17, 8)
    assert not portable.knows("LayerNormalization")
    assert not portable.knows("Gelu")
    assert portable.knows("ReduceL2")


def test_newer_targets_take_more() -> None:
    jetpacks = [entry for entry in TARGETS.values() if entry.name.startswith("jetpack")]
    for older, newer in itertools.pairwise(jetpacks):
        assert older.operators is not None
        assert newer.operators is not None
        assert older.operators <= newer.operators
        assert older.max_opset <= newer.max_opset
        assert older.max_ir_version <= newer.max_ir_version


def loads(opset: int, ir_version: int) -> bool:
    """Ask the ONNX Runtime that is here."""
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [values("x", TensorProto.FLOAT, [1])],
        [values("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # its own exceptions share no base of theirs
        return False
    return True


def test_onnx_runtime_takes_what_its_record_says() -> None:
    record = target("onnxruntime")
    if onnxruntime.__version__ != record.onnxruntime:
        pytest.skip(f"the record is of ONNX Runtime {record.onnxruntime}")
    assert loads(record.max_opset, record.max_ir_version)
    assert not loads(record.max_opset + 1, record.max_ir_version)
    assert not loads(record.max_opset, record.max_ir_version + 1)


def test_the_page_shows_the_records() -> None:
    page = (Path(__file__).parents[3] / "docs" / "targets.md").read_text()
    for entry in TARGETS.values():
        capabilities = ", ".join(entry.compute_capabilities)
        cells = [f"`{entry.name}`", entry.device]
        for value in (entry.tensorrt, entry.cuda, entry.cudnn):
            cells.append(value or "-")
        cells += [entry.onnxruntime, entry.python, capabilities or "-"]
        cells += [f"{entry.min_opset} to {entry.max_opset}", str(entry.max_ir_version)]
        assert f"| {' | '.join(cells)} |" in page
        if entry.name == "portable":
            continue
        for source in entry.sources.values():
            assert source in page
        for limit in entry.limits:
            (row,) = re.findall(
                rf"^\| {limit.severity} \| {re.escape(limit.what)} .*", page, re.M
            )
            assert "all with TensorRT" in row or f"`{entry.name}`" in row
