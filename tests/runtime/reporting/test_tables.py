# SPDX-License-Identifier: Apache-2.0
"""What a report says in tables and facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_imprint_runtime.reporting import tables
from edge_imprint_runtime.reporting.schema import Report
from edge_imprint_runtime.reporting.words import figure
from tests.report_example import (
    DRIFT,
    MACHINE,
    example_report,
    example_series,
    smallest_report,
    with_series,
)

Save = Callable[..., Report]


def test_the_headline(save: Save) -> None:
    report = smallest_report(count=200)
    fused = report["series"][0]
    assert tables.headline(save(report)) == {
        "p50, fused, batch 1": f"{fused['p50_ms']:.3f} ms",
        "p99": f"{fused['p99_ms']:.3f} ms",
        "images a second": figure(fused["throughput_images_per_s"]),
        "this run is": "stable",
    }
    assert tables.headline(save(smallest_report(stable=False)))["this run is"] == "NOT stable"


def test_under_load_the_headline_is_of_the_load(save: Save) -> None:
    series = [
        example_series("fused", 200, 2.0),
        example_series("fused", 200, 0.3, stage="compute"),
        example_series("fused", 200, 5.0, offered_per_s=80.0),
    ]
    found = save(with_series(smallest_report(), *series))
    assert tables.main_series(found) is found.series[2]
    shown = tables.headline(found)
    name = "p50, fused, batch 1, 80 calls/s offered"
    assert list(shown) == [name, "p99", "images a second", "this run is"]
    assert shown[name] == f"{series[2]['p50_ms']:.3f} ms"
    assert shown["p99"] == f"{series[2]['p99_ms']:.3f} ms"


def test_what_makes_it_unstable_stands_first(save: Save) -> None:
    report = smallest_report(stable=False)
    note = {"code": "governor", "series": None, "text": "It saves power.", "severe": False}
    report["verdict"]["findings"] = [note, DRIFT]
    assert tables.verdict(save(report)) == (
        f"NOT stable: {DRIFT['text']} (drift)",
        "note: It saves power (governor)",
    )


def test_percentiles_carry_their_intervals(save: Save) -> None:
    report = example_report(500)
    table = tables.percentiles(save(report))
    assert table.columns == (
        *("latency in ms", "samples", "p50", "p90", "p95", "p99", "p99.9", "max", "images/s"),
    )
    first, fused = table.rows[0], report["series"][0]
    low, high = fused["intervals_ms"]["p50"]
    assert first[:3] == (
        "fused, batch 1",
        "500",
        f"{fused['p50_ms']:.3f} ({low:.3f} to {high:.3f})",
    )
    # 500 samples say nothing of how high p99.9 may lie.
    assert fused["intervals_ms"]["p99_9"] is None
    assert first[6] == f"{fused['p99_9_ms']:.3f}"
    assert len(table.rows) == 6  # stages are no calls


def test_a_column_a_series(save: Save) -> None:
    found = save(example_report(500))
    one = found.series[0].summary
    bounded = tables.by_series(found.series[:2], bounds=True)
    assert bounded.columns == ("", "fused, batch 1", "backbone only, batch 1")
    assert [row[0] for row in bounded.rows] == [
        *("p50", "p90", "p95", "p99", "p99.9", "max", "mean", "images/s", "samples"),
    ]
    low, high = one["intervals_ms"]["p95"]
    assert bounded.rows[2][1] == f"{one['p95_ms']:.3f} ({low:.3f} to {high:.3f})"
    plain = tables.by_series(found.series[:1], bounds=False)
    assert plain.rows[2] == ("p95", f"{one['p95_ms']:.3f}")
    assert plain.rows[-1] == ("samples", "500")


def test_stages_stand_in_their_order(save: Save) -> None:
    series = [example_series("fused", 100, 2.0)] + [
        example_series("fused", 100, ms, stage=stage, clock=clock)
        for stage, ms, clock in (
            ("copy_out", 0.05, "host"),
            ("compute_gpu", 1.5, "cuda_events"),
            ("copy_in", 0.25, "host"),
            ("compute", 1.6, "host"),
        )
    ]
    table = tables.stages(save(with_series(smallest_report(), *series)))
    assert table is not None
    assert table.columns == (
        *("median in ms", "copy in", "compute", "copy out", "compute gpu", "whole call"),
    )
    (row,) = table.rows
    assert row[0] == "fused, batch 1"
    assert row[1] == figure(series[3]["p50_ms"])
    assert row[-1] == figure(series[0]["p50_ms"])


def test_of_callers_at_once_no_stage_has_a_whole_call(save: Save) -> None:
    series = [
        example_series("fused", 100, 2.0, concurrency=2),
        example_series("fused", 100, 1.6, stage="compute"),
    ]
    table = tables.stages(save(with_series(smallest_report(), *series)))
    assert table is not None
    assert table.columns == ("median in ms", "compute")
    assert table.rows == (("fused, batch 1", figure(series[1]["p50_ms"])),)


def test_load(save: Save) -> None:
    report = example_report(400)
    table = tables.load(save(report))
    assert table is not None
    assert [row[1] for row in table.rows] == ["100.0", "300.0"]
    answered = report["series"][-1]["throughput_images_per_s"]
    assert table.rows[1][2] == figure(answered)


def test_layers_are_cut_to_those_that_matter(save: Save) -> None:
    report = smallest_report()
    layer = {"name": "conv", "kind": "Conv", "mean_ms": 0.5, "share": None}
    report["layers"] = [layer] * 40
    table = tables.layers(save(report))
    assert table is not None
    assert table.rows == (("conv", "Conv", "0.5000", "-"),) * 15


def test_facts(save: Save) -> None:
    found = save(example_report(50))
    assert tables.mlperf(found) == {
        "p90 by early stopping": "2.180 ms",
        "confidence": "99 %",
        "queries (q)": "2,000",
        "may be above it (t)": "170",
        "set aside": "169",
        "duration": "4.1 s",
        "the rules ask for": "64 queries and 600 s",
        "suggested for a tight estimate": "24,576 queries",
        "long enough": "NO: it ran for 4.1 s, and 600 s are the least",
    }
    assert tables.cold_start(found) == {
        "what": "from the start of a process to its first label",
        "median": "405.2 ms",
        "of 5 runs": "398.5 ms to 440.0 ms",
    }
    assert tables.memory(found) == {
        "before opening the model": "60.0 MB",
        "after opening it": "98.0 MB",
        "at most": "131.0 MB",
        "counted in": "callers, sensors and the bench itself, on top of the model",
    }
    assert tables.energy(found) == {
        "an image": "23.10 mJ",
        "mean power": "11.20 W",
        "read off": "power_w.VDD_IN",
        "while": "fused ran",
    }
    assert tables.machine(found)["memory"] == "8.3 GB"
    assert "board" not in tables.machine(found)
    assert tables.method(found)["measured"] == "2026-11-22 11:00 UTC"
    assert tables.provider(found)["nodes"] == "CPUExecutionProvider 27"
    assert "nodes elsewhere" not in tables.provider(found)


def test_what_was_not_measured_is_not_said(save: Save) -> None:
    found = save(smallest_report())
    made = (tables.mlperf, tables.cold_start, tables.memory, tables.energy)
    assert [facts(found) for facts in made] == [{}] * 4
    assert [made(found) for made in (tables.stages, tables.load, tables.layers)] == [None] * 3


def test_an_engine_is_said(save: Save) -> None:
    engine = {
        "tensorrt": "10.3.0.30",
        "gpu_name": "Orin",
        "compute_capability": "8.7",
        "driver": None,
        "cuda": "12.6",
        "precision": "fp16",
        "build_s": 431.0,
        "strongly_typed": False,
        "profile": {"images": [1, 1, 8]},
    }
    facts = tables.model(save(smallest_report(engine=engine)))
    shown = {name: text for name, text in facts.items() if name.startswith("engine")}
    assert shown == {
        "engine: tensorrt": "10.3.0.30",
        "engine: gpu name": "Orin",
        "engine: compute capability": "8.7",
        "engine: cuda": "12.6",
        "engine: precision": "fp16",
        "engine: build s": "431",
        "engine: strongly typed": "no",
        "engine: profile": "images [1, 1, 8]",
    }


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ({}, "AMD EPYC 7B13"),
        ({"board": "Jetson Orin Nano", "gpu_name": "Orin"}, "Jetson Orin Nano, Orin"),
        ({"cpu_model": None}, "x86_64"),
        ({"cpu_model": None, "architecture": None}, "unknown"),
    ],
)
def test_the_device(machine: dict[str, object], name: str, save: Save) -> None:
    assert tables.device(save(smallest_report(machine=MACHINE | machine))) == name


def test_the_layers_of_an_engine(save: Save) -> None:
    engine: dict[str, Any] = {
        "tensorrt": "10.3.0.30",
        "gpu_name": "Orin",
        "compute_capability": "8.7",
        "driver": None,
        "cuda": "12.6",
        "precision": "fp16",
        "build_s": 431.0,
    }
    said = [
        {"Name": "conv0", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma"},
        {"name": "scores", "precision": "Half"},
        {"Outputs": [{"Format/Datatype": "Channel major FP16 format"}]},
        "x" * 200,
        7,
    ]
    found = save(smallest_report(engine=engine | {"inspector": said}))
    assert tables.inspected(found) == tables.Table(
        "Layers of the engine",
        ("layer", "kind", "precision", "tactic"),
        (
            ("conv0", "CaskConvolution", "-", "sm80_xmma"),
            ("scores", "-", "Half", "-"),
            ("-", "-", "Channel major FP16 format", "-"),
            (f"{'x' * 117}...", "-", "-", "-"),
        ),
        4,
    )
    assert not any("inspector" in name for name in tables.model(found))
    many = tables.inspected(
        save(smallest_report(engine=engine | {"inspector": ["a"] * 1_500}))
    )
    assert many is not None
    assert many.title == "Layers of the engine, 1,300 more left out"
    assert many.columns == ("layer",)
    assert many.rows == (("a",),) * 200
    for nothing in (None, [], "text", [1, None]):
        report = save(smallest_report(engine=engine | {"inspector": nothing}))
        assert tables.inspected(report) is None
    assert tables.inspected(save(smallest_report())) is None
