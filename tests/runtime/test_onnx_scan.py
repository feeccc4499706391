# SPDX-License-Identifier: Apache-2.0
"""The walk sees what protobuf sees, and refuses what no library should open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_runtime.errors import EdgeImprintError, ModelFileError, UnsafeModelError
from edge_imprint_runtime.onnx_scan import MAX_NODES, check_model_file, numbers_bytes, scan

Change = Callable[[onnx.ModelProto], object]


def small_model(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model of one node, with the given tensors beside it."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def weight(**changes: object) -> onnx.TensorProto:
    """Return a (2, 3) float32 tensor, some of its fields others."""
    tensor = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
    for name, value in changes.items():
        tensor.ClearField(name)
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


def test_our_own_files_pass(tiny_model: Path) -> None:
    check_model_file(tiny_model)
    found = scan(tiny_model.read_bytes(), "m")
    assert found.nodes == len(onnx.load(tiny_model).graph.node)
    assert (found.functions, found.trainings, found.external) == (0, 0, [])


# What numbers a tensor of each type holds ---------------------------------------------------

RAW_TYPES = [kind for kind in TensorProto.DataType.values() if kind not in (0, 8)]


@pytest.mark.parametrize("kind", RAW_TYPES, ids=lambda k: TensorProto.DataType.Name(k))
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5)])
def test_every_type_as_onnx_itself_writes_it(
    kind: int, raw: bool, shape: tuple[int, ...]
) -> None:
    """The oracle is onnx: it writes a tensor of the type, bare or in a list of numbers."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    values = np.zeros(shape, dtype)
    if raw:
        tensor = numpy_helper.from_array(values, "w")
        assert len(tensor.raw_data) == numbers_bytes(list(shape), kind)
    else:
        tensor = helper.make_tensor("w", kind, shape, values.ravel().tolist())
    assert tensor.data_type == kind
    scan(small_model(tensor).SerializeToString(), "m")
    tensor.dims.append(30)  # thirty times as many, unless there are none
    if 0 in shape:
        scan(small_model(tensor).SerializeToString(), "m")
    else:
        with pytest.raises(UnsafeModelError, match="not what its numbers fill"):
            scan(small_model(tensor).SerializeToString(), "m")


def test_text_is_counted_by_the_string() -> None:
    tensor = helper.make_tensor("w", TensorProto.STRING, [2], [b"one", b""])
    scan(small_model(tensor).SerializeToString(), "m")
    tensor.string_data.append(b"three")
    with pytest.raises(UnsafeModelError, match="not what its numbers fill"):
        scan(small_model(tensor).SerializeToString(), "m")


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 20),
    st.sampled_from(["raw", "float_data", "int32_data"]),
)
def test_a_tensor_passes_where_its_numbers_fill_its_shape(
    dims: list[int], count: int, store: str
) -> None:
    kind = TensorProto.INT32 if store == "int32_data" else TensorProto.FLOAT
    tensor = TensorProto(name="w", dims=dims, data_type=kind)
    if store == "raw":
        tensor.raw_data = bytes(4 * count)
    else:
        getattr(tensor, store).extend([1000] * count)
    model = small_model(tensor).SerializeToString()
    if int(np.prod(dims)) == count:
        scan(model, "m")
    else:
        with pytest.raises(UnsafeModelError, match="not what its numbers fill"):
            scan(model, "m")


def test_numbers_one_by_one_are_counted_too() -> None:
    """Protobuf allows a list packed or not; onnx packs, others may not."""
    loose = TensorProto(name="w", dims=[3], data_type=TensorProto.INT64).SerializeToString()
    loose += b"\x38\x01" * 3  # field 7 (int64_data), a varint
    graph = small_model().graph.SerializeToString() + b"\x2a" + bytes([len(loose)]) + loose
    model = b"\x3a" + bytes([len(graph)]) + graph
    scan(model, "m")
    parsed = onnx.ModelProto.FromString(model)
    assert list(parsed.graph.initializer[0].int64_data) == [1, 1, 1]
    with pytest.raises(UnsafeModelError, match="not what its numbers fill"):
        scan(model.replace(b"\x38\x01" * 3, b"\x38\x01" * 2 + b"\x70\x00"), "m")


