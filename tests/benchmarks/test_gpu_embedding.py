# SPDX-License-Identifier: Apache-2.0
"""The GPU's checks of embedding, rehearsed on the CPU: all but the device is real."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BACKBONE = "timm/test_efficientnet"


@pytest.fixture(scope="module")
def checks() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu_embedding")


@pytest.fixture
def job(checks: ModuleType, tmp_path: Path) -> Any:
    return checks.Job(tmp_path / "pack", tmp_path / "out", quick=True)


def test_every_arithmetic_is_held_against_the_cpu(checks: ModuleType, job: Any) -> None:
    checks.cuda_autocast(job, "cpu", BACKBONE)
    assert job.found["held_against"] == "ONNX Runtime on the CPU"
    for arithmetic, least in checks.LEAST.items():
        found = job.found[arithmetic]
        assert least <= found["least_cosine"] <= 1 + 1e-9
        assert found["computed_in"] == arithmetic
        assert len(found["images_per_s_by_batch"]) >= 4
        assert all(rate > 0 for _, rate in found["images_per_s_by_batch"])
    assert job.found["bf16"]["least_cosine"] < job.found["fp32"]["least_cosine"]


def test_what_is_not_alike_is_a_failure(
    checks: ModuleType, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LEAST", {"fp32": 0.9, "bf16": 0.9999999999, "fp16": 0.9})
    with pytest.raises(checks.Failed, match=r"bf16: the least cosine is 0\.9"):
        checks.cuda_autocast(job, "cpu", BACKBONE)
    assert set(checks.ARITHMETICS) <= set(job.found)  # what was found is kept


def test_layouts_are_compared(checks: ModuleType, job: Any) -> None:
    checks.cuda_layouts(job, "cpu", BACKBONE)
    for arithmetic in checks.ARITHMETICS:
        found = job.found[arithmetic]
        assert {len(each) for each in found["images_per_s"].values()} == {checks.ROUNDS}
        assert found["channels_last_ratio"] > 0


def test_the_engine_is_held_against_the_bare_network(checks: ModuleType, job: Any) -> None:
    checks.cuda_build(job, "cpu", BACKBONE)
    found = job.found["fp32"]
    assert len(found["bare_images_per_s"]) == len(found["steady_images_per_s"]) == 2
    assert found["ratio"] > 0


def test_a_machine_without_cuda_skips_them(checks: ModuleType, job: Any) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    for check in checks.EMBEDDING.values():
        with pytest.raises(checks.Skipped, match="torch finds no CUDA device"):
            check(job)


def test_the_command_knows_them(checks: ModuleType) -> None:
    command = importlib.import_module("gpu_check")
    assert set(checks.EMBEDDING) <= set(command.CHECKS)
    assert {command.CHECKS[name][0] for name in checks.EMBEDDING} == {"gpu"}
