# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a plan."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.engine.plan import plan_version

NUMBER = st.integers(0, 255)


@given(st.tuples(st.integers(8, 20), NUMBER, NUMBER, NUMBER), st.binary(max_size=40))
def test_the_version_is_read(version: tuple[int, int, int, int], rest: bytes) -> None:
    start = struct.pack("<4sI16x4B", b"ftrt", 0, *version)
    assert plan_version(start + rest) == version


@given(st.binary(max_size=64))
def test_any_bytes_may_come(start: bytes) -> None:
    assert plan_version(start) is None or start.startswith(b"ftrt")
    assert plan_version((b"ftrt" + start)[:27]) is None  # cut off


@pytest.mark.parametrize(
    ("form", "major"),
    [(1, 10), (0, 0), (0, 7), (0, 21)],
    ids=["another form", "zero", "too old", "no version"],
)
def test_where_no_version_stands_none_is_made_up(form: int, major: int) -> None:
    assert plan_version(struct.pack("<4sI16x4B", b"ftrt", form, major, 1, 2, 3)) is None


def test_a_plan_of_tensorrt_8_5_says_no_version() -> None:
    start = struct.pack("<4sIIIQ", b"ptrt", 0, 232, 0, 1_000) + bytes([10, 3, 0, 30])
    assert plan_version(start) is None