# A corpus: the change, and the whole sentence ------------------------------------------------


def outside(model: onnx.ModelProto) -> None:
    tensor = weight(raw_data=b"", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    model.graph.initializer.append(tensor)


def outside_in_a_node(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="", dims=[1], data_type=1)
    tensor.external_data.add(key="location", value="w.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def a_million_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([onnx.NodeProto()] * 1_000_000)


def deep(model: onnx.ModelProto) -> None:
    graph = model.graph
    for _ in range(20):
        outer = helper.make_graph(
            [helper.make_node("If", ["c"], ["o"], then_branch=graph)], "g", [], []
        )
        graph = outer
    model.graph.CopyFrom(graph)


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]),
            helper.make_tensor("i", TensorProto.INT64, [1], [0]),
            [10**6, 10**6],
        )
    )


def raw_twice(model: onnx.ModelProto) -> bytes:
    tensor = weight().SerializeToString() + b"\x4a\x04" + bytes(4)
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    return b"\x3a" + bytes([len(graph)]) + graph


def compiled(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        helper.make_node(
            "EPContext",
            ["x"],
            ["z"],
            domain="com.microsoft",
            embed_mode=0,
            ep_cache_context="../../../etc/passwd",
        )
    )


def compiled_in_a_branch(model: onnx.ModelProto) -> None:
    inner = small_model()
    compiled(inner)
    model.graph.node.append(
        helper.make_node("If", ["c"], ["o"], then_branch=inner.graph, else_branch=inner.graph)
    )


COMPILED = (
    "holds what was compiled for one accelerator (an EPContext node), which may name any "
    "file; export it again without"
)


def with_tensor(**changes: object) -> Change:
    return lambda model: model.graph.initializer.append(weight(**changes))


UNSAFE: dict[str, tuple[Change, str]] = {
    "weights elsewhere": (
        outside,
        (
            "keeps the numbers of 'w' in another file ('../secret.bin'), and a model is one "
            "file; export it again"
        ),
    ),
    "a constant elsewhere": (
        outside_in_a_node,
        (
            "keeps the numbers of '' in another file ('w.bin'), and a model is one "
            "file; export it again"
        ),
    ),
    "a million nodes": (
        a_million_nodes,
        f"has more than {MAX_NODES:,} nodes; use a smaller model",
    ),
    "a million nodes in a function": (
        lambda m: m.functions.append(onnx.FunctionProto(node=[onnx.NodeProto()] * 300_000)),
        f"has more than {MAX_NODES:,} nodes; use a smaller model",
    ),
    "deep": (deep, "nests graphs more than 16 deep; export it without If and Loop"),
    "astronomic": (
        with_tensor(dims=[2**62, 2**62]),
        (
            f"gives 'w' the shape ({2**62}, {2**62}), which is not what its numbers fill; "
            "export it again"
        ),
    ),
    "many sides": (
        with_tensor(dims=[1] * 9),
        (
            "gives 'w' the shape (1, 1, 1, 1, 1, 1, 1, 1, ...), which is not what its numbers "
            "fill; export it again"
        ),
    ),
    "negative": (
        with_tensor(dims=[-2, -3]),
        "gives 'w' the shape (-2, -3); a side can't be negative",
    ),
    "no numbers": (
        with_tensor(raw_data=b"", dims=[10**9]),
        (
            "gives 'w' the shape (1000000000), which is not what its numbers fill; "
            "export it again"
        ),
    ),
    "no type": (with_tensor(data_type=0), "gives 'w' the type 0, which ONNX does not have"),
    "another type": (
        with_tensor(data_type=99),
        "gives 'w' the type 99, which ONNX does not have",
    ),
    "compiled": (compiled, COMPILED),
    "compiled, in a branch": (compiled_in_a_branch, COMPILED),
    "compiled, in a function": (
        lambda m: m.functions.append(
            onnx.FunctionProto(node=[onnx.NodeProto(op_type="EPContext")])
        ),
        COMPILED,
    ),
    "numbers twice": (raw_twice, "states the numbers of 'w' twice"),
    "numbers of two kinds": (
        with_tensor(float_data=[0.0] * 6),
        "gives 'w' the shape (2, 3), which is not what its numbers fill; export it again",
    ),
    "sparse": (
        sparse,
        (
            "holds a sparse tensor of the shape (1000000, 1000000), more than one ONNX file "
            "may hold; use a smaller model"
        ),
    ),
    "long": (
        lambda m: m.graph.value_info.add(name="v" * 70_000_000) and None,
        (
            "has 70,000,076 bytes beside its weights, and no more than 67,108,864 are read; "
            "use a smaller model"
        ),
    ),
    "parts without end": (
        lambda m: m.SerializeToString() + b"\x08\x08" * 5_000_001,
        "has more than 5,000,000 parts beside its weights; use a smaller model",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), UNSAFE.values(), ids=UNSAFE.keys())
