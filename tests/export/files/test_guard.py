# SPDX-License-Identifier: Apache-2.0
"""Files from elsewhere: a corpus of hostile ones, each refused in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.files.guard import read_model
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import EdgeImprintError, ModelFileError, UnsafeModelError

WEIGHTS = np.random.default_rng(0).standard_normal((4, 2_000)).astype(np.float32)
BIAS = np.arange(2_000, dtype=np.float32)
X = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)

Change = Callable[[onnx.ModelProto], object]
value = helper.make_tensor_value_info


def sound() -> onnx.ModelProto:
    """Return a model from ``x`` (N, 4) to ``y`` (N, 2000): MatMul, Add, Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "b"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 2_000])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return OrtRunner(to_bytes(model), "cpu").run(["y"], X)[0]


def expected() -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return np.maximum(X @ WEIGHTS + BIAS, 0)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


# What is sound is read -----------------------------------------------------------------------


def test_a_sound_model_is_read_as_it_is(tmp_path: Path) -> None:
    model = read_model(write(tmp_path / "m.onnx", sound()))
    assert to_bytes(model) == to_bytes(sound())
    np.testing.assert_allclose(run(model), expected(), rtol=1e-5, atol=1e-5)


def test_our_own_models_are_read(tiny_model: Path) -> None:
    assert to_bytes(read_model(tiny_model)) == tiny_model.read_bytes()


def test_operators_of_onnx_runtime_and_unused_sets_are_read(tmp_path: Path) -> None:
    model = sound()
    model.graph.node[2].op_type, model.graph.node[2].domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.opset_import.append(helper.make_opsetid("org.nobody", 1))
    assert run(read_model(write(tmp_path / "m.onnx", model))).shape == (3, 2_000)


def test_outputs_need_no_shape_and_weights_may_be_listed_as_inputs(tmp_path: Path) -> None:
    model = sound()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.input.append(value("w", TensorProto.FLOAT, WEIGHTS.shape))
    read_model(write(tmp_path / "m.onnx", model))


# Graphs that are not sound -------------------------------------------------------------------


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "s"


def cycle_through_a_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["o"])],
        "inner",
        [],
        [value("o", TensorProto.FLOAT, None)],
    )
    flag = numpy_helper.from_array(np.array(True), "flag")
    model.graph.initializer.append(flag)
    model.graph.node.insert(
        0, helper.make_node("If", ["flag"], ["i"], then_branch=inner, else_branch=inner)
    )
    model.graph.node[3].input[0] = "i"


def unsorted(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def compiled(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    context = {"embed_mode": 0, "ep_cache_context": "../../../etc/passwd"}
    model.graph.node.append(
        helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft", **context)
    )


def set_field(path: str, put: object) -> Change:
    """Return a change that sets ``model.graph.<path>``, such as ``node[0].op_type``."""

    def change(model: onnx.ModelProto) -> None:
        *owners, last = re.findall(r"\w+", path)
        target: object = model.graph
        for owner in owners:
            target = target[int(owner)] if owner.isdigit() else getattr(target, owner)
        if last.isdigit():
            target[int(last)] = put
        else:
            setattr(target, last, put)

    return change


UNSOUND: dict[str, tuple[Change, str]] = {
    "a cycle": (
        cycle,
        (
            ": the nodes wait for each other in a cycle, the MatMul node 'product' among them"
            "; export it again"
        ),
    ),
    "a cycle through a subgraph": (
        cycle_through_a_subgraph,
        (
            ": the nodes wait for each other in a cycle, the Identity node 'o' among them; "
            "export it again"
        ),
    ),
    "out of order": (
        unsorted,
        (
            ": the Relu node 'relu' takes 's' before it is made; sort the nodes, or export "
            "it again"
        ),
    ),
    "a dangling input": (
        set_field("node[0].input[1]", "no\nthing"),
        ": the MatMul node 'product' takes 'no\\nthing', which nothing makes; export it again",
    ),
    "an output that is not made": (
        set_field("output[0].name", "z"),
        " has the output 'z', which no node makes; export it again",
    ),
    "a tensor made twice": (
        set_field("node[1].output[0]", "m"),
        " defines the tensor 'm' twice; export it again",
    ),
    "a weight made by a node": (
        set_field("node[0].output[0]", "b"),
        " defines the tensor 'b' twice; export it again",
    ),
    "an input made by a node": (
        set_field("node[0].output[0]", "x"),
        " defines the tensor 'x' twice; export it again",
    ),
    "weights of one name": (
        set_field("initializer[1].name", "w"),
        " defines the tensor 'w' twice; export it again",
    ),
    "a weight without a name": (
        set_field("initializer[1].name", ""),
        " has a tensor without a name; export it again",
    ),
    "nodes of one name": (
        set_field("node[1].name", "product"),
        " defines the node 'product' twice; export it again",
    ),
    "a negative side": (
        set_field("input[0].type.tensor_type.shape.dim[1].dim_value", -4),
        " gives 'x' the shape (-4,), which no tensor has; export it again",
    ),
    "an endless side": (
        set_field("output[0].type.tensor_type.shape.dim[1].dim_value", 2**40),
        f" gives 'y' the shape ({2**40},), which no tensor has; export it again",
    ),
    "an input without a shape": (
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
        " does not say the shape of its input 'x'; export it again",
    ),
    "a custom operator": (
        set_field("node[2].domain", "org.evil"),
        (
            " uses the Relu node 'relu' of 'org.evil', and only operators of ONNX (ai.onnx, "
            "ai.onnx.ml) and of ONNX Runtime (com.microsoft) are known; export it without"
        ),
    ),
    "what was compiled for one accelerator": (
        compiled,
        (
            " holds what was compiled for one accelerator (an EPContext node), which may name "
            "any file; export it again without"
        ),
    ),
    "a node that makes nothing": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["x"], [], "idle")),
        ": the Relu node 'idle' makes nothing; export it again",
    ),
    "an operator set not named": (
        set_field("node[2].domain", "com.microsoft"),
        (
            " uses the Relu node 'relu' of com.microsoft without naming that operator set's "
            "version; export it again"
        ),
    ),
    "an operator set named twice": (
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 13)),
        " names an operator set twice; export it again",
    ),
    "operators of its own": (
        lambda m: m.functions.add(name="f", domain="d"),
        " defines operators of its own; export it again without them",
    ),
    "training graphs": (
        lambda m: m.training_info.add(),
        " defines training graphs; export it again without them",
    ),
    "an unknown operator": (
        set_field("node[2].op_type", "Nonsense"),
        (
            " is not a valid ONNX model: No Op registered for Nonsense with domain_version "
            "of 17 ==> Context: Bad node spec for node. Name: relu OpType: Nonsense"
        ),
    ),
    "weights of another shape than the product takes": (
        lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(WEIGHTS.reshape(8, 1_000), "w")
        ),
        (
            " is not a valid ONNX model: [ShapeInferenceError] Inference error(s): "
            "(op_type:MatMul, "
            "node name: product): [ShapeInferenceError] Incompatible dimensions for matrix "
            "multiplication"
        ),
    ),
}


