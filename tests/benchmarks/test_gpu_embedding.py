# SPDX-License-Identifier: Apache-2.0
"""The GPU's checks of embedding, rehearsed on the CPU: all but the device is real."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_imprint.backbones import load_backbone
from edge_imprint_runtime import Preprocess

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def checks() -> Iterator[ModuleType]:
    """The checks, with a backbone of small images: half precision is slow on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        made = importlib.import_module("gpu_embedding")
        small = load_backbone(
            "timm/test_efficientnet", random_weights=True, preprocess=Preprocess(32, 32)
        )
        load = made._backbone
        patch.setattr(
            made,
            "_backbone",
            lambda name, device: small if device == "cpu" else load(name, device),
        )
        yield made


@pytest.fixture
def job(checks: ModuleType, tmp_path: Path) -> Any:
    return checks.Job(tmp_path / "pack", tmp_path / "out", quick=True)


def test_every_arithmetic_is_held_against_the_cpu(checks: ModuleType, job: Any) -> None:
    checks.cuda_autocast(job, "cpu")
    assert job.found["held_against"] == "ONNX Runtime on the CPU"
    for arithmetic, least in checks.LEAST.items():
        found = job.found[arithmetic]
        assert least <= found["least_cosine"] <= 1 + 1e-9
        assert found["computed_in"] == arithmetic
        assert len(found["images_per_s_by_batch"]) >= 3
        assert all(rate > 0 for _, rate in found["images_per_s_by_batch"])
    assert job.found["bf16"]["least_cosine"] < job.found["fp32"]["least_cosine"]
    assert job.found["bf16"]["first_batch_cosine"] < 1


def test_what_is_not_alike_is_a_failure(
    checks: ModuleType, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LEAST", {"fp32": 0.9, "bf16": 0.9999999999, "fp16": 0.9})
    with pytest.raises(checks.Failed, match=r"bf16: the least cosine is 0\.9"):
        checks.cuda_autocast(job, "cpu")
    assert set(checks.ARITHMETICS) <= set(job.found)  # what was found is kept


def test_layouts_are_compared(checks: ModuleType, job: Any) -> None:
    checks.cuda_layouts(job, "cpu")
    for arithmetic in checks.ARITHMETICS:
        found = job.found[arithmetic]
        assert {len(each) for each in found["images_per_s"].values()} == {2}
        assert found["channels_last_ratio"] > 0


def test_the_engine_is_held_against_the_bare_network(checks: ModuleType, job: Any) -> None:
    checks.cuda_build(job, "cpu")
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
