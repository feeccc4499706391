# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint bench`: what it measures, how it says so, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_imprint.cli import main
from edge_imprint_runtime.reporting.schema import read_report

Run = Callable[..., "subprocess.CompletedProcess[str]"]

NUMBERS = ("min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
QUICK = ("--warm-up", "0.1s")


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def cells(text: str) -> dict[str, list[str]]:
    """Read the tables' rows: the cells behind the first."""
    rows = [line.strip("│").split("│") for line in text.splitlines() if line[:1] == "│"]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture(scope="session")
def backbone(run: Run, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``export --part backbone`` writes: no labels, no contract."""
    out = tmp_path_factory.mktemp("part") / "backbone.onnx"
    done = run("export", workshop.head, "--out", out, "--part", "backbone")
    assert done.returncode == 0, done.stderr
    return out


def test_bench_as_json_and_into_a_file(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = ["--batch", "1,2", "--iterations", 30, "--threads", 1, "--label", "first"]
    said = report(run("bench", workshop.model, *arguments, *QUICK, "--json", "--out", out))
    assert json.loads(out.read_bytes()) == said
    assert read_report(out).data == said
    assert said["schema"] == "edge-imprint.report/1"
    assert said["model"]["file"] == str(workshop.model)
    assert said["label"] == "first"
    assert said["provider"]["name"] == "CPUExecutionProvider"
    assert (said["provider"]["backend"], said["provider"]["threads"]) == ("auto", 1)
    assert said["machine"]["python"]
    assert said["method"]["mode"] == "turns"
    assert [(s["name"], s["batch"]) for s in said["series"]] == [
        ("fused", 1),
        ("backbone only", 1),
        ("fused", 2),
        ("backbone only", 2),
    ]
    for series in said["series"]:
        assert len(series["samples_ns"]) == series["iterations"] == 30
        ordered = [series[name] for name in NUMBERS]
        assert ordered == sorted(ordered)
        assert ordered[0] == min(series["samples_ns"]) / 1e6
        assert ordered[-1] == max(series["samples_ns"]) / 1e6
        assert series["throughput_images_per_s"] == pytest.approx(
            series["batch"] / series["mean_ms"] * 1e3
        )
    found = said["memory"]
    assert 0 < found["rss_before_bytes"] < found["rss_open_bytes"] <= found["rss_peak_bytes"]


def test_bench_in_words(run: Run, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run("bench", workshop.model, "--iterations", 40, *QUICK, "--stages", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model.onnx on CPUExecutionProvider, batch 1")
    head = next(line for line in done.stdout.splitlines() if line.startswith("┃"))
    assert [cell.strip() for cell in head.split("┃")[2:-1]] == ["fused", "backbone only"]
    assert done.stdout.count("samples") == 2  # the stages have a table of their own
    rows = cells(done.stdout)
    data = json.loads(out.read_bytes())
    assert list(rows) == [
        *("p50 ms", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "mean ms"),
        *("images/s", "samples"),
    ]
    first = cells(done.stdout.partition("stages of")[0])
    for column, series in enumerate(data["series"][:2]):
        for key in ("p50", "p99"):
            want, bound = f"{series[f'{key}_ms']:.3f}", series["intervals_ms"][key]
            if bound is not None:
                want += f" ({bound[0]:.3f}-{bound[1]:.3f})"
            assert first[f"{key} ms"][column] == want
        assert first["max ms"][column] == f"{series['max_ms']:.3f}"
        assert first["samples"][column] == "40"
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
    assert "Traceback" not in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line[:1] in "│┃┏")


def test_every_finding_is_a_line_and_the_title_is_marked(run: Run, workshop: Any) -> None:
    # Calls of a length that no pause of the machine makes ten times as long on average.
    arguments = ["--rate", "1000%", "--iterations", 300, "--batch", 64, *QUICK]
    done = run("bench", workshop.model, *arguments, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "batch 64 - UNSTABLE, see below\n" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "are more than" in line]
    assert line.startswith("unstable: ")
    assert line.endswith("give a lower --rate")
    said = report(run("bench", workshop.model, *arguments, "--json"))
    assert said["verdict"]["stable"] is False
    assert len(said["series"]) == 2  # what the threads can do, and what was offered


@pytest.mark.parametrize("duration", ["0.3", "0.3s", "0.005m", "0.005min"])
def test_bench_for_a_duration(run: Run, workshop: Any, duration: str) -> None:
    start = time.monotonic()
    said = report(run("bench", workshop.model, "--duration", duration, *QUICK, "--json"))
    assert time.monotonic() - start >= 0.3
    assert said["method"]["duration_s"] == pytest.approx(0.3)
    last_ns = [s["starts_ns"][-1] + s["samples_ns"][-1] for s in said["series"]]
    first_ns = [s["starts_ns"][0] for s in said["series"]]
    assert 0.05e9 < max(last_ns) - min(first_ns) < 60e9  # not 0.3 or 0.005 of another unit
    assert said["series"][0]["iterations"] == said["series"][1]["iterations"] > 10


def test_threads_rates_layers_and_cold_starts(run: Run, workshop: Any) -> None:
    common = ["--iterations", 60, *QUICK, "--json"]
    said = report(run("bench", workshop.model, "--concurrency", 3, *common))
    assert [(s["name"], s["concurrency"]) for s in said["series"]] == [("fused", 3)]
    said = report(run("bench", workshop.model, "--rate", "100/s", *common))
    assert [s["offered_per_s"] for s in said["series"]] == [100]
    said = report(run("bench", workshop.model, "--layers", "--cold", 1, *common))
    assert said["layers"][0]["share"] > 0
    assert len(said["cold_start"]["runs_ms"]) == 1


def test_mlperf_says_why_it_is_not_valid(run: Run, workshop: Any) -> None:
    done = run("bench", workshop.model, "--mlperf", "--duration", "0.3s", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "MLPerf single stream: " in done.stdout
    assert "the early-stopping estimate of p90 at 99 %; q = " in done.stdout
    assert re.search(
        r"not valid by MLPerf: it ran for [0-9.]+ s, and 600 s are the least", done.stdout
    )


def test_a_backbone_alone(run: Run, backbone: Path) -> None:
    said = report(run("bench", backbone, "--iterations", 20, *QUICK, "--json"))
    assert [s["name"] for s in said["series"]] == ["backbone only"]
    model = said["model"]
    assert (model["precision"], model["classes"]) == (None, None)
    assert model["bytes"] == backbone.stat().st_size


def test_another_model_beside_it(
    run: Run, workshop: Any, backbone: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(workshop.model, tmp_path / "other.onnx"))
    beside = ["--beside", other, "--beside", backbone]
    done = run("bench", workshop.model, *beside, "--iterations", 20, *QUICK, "--json")
    names = [s["name"] for s in report(done)["series"]]
    assert names == ["fused", "backbone only", "other.onnx", "backbone.onnx"]
    (tmp_path / "b").mkdir()
    again = shutil.copy(workshop.model, tmp_path / "b" / "other.onnx")
    beside = ["--beside", other, "--beside", again]
    done = run("bench", workshop.model, *beside, "--iterations", 20, *QUICK, "--json")
    names = [s["name"] for s in report(done)["series"]]
    assert names == ["fused", "backbone only", str(other), str(again)]
    done = run("bench", workshop.model, "--beside", other, "--beside", other)
    assert done.returncode == 2
    assert "two things are measured under one name" in done.stderr


def test_another_onnx_file_is_not_measured(run: Run, tmp_path: Path) -> None:
    make = onnx.helper.make_tensor_value_info
    values = [make(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "m"
    )
    done = run("bench", tmp_path / "m")
    assert done.returncode == 1
    assert "carries no edge-imprint metadata" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--concurrency 0", "concurrency must be an integer from 1 to 256, got 0"),
        ("--concurrency 257", "concurrency must be an integer from 1 to 256, got 257"),
        ("--concurrency x", "'x' is not a valid integer"),
        ("--rate 20", "must be calls a second such as 20/s, or a share such as 80%, got '20'"),
        ("--rate -5/s", "must be calls a second such as 20/s, or a share such as 80%"),
        ("--rate 0/s", "rate must be above 0 and at most 1000000 a second, got 0"),
        ("--rate 0%", "rate must be above 0 % and at most 1000% of the throughput, got 0"),
        ("--rate 1001%", "rate must be above 0 % and at most 1000% of the throughput"),
        ("--rate 2000000/s", "rate must be above 0 and at most 1000000 a second, got 2e+06"),
        ("--cold -1", "cold must be an integer from 0 to 1000, got -1"),
        ("--cold 1001", "cold must be an integer from 0 to 1000, got 1001"),
        ("--cold some", "'some' is not a valid integer"),
        ("--warm-up 0s", "warm-up must be above 0 s and at most an hour, got 0"),
        ("--warm-up 61m", "warm-up must be above 0 s and at most an hour, got 3660"),
        ("--warm-up long", "must be seconds such as 30s, or minutes such as 2m, got 'long'"),
        ("--frame-size 16", "must be WIDTHxHEIGHT such as 1280x720, got '16'"),
        ("--frame-size 16x16", "the model takes images of one size; leave out the frame's"),
        ("--iterations 2000001", "iterations must be at most 2000000, got 2000001"),
        ("--mlperf --batch 8", "MLPerf's single stream is one query of one image"),
        ("--mlperf --concurrency 2", "MLPerf's single stream is one query of one image"),
        ("--mlperf --rate 5/s", "MLPerf's single stream is one query of one image"),
        ("--mlperf --stages", "MLPerf's single stream is one query of one image"),
        ("--mlperf --beside x", "is measured in turns, which goes with neither --concurrency"),
        ("--rate 5/s --beside x", "is measured in turns, which goes with neither"),
        ("--concurrency 2 --beside x", "is measured in turns, which goes with neither"),
        ("--backend npu", "backend must be one of auto, cpu, cuda, tensorrt, got 'npu'"),
        ("--threads -1", "threads must be an integer from 0 to 1024, got -1"),
        ("--cuda-graph", "cuda_graph is for engines"),
        ("--threads 1000", "as many cores as this process may use, got 1000: more of them"),
        ("--label ''", "a label has 1 to 300 characters"),
    ],
)
def test_a_bad_value_is_one_line_and_status_2(
    workshop: Any, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    given = [part.strip("'") for part in arguments.split()]
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(workshop.model), *given])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_report_that_can_not_be_kept_was_shown(
    command: Path, workshop: Any, tmp_path: Path
) -> None:
    """The folder goes away while it measures: the figures do not."""
    for as_json in ([], ["--json"]):
        folder = tmp_path / "gone"
        folder.mkdir()
        arguments = ["--duration", "3s", *QUICK, "--out", folder / "r.json"]
        with subprocess.Popen(
            [command, "bench", workshop.model, *arguments, *as_json],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("measuring batch 1")
            folder.rmdir()
            out, err = process.communicate(timeout=300)
        assert process.returncode == 1
        last = err.splitlines()[-1]
        assert last == f"error: cannot write {folder}/r.json: there is no folder {folder}"
        if as_json:
            assert json.loads(out)["schema"] == "edge-imprint.report/1"
        else:
            assert "p50 ms" in out
            assert "note: the figures above are all there is now" in err


def test_an_interrupt_leaves_no_file(command: Path, workshop: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    for mode in ([], ["--concurrency", "2"], ["--rate", "50/s"]):
        with subprocess.Popen(
            [command, "bench", workshop.model, "--duration", "60s", *mode, "--out", out],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            if mode:
                assert process.stderr.readline() == (
                    "note: the backbone alone is measured in turns with the model, and so not "
                    "with --concurrency, --rate or --mlperf\n"
                )
            assert process.stderr.readline().startswith("measuring batch 1")
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            said, err = process.communicate(timeout=300)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "error: interrupted; no file was left half-written"
        assert said == ""
        assert list(tmp_path.iterdir()) == []
