# SPDX-License-Identifier: Apache-2.0
"""The head file's container in C: Python's verdict on any bytes, and Python's bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import decode, encode
from edge_imprint_runtime.contract.codec import NOTE_PREFIX
from edge_imprint_runtime.errors import EdgeImprintError, HeadFileError
from edge_imprint_runtime.head_file import check_arrays, dump_arrays, read_arrays
from edge_imprint_runtime.teaching import teach
from tests.c.test_contract import STATUS
from tests.c.text_asking import Answer, Asking, text
from tests.runtime.test_head_file import ARRAYS, BAD_ARRAYS, METADATA, NO_HEAD_FILES, heads

NAMES = ("proxies", "class_index", "center", "transform", "metric", "threshold", "samples")
NAMES += ("sample_class", "host_proxies")  # in the order of safetensors.h
ALL_STATUS = STATUS | {HeadFileError: "EI_HEAD_FILE"}


@pytest.fixture(scope="module")
def check(c_build: Path) -> Iterator[Asking]:
    with Asking(c_build / "tests" / "text_check") as asking:
        yield asking


def ask(check: Asking, data: bytes) -> Answer:
    """Let C read a head file's container and contract."""
    answer = check.ask("safetensors", data)
    if answer["status"] != "EI_OK":
        said = text(answer, "error")
        assert said
        assert "\n" not in said
        assert len(said) < 1000
    return answer


def pythons_verdict(folder: Path, data: bytes) -> str:
    """Return the status of what Python says of the same bytes."""
    path = folder / "head"
    path.write_bytes(data)
    try:
        arrays, metadata = read_arrays(path)
        decode(metadata, model=False)
        check_arrays(arrays, "head")
    except EdgeImprintError as error:
        return ALL_STATUS[type(error)]
    return "EI_OK"


def same_arrays(answer: Answer, data: bytes, head: Head) -> None:
    """Hold where C found the arrays against what they are."""
    for name, (at, dimensions, rows, columns) in zip(NAMES, answer["arrays"], strict=True):
        array: npt.NDArray[np.generic] | None = getattr(head, name)
        if array is None:
            assert at == -1, name
            continue
        assert dimensions == array.ndim
        assert (rows, columns)[: array.ndim] == array.shape
        assert data[at : at + array.nbytes] == array.tobytes(), name


@given(heads())
def test_heads_are_read_and_written_byte_for_byte(check: Asking, head: Head) -> None:
    data = head.to_bytes()
    answer = ask(check, data)
    assert answer["status"] == "EI_OK", text(answer, "error")
    same_arrays(answer, data, head)
    assert {
        text(entry, "key"): text(entry, "value") for entry in answer["metadata"]
    } == encode(head.contract)
    assert bytes.fromhex(answer["written"]) == data


def test_a_taught_head_with_all_arrays(check: Asking) -> None:
    rng = np.random.default_rng(0)
    head = Head(
        rng.standard_normal((3, 2)),
        [0, 1, 1],
        ['a"\n', "😀"],
        dataclasses.replace(Head([[1]], [0], ["a"]).rule, distance="mahalanobis"),
        center=rng.standard_normal(4),
        transform=rng.standard_normal((4, 2)),
        metric=rng.standard_normal((2, 3)),
        threshold=[0.5, 0.25],
        temperature=0.05,
        notes=(("by", "me\t\x01"), ("a", "")),
    )
    head = teach(head, "new", rng.standard_normal((3, 4)), proxies=2)
    data = head.to_bytes()
    answer = ask(check, data)
    same_arrays(answer, data, head)
    assert all(at >= 0 for at, *_ in answer["arrays"])
    assert bytes.fromhex(answer["written"]) == data


def test_metadata_are_sorted_as_python_sorts(check: Asking) -> None:
    """By characters; bytes of UTF-8 sort the same, those of UTF-16 would not."""
    notes = {NOTE_PREFIX + name: name for name in ("z", "é", "\uffff", "\U00010000", "a", "Z")}
    data = dump_arrays(ARRAYS, METADATA | notes)
    assert bytes.fromhex(ask(check, data)["written"]) == data


def test_what_other_tools_wrote_is_not_written_again(check: Asking) -> None:
    data = save(ARRAYS, metadata=METADATA | {"other": "x", "nul": "\0"})
    answer = ask(check, data)
    assert bytes.fromhex(answer["written"]) == dump_arrays(ARRAYS, METADATA)


# ---------------------------------------------------------------------------- what is refused


