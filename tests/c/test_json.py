# SPDX-License-Identifier: Apache-2.0
"""The JSON reader takes what Python's takes of strings and whole numbers, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.c.text_asking import Asking, text

LETTERS = st.characters(exclude_categories=["Cs"])
# What escapes and torn characters are made of.
PIECES = st.sampled_from(
    ["\\", "u", "d83d", "de00", "\\ud83d", "\\ude00", "\\u0000", '"', "\n", "\x7f", "é", "😀"]
)


@pytest.fixture(scope="module")
def check(c_build: Path) -> Iterator[Asking]:
    with Asking(c_build / "tests" / "text_check") as asking:
        yield asking


@given(st.text(LETTERS), st.booleans())
@example("\0\x01\x1f\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff", True)
@example('"\\/\b\f\n\r\t', False)
def test_what_python_writes_is_read(check: Asking, value: str, ascii_only: bool) -> None:
    answer = check.ask("string", f" \t{json.dumps(value, ensure_ascii=ascii_only)}\r\n")
    assert answer["good"]
    assert text(answer, "text") == value


@given(st.lists(PIECES | LETTERS).map(lambda parts: '"' + "".join(parts) + '"'))
@example('"\\ud83d\\ude00"')
@example('"\\ud83d"')
@example('"\\ude00\\ud83d"')
@example('"\\ud83d\\u0041"')
@example('"\\ud83dx"')
@example('"\\uD83D\\uDE0"')
@example('"\\u00g0"')
@example('"\\/\\a"')
@example('"\\')
@example('"\\u12')
@example('"')
@example('""x')
def test_strings_are_refused_that_are_none(check: Asking, line: str) -> None:
    try:
        value = json.loads(line)
        value.encode()  # half a surrogate pair is no character
    except ValueError:
        value = None
    answer = check.ask("string", line)
    assert answer["good"] == (value is not None), answer
    if value is None:
        assert answer["problem"]
    else:
        assert text(answer, "text") == value


def utf8_of(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


NOT_UTF8 = [
    *(b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf"),
    *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5"),
    *(b"\xff", b"\xfe", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xe2\x28\xa1", b"\xf0\x9fx"),
]


@pytest.mark.parametrize("data", NOT_UTF8)
def test_bytes_that_are_no_utf8(check: Asking, data: bytes) -> None:
    assert utf8_of(data) is None
    for around in (data, b"a" + data, data + b"a", b"\xc3\xa9" + data):
        assert not check.ask("utf8", around)["good"]
        assert not check.ask("string", b'"' + around + b'"')["good"]


@given(st.binary(max_size=8) | st.lists(st.integers(0x80, 0xFF), max_size=5).map(bytes))
def test_any_bytes_are_utf8_or_not(check: Asking, data: bytes) -> None:
    assert check.ask("utf8", data)["good"] == (utf8_of(data) is not None)


def test_every_character_is_utf8(check: Asking) -> None:
    whole = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert check.ask("utf8", whole)["good"]


@pytest.mark.parametrize("value", [0, 1, 9, 10, 2**53 + 1, 2**63, 2**64 - 2, 2**64 - 1])
def test_whole_numbers(check: Asking, value: int) -> None:
    answer = check.ask("natural", f"\n{value} ")
    assert (answer["good"], answer["value"]) == (1, value)


NO_NUMBERS = ["", "-1", "+1", "01", "00", "1.0", "1e3", "0x1", "1 2", str(2**64), "9" * 40]
NO_NUMBERS += ["-0", "NaN", "null", '"1"', "1_0", "\uff11", "1\0"]


@pytest.mark.parametrize("line", NO_NUMBERS)
def test_whole_numbers_that_are_none(check: Asking, line: str) -> None:
    answer = check.ask("natural", line)
    assert not answer["good"]
    assert answer["problem"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
@example(["\x01\x1f\x7f", '"\\/', "\b\f\n\r\t", "é😀", ""])
@example([])
def test_labels_are_written_as_python_writes_them(check: Asking, labels: list[str]) -> None:
    answer = check.ask("labels", *labels)
    written = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
    assert text(answer, "text") == written


def test_a_failed_allocation_is_told(check: Asking) -> None:
    check.ask("fail", "1")
    answer = check.ask("string", '"text"')
    assert (answer["good"], answer["out_of_memory"], answer["failed"]) == (0, 1, 1)
    for count in range(1, 20):
        check.ask("fail", str(count))
        answer = check.ask("labels", *["label" * 40] * 10)
        if not answer["failed"]:
            break
        assert answer["status"] == "EI_OUT_OF_MEMORY"
    assert 2 <= count < 19
    assert answer["status"] == "EI_OK"
