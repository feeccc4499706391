# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says, read without onnx: held against onnx itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.engine.onnx_facts import HEAD_NAMES, read_facts
from edge_imprint_runtime.engine.precision import tensor_kinds, wanted_flags
from edge_imprint_runtime.errors import EdgeImprintError

FORMS = ("plain", "teachable", "fp16", "int8", "half head", "calibrated", "frames")


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_onnx_and_onnx_runtime_read(forms: dict[str, bytes], form: str) -> None:
    data = forms[form]
    found, model, runner = read_facts(data, "m"), onnx.load_from_string(data), OrtRunner(data)
    assert found.metadata == {p.key: p.value for p in model.metadata_props}
    assert found.inputs == runner.inputs
    assert found.outputs == runner.outputs
    assert found.opset == next(o.version for o in model.opset_import if o.domain == "")
    assert [(n.kind, n.inputs, n.outputs) for n in found.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node
    ]
    for tensor in model.graph.initializer:
        mine = found.tensors[tensor.name]
        assert (mine.kind, mine.shape) == (tensor.data_type, tuple(tensor.dims))
        values = mine.values(data)
        if tensor.HasField("raw_data") or tensor.data_type == TensorProto.FLOAT:
            assert values is not None
            assert np.array_equal(values, numpy_helper.to_array(tensor))


@pytest.mark.parametrize("form", FORMS)
def test_types_are_those_of_shape_inference(forms: dict[str, bytes], form: str) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(forms[form])).graph
    kinds = tensor_kinds(read_facts(forms[form], "m"))
    values = [*graph.value_info, *graph.output, *graph.input]
    assert len(values) > 10
    for value in values:
        assert kinds[value.name] == value.type.tensor_type.elem_type, value.name


def test_flags_are_asked_for_where_the_graph_has_such_types(forms: dict[str, bytes]) -> None:
    wanted = {form: wanted_flags(read_facts(data, "m")) for form, data in forms.items()}
    assert wanted == {form: [] for form in FORMS} | {
        "fp16": ["FP16"],
        "half head": ["FP16"],
        "int8": ["INT8"],
    }


# What another head changes -----------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "mahalanobis", "manhattan"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_only_the_heads_numbers_may_differ(
    tiny_backbone: bytes,
    make_head: Callable[..., Head],
    distance: str,
    precision: str,
) -> None:
    if distance == "manhattan" and precision == "fp16":
        pytest.skip("manhattan has no product to be rounded")

    def made(seed: int, **options: object) -> bytes:
        head = make_head(
            distance=distance, calibrated=True, center=True, transform=True, seed=seed
        )
        return to_bytes(
            fuse(tiny_backbone, head, head_precision=precision, **options)  # type: ignore[arg-type]
        )

    one, other = (read_facts(made(seed), "m") for seed in (1, 6))
    assert one.graph_sha256 == other.graph_sha256
    assert one.head_tensors().keys() == other.head_tensors().keys()
    assert {"proxies", "center", "transform", "threshold"} <= one.head_tensors().keys()
    assert not [name for name in one.head_tensors() if name.startswith("backbone/")]
    shaped = read_facts(made(2), "m")  # other counts of proxies
    assert shaped.graph_sha256 != one.graph_sha256
    noted = read_facts(made(1, notes=[("made_with", "x")]), "m")
    assert noted.graph_sha256 == one.graph_sha256
    more = read_facts(made(1, outputs=("scores", "label", "embedding")), "m")
    assert more.graph_sha256 != one.graph_sha256


def test_one_bit_of_the_backbone_is_another_graph(forms: dict[str, bytes]) -> None:
    data = forms["plain"]
    facts = read_facts(data, "m")
    for name, tensor in facts.tensors.items():
        changed = bytearray(data)
        changed[tensor.start] ^= 1
        same = read_facts(bytes(changed), "m").graph_sha256 == facts.graph_sha256
        assert same == (name in HEAD_NAMES), name


# Files of others ---------------------------------------------------------------------------


def test_what_our_exporter_does_not_write() -> None:
    values = helper.make_tensor_value_info
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [2], [1.5, -2.0])
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "floats"], ["y"], axis=-1, mode="cubic"),
            helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT16, scales=[1.0]),
        ],
        "g",
        [values("x", TensorProto.FLOAT, [None, 2]), values("floats", TensorProto.FLOAT, [2])],
        [values("z", TensorProto.BFLOAT16, ["N", 2])],
        [floats],
    )
    data = helper.make_model(graph).SerializeToString()
    facts = read_facts(data, "m")
    assert facts.inputs == {"x": ((None, 2), "tensor(float)")}  # one has a default
    assert facts.outputs == {"z": (("N", 2), "tensor(?)")}
    assert facts.nodes[0].attributes == {"axis": -1, "mode": "cubic"}
    assert facts.nodes[1].attributes == {"to": TensorProto.FLOAT16, "scales": None}
    kept = facts.tensors["floats"].values(data)
    assert kept is not None
    assert kept.tolist() == [1.5, -2.0]


@given(st.data())
def test_damaged_files_are_errors_of_ours(
    forms: dict[str, bytes], data: st.DataObject
) -> None:
    content = bytearray(forms[data.draw(st.sampled_from(FORMS))])
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    del content[data.draw(st.integers(0, len(content))) :]
    try:
        read_facts(bytes(content), "m")
    except EdgeImprintError as error:
        assert "\n" not in str(error)


def test_no_onnx_library_is_loaded(forms: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(forms["plain"])
    code = (
        "import sys\n"
        "from edge_imprint_runtime.engine.source import read_source\n"
        "assert len(read_source(sys.argv[1]).contract.labels) == 3\n"
        "assert not {'onnx', 'onnxruntime', 'tensorrt'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
