# SPDX-License-Identifier: Apache-2.0
"""TensorRT tried on its stand-in, in every version; the real one wants a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.doctor import tiny, try_tensorrt
from edge_imprint_runtime.doctor.attempt import attempt
from edge_imprint_runtime.doctor.libraries import needs_own_kernels
from edge_imprint_runtime.errors import DeviceError, EngineBuildError
from tests.standins import VERSIONS, tensorrt_standin


def tried() -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Try; return what came of it, the stages, and what was told on the way."""
    stages: list[str] = []
    facts: dict[str, Any] = {}

    def tell(stage: str, **found: Any) -> None:
        stages.append(stage)
        facts.update(found)

    return try_tensorrt.run(tell, ""), stages, facts


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_runs_the_tiny_model(version: str) -> None:
    with tensorrt_standin(version) as world:
        found, stages, facts = tried()
    assert found == {"status": "runs"}
    assert stages == ["import", "builder", "build", "load", "first run", "runs"]
    assert facts["version"] == version
    assert facts["own_kernels"] is needs_own_kernels(tuple(map(int, version.split("."))))
    assert facts["build_s"] >= 0
    assert facts["first_run_ms"] > 0
    assert len(world.called("build_serialized_network")) == 1


def test_a_wrong_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        try_tensorrt, "_answer", lambda _: np.zeros_like(tiny.answer(tiny.images()))
    )
    with tensorrt_standin():
        found, _, _ = tried()
    assert found == {
        "status": "wrong",
        "reason": "it answered [0. 0. 0. 0. 0.] to the tiny model",
    }


def test_where_nothing_is_built_tensorrts_own_words_are_kept() -> None:
    with tensorrt_standin("8.5.3.1") as world:
        world.faults["build_serialized_network"] = "Could not find any implementation"
        with pytest.raises(EngineBuildError) as caught:
            tried()
    assert str(caught.value) == (
        "TensorRT 8.5.3.1 builds no engine of the tiny model: Could not find any "
        "implementation"
    )


def test_without_a_gpu_the_builder_says_so() -> None:
    with tensorrt_standin("10.3.0.30", devices=0), pytest.raises(DeviceError) as caught:
        tried()
    assert str(caught.value).startswith("TensorRT 10.3.0.30 can't use a GPU here: ")


def test_here_without_it() -> None:
    pytest.importorskip("onnxruntime")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        found = attempt("tensorrt")
        assert (found["status"], found["stage"]) == ("missing", "import")
        assert found["reason"] == "TensorRT's Python module is not installed"
    else:
        pytest.skip("TensorRT is installed here")
