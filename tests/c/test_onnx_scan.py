# SPDX-License-Identifier: Apache-2.0
"""The C look into an ONNX file gives Python's verdict, in Python's words."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_runtime.errors import EdgeImprintError, ModelFileError, UnsafeModelError
from edge_imprint_runtime.onnx_scan import check_model_file
from tests.c.ort_tools import Program
from tests.runtime.test_onnx_scan import (
    NO_MODEL,
    RAW_TYPES,
    UNSAFE,
    Change,
    small_model,
    varint,
    weight,
)

STATUS = {ModelFileError: "EI_MODEL_FILE", UnsafeModelError: "EI_UNSAFE_MODEL"}


@pytest.fixture(scope="module")
def program(c_build: Path) -> Iterator[Program]:
    with Program(c_build / "tests" / "scan_check") as made:
        yield made


@pytest.fixture(scope="module")
def verdict(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function: bytes or a model -> C's verdict, found to be Python's too."""
    path = tmp_path_factory.mktemp("scan") / "m.onnx"

    def ask(model: bytes | onnx.ModelProto) -> str:
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        (first, *_) = program.ask("scan", path, between="\t")
        (again, *_) = program.ask("memory", path, between="\t")
        try:
            check_model_file(path)
            assert first == again == "EI_OK: "
        except EdgeImprintError as error:
            assert without_names(first) == without_names(f"{STATUS[type(error)]}: {error}")
            assert again == first or not path.stat().st_size
        return first.replace(f"{path} ", "")

    return ask


def without_names(sentence: str) -> str:
    """Take out what is quoted: Python escapes odd bytes in it, C puts question marks."""
    return re.sub(r"""['"].*['"]""", "...", sentence)


@pytest.mark.parametrize(("change", "sentence"), UNSAFE.values(), ids=UNSAFE.keys())
def test_an_unsafe_file_is_refused_in_python_s_words(
    verdict: Callable[..., str], change: Change, sentence: str
) -> None:
    model = small_model()
    data = change(model)
    found = verdict(data if isinstance(data, bytes) else model)
    assert found == f"EI_UNSAFE_MODEL: {sentence}"


@pytest.mark.parametrize(("data", "reason"), NO_MODEL.values(), ids=NO_MODEL.keys())
def test_no_model(verdict: Callable[..., str], data: bytes, reason: str) -> None:
    assert verdict(data) == f"EI_MODEL_FILE: is not an ONNX model: {reason}"


