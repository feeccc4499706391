# SPDX-License-Identifier: Apache-2.0
"""What ei-bench tells: a report of the schema, comparable with Python's, and tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_imprint_runtime import open_model
from edge_imprint_runtime.files import file_sha256
from edge_imprint_runtime.measuring import Plan, model_subject, run_bench
from edge_imprint_runtime.measuring.bench import open_subject
from edge_imprint_runtime.reporting.schema import read_report, write_report
from tests.c.benching import QUICK, Bench

NUMBERS = ("min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")


def test_a_report_and_a_file(bench: Bench, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    options = ["--batch", "1,2", "--iterations", 30, "--label", "first ç", *QUICK]
    done = bench(tiny_model, *options, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert out.read_text() == done.stdout
    bench.check(said)
    assert read_report(out).data == said
    assert said["made_with"].startswith("edge-imprint-c ")
    assert said["label"] == "first ç"
    assert abs(said["created_unix_s"] - time.time()) < 60
    assert [(s["name"], s["batch"]) for s in said["series"]] == [
        ("fused", 1),
        ("backbone only", 1),
        ("fused", 2),
        ("backbone only", 2),
    ]
    for series in said["series"]:
        assert len(series["samples_ns"]) == len(series["starts_ns"]) == 30
        assert series["starts_ns"] == sorted(series["starts_ns"])
        ordered = [series[name] for name in NUMBERS]
        assert ordered == sorted(ordered)
        assert ordered[0] == min(series["samples_ns"]) / 1e6
        assert series["throughput_images_per_s"] == pytest.approx(
            series["batch"] / series["mean_ms"] * 1e3
        )
    provider = said["provider"]
    assert (provider["name"], provider["backend"]) == ("CPUExecutionProvider", "cpu")
    assert provider["threads"] == 1
    assert provider["library"].startswith("onnxruntime ")
    assert said["machine"]["onnxruntime"] == provider["library"].split()[1]
    found = said["memory"]
    assert 0 < found["rss_before_bytes"] < found["rss_open_bytes"] <= found["rss_peak_bytes"]


def test_it_tells_what_python_tells(bench: Bench, tiny_model: Path, tmp_path: Path) -> None:
    """The same facts of model and machine, and reports that the reader compares."""
    plan = Plan(iterations=60, warm_up_s=0.1)
    subject, memory = open_subject(lambda: model_subject(open_model(tiny_model, "cpu")), plan)
    theirs = run_bench(subject, plan, path=tiny_model, backend="cpu", memory=memory)
    ours = bench.report(tiny_model, "--iterations", 60)
    assert ours["model"] == theirs["model"]
    assert ours["model"]["sha256"] == file_sha256(tiny_model)
    for key in ("mode", "percentiles", "confidence", "resamples", "warm_up", "seed"):
        assert ours["method"][key] == theirs["method"][key]
    for key in ("board", "cpu_model", "architecture", "cores", "system"):
        assert ours["machine"][key] == theirs["machine"][key]
    assert ours["sensors"]["readings"].keys() == theirs["sensors"]["readings"].keys()
    ours["verdict"] = theirs["verdict"] = {"stable": True, "findings": []}
    write_report(tmp_path / "c.json", ours)
    write_report(tmp_path / "python.json", theirs)
    command = Path(sys.executable).with_name("edge-imprint")
    done = subprocess.run(
        [command, "report", tmp_path / "python.json", tmp_path / "c.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fused" in done.stdout


def cells(text: str) -> dict[str, list[str]]:
    rows = [line.strip("│").split("│") for line in text.splitlines() if line[:1] == "│"]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_tables_for_people(bench: Bench, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = bench(tiny_model, "--iterations", 40, *QUICK, "--stages", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model.onnx on CPUExecutionProvider, batch 1")
    data = json.loads(out.read_bytes())
    marked = "" if data["verdict"]["stable"] else " - UNSTABLE, see below"
    assert f"stages of fused, batch 1{marked}\n" in done.stdout
    first = cells(done.stdout.partition("stages of")[0])
    assert list(first) == [
        *("p50 ms", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "mean ms"),
        *("images/s", "samples"),
    ]
    for column, series in enumerate(data["series"][:2]):
        for key in ("p50", "p99"):
            want, bound = f"{series[f'{key}_ms']:.3f}", series["intervals_ms"][key]
            if bound is not None:
                want += f" ({bound[0]:.3f}-{bound[1]:.3f})"
            assert first[f"{key} ms"][column] == want
        assert first["samples"][column] == "40"
    assert [s["stage"] for s in data["series"]] == ["whole", "whole", "compute"]
    assert "p50 of fused / backbone only: " in done.stdout
    before, opened, peak = (
        f"{data['memory'][f'rss_{name}_bytes'] / 1e6:,.1f} MB"
        for name in ("before", "open", "peak")
    )
    assert (
        f"memory: {before} before, {opened} with the model open, {peak} at most once it ran; "
        "callers and sensors came later\n"
    ) in done.stdout
    assert done.stdout.endswith(f"report: {out}\n")
    findings = [one["text"] for one in data["verdict"]["findings"]]
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()[2:]] == findings
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line[:1] in "│┃┏")


def test_tables_of_the_other_modes(bench: Bench, tiny_model: Path) -> None:
    done = bench(tiny_model, "--rate", "50%", "--concurrency", 2, "--iterations", 80, *QUICK)
    assert done.returncode == 0, done.stderr
    head = next(line for line in done.stdout.splitlines() if line.startswith("┃"))
    closed, offered = (cell.strip() for cell in head.split("┃")[2:-1])
    assert closed == "fused, 2 threads"
    assert offered.startswith("fused at ")
    assert offered.endswith("/s, 2 threads")
    assert "p50 of" not in done.stdout
    done = bench(tiny_model, "--mlperf", "--duration", "0.3s", "--cold", 2, *QUICK)
    assert done.returncode == 0, done.stderr
    assert " ms, the early-stopping estimate of p90 at 99 %; q = " in done.stdout
    why = r"not valid by MLPerf: it ran for \d+\.\d s, and 600 s are the least\n"
    assert re.search(why, done.stdout)
    assert " ms to the first label (each: " in done.stdout
