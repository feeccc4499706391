# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint doctor`: what it says here, and where nothing or something broken is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort

Run = Callable[..., Any]


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
    assert titles[:3] == ["machine", "NVIDIA", "tried"]
    assert titles[3:] in (["findings"], ["no findings"])
    (cpu,) = [line for line in lines if line.startswith("  CPUExecutionProvider ")]
    assert "runs: first run " in cpu


def test_json(run: Run) -> None:
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {"format", "can_run", "findings", "facts"}
    assert said["format"] == "edge-imprint.doctor/1"
    assert "CPUExecutionProvider" in said["can_run"]
    assert set(said["facts"]) == {
        "machine",
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
