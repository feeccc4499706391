# SPDX-License-Identifier: Apache-2.0
"""Threads predict while one teaches: an answer is that of the classes before or after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.building import run

MakeHead = Callable[..., Head]


@pytest.mark.parametrize("form", ["default", "input"])
def test_eight_predict_while_one_teaches(
    c_build: Path,
    ort_library: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    form: str,
) -> None:
    program = c_build / "tests" / "concurrency"
    head, path = make_head(calibrated=True), tmp_path / "m.onnx"
    outputs = ("scores", "label", "embedding")
    made = fuse(tiny_backbone, head, teachable=Teachable(form), outputs=outputs)
    path.write_bytes(to_bytes(made))
    head.save(head_beside(path))
    printed = run(program, path, ort_library, tmp_path, "60").stdout.split()
    *seen, _, wrong = printed
    assert int(wrong) == 0
    counts = [int(count) for count in seen]
    assert min(counts) > 0  # each state was met, so that the answers did change meanwhile
    assert Head.load(tmp_path / "kept.head").labels == head.labels
