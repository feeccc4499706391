# SPDX-License-Identifier: Apache-2.0
"""Where a report comes from: commit, file, engine, provider."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_imprint_runtime import open_model
from edge_imprint_runtime.backends import Placement
from edge_imprint_runtime.errors import DeviceError
from edge_imprint_runtime.measuring.provenance import (
    commit_here,
    engine_facts,
    made_with,
    model_facts,
    provider_facts,
)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    assert commit_here(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert commit_here(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert commit_here(tmp_path) == head
    (tmp_path / "untracked").touch()
    assert commit_here(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit_here(tmp_path) == f"{head}+changes"
    assert commit_here(tmp_path / "gone") is None


def test_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_here(".") is None


def test_a_git_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert commit_here(".") is None


def test_the_program() -> None:
    assert made_with() == f"edge-imprint {metadata.version('edge-imprint')}"


def test_facts_of_a_model(tiny_model: Path) -> None:
    facts = model_facts(tiny_model, open_model(tiny_model, "cpu").contract)
    assert facts == {
        "file": str(tiny_model),
        "bytes": tiny_model.stat().st_size,
        "sha256": hashlib.sha256(tiny_model.read_bytes()).hexdigest(),
        "precision": "fp32",
        "input": "uint8",
        "backbone": "tiny",
        "classes": 3,
        "slots": 2,
        "embedding_size": 8,
        "target": "portable",
    }


def test_facts_of_a_file_without_a_contract(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"bytes")
    facts = model_facts(tmp_path / "b", None)
    assert (facts["bytes"], facts["classes"], facts["precision"]) == (5, None, None)


@dataclass(frozen=True)
class Sidecar:
    tensorrt: str = "10.3.0.30"
    profile: Any = None
    build_s: float = 12.5
    metadata: Any = None
    inputs: Any = None


def test_facts_of_an_engine() -> None:
    sidecar = Sidecar(profile={"images": ((1, 3), (2, 3))}, metadata={"k": "v"})
    runner: Any = SimpleNamespace(sidecar=sidecar)
    assert engine_facts(runner) == {
        "tensorrt": "10.3.0.30",
        "profile": {"images": [[1, 3], [2, 3]]},
        "build_s": 12.5,
        "inspector": None,
    }
    none: Any = SimpleNamespace()
    assert engine_facts(none) is None


@pytest.mark.parametrize(
    ("said", "layers"),
    [
        ('{"Layers": ["conv", "%s"], "Bindings": []}' % ("x" * 400), ["conv", "x" * 300]),
        (
            '{"Layers": [{"Name": "conv", "Inputs": [{"Name": "a"}], "Groups": 1, "A": NaN}]}',
            [{"Name": "conv", "Inputs": '[{"Name": "a"}]', "Groups": 1, "A": None}],
        ),
        (json.dumps({"Layers": [str(n) for n in range(1_500)]}), [*map(str, range(1_000))]),
        ('{"Layers": ["a" "b"]}', None),  # TensorRT 8, of some names
        ('{"Layers": 3}', None),
        ("[]", None),
    ],
)
def test_what_the_inspector_says(said: str, layers: Any) -> None:
    runner: Any = SimpleNamespace(sidecar=Sidecar(), inspect=lambda: said)
    facts = engine_facts(runner)
    assert facts is not None
    assert facts["inspector"] == layers


def test_an_inspector_that_fails_costs_its_layers_alone() -> None:
    def fails() -> str:
        raise DeviceError("no inspector")

    facts = engine_facts(SimpleNamespace(sidecar=Sidecar(), inspect=fails))  # type: ignore[arg-type]
    assert facts is not None
    assert (facts["tensorrt"], facts["inspector"]) == ("10.3.0.30", None)


def test_facts_of_a_provider() -> None:
    strays = tuple(f"Conv {n}" for n in range(150))
    runner: Any = SimpleNamespace(
        provider="CUDAExecutionProvider",
        library="onnxruntime 1.31.1",
        threads=2,
        placement=Placement("CUDAExecutionProvider", {"CUDAExecutionProvider": 9}, strays),
    )
    assert provider_facts(runner, "cuda") == {
        "name": "CUDAExecutionProvider",
        "backend": "cuda",
        "library": "onnxruntime 1.31.1",
        "threads": 2,
        "nodes": {"CUDAExecutionProvider": 9},
        "strays": list(strays[:100]),
    }
    runner.placement = None
    assert provider_facts(runner, "auto")["nodes"] == {}
    assert provider_facts(runner, "auto")["strays"] == []