def whole(header: str | bytes, body: bytes = b"") -> bytes:
    """Make a file of a header."""
    written = header.encode() if isinstance(header, str) else header
    return len(written).to_bytes(8, "little") + written + body


FIRST = '"class_index":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}'
OTHER = '"proxies":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}'
GIVEN = f'"__metadata__":{json.dumps(METADATA)}'.replace(
    '[\\"a\\",\\"b\\",\\"c\\"]', '[\\"a\\"]'
)
RECIPE = '"edge_imprint.recipe"'
BODY = bytes(16)


def changed(old: str, new: str) -> str:
    header = f"{{{GIVEN},{FIRST},{OTHER}}}"
    assert old in header
    return header.replace(old, new, 1)


SAME: dict[str, bytes] = NO_HEAD_FILES | {
    "good": whole(f"{{{GIVEN},{FIRST},{OTHER}}}", BODY),
    "blanks": whole(f" \n{{ {GIVEN} ,\t{FIRST}\r, {OTHER} }} \n", BODY),
    "misaligned": whole(f"{{{GIVEN},{FIRST},{OTHER}}}   ", BODY),
    "other order": whole(f"{{{OTHER},{FIRST},{GIVEN}}}", BODY),
    "NUL behind": whole(f"{{{GIVEN},{FIRST},{OTHER}}}\0", BODY),
    "more behind": whole(f"{{{GIVEN},{FIRST},{OTHER}}}[]", BODY),
    "byte order mark": whole("\ufeff" + changed(" ", " "), BODY),
    "no UTF-8": whole(changed("given", "XX").encode().replace(b"XX", b"\xff"), BODY),
    "control character": whole(changed("given", "a\nb"), BODY),
    "escaped name": whole(changed('"proxies"', '"\\u0070roxies"'), BODY),
    "half a pair": whole(changed("given", "\\ud800"), BODY),
    "bad escape": whole(changed("given", "\\x41"), BODY),
    "no metadata": whole(f"{{{FIRST},{OTHER}}}", BODY),
    "metadata null": whole(f'{{"__metadata__":null,{FIRST},{OTHER}}}', BODY),
    "metadata nul": whole(f'{{"__metadata__":nul,{FIRST},{OTHER}}}', BODY),
    "metadata empty": whole(f'{{"__metadata__":{{}},{FIRST},{OTHER}}}', BODY),
    "metadata a list": whole(f'{{"__metadata__":[],{FIRST},{OTHER}}}', BODY),
    "metadata a number": whole(changed('"given"', "1"), BODY),
    "metadata twice": whole(f"{{{GIVEN},{GIVEN},{FIRST},{OTHER}}}", BODY),
    "other's metadata": whole(changed('{"edge', '{"o\\u0000":"\\u0000","edge'), BODY),
    "a NUL of ours": whole(changed("given", "a\\u0000b"), BODY),
    "a NUL in a key": whole(changed("imprint.recipe", "imprint.rec\\u0000ipe"), BODY),
    "newer version": whole(changed('version": "1"', 'version": "2"'), BODY),
    "a newer release": whole(
        changed('version": "1"', 'version": "2"').replace("proxies", "novelty"), BODY
    ),
    "not ours": whole(f'{{"w":{{{OTHER.split("{")[1].replace("8,16", "0,8")}}}', bytes(8)),
    "trailing comma": whole(f"{{{GIVEN},{FIRST},{OTHER},}}", BODY),
    "no comma": whole(f"{{{GIVEN},{FIRST} {OTHER}}}", BODY),
    "no colon": whole(changed('"proxies":', '"proxies"'), BODY),
    "not ended": whole(f"{{{GIVEN},{FIRST},{OTHER}", BODY),
    "no member": whole("{}"),
    "a list": whole("[]"),
    "array null": whole(f'{{{GIVEN},{FIRST},"proxies":null}}', BODY),
    "array empty": whole(f'{{{GIVEN},{FIRST},"proxies":{{}}}}', BODY),
    "no shape": whole(changed('"shape":[1],', ""), BODY),
    "no type": whole(changed('"dtype":"F32",', ""), BODY),
    "no offsets": whole(changed(',"data_offsets":[0,8]', ""), BODY),
    "a field twice": whole(changed('"dtype":"F32"', '"dtype":"F32","dtype":"F32"'), BODY),
    "type of no name": whole(changed('"F32"', '"F31"'), BODY),
    "type with NUL": whole(changed('"F32"', '"F32\\u0000"'), BODY),
    "name with NUL": whole(changed('"proxies"', '"proxies\\u0000"'), BODY),
    "type a number": whole(changed('"F32"', "32"), BODY),
    "swapped types": whole(changed('"F32"', '"I64"').replace("[1,2]", "[1]"), BODY),
    "half floats": whole(changed('"F32","shape":[1,2]', '"F16","shape":[1,4]'), BODY),
    "scalar": whole(changed("[1],", "[],"), BODY),
    "three dimensions": whole(changed("[1,2]", "[1,2,1]"), BODY),
    "shape a number": whole(changed("[1,2]", "2"), BODY),
    "shape of fractions": whole(changed("[1,2]", "[1.0,2]"), BODY),
    "shape with exponent": whole(changed("[1,2]", "[1e0,2]"), BODY),
    "shape below zero": whole(changed("[1,2]", "[-1,2]"), BODY),
    "shape minus zero": whole(changed("[1,2]", "[-0,2]"), BODY),
    "shape with zeros": whole(changed("[1,2]", "[01,2]"), BODY),
    "shape too small": whole(changed("[1,2]", "[1,1]"), BODY),
    "shape too large": whole(changed("[1,2]", "[1,3]"), BODY),
    "shape over 2^64": whole(changed("[1,2]", "[4294967296,4294967296,0]"), BODY),
    "shape that wraps": whole(changed("[1,2]", "[4611686018427387905,2]"), BODY),
    "bytes over 2^64": whole(changed("[1,2]", "[4611686018427387906]"), BODY),
    "side over 2^64": whole(changed("[1,2]", "[18446744073709551616]"), BODY),
    "shape empty": whole(
        changed('[1,2],"data_offsets":[8,16]', '[0,2],"data_offsets":[8,8]'), bytes(8)
    ),
    "empty between": whole(
        changed('[1,2],"data_offsets":[8,16]', '[0,2],"data_offsets":[0,0]'), bytes(8)
    ),
    "empty astray": whole(
        changed('[1,2],"data_offsets":[8,16]', '[0,2],"data_offsets":[4,4]'), bytes(8)
    ),
    "one offset": whole(changed("[0,8]", "[0]"), BODY),
    "three offsets": whole(changed("[0,8]", "[0,8,8]"), BODY),
    "offsets of fractions": whole(changed("[0,8]", "[0,8.0]"), BODY),
    "offsets turned round": whole(changed("[0,8]", "[8,0]"), BODY),
    "overlap": whole(changed("[8,16]", "[0,8]"), bytes(8)),
    "overlap by half": whole(changed("[8,16]", "[4,12]"), bytes(12)),
    "hole": whole(changed("[8,16]", "[9,17]"), bytes(17)),
    "hole before": whole(changed("[0,8]", "[1,9]").replace("[8,16]", "[9,17]"), bytes(17)),
    "beyond the file": whole(changed("[8,16]", "[8,16]"), bytes(15)),
    "bytes left over": whole(changed("[8,16]", "[8,16]"), bytes(17)),
    "far beyond": whole(changed("[8,16]", "[8,18446744073709551615]"), BODY),
    "no proxies": whole(f"{{{GIVEN},{FIRST}}}", bytes(8)),
    "no class_index": whole(f"{{{GIVEN},{OTHER.replace('8,16', '0,8')}}}", bytes(8)),
    "deep in a shape": whole(changed("[1,2]", "[" * 100_000), BODY),
    "deep in metadata": whole(changed('"given"', '{"a":' * 100_000), BODY),
    "deep at the top": whole("[" * 1_000_000),
}
# What the safetensors library lets pass: the last of two, forms that nobody writes.
STRICTER: dict[str, tuple[bytes, str]] = {
    "array twice": (whole(f"{{{GIVEN},{FIRST},{OTHER},{OTHER}}}", BODY), "there twice"),
    "key twice": (
        whole(
            changed(
                '"edge_imprint.recipe"', '"edge_imprint.recipe": "b", "edge_imprint.recipe"'
            ),
            BODY,
        ),
        "there twice",
    ),
    "a field more": (whole(changed('"dtype":"F32"', '"dtype":"F32","x":1'), BODY), "unknown"),
    "array as a list": (
        whole(f'{{{GIVEN},{FIRST},"proxies":["F32",[1,2],[8,16]]}}', BODY),
        "no object",
    ),
    "40 dimensions": (whole(changed("[1,2]", "[2" + ",1" * 39 + "]"), BODY), "bounds"),
}


