# SPDX-License-Identifier: Apache-2.0
"""All of it, for real, on the machine that runs the tests."""

from __future__ import annotations

import ctypes.util
import json

import onnxruntime as ort
import pytest

from edge_imprint_runtime.doctor import can_run, collect, findings


def test_here() -> None:
    steps: list[str] = []
    facts = collect(steps.append)
    json.dumps(facts)
    assert steps[:3] == ["looking", "CUDA", "ONNX Runtime"]
    assert steps[-1] == "TensorRT"
    local = set(ort.get_available_providers()) - {"AzureExecutionProvider"}
    assert local <= {*steps, *facts["providers"]}
    assert "AzureExecutionProvider" not in {*steps, *facts["providers"]}
    assert facts["readings"]["memory_available_bytes"] > 0
    cpu = facts["providers"]["CPUExecutionProvider"]
    assert (cpu["status"], cpu["listed"], cpu["wants"]) == ("runs", True, [])
    assert can_run(facts)[-1] == "CPUExecutionProvider"
    assert not [one for one in findings(facts) if one.about == "CPUExecutionProvider"]


@pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None, reason="this machine has NVIDIA's driver"
)
def test_without_a_driver() -> None:
    facts = collect()
    assert facts["cuda"]["status"] == "missing"
    assert facts["cuda"]["reason"].startswith("no NVIDIA driver: libcuda.so.1")
    assert facts["gpu"]["found"] == []


@pytest.mark.gpu
def test_with_a_gpu() -> None:
    facts = collect()
    assert facts["cuda"]["status"] == "runs"
    assert facts["gpu"]["found"][0]["compute_capability"]
    assert "TensorRT" in can_run(facts) or findings(facts)
