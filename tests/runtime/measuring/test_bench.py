# SPDX-License-Identifier: Apache-2.0
"""The report of a model: real runs of a tiny one, and every way to ask for one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_export import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.backends import LayerTime
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import ClosedModelError, ParameterError, ProviderError
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.measuring import (
    Plan,
    Series,
    Subject,
    bench,
    limits,
    model_subject,
    run,
    run_bench,
    runner_subject,
)
from edge_imprint_runtime.measuring.bench import open_subject
from edge_imprint_runtime.measuring.early_stopping import estimate
from edge_imprint_runtime.reporting.schema import read_report, write_report
from edge_imprint_runtime.sensors import Facts, SensorLostError

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"
QUICK: dict[str, Any] = {"iterations": 12, "warm_up_s": 0.05}

Array = npt.NDArray[np.generic]


@pytest.fixture
def tiny(tiny_model: Path) -> Iterator[Subject]:
    with open_model(tiny_model, "cpu", threads=1) as model:
        yield model_subject(model)


@pytest.fixture
def measured(tiny: Subject, tiny_model: Path) -> Callable[..., dict[str, Any]]:
    def measured(*beside: Subject, **plan: Any) -> dict[str, Any]:
        found = run_bench(
            tiny, Plan(**QUICK | plan), path=tiny_model, beside=beside, backend="cpu"
        )
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        jsonschema.validate(found, json.loads(SCHEMA.read_text()))
        return found

    return measured


def calls(seen: list[Array], name: str = "call") -> Subject:
    return Subject(name, seen.append, (16, 16, 3), np.dtype(np.uint8))


def ran(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    keys = ("name", "batch", "concurrency", "stage", "iterations")
    return [tuple(s[key] for key in keys) for s in report["series"]]


def test_a_report_on_the_tiny_model(
    measured: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    seen: list[Array] = []
    report = measured(calls(seen), batches=(1, 4), label="mine")
    assert report["schema"] == "edge-imprint.report/1"
    assert report["label"] == "mine"
    assert report["provider"] == {
        "name": "CPUExecutionProvider",
        "backend": "cpu",
        "library": report["provider"]["library"],
        "threads": 1,
        "nodes": report["provider"]["nodes"],
        "strays": [],
    }
    assert report["provider"]["library"].startswith("onnxruntime 1.")
    assert set(report["provider"]["nodes"]) == {"CPUExecutionProvider"}
    assert report["engine"] is None
    assert report["machine"]["cores"] >= 1
    assert report["method"] == {
        "clock": "perf_counter_ns",
        "mode": "turns",
        "iterations": 12,
        "duration_s": None,
        "percentiles": "nearest rank",
        "confidence": 0.95,
        "resamples": 1_000,
        "warm_up": (
            "each was called until its times were steady, by a test for a slope and one for a "
            "change of level, for 0.05 s at most (warmed_up is then false); see "
            "docs/measuring.md"
        ),
        "interval_s": 0.25,
        "seed": 0,
    }
    assert ran(report) == [
        ("fused", 1, 1, "whole", 12),
        ("call", 1, 1, "whole", 12),
        ("fused", 4, 1, "whole", 12),
        ("call", 4, 1, "whole", 12),
    ]
    assert {images.shape for images in seen} == {(1, 16, 16, 3), (4, 16, 16, 3)}
    assert {images.dtype for images in seen} == {np.dtype(np.uint8)}
    assert report["mlperf"] is report["cold_start"] is None
    assert report["layers"] == []
    assert report["memory"] == {
        "rss_before_bytes": None,
        "rss_open_bytes": None,
        "rss_peak_bytes": None,
        "device_bytes": None,
    }
    out = write_report(tmp_path / "r.json", report)
    assert len(read_report(out).series) == 4


def test_a_series_says_what_its_samples_say(measured: Callable[..., dict[str, Any]]) -> None:
    report = measured(iterations=200)
    (row,) = report["series"]
    samples, starts, warm = (row.pop(f"{k}_ns") for k in ("samples", "starts", "warm_up"))
    raw = Series(
        row["name"],
        row["batch"],
        np.array(samples, np.int64),
        np.array(starts, np.int64),
        warm_up_ns=warm,
        warmed_up=row["warmed_up"],
    )
    assert raw.summary() == row
    keys = ("min", "p50", "p90", "p95", "p99", "p99_9", "max")
    ordered = [row[f"{key}_ms"] for key in keys]
    assert ordered == sorted(ordered)
    assert (ordered[0], ordered[-1]) == (min(samples) / 1e6, max(samples) / 1e6)
    assert set(row["intervals_ms"]) == {"p50", "p90", "p95", "p99", "p99_9"}
    for key, bound in row["intervals_ms"].items():
        assert bound is None or bound[0] <= row[f"{key}_ms"] <= bound[1]
    # The samples don't overlap, they lie in the time of the sensors, after the warm-up.
    ends = np.add(starts, samples)
    assert (np.array(starts[1:]) >= ends[:-1]).all()
    assert starts[0] >= sum(warm)
    assert ends[-1] / 1e9 <= report["sensors"]["times_s"][-1]


def test_all_see_the_same_images(measured: Callable[..., dict[str, Any]]) -> None:
    a, b = [], []  # type: ignore[var-annotated]
    measured(calls(a, "a"), calls(b, "b"))
    measured(calls(a, "a"), calls(b, "b"))
    assert {x.tobytes() for x in a} == {x.tobytes() for x in b}
    assert len({x.tobytes() for x in a}) == 1


def test_the_backbone_beside_the_model(
    measured: Callable[..., dict[str, Any]], tiny_model: Path
) -> None:
    runner = OrtRunner(headless(tiny_model.read_bytes(), "m"), "cpu", 1)
    subject = runner_subject(runner)
    assert (subject.shape, subject.dtype, subject.outputs) == (
        (16, 16, 3),
        np.uint8,
        ("embedding",),
    )
    report = measured(subject, stages=True, layers=True)
    assert ran(report) == [
        ("fused", 1, 1, "whole", 12),
        ("backbone only", 1, 1, "whole", 12),
        ("fused", 1, 1, "compute", 12),
    ]
    layers = report["layers"]
    assert {"Conv", "MatMul"} <= {layer["kind"] for layer in layers}
    times = [layer["mean_ms"] for layer in layers]
    assert times == sorted(times, reverse=True)
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)


def test_several_callers(measured: Callable[..., dict[str, Any]]) -> None:
    report = measured(concurrency=3, batches=(2,), iterations=30)
    assert report["method"]["mode"] == "concurrent"
    assert ran(report) == [("fused", 2, 3, "whole", 30)]


def test_an_offered_load(measured: Callable[..., dict[str, Any]]) -> None:
    report = measured(rate_per_s=200.0, concurrency=2, iterations=40)
    assert report["method"]["mode"] == "load"
    assert ran(report) == [("fused", 1, 2, "whole", 40)]
    assert report["series"][0]["offered_per_s"] == 200
    (found,) = [f for f in report["verdict"]["findings"] if f["code"] == "backlog"]
    assert found["series"] == "fused"
    assert not found["severe"]
    last_s = (report["series"][0]["starts_ns"][-1] - report["series"][0]["starts_ns"][0]) / 1e9
    words = re.fullmatch(
        r"fused at 200 calls a second, of which chance made ([0-9.]+): a call found [0-9.e-]+ "
        r"others waiting on average, [0-9]+ at most; the 2 threads were busy [0-9]+% of the "
        r"time",
        found["text"],
    )
    assert words is not None, found["text"]
    assert float(words[1]) == pytest.approx(39 / last_s, rel=0.2)


def test_a_load_as_a_share_of_the_throughput(
    measured: Callable[..., dict[str, Any]],
) -> None:
    report = measured(rate_share=0.2, iterations=60)
    closed, offered = report["series"]
    assert closed["offered_per_s"] is None
    assert offered["offered_per_s"] == pytest.approx(0.2 * closed["throughput_images_per_s"])


def test_an_overload_makes_the_run_unstable(
    measured: Callable[..., dict[str, Any]],
) -> None:
    # Calls of a length that no pause of the machine makes ten times as long on average.
    report = measured(rate_share=10.0, iterations=300, batches=(64,))
    assert report["verdict"]["stable"] is False
    (found,) = [f for f in report["verdict"]["findings"] if f["code"] == "overload"]
    assert found["severe"]
    assert "calls a second are more than one thread answers with fused: " in found["text"]


def test_a_short_single_stream_is_not_valid(measured: Callable[..., dict[str, Any]]) -> None:
    report = measured(mlperf=True, iterations=None, duration_s=0.2)
    assert report["method"]["mode"] == "mlperf"
    assert report["method"]["duration_s"] == 0.2
    (row,) = report["series"]
    found, mlperf = estimate(np.array(row["samples_ns"], np.int64)), report["mlperf"]
    assert mlperf == {
        "queries": row["iterations"],
        "duration_s": pytest.approx(sum(row["samples_ns"]) / 1e9, rel=0.5),
        "percentile": 90,
        "confidence": 0.99,
        "over_latency": found.over_latency,
        "discarded": found.discarded,
        "estimate_ms": (found.estimate_ns or 0) / 1e6,
        "needed_queries": 64,
        "suggested_queries": 24_576,
        "needed_duration_s": 600,
        "valid": False,
        "reason": f"it ran for {mlperf['duration_s']:.1f} s, and 600 s are the least",
    }
    assert mlperf["duration_s"] >= 0.2


def test_a_single_stream_of_few_queries(measured: Callable[..., dict[str, Any]]) -> None:
    mlperf = measured(mlperf=True, iterations=5)["mlperf"]
    assert mlperf["queries"] == 5
    assert mlperf["estimate_ms"] is None
    assert mlperf["reason"].endswith(
        "s, and 600 s are the least; it had 5 queries, and 64 are the least"
    )


def test_a_single_stream_of_full_length(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bench, run):
        monkeypatch.setattr(module, "MLPERF_S", 0.3)
    report = measured(mlperf=True, iterations=None)
    assert report["mlperf"]["valid"] is True
    assert report["mlperf"]["reason"] is None
    assert report["mlperf"]["queries"] >= 64
    assert report["method"]["iterations"] is None


def test_cold_starts_and_memory(tiny_model: Path) -> None:
    plan = Plan(**QUICK, cold=1)
    subject, memory = open_subject(lambda: model_subject(open_model(tiny_model, "cpu")), plan)
    report = run_bench(subject, plan, path=tiny_model, backend="cpu", memory=memory)
    assert len(report["cold_start"]["runs_ms"]) == 1
    found = report["memory"]
    assert 0 < found["rss_before_bytes"] <= found["rss_peak_bytes"]
    assert found["rss_open_bytes"] <= found["rss_peak_bytes"]
    assert found["device_bytes"] is None


def test_a_head_alone(make_head: Callable[..., Head], tmp_path: Path) -> None:
    file = tmp_path / "head.onnx"
    file.write_bytes(to_bytes(fuse_head(make_head())))
    subject = model_subject(open_model(file, "cpu"))
    report = run_bench(subject, Plan(**QUICK), path=file)
    assert ran(report) == [("head", 1, 1, "whole", 12)]
    assert report["model"]["input"] == "embedding"


class Fading:
    """A source that is lost after its third reading."""

    name = "fading"

    def __init__(self) -> None:
        self.reads, self.closed = 0, False

    def read(self) -> dict[str, float]:
        self.reads += 1
        if self.reads > 3:
            raise SensorLostError("it was unplugged")
        return {"gpu_power_w": 10.0}

    def close(self) -> None:
        self.closed = True

    def facts(self) -> Facts:
        return {}


def test_a_sensor_that_vanishes_is_said_and_costs_nothing_else(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Fading()
    monkeypatch.setattr(run, "open_sensors", lambda: [source])
    report = measured(iterations=None, duration_s=1.5)
    assert report["sensors"]["lost"] == {"fading": "it was unplugged"}
    assert "sensor_lost" in [f["code"] for f in report["verdict"]["findings"]]
    assert report["energy"] is None  # its readings end before the series does
    assert source.closed
    readings = report["sensors"]["readings"]["gpu_power_w"]
    assert readings[:3] == [10.0] * 3
    assert readings[-1] is None


def test_a_series_that_is_full_says_so(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (limits, run):
        monkeypatch.setattr(module, "MAX_SAMPLES", 50)
    report = measured(iterations=None, duration_s=30)
    assert report["series"][0]["iterations"] == 50
    (found,) = [f for f in report["verdict"]["findings"] if f["code"] == "sample_limit"]
    assert found["text"] == (
        "it ended before 30 s were over, since a series of a report holds at most 50 samples"
    )


def test_all_series_share_a_report(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batch sizes of two series: a sixth of the samples each."""
    monkeypatch.setattr(run, "MAX_ALL_SAMPLES", 66)
    both = {"batches": (1, 2, 3)}
    report = measured(calls([]), iterations=None, duration_s=30, **both)
    assert [one["iterations"] for one in report["series"]] == [11] * 6
    with pytest.raises(ParameterError) as caught:
        measured(calls([]), iterations=12, **both)
    assert str(caught.value) == (
        "iterations must be at most 11 in each of so many series, got 12"
    )