@pytest.mark.parametrize("data", SAME.values(), ids=SAME.keys())
def test_pythons_verdict(check: Asking, tmp_path: Path, data: bytes) -> None:
    answer = ask(check, data)
    assert answer["status"] == pythons_verdict(tmp_path, data), answer


@pytest.mark.parametrize("name", ["good", "blanks", "misaligned", "other order"])
def test_what_is_good(check: Asking, name: str) -> None:
    """The table's bad files differ from these in one thing each."""
    assert ask(check, SAME[name])["status"] == "EI_OK"


@pytest.mark.parametrize(("data", "reason"), STRICTER.values(), ids=STRICTER.keys())
def test_stricter_than_python(check: Asking, tmp_path: Path, data: bytes, reason: str) -> None:
    answer = ask(check, data)
    assert answer["status"] == "EI_HEAD_FILE"
    assert reason in text(answer, "error")


def test_of_a_newer_releases_head_the_version_is_told(check: Asking) -> None:
    assert ask(check, SAME["a newer release"])["status"] == "EI_CONTRACT_VERSION"
    assert ask(check, SAME["not ours"])["status"] == "EI_NO_CONTRACT"


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(check: Asking, tmp_path: Path, name: str) -> None:
    data = save(BAD_ARRAYS[name][0], metadata=METADATA)
    assert ask(check, data)["status"] == pythons_verdict(tmp_path, data)


