# SPDX-License-Identifier: Apache-2.0
"""Equal inputs give equal bytes, whatever the process: two runs with other hash seeds."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

FORMS: dict[str, list[str]] = {
    "fp32": [],
    "fp32, for JetPack 5": ["--target", "jetpack-5.1"],
    "fp16": ["--precision", "fp16", "--head-precision", "fp16"],
    "int8": ["--precision", "int8", "--head-precision", "exact"],
    "int8, for ONNX Runtime": [
        "--precision",
        "int8",
        "--head-precision",
        "int8",
        "--target",
        "onnxruntime",
    ],
    "teachable": ["--teachable", "--outputs", "scores,label,embedding"],
    "teachable, for TensorRT": ["--teachable", "--target", "jetpack-6.2"],
    "frame": ["--input", "frame", "--frame", "nv12:64x48"],
    "backbone": ["--part", "backbone"],
    "head": ["--part", "head"],
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
def test_two_processes_write_the_same_bytes(
    run: Run, workshop: Any, tmp_path: Path, options: list[str]
) -> None:
    seen = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        # A cache of its own: what is cached by the first is not what the second reads.
        environment = {**os.environ, "PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(folder)}
        done = run(
            "export",
            workshop.head,
            "--out",
            "m.onnx",
            "--sbom",
            "m.cdx.json",
            "--images",
            workshop.photos,
            "--min-agreement",
            "0.5",
            *options,
            cwd=folder,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        made = sorted(file for file in folder.iterdir() if file.is_file())
        assert {"m.onnx", "m.cdx.json"} <= {file.name for file in made}
        seen.append({f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in made})
    assert seen[0] == seen[1]
    assert ("m.onnx.head" in seen[0]) == ("--teachable" in options)


def test_two_processes_build_the_same_head(run: Run, workshop: Any, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        words = ("build", workshop.photos, "--backbone", workshop.backbone)
        done = run(*words, "--out", tmp_path / seed, env=environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
