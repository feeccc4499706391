# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint bench`: what it measures, and how it says so."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

NUMBERS = ("min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms", "mean_ms")


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def test_bench_as_json_and_into_a_file(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = ["--batch", "1,2", "--iterations", 30, "--threads", 1]
    said = report(run("bench", workshop.model, *arguments, "--json", "--out", out))
    assert json.loads(out.read_bytes()) == said
    assert said["schema"] == "edge-imprint.bench/1"
    assert (said["model"], said["threads"]) == (str(workshop.model), 1)
    assert said["provider"] == "CPUExecutionProvider"
    assert said["machine"]["python"]
    assert [(s["name"], s["batch"]) for s in said["series"]] == [
        ("fused", 1),
        ("backbone only", 1),
        ("fused", 2),
        ("backbone only", 2),
    ]
    for series in said["series"]:
        assert len(series["samples_ns"]) == series["iterations"] == 30
        ordered = [series[name] for name in NUMBERS[:-1]]
        assert ordered == sorted(ordered)
        assert ordered[0] == min(series["samples_ns"]) / 1e6
        assert ordered[-1] == max(series["samples_ns"]) / 1e6
        assert series["throughput_images_per_s"] == pytest.approx(
            series["batch"] / series["mean_ms"] * 1e3
        )


def test_bench_in_words(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run("bench", workshop.model, "--iterations", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "on CPUExecutionProvider" in " ".join(done.stdout.split())
    rows = [line for line in done.stdout.splitlines() if line.startswith("│ ")]
    assert [row.split("│")[1].strip() for row in rows] == ["fused", "backbone only"]
    assert [row.split("│")[3].strip() for row in rows] == ["5", "5"]
    assert done.stdout.endswith(f"report: {out}\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("duration", ["0.3", "0.3s", "0.005m", "0.005min"])
def test_bench_for_a_duration(run: Run, workshop: Any, duration: str) -> None:
    start = time.monotonic()
    said = report(run("bench", workshop.model, "--duration", duration, "--json"))
    assert time.monotonic() - start >= 0.3
    taken_s = sum(sum(series["samples_ns"]) for series in said["series"]) / 1e9
    assert 0.15 < taken_s < 5
    assert said["series"][0]["iterations"] == said["series"][1]["iterations"] > 100
