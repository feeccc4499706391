# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint doctor`: what it says here, and where nothing or something broken is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edge_imprint.cli._doctor import _lines
from edge_imprint_runtime.doctor import collect

Run = Callable[..., Any]
CUDART = {
    "file": "libcudart.so.13",
    "version": "13.2.86",
    "path": "/pip/libcudart.so.13",
    "origin": "pip",
}


def with_onnxruntime(folder: Path, text: str) -> dict[str, str]:
    """Put a module in the place of ONNX Runtime; give the environment that finds it."""
    (folder / "onnxruntime.py").write_text(text)
    return dict(os.environ) | {"PYTHONPATH": str(folder)}


def test_here(run: Run) -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("this machine can: ")
    assert f"run models on the CPU (ONNX Runtime {ort.__version__})" in first
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:4] == ["machine", "GPU", "software", "tried"]
    assert titles[4:] in (["findings"], ["no findings"])
    (cpu,) = [line for line in lines if line.startswith("  CPUExecutionProvider ")]
    assert "runs: first run " in cpu


def lines_of(facts: dict[str, Any], title: str) -> list[str]:
    shown = list(_lines(facts, [], []))
    begin = shown.index(title) + 1
    return [" ".join(line.split()) for line in shown[begin : shown.index("", begin)]]


def test_clocks_are_shown_where_they_are_known() -> None:
    facts = collect()
    facts["readings"] = {}
    facts["machine"] |= {"cpu_governor": None, "cpu_mhz_limit": None}
    assert not [line for line in lines_of(facts, "machine") if "clock" in line]
    facts["machine"] |= {"cpu_governor": "schedutil", "cpu_mhz_limit": 1510.4}
    facts["readings"] = {"cpu_mhz_max": 729.6, "emc_mhz": 2133.0}
    assert lines_of(facts, "machine")[-2:] == [
        "CPU clock 730 MHz now, 1,510 MHz at most, governor schedutil",
        "memory clock (EMC) 2,133 MHz now",
    ]


def test_what_is_of_a_gpu_and_what_is_software() -> None:
    facts = collect()
    gpu = {"name": "L4", "compute_capability": "8.9", "memory_bytes": 24 * 10**9}
    facts["gpu"] = {"present": True, "why": "the driver answers", "found": [gpu]}
    facts["machine"]["gpu_mhz_max"] = 2040
    facts["readings"] = {"gpu_mhz": 210.0, "gpu_memory_mhz": 405.0}
    facts["cuda"]["driver_cuda"] = "13.0"
    assert lines_of(facts, "GPU") == [
        "name L4, compute capability 8.9, 24.0 GB",
        "clock 210 MHz now, 2,040 MHz at most",
        "memory clock 405 MHz now",
        "driver takes CUDA up to 13.0",
    ]
    facts |= {"libraries": facts["libraries"] | {"cudart": [CUDART]}}
    assert "CUDA 13.2.86 (pip)" in lines_of(facts, "software")
    assert lines_of(facts, "software")[-1].startswith("packages onnxruntime ")


def test_json(run: Run) -> None:
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {"format", "can_run", "findings", "facts"}
    assert said["format"] == "edge-imprint.doctor/1"
    assert "CPUExecutionProvider" in said["can_run"]
    assert set(said["facts"]) == {
        "machine",
        "readings",
        "system",
        "packages",
        "libraries",
        "cuda",
        "gpu",
        "onnxruntime",
        "providers",
        "tensorrt",
    }
    for one in said["findings"]:
        assert set(one) == {"code", "severity", "text", "command", "about"}


def test_nothing_runs(run: Run, tmp_path: Path) -> None:
    environment = with_onnxruntime(
        tmp_path, "raise ModuleNotFoundError('no', name='onnxruntime')"
    )
    done = run("doctor", env=environment)
    assert done.returncode == 1
    assert done.stdout.startswith("this machine can: run nothing\n")
    assert (
        "\n  error no-onnxruntime: ONNX Runtime is not installed: ONNX models can't be run\n"
        "      pip install 'edge-imprint[cpu]'\n"
    ) in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "error: nothing on this machine runs even a tiny model; see the findings, and mend "
        "the first"
    )


def test_nothing_runs_in_json(run: Run, tmp_path: Path) -> None:
    environment = with_onnxruntime(tmp_path, "import ctypes; ctypes.string_at(0)")
    done = run("doctor", "--json", env=environment)
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["can_run"] == []
    assert said["findings"][0] == {
        "code": "onnxruntime-broken",
        "severity": "error",
        "text": "ONNX Runtime takes its process down at the stage 'import': killed by SIGSEGV",
        "command": "pip install --force-reinstall --no-deps onnxruntime",
        "about": "ONNX Runtime",
    }


def test_a_provider_that_crashes_is_a_finding(run: Run, tmp_path: Path) -> None:
    """A build that lists what its machine can't compute, as a wheel of another GPU does."""
    environment = with_onnxruntime(
        tmp_path,
        "import os\n"
        "__version__ = '9.9.9'\n"
        "def get_available_providers():\n"
        "    return ['CPUExecutionProvider']\n"
        "class SessionOptions: pass\n"
        "class InferenceSession:\n"
        "    def __init__(self, *_, **__): os.abort()\n",
    )
    done = run("doctor", env=environment)
    assert done.returncode == 1
    assert (
        "  error provider-crashes: ONNX Runtime on the CPU takes its process down at the "
        "stage 'session': killed by SIGABRT\n"
    ) in done.stdout


def test_wrong_use(run: Run) -> None:
    done = run("doctor", "now")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
