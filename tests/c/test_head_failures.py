# SPDX-License-Identifier: Apache-2.0
"""Heads in C where memory runs out: each allocation fails in turn, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as save_arrays

from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import encode
from edge_imprint_runtime.teaching import teach
from tests.c.building import run
from tests.c.heads import DISTANCES, random_rows

MakeHead = Callable[..., Head]


@pytest.fixture(scope="module")
def program(c_build: Path) -> Path:
    """The program that walks them all; test_sanitizers.py runs it with the leak checker."""
    return c_build / "tests" / "head_failures"


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("votes", [False, True])
def test_each_allocation_that_fails_is_said_and_loses_nothing(
    program: Path, make_head: MakeHead, tmp_path: Path, distance: str, votes: bool
) -> None:
    rule = {"aggregation": "mnn", "neighbors": 2} if votes else {}
    if votes and distance != "inner_product":
        rule["weighting"] = "distance"
    head = make_head(
        3, 4, center=True, transform=True, calibrated=True, distance=distance, **rule
    )
    head = teach(head, "class 1", random_rows(head, 5))
    path = head.save(tmp_path / "head")
    assert int(run(program, path).stdout) > 100


def test_also_where_arrays_must_be_copied_and_sorted(program: Path, tmp_path: Path) -> None:
    head = Head(np.eye(3, 5), [0, 1, 1], "ab")
    data = save_arrays(
        {"proxies": head.proxies, "class_index": np.array([1, 0, 1])},
        metadata=encode(head.contract),
    )
    size = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + size] + b" " * (7 - size % 2)
    assert len(text) % 2
    path = tmp_path / "head"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    assert int(run(program, path).stdout) > 50
