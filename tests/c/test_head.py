# SPDX-License-Identifier: Apache-2.0
"""Heads in C: read as Python reads them, refused as it refuses them, written to the byte."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_arrays

from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import encode
from edge_imprint_runtime.errors import EdgeImprintError, ParameterError
from tests.c.building import tool
from tests.c.heads import STATUS, Heads, random_heads, random_rows
from tests.c.test_contract import COMMA

Arrays = dict[str, npt.NDArray[np.generic]]
MakeHead = Callable[..., Head]

ARRAYS: Arrays = {"proxies": np.eye(3, 4, dtype=np.float32), "class_index": np.arange(3)}
METADATA = encode(Head(ARRAYS["proxies"], ARRAYS["class_index"], list("abc")).contract)


@pytest.fixture(scope="module")
def heads(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heads]:
    """One head_check for all tests of this file: it must survive them all."""
    program = Heads(c_build / "tests" / "head_check", tmp_path_factory.mktemp("heads"))
    yield program
    program.close()


def python_status(data: bytes, folder: Path) -> str:
    """Read a head file in Python: what C must call the outcome."""
    path = folder / "head"
    path.write_bytes(data)
    try:
        Head.load(path)
    except ParameterError:
        return "EI_HEAD_VALUE"  # neighbors and proxies of a file contradict each other
    except EdgeImprintError as error:
        return STATUS[type(error)]
    return "EI_OK"


@given(random_heads())
def test_what_python_wrote_is_read_and_written_to_the_byte(heads: Heads, head: Head) -> None:
    assert heads.load(head).status == "EI_OK"
    assert heads.written() == head.to_bytes()


def test_a_head_that_was_taught_too(heads: Heads, make_head: MakeHead) -> None:
    head = make_head(3, 2, center=True, transform=True, calibrated=True)
    from edge_imprint_runtime.teaching import teach

    taught = teach(teach(head, "new", random_rows(head, 7)), "class 0", random_rows(head, 2))
    assert heads.load(taught).status == "EI_OK"
    assert heads.written() == taught.to_bytes()


# Bad files ---------------------------------------------------------------------------------

TAUGHT: Arrays = ARRAYS | {
    "samples": np.ones((2, 4), np.float32),
    "sample_class": np.array([1, 1]),
    "host_proxies": np.array([1, 0, 1]),
}
BIG = 2**63 - 1
F32, I64 = np.float32, np.int64
BAD: dict[str, tuple[Arrays, str]] = {
    "good": (ARRAYS, "EI_OK"),
    "good, taught": (TAUGHT, "EI_OK"),
    "float64": (ARRAYS | {"proxies": np.eye(3, 4)}, "EI_HEAD_FILE"),
    "int32": (ARRAYS | {"class_index": np.arange(3, dtype=np.int32)}, "EI_HEAD_FILE"),
    "extra": (ARRAYS | {"extra": np.zeros(1, F32)}, "EI_HEAD_FILE"),
    "no proxies": ({"class_index": np.arange(3)}, "EI_HEAD_FILE"),
    "no index": ({"proxies": np.eye(3, 4, dtype=F32)}, "EI_HEAD_FILE"),
    "NaN": (ARRAYS | {"proxies": np.full((3, 4), np.nan, F32)}, "EI_HEAD_VALUE"),
    "infinity": (ARRAYS | {"proxies": np.full((3, 4), -np.inf, F32)}, "EI_HEAD_VALUE"),
    "no dimension": (ARRAYS | {"proxies": np.zeros((), F32)}, "EI_HEAD_VALUE"),
    "one dimension": (ARRAYS | {"proxies": np.zeros(3, F32)}, "EI_HEAD_VALUE"),
    "three dimensions": (ARRAYS | {"proxies": np.zeros((3, 4, 1), F32)}, "EI_HEAD_VALUE"),
    "no proxy": (ARRAYS | {"proxies": np.zeros((0, 4), F32)}, "EI_HEAD_VALUE"),
    "no column": (ARRAYS | {"proxies": np.zeros((3, 0), F32)}, "EI_HEAD_VALUE"),
    "short index": (ARRAYS | {"class_index": np.arange(2)}, "EI_HEAD_VALUE"),
    "no classes": (ARRAYS | {"class_index": np.zeros(0, I64)}, "EI_HEAD_VALUE"),
    "index in rows": (ARRAYS | {"class_index": np.zeros((3, 1), I64)}, "EI_HEAD_VALUE"),
    "negative index": (ARRAYS | {"class_index": np.array([0, 1, -1])}, "EI_LABEL_COUNT"),
    "lowest index": (ARRAYS | {"class_index": np.array([0, 1, -BIG - 1])}, "EI_LABEL_COUNT"),
    "highest index": (ARRAYS | {"class_index": np.array([0, 1, BIG])}, "EI_LABEL_COUNT"),
    "a class too many": (ARRAYS | {"class_index": np.array([0, 1, 3])}, "EI_LABEL_COUNT"),
    "a class without": (ARRAYS | {"class_index": np.array([0, 1, 1])}, "EI_LABEL_COUNT"),
    "center": (ARRAYS | {"center": np.zeros(3, F32)}, "EI_HEAD_VALUE"),
    "center NaN": (ARRAYS | {"center": np.full(4, np.nan, F32)}, "EI_HEAD_VALUE"),
    "center in rows": (ARRAYS | {"center": np.zeros((1, 4), F32)}, "EI_HEAD_VALUE"),
    "transform's columns": (ARRAYS | {"transform": np.zeros((4, 3), F32)}, "EI_HEAD_VALUE"),
    "transform's rows": (
        ARRAYS | {"center": np.zeros(5, F32), "transform": np.zeros((4, 4), F32)},
        "EI_HEAD_VALUE",
    ),
    "transform's size": (ARRAYS | {"transform": np.zeros((5, 4), F32)}, "EI_HEAD_VALUE"),
    "transform in one": (ARRAYS | {"transform": np.zeros(4, F32)}, "EI_HEAD_VALUE"),
    "metric": (ARRAYS | {"metric": np.eye(4, dtype=F32)}, "EI_HEAD_VALUE"),
    "threshold": (ARRAYS | {"threshold": np.zeros(3, F32)}, "EI_HEAD_VALUE"),
    "embedding size": (ARRAYS | {"proxies": np.eye(3, 5, dtype=F32)}, "EI_HEAD_VALUE"),
    "samples alone": (ARRAYS | {"samples": np.ones((1, 4), F32)}, "EI_HEAD_VALUE"),
    "no samples": ({k: v for k, v in TAUGHT.items() if k != "samples"}, "EI_HEAD_VALUE"),
    "host_proxies alone": (ARRAYS | {"host_proxies": np.ones(3, I64)}, "EI_HEAD_VALUE"),
    "samples' columns": (TAUGHT | {"samples": np.ones((2, 3), F32)}, "EI_HEAD_VALUE"),
    "samples in one": (TAUGHT | {"samples": np.ones(4, F32)}, "EI_HEAD_VALUE"),
    "samples empty": (TAUGHT | {"samples": np.ones((0, 4), F32)}, "EI_HEAD_VALUE"),
    "sample_class short": (TAUGHT | {"sample_class": np.array([1])}, "EI_HEAD_VALUE"),
    "sample_class high": (TAUGHT | {"sample_class": np.array([1, 3])}, "EI_HEAD_VALUE"),
    "sample_class low": (TAUGHT | {"sample_class": np.array([-1, 1])}, "EI_HEAD_VALUE"),
    "sample_class huge": (TAUGHT | {"sample_class": np.array([1, BIG])}, "EI_HEAD_VALUE"),
    "sample_class falls": (TAUGHT | {"sample_class": np.array([1, 0])}, "EI_HEAD_VALUE"),
    "sample_class in rows": (TAUGHT | {"sample_class": np.ones((2, 1), I64)}, "EI_HEAD_VALUE"),
    "host_proxies short": (TAUGHT | {"host_proxies": np.array([1, 0])}, "EI_HEAD_VALUE"),
    "host_proxies negative": (
        TAUGHT | {"host_proxies": np.array([-1, 0, 1])},
        "EI_HEAD_VALUE",
    ),
    "host_proxies huge": (TAUGHT | {"host_proxies": np.array([1, BIG, 1])}, "EI_HEAD_VALUE"),
    "samples, none taught": (TAUGHT | {"host_proxies": np.array([1, 1, 1])}, "EI_HEAD_VALUE"),
    "taught, no samples": (TAUGHT | {"host_proxies": np.array([0, 0, 1])}, "EI_HEAD_VALUE"),
}


@pytest.mark.parametrize(("arrays", "status"), BAD.values(), ids=BAD.keys())
def test_arrays_that_contradict(
    heads: Heads, tmp_path: Path, arrays: Arrays, status: str
) -> None:
    data = save_arrays(arrays, metadata=METADATA)
    assert python_status(data, tmp_path) == status
    answer = heads.load(data)
    assert answer.status == status
    assert status == "EI_OK" or "given" in answer.rest  # the file is named


def test_rule_calibration_and_arrays_of_a_file(heads: Heads, tmp_path: Path) -> None:
    rule = METADATA["edge_imprint.rule"]
    votes = METADATA | {
        "edge_imprint.rule": rule.replace("max", "mnn").replace("neighbors=1", "neighbors=4")
    }
    distance = METADATA | {"edge_imprint.rule": rule.replace("inner_product", "mahalanobis")}
    calibrated = METADATA | {"edge_imprint.temperature": "0.5"}
    threshold = ARRAYS | {"threshold": np.zeros(3, np.float32)}
    cases: list[tuple[Arrays, dict[str, str] | None]] = [
        (ARRAYS, votes),
        (ARRAYS, distance),
        (ARRAYS | {"metric": np.eye(4, dtype=np.float32)}, distance),
        (ARRAYS | {"metric": np.eye(3, 4, dtype=np.float32)}, distance),
        (ARRAYS | {"metric": np.ones(4, np.float32)}, distance),
        (ARRAYS, calibrated),
        (threshold, METADATA),
        (threshold, calibrated),
        (ARRAYS | {"threshold": np.zeros(2, np.float32)}, calibrated),
        (ARRAYS | {"threshold": np.full(3, np.inf, np.float32)}, calibrated),
        (ARRAYS, None),
        (ARRAYS, METADATA | {"edge_imprint.version": "2"}),
        (ARRAYS, METADATA | {"edge_imprint.slots": "2"}),
        (ARRAYS, METADATA | {"edge_imprint.labels": '["a","b","c","d"]'}),
        (ARRAYS, METADATA | {"edge_imprint.labels": '["a","b"]'}),
        (ARRAYS, METADATA | {"edge_imprint.embedding_size": "5"}),
        (ARRAYS, METADATA | {"edge_imprint.recipe": ""}),
    ]
    found = []
    for arrays, metadata in cases:
        data = save_arrays(arrays, metadata=metadata)
        wanted = python_status(data, tmp_path)
        assert heads.load(data).status == wanted, (wanted, metadata)
        found.append(wanted)
    assert found.count("EI_OK") == 2


def misaligned(data: bytes) -> bytes:
    """The same head, its arrays not where a float could be read."""
    size = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + size].rstrip() + b" " * 3
    text += b" " * (1 - len(text) % 2)
    assert len(text) % 4
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@given(random_heads())
def test_arrays_that_lie_badly_are_read_too(heads: Heads, head: Head) -> None:
    assert heads.load(misaligned(head.to_bytes())).status == "EI_OK"
    assert heads.written() == head.to_bytes()


@given(random_heads(), st.randoms(use_true_random=False))
def test_proxies_in_any_order_are_sorted_by_class(
    heads: Heads, head: Head, random: st.randoms
) -> None:
    order = list(range(len(head.proxies)))
    random.shuffle(order)
    arrays: Arrays = {"proxies": head.proxies[order], "class_index": head.class_index[order]}
    for name in ("center", "transform", "metric", "threshold"):
        if getattr(head, name) is not None:
            arrays[name] = getattr(head, name)
    given_head = Head(
        head.proxies[order],
        head.class_index[order],
        head.labels,
        **{n: getattr(head, n) for n in ("rule", "center", "transform", "metric")},
        **{n: getattr(head, n) for n in ("threshold", "temperature", "recipe", "backbone")},
        notes=head.notes,
    )
    data = save_arrays(arrays, metadata=encode(head.contract))
    for bytes_ in (data, misaligned(data)):
        assert heads.load(bytes_).status == "EI_OK"
        assert heads.written() == given_head.to_bytes()


def test_what_is_written_otherwise_is_brought_into_pythons_form(
    heads: Heads, tmp_path: Path
) -> None:
    """Zeros in front, another spelling of a number or of a label, keys that are not ours."""
    line = (
        "resize=crop:018x18 interpolation=bicubic size=16x016 mean=0.50,1e0,0 std=1,20e-1,10"
    )
    metadata = METADATA | {
        "edge_imprint.labels": '[ "\\u00e9", "b\\/", "\\ud83d\\ude00" ]',
        "edge_imprint.rule": METADATA["edge_imprint.rule"].replace("=1", "=0001"),
        "edge_imprint.embedding_size": "0004",
        "edge_imprint.temperature": "50.00e-3",
        "edge_imprint.backbone": "tiny",
        "edge_imprint.backbone_weights": "own",
        "edge_imprint.backbone_digest": "0" * 64,
        "edge_imprint.preprocess": line,
        "edge_imprint.note.z": "z",
        "edge_imprint.note.a": "",
        "somebody": "else",
    }
    data = save_arrays(ARRAYS | {"threshold": np.ones(3, np.float32)}, metadata=metadata)
    assert python_status(data, tmp_path) == "EI_OK"
    assert heads.load(data).status == "EI_OK"
    assert heads.written() == Head.load(tmp_path / "head").to_bytes()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_python_writes_them(heads: Heads, number: float) -> None:
    assert heads.do("number", repr(number)) == repr(number)


@given(st.integers(-1074, 1023))
def test_powers_of_two_too_whose_neighbours_are_not_equally_far(
    heads: Heads, power: int
) -> None:
    for number in (2.0**power, -(2.0**power)):
        assert heads.do("number", repr(number)) == repr(number)


@pytest.mark.parametrize("number", [0.0, -0.0, 1e15, 1e16, 123456789012345678.0, 1e-4, 1e-5])
@pytest.mark.parametrize("factor", [1, 1.5, -1, 1 / 3])
def test_numbers_where_their_form_changes(heads: Heads, number: float, factor: float) -> None:
    assert heads.do("number", repr(number * factor)) == repr(number * factor)


def test_a_comma_of_the_host_programs_locale_changes_nothing(
    c_build: Path, make_head: MakeHead, tmp_path: Path
) -> None:
    source, made = tmp_path / "comma", tmp_path / "xx_XX"
    source.write_text(COMMA)
    command = [tool("localedef", "libc-bin"), "-c", "-i", source, "-f", "ANSI_X3.4-1968"]
    # It warns of the categories that are not there, and answers 1.
    subprocess.run([*command, made], capture_output=True, check=False)
    program = c_build / "tests" / "head_check"
    heads = Heads(program, tmp_path, LOCPATH=str(tmp_path))
    assert heads.do("locale", "xx_XX") == ","
    head = make_head(3, 2, calibrated=True)
    for temperature in (0.25, 1 / 3, 1.5e-9, 123.456, 1e12):
        changed = head.replaced(temperature=temperature)
        assert heads.load(changed).status == "EI_OK"
        assert heads.written() == changed.to_bytes()
    heads.close()


# Damage ------------------------------------------------------------------------------------


@given(st.data())
def test_any_damage_is_refused_or_read_as_python_does(
    heads: Heads,
    make_head: MakeHead,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    """C may be stricter than the safetensors library; nothing else may differ."""
    content = bytearray(make_head(2, 1, 2, backbone=None).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    wanted = python_status(bytes(content), tmp_path_factory.mktemp("damaged"))
    found = heads.load(bytes(content)).status
    assert found == wanted or (found == "EI_HEAD_FILE" and wanted != "EI_OK")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -40])
def test_a_truncated_file(heads: Heads, make_head: MakeHead, keep: int) -> None:
    answer = heads.load(make_head().to_bytes()[:keep])
    assert answer.status == "EI_HEAD_FILE"


def test_no_file_at_all(heads: Heads, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert heads.ask("load", 0, path).status == "EI_HEAD_FILE"


def test_a_shape_beyond_all_bounds_is_not_believed(heads: Heads) -> None:
    for shape in ([2**63, 4], [2**32, 2**32], [0, 2**63], [2**62, 4]):
        array = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
        index = {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]}
        header = {"__metadata__": METADATA, "proxies": array, "class_index": index}
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + bytes(24)
        assert heads.load(data).status in ("EI_HEAD_FILE", "EI_HEAD_VALUE")
