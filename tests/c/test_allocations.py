# SPDX-License-Identifier: Apache-2.0
"""A prediction allocates nothing of ours, and each allocation that fails is let fail well."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.building import run

MakeHead = Callable[..., Head]


@pytest.fixture
def teachable(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> Callable[..., Path]:
    """Return ``make(**options of fuse)``: a teachable model's file, its head beside it."""

    def make(form: str = "default", **options: Any) -> Path:
        head, path = (
            make_head(calibrated=True, center=True, transform=True),
            tmp_path / "m.onnx",
        )
        options = {"outputs": ("scores", "label", "embedding")} | options
        path.write_bytes(
            to_bytes(fuse(tiny_backbone, head, teachable=Teachable(form), **options))
        )
        head.save(head_beside(path), force=True)
        return path

    return make


STEPS = {
    "open",
    "predict one",
    "predict some",
    "predict again",
    "embed",
    "prepare",
    "teach",
    "teach more",
    "save",
    "forget",
    "load",
    "open bytes",
}


def test_each_allocation_fails_in_turn(
    c_build: Path, ort_library: Path, teachable: Callable[..., Path], tmp_path: Path
) -> None:
    program = c_build / "tests" / "failing_allocations"
    printed = run(program, teachable(), ort_library, tmp_path).stdout
    counts = {
        name: int(count)
        for name, count in (line.rsplit(" ", 1) for line in printed.splitlines())
    }
    assert counts.keys() == STEPS
    assert all(count > 0 for count in counts.values())
    print(printed)


def test_a_prediction_allocates_nothing_of_ours(
    c_build: Path, ort_library: Path, tiny_model: Path
) -> None:
    if "EI_C_BUILD" in os.environ:
        pytest.skip("a sanitizer counts allocations itself: another malloc can't be preloaded")
    preload = {"LD_PRELOAD": str(c_build / "tests" / "libcounting_malloc.so")}
    program = c_build / "tests" / "allocations"
    printed = run(program, tiny_model, ort_library, **preload).stdout
    found = {}
    for line in printed.splitlines():
        what, ours, everything = line.split()
        found[what] = int(everything)
        assert int(ours) == 0, line
    assert found["bare_loop"] > 0  # ONNX Runtime's own: the counter counts
    # Images where they were the last time: what the bare loop costs, and no more.
    assert found["same_image"] == found["bare_loop"]
    assert found["turned_images"] <= found["some_images"]  # copied, and bound but once
    print(printed)