def test_dimensions_that_no_head_has_are_shown_as_empty(check: Asking) -> None:
    arrays = ask(check, SAME["three dimensions"])["arrays"]
    assert arrays[0][1:] == [3, 0, 0]
    assert arrays[1][1:] == [1, 1, 0]
    assert ask(check, SAME["scalar"])["arrays"][1][1:] == [0, 0, 0]


def test_a_file_cut_off_anywhere(check: Asking) -> None:
    data = SAME["good"]
    for size in range(len(data)):
        assert ask(check, data[:size])["status"] == "EI_HEAD_FILE"


PIECES = [b"0", b"9", b'"', b"}", b",", b"\\", b"\0", b"\xff"]


@given(st.data())
def test_any_damage(
    check: Asking, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = bytearray(SAME["good"])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(good) - 1))
        kind = data.draw(st.integers(0, 2))
        piece = data.draw(
            st.sampled_from([b"0", b"9", b'"', b"}", b",", b"\\", b"\0", b"\xff"])
        )
        good[at : at + (kind > 0)] = piece if kind < 2 else b""
    if data.draw(st.booleans()) and len(good) > 8:  # the length right again
        size = len(good) - 8 - len(BODY)
        good[:8] = max(size, 0).to_bytes(8, "little")
    answer = ask(check, bytes(good))
    python = pythons_verdict(tmp_path_factory.getbasetemp(), bytes(good))
    if answer["status"] != python:
        # Stricter: a key twice or unknown. Or broken in two ways, of which each tells one.
        assert answer["status"] == "EI_HEAD_FILE" or python == "EI_HEAD_FILE", answer


def test_large_headers_take_time_in_proportion(check: Asking) -> None:
    many = {NOTE_PREFIX + str(number): "" for number in range(300_000)}
    before = psutil.Process(check.process_id).cpu_times()
    data = dump_arrays(ARRAYS, METADATA | many)
    assert bytes.fromhex(ask(check, data)["written"]) == data
    keys = "".join(f'"edge_imprint.{number}":"",' for number in range(300_000))
    answer = ask(check, whole(changed('{"edge', "{" + keys + '"edge'), BODY))
    assert answer["status"] == "EI_CONTRACT_KEY"
    spaces = whole(" " * 50_000_000 + changed(" ", " "), BODY)
    assert ask(check, spaces)["status"] == "EI_OK"
    too_long = whole(" " * 100_000_000 + changed(" ", " "), BODY)
    assert "100 MB" in text(ask(check, too_long), "error")
    after = psutil.Process(check.process_id).cpu_times()
    assert after.user + after.system - before.user - before.system < 60


def test_each_failed_allocation_is_told(check: Asking) -> None:
    data = SAME["good"]
    for count in range(1, 200):
        check.ask("fail", str(count))
        answer = ask(check, data)
        if not answer["failed"]:
            break
        assert answer["status"] == "EI_OUT_OF_MEMORY"
        assert "not enough memory" in text(answer, "error")
    assert 30 < count < 199
    assert answer["status"] == "EI_OK"
