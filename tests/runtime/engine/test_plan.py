# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a plan."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.engine import PlanHeader, read_plan_header
from edge_imprint_runtime.engine.plan import MAGICS, header_of
from edge_imprint_runtime.errors import EngineFileError

NUMBER = st.integers(0, 255)


@given(st.tuples(st.integers(8, 20), NUMBER, NUMBER, NUMBER), st.binary(max_size=40))
def test_the_version_is_read(version: tuple[int, int, int, int], rest: bytes) -> None:
    start = struct.pack("<4sI16x4B", b"ftrt", 0, *version)
    assert header_of(start + rest) == PlanHeader(True, version)


@given(st.binary(max_size=64))
def test_any_bytes_may_come(start: bytes) -> None:
    found = header_of(start)
    assert found.is_plan == (start[:4] in MAGICS and len(start) >= 28)
    assert found.tensorrt is None or found.is_plan


@pytest.mark.parametrize(
    ("form", "major"),
    [(1, 10), (0, 0), (0, 7), (0, 21)],
    ids=["another form", "zero", "too old", "no version"],
)
def test_where_no_version_stands_none_is_made_up(form: int, major: int) -> None:
    start = struct.pack("<4sI16x4B", b"ftrt", form, major, 1, 2, 3)
    assert header_of(start) == PlanHeader(True, None)


def test_a_plan_of_tensorrt_8_5_says_no_version() -> None:
    start = struct.pack("<4sIIIQ", b"ptrt", 0, 232, 0, 1_000) + bytes([10, 3, 0, 30])
    assert header_of(start) == PlanHeader(True, None)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(struct.pack("<4sI16x4B", b"ftrt", 0, 10, 3, 0, 30) + b"x" * 9)
    assert read_plan_header(tmp_path / "e").tensorrt == (10, 3, 0, 30)
    (tmp_path / "e").write_bytes(b"")
    assert read_plan_header(tmp_path / "e") == PlanHeader(False, None)
    with pytest.raises(EngineFileError) as caught:
        read_plan_header(tmp_path)
    assert str(caught.value) == f"there is no engine file {tmp_path}"