def test_an_unsafe_file_is_refused_in_one_sentence(
    tmp_path: Path, change: Change, sentence: str
) -> None:
    model = small_model()
    data = change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(data if isinstance(data, bytes) else model.SerializeToString())
    started_s = time.process_time()
    with pytest.raises(UnsafeModelError) as caught:
        check_model_file(path)
    assert str(caught.value) == f"{path} {sentence}"
    assert time.process_time() - started_s < 30


NO_MODEL = {
    "empty": (b"", "it has no nodes"),
    "text": (b"neither a model nor a head", "it is no protobuf message"),
    "no graph": (b"\x08\x08", "it has no nodes"),
    "two graphs": (2 * (b"\x3a" + b"\x00"), "it has 2 graphs"),
    "cut off": (b"\x3a\x7f\x00", "it is cut off, or no protobuf message"),
    "a number without end": (b"\x08" + b"\xff" * 20, "it is cut off, or no protobuf message"),
    "field 0": (b"\x00\x00", "it is cut off, or no protobuf message"),
    "a number of a list cut off": (
        small_model().SerializeToString() + b"\x3a\x07\x2a\x05\x10\x01\x22\x01\x00",
        "a tensor's numbers are cut off",
    ),
    "a name of other bytes": (
        b"\x3a\x09\x2a\x07\x42\x01\xff\x10\x01\x08\x00",
        "a name in it is not UTF-8 text",
    ),
}


@pytest.mark.parametrize(("data", "reason"), NO_MODEL.values(), ids=NO_MODEL.keys())
def test_no_model(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        check_model_file(path)
    assert str(caught.value) == f"{path} is not an ONNX model: {reason}"


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "gone", tmp_path, tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(ModelFileError, match=r"cannot read .*: there is no such file"):
            check_model_file(path)


def test_a_file_above_two_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31)  # a hole: no bytes on the disk
    with pytest.raises(UnsafeModelError) as caught:
        check_model_file(path)
    assert str(caught.value) == (
        f"{path} has 2,147,483,648 bytes, one ONNX file holds 2,147,483,647; "
        "use a smaller model"
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_never_a_traceback(data: bytes) -> None:
    try:
        scan(data, "m")
    except EdgeImprintError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_model_is_refused_or_read_never_a_traceback(at: int, put: bytes) -> None:
    data = small_model(weight()).SerializeToString()
    at %= len(data)
    damaged = data[:at] + put + data[at + len(put) :]
    try:
        scan(damaged, "m")
    except EdgeImprintError as error:
        assert "\n" not in str(error)


def test_a_hole_of_two_gigabytes_is_walked_over_at_once(tmp_path: Path) -> None:
    """Numbers are skipped: the time does not depend on their size."""
    size = 1_900_000_000
    tensor = TensorProto(name="w", dims=[size], data_type=TensorProto.UINT8)
    head = tensor.SerializeToString() + b"\x4a" + varint(size)
    graph = small_model().graph.SerializeToString() + b"\x2a" + varint(len(head) + size)
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        file.write(b"\x3a" + varint(len(graph) + len(head) + size) + graph + head)
        file.truncate(file.tell() + size)
    started_s = time.process_time()
    check_model_file(path)
    assert time.process_time() - started_s < 1


def varint(value: int) -> bytes:
    text = bytearray()
    while value >= 0x80:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])