@pytest.mark.parametrize("kind", RAW_TYPES, ids=lambda k: TensorProto.DataType.Name(k))
def test_every_type_as_onnx_itself_writes_it(verdict: Callable[..., str], kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for shape in [(), (0,), (3,), (2, 5)]:
        values = np.zeros(shape, dtype)
        for tensor in (
            numpy_helper.from_array(values, "w"),
            helper.make_tensor("w", kind, shape, values.ravel().tolist()),
        ):
            assert verdict(small_model(tensor)) == "EI_OK: "
            tensor.dims.append(30)
            more = verdict(small_model(tensor))
            assert more.startswith("EI_OK" if 0 in shape else "EI_UNSAFE")


@pytest.mark.parametrize("kind", [0, 8, 29, 2**31, 2**63])
def test_text_and_what_is_no_type(verdict: Callable[..., str], kind: int) -> None:
    tensor = b"\x08\x02\x10" + varint(kind) + b"\x32\x00\x32\x01x"
    graph = b"\x0a\x00\x2a" + varint(len(tensor)) + tensor
    found = verdict(b"\x3a" + varint(len(graph)) + graph)
    assert found.startswith("EI_OK" if kind == 8 else "EI_UNSAFE_MODEL: gives '' the type")


FIELDS = st.tuples(st.integers(1, 15), st.sampled_from([0, 1, 2, 5]), st.binary(max_size=12))


@given(st.lists(FIELDS, max_size=8))
def test_tensors_of_any_fields(
    verdict: Callable[..., str], fields: list[tuple[int, int, bytes]]
) -> None:
    """Numbers one by one or packed, stated twice, elsewhere: whatever protobuf allows."""
    tensor = b"\x10\x01"
    for number, kind, data in fields:
        tensor += varint(number << 3 | kind)
        if kind == 2:
            tensor += varint(len(data)) + data
        elif kind == 0:
            tensor += varint(data[0] % 30 if data else 0)
        else:
            tensor += bytes(8 if kind == 1 else 4)
    sparse = b"\x0a" + varint(len(tensor)) + tensor + b"\x18\x05"
    for field, message in ((0x2A, tensor), (0x7A, sparse)):
        graph = varint(field) + varint(len(message)) + message
        verdict(b"\x3a" + varint(len(graph)) + graph)


@given(st.binary(max_size=200))
def test_any_bytes(verdict: Callable[..., str], data: bytes) -> None:
    verdict(data)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_a_damaged_model(
    verdict: Callable[..., str], tiny_model: Path, at: int, put: bytes
) -> None:
    data = small_model(weight()).SerializeToString() if at % 2 else tiny_model.read_bytes()
    at %= len(data)
    verdict(data[:at] + put + data[at + len(put) :])


def test_parts_that_only_training_and_functions_have(verdict: Callable[..., str]) -> None:
    graph = small_model(weight()).graph.SerializeToString()
    inner = b"\x0a" + varint(len(graph)) + graph
    model = small_model().SerializeToString()
    assert verdict(model + b"\xa2\x01" + varint(len(inner)) + inner) == "EI_OK: "
    twice = verdict(model + b"\xa2\x01" + varint(2 * len(inner)) + 2 * inner)
    assert twice == "EI_UNSAFE_MODEL: states a training graph twice; export it again"
    function = onnx.FunctionProto(node=[helper.make_node("Relu", ["a"], ["b"], s="text")])
    function.attribute_proto.append(helper.make_attribute("t", weight(dims=[9])))
    other = small_model()
    other.functions.append(function)
    assert verdict(other).startswith("EI_UNSAFE_MODEL: gives 'w' the shape (9)")


@pytest.mark.parametrize(
    ("number", "what"), [(5, "tensor"), (6, "graph"), (22, "sparse tensor")]
)
def test_an_attribute_s_part_stated_twice(
    verdict: Callable[..., str], number: int, what: str
) -> None:
    message = weight().SerializeToString() if number == 5 else b""
    one = varint(number << 3 | 2) + varint(len(message)) + message
    for count, wanted in (
        (1, "EI_OK: "),
        (2, f"EI_UNSAFE_MODEL: states a {what} of an a"),
    ):
        node = b"\x2a" + varint(count * len(one)) + one * count
        graph = b"\x0a" + varint(len(node)) + node
        assert verdict(b"\x3a" + varint(len(graph)) + graph).startswith(wanted)


def test_a_sparse_tensor_s_part_stated_twice(verdict: Callable[..., str]) -> None:
    part = weight(name="w").SerializeToString()
    one = b"\x0a" + varint(len(part)) + part
    graph = b"\x7a" + varint(2 * len(one)) + 2 * one
    assert verdict(b"\x3a" + varint(len(graph)) + graph) == (
        "EI_UNSAFE_MODEL: states a part of a sparse tensor twice; export it again"
    )


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (
            b"\x70\x02",
            "keeps a tensor's numbers in a place that ONNX does not have; export it again",
        ),
        (b"\x70\x00\x70\x00", "states the place of a tensor's numbers twice; export it again"),
    ],
)
def test_places_that_onnx_does_not_have(
    verdict: Callable[..., str], places: bytes, sentence: str
) -> None:
    tensor = weight().SerializeToString() + places
    graph = b"\x2a" + varint(len(tensor)) + tensor
    assert verdict(b"\x3a" + varint(len(graph)) + graph) == f"EI_UNSAFE_MODEL: {sentence}"


def test_names_are_cut_after_eighty_letters(verdict: Callable[..., str]) -> None:
    name = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 79 + "\n" + "x" * 9
    found = verdict(small_model(weight(name=name, dims=[5])))
    assert f"gives '{name[:79]}?' the shape (5)" in found


