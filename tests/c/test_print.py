# SPDX-License-Identifier: Apache-2.0
"""What the C programs print: numbers, JSON and quoted names as Python prints them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

# Quoted: what Python's own table of characters calls printable is taken from common letters.
LETTERS = st.text(st.characters(codec="utf-8", exclude_characters="\0", max_codepoint=0x52F))


@pytest.fixture(scope="module")
def program(c_build: Path) -> Path:
    return c_build / "tests" / "print_check"


def printed(program: Path, kind: bytes, given: list[bytes]) -> list[bytes]:
    data = b"".join(kind + one + b"\0" for one in given)
    done = subprocess.run([program], input=data, capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


@given(values=st.lists(st.floats(allow_nan=True) | st.floats(width=32), min_size=1))
def test_numbers(program: Path, values: list[float]) -> None:
    found = printed(program, b"n", [float.hex(value).encode() for value in values])
    assert found == [json.dumps(value).encode() for value in values]


def test_scores(program: Path) -> None:
    """Many float32 numbers, as scores are, and numbers around the limits of forms."""
    scores = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    values = [float(score) for score in scores] + [
        0.0,
        -0.0,
        1.0,
        1e15,
        1e16,
        1e-4,
        9.9e-5,
        0.1,
        2.0**-24,
        2.0**-44,
    ]
    found = printed(program, b"n", [float.hex(value).encode() for value in values])
    assert found == [json.dumps(value).encode() for value in values]


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1)
)
def test_json(program: Path, texts: list[str]) -> None:
    found = printed(program, b"j", [text.encode() for text in texts])
    assert found == [json.dumps(text, ensure_ascii=False).encode() for text in texts]


@given(names=st.lists(st.binary().map(lambda b: b.replace(b"\0", b"")), min_size=1))
def test_file_names_of_any_bytes(program: Path, names: list[bytes]) -> None:
    """As Python prints a file's name: what is no UTF-8 makes the whole line ASCII."""
    found = printed(program, b"j", names)
    for name, one in zip(names, found, strict=True):
        text = os.fsdecode(name)
        ascii_only = any("\ud800" <= letter <= "\udfff" for letter in text)
        assert one == json.dumps(text, ensure_ascii=ascii_only).encode()


@given(texts=st.lists(LETTERS, min_size=1))
def test_quotes(program: Path, texts: list[str]) -> None:
    found = printed(program, b"q", [text.encode() for text in texts])
    wanted = [repr(text) for text in texts]
    for text, one, other in zip(texts, found, wanted, strict=True):
        if all(letter.isprintable() or ord(letter) < 0xAE for letter in text):
            assert one.decode() == other