@pytest.mark.parametrize(("change", "sentence"), UNSOUND.values(), ids=UNSOUND.keys())
def test_a_graph_that_is_not_sound(tmp_path: Path, change: Change, sentence: str) -> None:
    model = sound()
    change(model)
    path = write(tmp_path / "m.onnx", model)
    with pytest.raises(UnsafeModelError) as caught:
        read_model(path)
    assert str(caught.value).startswith(f"{path}{sentence}")
    assert "\n" not in str(caught.value)


def strange(model: onnx.ModelProto) -> None:
    """Add an operator of a domain, and a function that calls itself."""
    model.opset_import.append(helper.make_opsetid("org.nobody", 1))
    model.graph.node[2].domain = "org.nobody"
    call = helper.make_node("Again", ["a"], ["b"], domain="org.nobody")
    model.functions.append(
        helper.make_function("org.nobody", "Again", ["a"], ["b"], [call], model.opset_import)
    )
    model.graph.node.append(helper.make_node("Again", ["y"], ["z"], domain="org.nobody"))


def test_what_is_foreign_can_be_looked_at(tmp_path: Path) -> None:
    model = sound()
    strange(model)
    path = write(tmp_path / "m.onnx", model)
    assert to_bytes(read_model(path, foreign=True)) == to_bytes(model)
    with pytest.raises(UnsafeModelError, match="defines operators of its own"):
        read_model(path)


@pytest.mark.parametrize(
    "name", ["a cycle", "training graphs", "what was compiled for one accelerator"]
)
def test_what_is_foreign_is_no_less_sound(tmp_path: Path, name: str) -> None:
    model, (change, sentence) = sound(), UNSOUND[name]
    strange(model)
    change(model)
    path = write(tmp_path / "m.onnx", model)
    with pytest.raises(UnsafeModelError) as caught:
        read_model(path, foreign=True)
    assert str(caught.value) == f"{path}{sentence}"


def test_messages_call_the_file_what_they_are_told_to(tmp_path: Path) -> None:
    model = sound()
    unsorted(model)
    with pytest.raises(UnsafeModelError, match=r"^the network: the Relu node 'relu' takes"):
        read_model(write(tmp_path / "m.onnx", model), "the network")


def test_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no model")
    (tmp_path / "bare").write_bytes(
        onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString()
    )
    for name, reason in (
        ("gone", "cannot read {path}: No such file or directory"),
        ("", "cannot read {path}: Is a directory"),
        ("pipe", "cannot read {path}: it is no regular file"),
        ("a\0b", "cannot read {path}: embedded null byte"),
        ("text", "{path} is not an ONNX model: it is no protobuf message"),
        ("bare", "{path} is not an ONNX model: it has no nodes"),
    ):
        path = tmp_path / name
        with pytest.raises(ModelFileError) as caught:
            read_model(path)
        assert str(caught.value) == reason.format(path=path)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_damaged_model_is_refused_or_sound(
    tmp_path_factory: pytest.TempPathFactory, at: int, put: bytes
) -> None:
    """Bytes of the description, not of the weights, are overwritten."""
    model = sound()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 1), np.float32), tensor.name))
    data = model.SerializeToString()
    at %= len(data)
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    path.write_bytes(data[:at] + put + data[at + len(put) :])
    try:
        onnx.checker.check_model(read_model(path))
    except EdgeImprintError as error:
        assert "\n" not in str(error)