@pytest.mark.parametrize("part", ["cold_start", "layers"])
def test_a_part_that_fails_costs_itself_alone(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fails(*given: object) -> None:
        raise ProviderError("a fresh process came to no label: killed")

    monkeypatch.setattr(bench, {"cold_start": "_cold", "layers": "_layers"}[part], fails)
    report = measured(cold=part == "cold_start", layers=part == "layers")
    assert report[part] == (None if part == "cold_start" else [])
    assert ran(report) == [("fused", 1, 1, "whole", 12)]
    found = [f for f in report["verdict"]["findings"] if f["code"] == f"{part}_failed"]
    assert found == [
        {
            "code": f"{part}_failed",
            "series": "fused",
            "text": "a fresh process came to no label: killed",
            "severe": False,
        }
    ]


def test_one_slow_run_is_not_what_a_layer_takes(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([900.0, 5.0, 3.0, 4.0, 5.0, 900.0, 5.0])

    def layers(self: Subject, images: Array, *, runs: int) -> list[LayerTime]:
        return [LayerTime("b", "Conv", next(rounds)), LayerTime("a", "Gemm", 15.0)]

    monkeypatch.setattr(Subject, "layers", layers)
    assert measured(layers=True)["layers"] == [
        {"name": "a", "kind": "Gemm", "mean_ms": 15e-6, "share": 0.75},
        {"name": "b", "kind": "Conv", "mean_ms": 5e-6, "share": 0.25},
    ]


def test_what_fails_when_it_is_called_is_closed(tiny: Subject) -> None:
    def stopped(images: Array) -> None:
        raise KeyboardInterrupt

    assert tiny.runner is not None
    with pytest.raises(KeyboardInterrupt):
        open_subject(lambda: replace(tiny, call=stopped), Plan(**QUICK))
    with pytest.raises(ClosedModelError):
        tiny.call(tiny.images(1))


def test_an_interrupt_leaves_nothing_running(
    tiny: Subject, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Fading()
    monkeypatch.setattr(run, "open_sensors", lambda: [source])

    def stopped(images: Array) -> None:
        raise KeyboardInterrupt

    beside = Subject("stopped", stopped, (16, 16, 3), np.dtype(np.uint8))
    threads = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run_bench(tiny, Plan(**QUICK), path=tiny_model, beside=[beside])
    assert source.closed
    assert set(threading.enumerate()) <= threads


def test_a_busy_machine_is_found_out(measured: Callable[..., dict[str, Any]]) -> None:
    """Loops on each core, from the middle of the run on."""
    others: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        time.sleep(3)
        command = [sys.executable, "-c", "while True: pass"]
        others.extend(subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1)))

    starter = threading.Thread(target=begin)
    starter.start()
    try:
        report = measured(iterations=None, duration_s=6, warm_up_s=0.5)
    finally:
        starter.join()
        for other in others:
            other.kill()
            other.wait()
    assert report["verdict"]["stable"] is False
    assert any(finding["severe"] for finding in report["verdict"]["findings"])
