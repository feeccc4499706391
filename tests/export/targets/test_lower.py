# SPDX-License-Identifier: Apache-2.0
"""What cannot be lowered is named, with what to do; and what a graph may not cost."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_imprint_export.backbone.cache import (
    cache_folder,
    known_difference,
    remember_difference,
)
from edge_imprint_export.graph import parse, tidy, to_bytes
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.limits import COMMON, REMEDIES
from edge_imprint_export.targets.lower import _difference, _form, lower, lowered
from edge_imprint_export.targets.records import TARGETS, target
from edge_imprint_runtime import BackboneInfo
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneExportError

Make = Callable[..., onnx.ModelProto]


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs or ["x"], ["y"], kind.lower(), **attributes)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6)).astype(np.float32)
IMAGES = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)


# Refusals ------------------------------------------------------------------------------------


CANNOT = "can't be written for portable: "
DOUBLED = {"s": np.float32([1, 1, 2, 2])}
CUBIC = next(limit for limit in COMMON if limit.rule == "resize_mode")
FOLD = "export the model with fixed sizes, or fold its constants"


@pytest.mark.parametrize(
    ("opset", "made", "weights", "why"),
    [
        (
            18,
            node("Resize", "x", "", "s", antialias=1, mode="linear"),
            DOUBLED,
            "opset 17 can't say its antialias; export without it, or use a newer target",
        ),
        (
            19,
            node(
                "Resize", "x", "", "s", coordinate_transformation_mode="half_pixel_symmetric"
            ),
            DOUBLED,
            "half_pixel_symmetric came with opset 19; use half_pixel",
        ),
        (
            19,
            node("Pad", "x", "pads", mode="wrap"),
            {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
            "mode wrap came with opset 19; pad by a Concat",
        ),
        (
            18,
            node("BitwiseNot"),
            {},
            "opset 17 has no such operator; replace it, or use a newer target",
        ),
        (
            23,
            node("Attention", "x", "x", "x"),
            {},
            f"opset 17 has no such operator; {REMEDIES['Attention']}",
        ),
        (
            18,
            node("ReduceL2", "x", "axes", noop_with_empty_axes=1),
            {"axes": np.array([], np.int64)},
            "it reduces over no axis; replace it by its formula for one number",
        ),
    ],
)
def test_what_cannot_be_said(
    model_of: Make, opset: int, made: onnx.NodeProto, weights: dict[str, Any], why: str
) -> None:
    model = model_of(made, x=IMAGES, opset=opset, **weights)
    with pytest.raises(BackboneExportError) as caught:
        lower(model, target("portable"))
    assert str(caught.value) == f"the {made.op_type} node {made.name!r} {CANNOT}{why}"


@pytest.mark.parametrize(
    ("made", "finding"),
    [
        (
            node("Resize", "x", "", "s", mode="cubic"),
            f"the Resize node 'resize': {CUBIC.what}; {CUBIC.remedy}",
        ),
        (
            helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"], "dql"),
            (
                "the DynamicQuantizeLinear node 'dql': portable has no DynamicQuantizeLinear"
                f"; {REMEDIES['DynamicQuantizeLinear']}"
            ),
        ),
    ],
)
def test_what_the_target_does_not_take_in_any_form(
    model_of: Make, made: onnx.NodeProto, finding: str
) -> None:
    weights = DOUBLED if made.op_type == "Resize" else {}
    model = model_of(made, x=IMAGES, **weights)
    with pytest.raises(BackboneExportError) as caught:
        lower(model, target("portable"))
    assert str(caught.value) == f"the graph {CANNOT}{finding}"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (node("Split", num_outputs=1), f"the size that it splits is not known; {FOLD}"),
        (node("ReduceMax", "x", "axes"), f"its axes are computed; {FOLD}"),
        (
            node("Pad", "x", "pads", "", "axes"),
            f"the rank of its input is not known; {FOLD}",
        ),
        (
            node("LayerNormalization", "x", "w", axis=1),
            "the rank of its input is not known; export with axis counted from the end",
        ),
        (
            node("Resize", "x", "", "", "sizes", axes=[2, 3]),
            f"its axes are given, and its scales are not constant; {FOLD}",
        ),
        (
            node("Gelu"),
            "its input 'z' is not known to be floating; export with opset 17",
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_what_is_not_known(model_of: Make, made: onnx.NodeProto, why: str) -> None:
    weights = {
        "w": np.ones(6, np.float32),
        "pads": np.array([1, 1]),
        "sizes": np.array([3, 3]),
    }
    x: Any = (TensorProto.FLOAT, None)
    before = []
    if made.op_type == "Pad":
        weights["axes"] = np.array([1])
    if made.op_type == "ReduceMax":
        before.append(helper.make_node("Shape", ["x"], ["shape"]))
        before.append(helper.make_node("ArgMax", ["shape"], ["axes"], keepdims=1))
    if made.op_type == "Resize":
        x = IMAGES
    if made.op_type == "Gelu":
        made.input[0] = "z"  # which an operator of another tool makes
        before.append(helper.make_node("Own", ["x"], ["z"], domain="own"))
    used = {name: array for name, array in weights.items() if name in made.input}
    model = model_of(*before, made, x=x, opset=20, domain="own", **used)
    with pytest.raises(BackboneExportError) as caught:
        lower(model, target("portable"))
    assert str(caught.value) == f"the {made.op_type} node {made.name!r} {CANNOT}{why}"


# Weights -------------------------------------------------------------------------------------


def test_weights_are_not_copied() -> None:
    """With room for half of them once more, in a process of its own."""
    code = (
        "import resource, numpy as np\n"
        "from onnx import TensorProto, helper, numpy_helper\n"
        "from edge_imprint_export.targets.lower import lower\n"
        "from edge_imprint_export.targets.records import target\n"
        "values = helper.make_tensor_value_info\n"
        "square = np.zeros((1500, 1500), np.float32)\n"
        "tensors = [numpy_helper.from_array(square, f'w{i}') for i in range(32)]\n"
        "tensors.append(numpy_helper.from_array(np.array([1]), 'axes'))\n"
        "nodes = [helper.make_node('MatMul', [f'x{i}', f'w{i}'], [f'x{i + 1}'])\n"
        "    for i in range(32)]\n"
        "nodes.append(helper.make_node('ReduceMean', ['x32', 'axes'], ['y']))\n"
        "graph = helper.make_graph(nodes, 'g', [values('x0', TensorProto.FLOAT, [1, 1500])],\n"
        "    [values('y', TensorProto.FLOAT, [1, 1])], tensors)\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])\n"
        "del graph, tensors\n"
        "with open('/proc/self/statm') as file:\n"
        "    used = int(file.read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 144_000_000, -1))\n"
        "lower(model, target('portable'))\n"
        "assert list(model.graph.node[-1].input) == ['x32']\n"
        "assert len(model.graph.initializer) == 32\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# A backbone, verified ------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def backbone(model_of: Make) -> Callable[[], onnx.ModelProto]:
    """A function of nothing: a small transformer's worth of operators, opset 20."""
    rng = np.random.default_rng(3)
    arrays = {
        "k": rng.standard_normal((8, 3, 4, 4)) / 4,
        "w": rng.standard_normal(8),
        "b": rng.standard_normal(8),
        "m": rng.standard_normal((8, 8)) / 3,
    }

    def make() -> onnx.ModelProto:
        add = helper.make_node
        nodes = [
            add("Conv", ["x", "k"], ["c"], kernel_shape=[4, 4], strides=[4, 4]),
            add("Shape", ["c"], ["s"], start=0, end=2),
            add("Concat", ["s", "rest"], ["flat"], axis=0),
            add("Reshape", ["c", "flat"], ["f"]),
            add("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
            add("LayerNormalization", ["t", "w", "b"], ["n"]),
            add("MatMul", ["n", "m"], ["h"]),
            add("Gelu", ["h"], ["g"]),
            add("ReduceMean", ["g", "axes"], ["y"], keepdims=0),
        ]
        weights = {name: array.astype(np.float32) for name, array in arrays.items()}
        weights |= {"rest": np.array([-1]), "axes": np.array([1])}
        x = np.zeros((1, 3, 16, 16), np.float32)
        return tidy(model_of(*nodes, x=x, opset=20, **weights), size=8)

    return make


@pytest.mark.parametrize("name", TARGETS)
def test_a_backbone_embeds_the_same_for_every_target(
    name: str, backbone: Callable[[], onnx.ModelProto], tiny_info: BackboneInfo, home: Path
) -> None:
    chosen = target(name)
    made = lowered(backbone(), tiny_info, chosen)
    found = known_difference(tiny_info, _form(chosen))
    assert found is not None
    assert found < 1e-6
    assert not [finding for finding in check(made, chosen) if finding.fails]
    assert to_bytes(made) == to_bytes(lower(backbone(), chosen))
    pixels = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
    expected = OrtRunner(to_bytes(backbone()), "cpu").run(["embedding"], pixels)[0]
    embedding = OrtRunner(to_bytes(made), "cpu").run(["embedding"], pixels)[0]
    np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_what_was_measured_is_kept(
    backbone: Callable[[], onnx.ModelProto], tiny_info: BackboneInfo, home: Path
) -> None:
    """Found again without a run: it is believed, even where it is a lie."""
    chosen = target("portable")
    remember_difference(tiny_info, _form(chosen), 0.5)
    with pytest.raises(BackboneExportError) as caught:
        lowered(backbone(), tiny_info, chosen)
    assert str(caught.value) == (
        "the backbone tiny, written for portable, gives other embeddings: they differ by 0.5 "
        "of the largest number (allowed 1e-04); use another target, or export it with opset 17"
    )
    lowered(backbone(), tiny_info, target("jetpack-6.2"))  # another form, measured anew
    assert len(list(cache_folder().glob("*.txt"))) == 2


@pytest.mark.parametrize("damage", ["", "junk"])
def test_a_damaged_record_is_measured_anew(
    damage: str, backbone: Callable[[], onnx.ModelProto], tiny_info: BackboneInfo, home: Path
) -> None:
    lowered(backbone(), tiny_info, target("portable"))
    (file,) = cache_folder().glob("*.txt")
    kept = file.read_text()
    file.write_text(damage)
    lowered(backbone(), tiny_info, target("portable"))
    assert file.read_text() == kept


def test_a_cache_that_cannot_be_written(
    backbone: Callable[[], onnx.ModelProto], tiny_info: BackboneInfo, home: Path
) -> None:
    (home / "edge-imprint").write_bytes(b"a file where the folder should be")
    lowered(backbone(), tiny_info, target("portable"))
    assert known_difference(tiny_info, _form(target("portable"))) is None


def test_the_record_does_not_depend_on_the_process() -> None:
    code = (
        "from edge_imprint_export.targets.lower import _form; "
        "from edge_imprint_export.targets.records import target; "
        "print(_form(target('portable')))"
    )
    forms = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(forms) == 1


def test_a_fused_model_of_the_tiny_backbone_stays(tiny_backbone: bytes) -> None:
    for chosen in TARGETS.values():
        assert to_bytes(lower(parse(tiny_backbone, "tiny"), chosen)) == tiny_backbone


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([math.nan, 2.0], [math.nan, 1.0], 0.5),
        ([math.inf, 2.0], [math.inf, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.inf], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
    ],
)
def test_the_difference(before: list[float], after: list[float], expected: float) -> None:
    assert _difference(np.float32(before), np.float32(after)) == expected
