# SPDX-License-Identifier: Apache-2.0
"""Providers tried for real: one that runs, one that is listed and does nothing, one absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edge_imprint_runtime.doctor import tiny, try_onnxruntime
from edge_imprint_runtime.doctor.attempt import attempt


def test_the_list() -> None:
    found = attempt("onnxruntime")
    assert found["status"] == "runs"
    assert found["version"] == ort.__version__
    assert found["listed"] == ort.get_available_providers()
    assert Path(found["path"]) == Path(ort.__file__).parent


def test_the_cpu_runs() -> None:
    found = attempt("provider", "CPUExecutionProvider")
    assert (found["status"], found["stage"], found["reason"]) == ("runs", "runs", "")
    assert found["nodes"] == {"CPUExecutionProvider": 5}
    assert 0 < found["median_ms"] <= found["first_run_ms"]


def test_a_provider_that_is_not_built_in_does_not_pass_for_the_cpu() -> None:
    found = attempt("provider", "CUDAExecutionProvider")
    assert (found["status"], found["stage"]) == ("fails", "session")
    assert found["reason"] == "it did not start, CPUExecutionProvider would have run"


@pytest.mark.skipif(
    "AzureExecutionProvider" not in ort.get_available_providers(), reason="not in this build"
)
def test_a_provider_that_is_listed_and_takes_no_node() -> None:
    found = attempt("provider", "AzureExecutionProvider")
    assert (found["status"], found["stage"]) == ("fails", "placement")
    assert found["reason"] == (
        "it took none of the tiny model's nodes, CPUExecutionProvider would have run them"
    )


def test_no_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError('no', name='onnxruntime')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = attempt("onnxruntime")
    assert (found["status"], found["reason"]) == ("missing", "ONNX Runtime is not installed")


def test_an_onnx_runtime_that_lacks_something_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = attempt("onnxruntime")
    assert (found["status"], found["stage"]) == ("fails", "import")
    assert found["reason"] == "No module named 'no_such_part'"


class Session:
    """A session that gives what it is told to."""

    nodes: dict[str, int] | None = None
    scores = np.zeros((1, 5), np.float32)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run(self, *_: Any) -> list[Any]:
        return [self.scores]


@pytest.mark.parametrize(
    ("nodes", "scores", "status", "reason"),
    [
        (None, np.zeros((1, 5)), "wrong", "it answered [0. 0. 0. 0. 0.] to the tiny model"),
        (None, None, "runs", None),
        ({"CUDAExecutionProvider": 5}, None, "runs", None),
        (
            {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 2},
            None,
            "partly",
            "of the tiny model's nodes it left 2 on CPUExecutionProvider",
        ),
    ],
)
def test_answers_and_placements_are_judged(
    monkeypatch: pytest.MonkeyPatch,
    nodes: dict[str, int] | None,
    scores: Any,
    status: str,
    reason: str | None,
) -> None:
    session = Session()
    session.scores = tiny.answer(tiny.images()) if scores is None else scores
    monkeypatch.setattr(try_onnxruntime, "_session", lambda *_: session)
    monkeypatch.setattr(try_onnxruntime, "_nodes", lambda _: nodes)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    stages: list[str] = []
    found = try_onnxruntime.run(
        lambda stage, **_: stages.append(stage), "CUDAExecutionProvider"
    )
    assert (found["status"], found.get("reason")) == (status, reason)
    assert stages == ["import", "library", "session", "placement", "first run", "runs"]
