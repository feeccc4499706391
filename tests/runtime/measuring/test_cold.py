# SPDX-License-Identifier: Apache-2.0
"""Cold starts: fresh processes that really classify, timed from their start to their label."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.errors import ParameterError, ProviderError
from edge_imprint_runtime.measuring import cold
from edge_imprint_runtime.measuring.cold import cold_start


def test_processes_start_and_classify(tiny_model: Path) -> None:
    told: list[tuple[int, int]] = []
    start = time.perf_counter()
    found = cold_start(
        tiny_model,
        3,
        shape=open_model(tiny_model, "cpu").input_shape,
        dtype="uint8",
        backend="cpu",
        threads=1,
        progress=lambda *at: told.append(at),
    )
    whole_ms = (time.perf_counter() - start) * 1e3
    assert set(found) == {"runs_ms", "p50_ms", "what"}
    assert found["p50_ms"] == sorted(found["runs_ms"])[1]
    # A Python that loads numpy and ONNX Runtime takes longer than this on any machine.
    assert min(found["runs_ms"]) > 30
    assert sum(found["runs_ms"]) < whole_ms
    assert found["what"].startswith("from the start of a process of Python 3.")
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_even_number_has_a_median_that_was_seen(tiny_model: Path) -> None:
    found = cold_start(tiny_model, 2, shape=(16, 16, 3), dtype="uint8", backend="cpu")
    assert found["p50_ms"] == min(found["runs_ms"])


def test_floats_go_in_as_floats(
    tmp_path: Path, tiny_backbone: bytes, make_head: Callable[..., Head]
) -> None:
    model = tmp_path / "float.onnx"
    model.write_bytes(to_bytes(fuse(tiny_backbone, make_head(), input="float32")))
    found = cold_start(model, 1, shape=(3, 16, 16), dtype="float32", backend="cpu")
    assert len(found["runs_ms"]) == 1


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        cold_start(tmp_path / "gone", 1, shape=(16, 16, 3), dtype="uint8")
    assert str(caught.value) == (
        "a fresh process came to no label: edge_imprint_runtime.errors.ModelFileError: there "
        f"is no model file {tmp_path}/gone; leave out --cold, or open the model in a Python "
        "of its own to see why"
    )


def test_a_process_that_warns_at_length_is_no_trouble(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds, on both streams, before and after the label."""
    noise = "import sys; [print('x' * 100_000, file=f) for f in (sys.stdout, sys.stderr)]"
    monkeypatch.setattr(cold, "_CHILD", f"{noise}\n{cold._CHILD}\n{noise}\n")
    found = cold_start(tiny_model, 1, shape=(16, 16, 3), dtype="uint8", backend="cpu")
    assert len(found["runs_ms"]) == 1


@pytest.mark.parametrize("runs", [0, -1, 1_001])
def test_impossible_numbers_of_runs(tiny_model: Path, runs: int) -> None:
    with pytest.raises(ParameterError) as caught:
        cold_start(tiny_model, runs, shape=(16, 16, 3), dtype="uint8")
    assert str(caught.value) == f"cold must be an integer from 1 to 1000, got {runs}"
