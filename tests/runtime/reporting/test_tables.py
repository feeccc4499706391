# SPDX-License-Identifier: Apache-2.0
"""What a report says in tables and facts."""

from __future__ import annotations

from collections.abc import Callable

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
    report = example_report(200)
    fused = report["series"][0]
    assert tables.headline(save(report)) == {
        "p50, fused, batch 1": f"{fused['p50_ms']:.3f} ms",
        "p99": f"{fused['p99_ms']:.3f} ms",
        "images a second": figure(fused["throughput_images_per_s"]),
        "this run is": "stable",
    }
    assert tables.headline(save(smallest_report(stable=False)))["this run is"] == "NOT stable"


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
    assert len(tables.percentiles(save(report), bounds=False).columns) == 7


def test_what_the_head_costs(save: Save) -> None:
    base = smallest_report()
    found = tables.head_costs(
        save(
            with_series(
                base,
                example_series("fused", 2_000, 2.2, seed=1),
                example_series("backbone only", 2_000, 2.0, seed=2),
                example_series("fused", 500, 2.0, batch=8, seed=3),
                example_series("backbone only", 500, 2.0, batch=8, seed=4),
                example_series("fused", 500, 2.0, batch=4),
            )
        )
    )
    assert [cost.batch for cost in found] == [1, 8]
    one, eight = found
    assert one.shown
    assert one.ms == pytest.approx(0.2, abs=0.02)
    assert one.bounds_ms[0] < one.ms < one.bounds_ms[1]
    assert one.text == (
        f"+{one.ms:.4f} ms (+{one.bounds_ms[0]:.4f} to +{one.bounds_ms[1]:.4f}), "
        f"{100 * (one.ratio - 1):.1f} % of the backbone"
    )
    assert not eight.shown
    assert eight.text.startswith("none shown: ")
    assert eight.bounds_ms[0] < 0 < eight.bounds_ms[1]


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
        "the rules ask for": "24,576 queries and 600 s",
        "long enough": "NO: 2,000 of 24,576 queries in 4.1 of 600 seconds",
    }
    assert tables.cold_start(found) == {
        "what": "from the start of a process to its first label",
        "median": "405.2 ms",
        "of 5 runs": "398.5 ms to 440.0 ms",
    }
    assert tables.memory(found) == {
        "before opening the model": "57.2 MiB",
        "after opening it": "93.5 MiB",
        "at most": "124.9 MiB",
    }
    assert tables.energy(found) == {
        "an image": "23.10 mJ",
        "mean power": "11.20 W",
        "read off": "power_w.VDD_IN",
        "while": "fused ran",
    }
    assert tables.machine(found)["memory"] == "7.73 GiB"
    assert "board" not in tables.machine(found)
    assert tables.method(found)["measured"] == "2026-11-22 11:00 UTC"
    assert tables.provider(found)["nodes"] == "CPUExecutionProvider 27"
    assert "nodes elsewhere" not in tables.provider(found)


def test_what_was_not_measured_is_not_said(save: Save) -> None:
    found = save(smallest_report())
    made = (tables.mlperf, tables.cold_start, tables.memory, tables.energy)
    assert [facts(found) for facts in made] == [{}] * 4
    assert [made(found) for made in (tables.stages, tables.load, tables.layers)] == [None] * 3
    assert tables.head_costs(found) == ()


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