def test_notes_do_not_count_as_description(verdict: Callable[..., str]) -> None:
    model = small_model()
    model.metadata_props.add(key="note", value="x" * 70_000_000)
    assert verdict(model) == "EI_OK: "
    model.graph.metadata_props.add(key="note", value="x" * 70_000_000)
    assert verdict(model) == "EI_OK: "
    model.graph.node[0].doc_string = "x" * 70_000_000
    assert verdict(model) == "EI_OK: "


# Metadata and files ---------------------------------------------------------------------


def test_metadata_come_from_the_file(program: Program, tiny_model: Path) -> None:
    status, *lines = program.ask("scan", tiny_model, between="\t")
    assert status == "EI_OK: "
    found = [tuple(bytes.fromhex(part).decode() for part in line.split(" ")) for line in lines]
    wanted = onnx.load(tiny_model).metadata_props
    ours = [(prop.key, prop.value) for prop in wanted if prop.key.startswith("edge_imprint.")]
    assert found == ours
    assert len(ours) > 5


def test_metadata_that_are_not_ours_are_left_out(program: Program, tmp_path: Path) -> None:
    model = small_model()
    for number in range(300):
        model.metadata_props.add(key=f"other.{number}", value="x")
    model.metadata_props.add(key="edge_imprint.version", value="1")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    answer = program.ask("scan", tmp_path / "m.onnx", between="\t")
    assert answer == ["EI_OK: ", f"{b'edge_imprint.version'.hex()} {b'1'.hex()}"]


def test_too_many_keys(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = small_model().SerializeToString()
    note = onnx.StringStringEntryProto(
        key="edge_imprint.note.x", value="x"
    ).SerializeToString()
    for count, wanted in [
        (65_536, "EI_OK: "),
        (65_537, f"EI_CONTRACT_KEY: {path} has more than 65,536 keys; export it again"),
    ]:
        path.write_bytes(model + (b"\x72" + varint(len(note)) + note) * count)
        (status, *_) = program.ask("scan", path, between="\t")
        assert status == wanted


def test_a_note_that_is_no_message(program: Program, tmp_path: Path) -> None:
    """Python leaves it to ONNX Runtime, which refuses the file likewise."""
    path = tmp_path / "m.onnx"
    path.write_bytes(small_model().SerializeToString() + b"\x72\x02\x0a\x09")
    (status, *_) = program.ask("scan", path, between="\t")
    assert (
        status
        == f"EI_MODEL_FILE: {path} is not an ONNX model: it is cut off, or no protobuf message"
    )


def test_no_file(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in [
        ("gone", "there is no such file"),
        ("", "it is no regular file"),
        ("pipe", "it is no regular file"),
        ("gone/below", "there is no such file"),
    ]:
        path = tmp_path / name
        answer = program.ask("scan", path, between="\t")
        assert answer == [f"EI_FILE_MISSING: cannot read {path}: {why}"]


def test_a_file_above_two_gigabytes(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31)  # a hole: no bytes on the disk
    (status,) = program.ask("scan", path, between="\t")
    assert status == (
        f"EI_UNSAFE_MODEL: {path} has 2,147,483,648 bytes, one ONNX file holds 2,147,483,647; "
        "use a smaller model"
    )


def test_numbers_are_walked_over_at_once(program: Program, tmp_path: Path) -> None:
    """The time does not depend on their size."""
    size = 1_900_000_000
    tensor = TensorProto(name="w", dims=[size], data_type=TensorProto.UINT8)
    head = tensor.SerializeToString() + b"\x4a" + varint(size)
    graph = small_model().graph.SerializeToString() + b"\x2a" + varint(len(head) + size)
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        file.write(b"\x3a" + varint(len(graph) + len(head) + size) + graph + head)
        file.truncate(file.tell() + size)
    before = psutil.Process(program.process_id).cpu_times()
    assert program.ask("scan", path, between="\t") == ["EI_OK: "]
    after = psutil.Process(program.process_id).cpu_times()
    assert after.user + after.system - before.user - before.system < 1


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_digests(program: Program, tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "f").write_bytes(data)
    wanted = hashlib.sha256(data).hexdigest()
    assert program.ask("sha256", tmp_path / "f", between="\t") == ["EI_OK: ", wanted, wanted]
