# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint check`: any ONNX file, one line a cause, and the status that says it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint.cli._check import check
from edge_imprint_runtime.errors import TargetError

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of nobody in particular: opset 18, a LayerNormalization and a mean by input."""
    values = helper.make_tensor_value_info
    weights = {"w": np.ones(8, np.float32), "axes": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("LayerNormalization", ["x", "w"], ["n"], "norm"),
            helper.make_node("ReduceMean", ["n", "axes"], ["y"], "mean", keepdims=0),
        ],
        "foreign",
        [values("x", TensorProto.FLOAT, ["N", 4, 8])],
        [values("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 18)]
    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


@pytest.mark.parametrize("target", ["portable", "jetpack-5.1", "tensorrt-11", "onnxruntime"])
def test_an_exported_model_is_taken(run: Run, tiny_model: Path, target: str) -> None:
    done = run("check", tiny_model, "--target", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target} takes {tiny_model}\n"
    assert done.stderr == ""


def test_portable_is_the_default(run: Run, tiny_model: Path) -> None:
    done = run("check", tiny_model)
    assert (done.returncode, done.stdout) == (0, f"portable takes {tiny_model}\n")


def test_what_is_refused_and_what_is_wrong(run: Run, foreign: Path) -> None:
    done = run("check", foreign, "--target", "jetpack-5.1")
    assert done.returncode == 1
    opset, norm, mean = done.stdout.splitlines()
    assert opset == (
        "refused: opset 18: jetpack-5.1 takes up to opset 17; export with an older opset; "
        "edge-imprint export --target writes it so"
    )
    assert norm == (
        "refused: 1 LayerNormalization (norm): jetpack-5.1 has no LayerNormalization; "
        "edge-imprint export --target writes it as plain arithmetic"
    )
    assert mean == (
        "wrong: 1 ReduceMean (mean): the axes of a reduction are an input, which TensorRT 8 "
        "ignores, reducing over all axes; give the axes as an attribute, in opset 17 or "
        "older; edge-imprint export --target writes it so"
    )
    assert done.stderr == (
        f"error: jetpack-5.1 refuses {foreign} or computes it wrongly, for 3 reasons; "
        "see above\n"
    )
    for target in ("jetpack-6.2", "jetpack-7.2", "onnxruntime"):
        assert run("check", foreign, "--target", target).returncode == 0


def test_notes_are_no_failure(run: Run, foreign: Path, tmp_path: Path) -> None:
    model = onnx.load(foreign)
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["label"]))
    model.graph.output.append(
        helper.make_tensor_value_info("label", TensorProto.INT64, [1, 8])
    )
    onnx.save(model, tmp_path / "label.onnx")
    done = run("check", tmp_path / "label.onnx", "--target", "jetpack-6.2")
    assert done.returncode == 0
    remark, taken = done.stdout.splitlines()
    assert remark == (
        "note: label: an int64 input or output is 32 bits wide before TensorRT 9 and 64 from "
        "there on; cast outputs to int32 or float32 in the graph"
    )
    assert taken == f"jetpack-6.2 takes {tmp_path}/label.onnx"


INLINE = "inline them (onnx.inliner.inline_local_functions)"
OLD = f"the file defines functions of its own, which TensorRT reads from 9.0 on; {INLINE}"
NEW = f"the file defines functions of its own, and what is in them is not checked; {INLINE}"
PLUGIN = (
    "an operator of no standard domain needs a TensorRT plugin of its name; export without "
    "operators of other tools, or provide the plugin"
)
LIBRARY = (
    "an operator of a domain that ONNX Runtime does not bring; export without operators of "
    "other tools, or register the library that has them"
)


@pytest.mark.parametrize(
    ("target", "functions", "domain"),
    [
        ("jetpack-6.0", OLD, PLUGIN),
        ("jetpack-6.2", NEW, PLUGIN),
        ("onnxruntime", NEW, LIBRARY),
    ],
)
def test_what_no_target_knows_is_a_finding(
    run: Run, tmp_path: Path, target: str, functions: str, domain: str
) -> None:
    """A plugin (without inputs, called as one of ONNX's), and a function that calls itself."""
    values = helper.make_tensor_value_info
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    again = helper.make_node("Again", ["a"], ["b"], domain="own")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [], ["p"], "plug", domain="own"),
            helper.make_node("Again", ["x"], ["q"], "call", domain="own"),
            helper.make_node("Relu", ["x"], ["y"]),
        ],
        "strange",
        [values("x", TensorProto.FLOAT, ["N", 8])],
        [values("y", TensorProto.FLOAT, ["N", 8])],
    )
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    model.functions.append(
        helper.make_function("own", "Again", ["a"], ["b"], [again], imports)
    )
    path = tmp_path / "strange.onnx"
    onnx.save(model, path)
    done = run("check", path, "--target", target)
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == [
        f"refused: 1 Cast (plug): {domain}",
        f"refused: Again: {functions}",
    ]
    assert done.stderr == (
        f"error: {target} refuses {path} or computes it wrongly, for 2 reasons; see above\n"
    )


def test_json(run: Run, foreign: Path, tiny_model: Path) -> None:
    done = run("check", foreign, "--target", "jetpack-6.0", "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["target"], facts["taken"]) == (
        str(foreign),
        "jetpack-6.0",
        False,
    )
    assert [(one["severity"], one["op"], one["node"]) for one in facts["findings"]] == [
        ("refused", "", ""),
        ("wrong", "ReduceMean", "mean"),
    ]
    assert set(facts["findings"][0]) == {"severity", "node", "op", "where", "what", "remedy"}
    done = run("check", tiny_model, "--json")
    assert json.loads(done.stdout) == {
        "model": str(tiny_model),
        "target": "portable",
        "taken": True,
        "findings": [],
    }


def test_wrong_use(run: Run, foreign: Path, tmp_path: Path) -> None:
    done = run("check", foreign, "--target", "jetson")
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no target 'jetson'; use one of portable, jetpack-5.1, jetpack-6.0, "
        "jetpack-6.2, jetpack-7.0, jetpack-7.2, tensorrt-11, onnxruntime\n"
    )
    done = run("check", tmp_path / "none.onnx")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none.onnx" in done.stderr


def test_the_failure_has_a_class_of_its_own(foreign: Path) -> None:
    assert check.callback is not None
    with pytest.raises(TargetError) as caught:
        check.callback(str(foreign), "jetpack-6.0", as_json=False)
    assert str(caught.value) == (
        f"jetpack-6.0 refuses {foreign} or computes it wrongly, for 2 reasons; see above"
    )
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Hardmax", ["x"], ["y"])],
        "one",
        [values("x", TensorProto.FLOAT, ["N", 8])],
        [values("y", TensorProto.FLOAT, ["N", 8])],
    )
    label = foreign.with_name("label.onnx")
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), label)
    with pytest.raises(TargetError) as caught:
        check.callback(str(label), "portable", as_json=True)
    assert str(caught.value) == (
        f"portable refuses {label} or computes it wrongly, for 1 reason; see above"
    )
