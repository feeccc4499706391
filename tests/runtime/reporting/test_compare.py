# SPDX-License-Identifier: Apache-2.0
"""Runs held against each other: pairs, words, what differs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.errors import (
    ParameterError,
    ReportFileError,
    UnstableReportError,
)
from edge_imprint_runtime.reporting.compare import (
    Comparison,
    compare_reports,
)
from edge_imprint_runtime.reporting.schema import Report
from tests.report_example import (
    DRIFT,
    MACHINE,
    example_report,
    example_series,
    smallest_report,
    with_series,
)

Save = Callable[..., Report]


def held(save: Save, *reports: dict[str, Any], force: bool = False) -> Comparison:
    letters = "abcdef"[: len(reports)]
    made = [save(r, f"{letter}.json") for letter, r in zip(letters, reports, strict=True)]
    return compare_reports(made, force=force)


def test_a_run_that_is_faster(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(1.6, seed=1))
    (pair,) = found.pairs
    assert pair.title == "fused, batch 1"
    assert (pair.base, pair.other) == ("a.json", "b.json")
    assert pair.difference.ratio == pytest.approx(0.8, rel=0.02)
    low, high = pair.difference.interval
    assert pair.words == (
        f"b.json is {1 / pair.difference.ratio:.3f} x as fast as a.json "
        f"({1 / high:.3f} to {1 / low:.3f})"
    )
    assert found.facts == ()
    assert found.warnings == ()


def test_percentiles_are_samples_of_each(save: Save) -> None:
    reports = smallest_report(2.0), smallest_report(1.6, seed=1)
    (pair,) = held(save, *reports).pairs
    for report, said in zip(reports, (pair.base_ms, pair.other_ms), strict=True):
        (series,) = report["series"]
        assert said == {key: series[f"{key}_ms"] for key in ("p50", "p90", "p99")}


def test_a_run_that_is_slower(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(2.2, seed=1))
    (pair,) = found.pairs
    low, high = pair.difference.interval
    words = f"b.json takes {pair.difference.ratio:.3f} x as long as a.json"
    assert pair.words == f"{words} ({low:.3f} to {high:.3f})"


def test_runs_of_the_same(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(2.0, seed=1))
    (pair,) = found.pairs
    low, high = pair.difference.interval
    assert low < 1 < high
    assert pair.words == f"no difference shown (ratio {low:.3f} to {high:.3f})"


def test_series_without_a_counterpart_are_said(save: Save) -> None:
    base = smallest_report()
    one, eight, load = (
        example_series("fused", 200, 2.0),
        example_series("fused", 200, 12.0, batch=8),
        example_series("fused", 200, 2.1, offered_per_s=50.0),
    )
    found = held(
        save,
        with_series(base, one, eight),
        with_series(base, load, one),
        with_series(base, one),
    )
    assert [(pair.title, pair.other) for pair in found.pairs] == [
        ("fused, batch 1", "b.json"),
        ("fused, batch 1", "c.json"),
    ]
    assert found.alone == (
        ("fused, batch 8", ("a.json",)),
        ("fused, batch 1, 50 calls/s offered", ("b.json",)),
    )


def test_runs_without_a_series_in_common(save: Save, tmp_path: Path) -> None:
    base = smallest_report()
    eight = with_series(base, example_series("fused", 200, 12.0, batch=8))
    with pytest.raises(ReportFileError) as error:
        held(save, base, eight)
    assert str(error.value) == (
        f"{tmp_path / 'b.json'} and {tmp_path / 'a.json'} have no series in common: a.json "
        "has fused, batch 1; b.json has fused, batch 8"
    )


def test_what_differs(save: Save) -> None:
    other = smallest_report(seed=1, label="tuned", commit="0123abc")
    other["model"] |= {"precision": "fp16", "sha256": "cd" * 32}
    other["provider"] |= {"threads": 1, "nodes": {"CPUExecutionProvider": 20}}
    other["machine"] |= {"power_mode": "MAXN", "load_average_1min": 3.0}
    found = held(save, smallest_report(), other)
    assert dict(found.facts) == {
        "sha256": ("ab" * 32, "cd" * 32),
        "precision": ("fp32", "fp16"),
        "threads": ("2", "1"),
        "nodes": ("CPUExecutionProvider 27", "CPUExecutionProvider 20"),
        "power mode": ("-", "MAXN"),
        "commit": ("-", "0123abc"),
    }
    assert found.facts_table.columns == ("what differs", "a.json", "tuned")
    assert found.warnings == ()


def test_another_device_is_said_loudly(save: Save) -> None:
    board = MACHINE | {"board": "NVIDIA Jetson Orin Nano", "gpu_name": "Orin"}
    found = held(save, smallest_report(), smallest_report(seed=1, machine=board))
    (warning,) = found.warnings
    assert warning == (
        "these are DIFFERENT DEVICES (a.json: AMD EPYC 7B13; b.json: NVIDIA Jetson Orin Nano, "
        "Orin)"
    )


def test_an_unstable_run_is_refused(save: Save, tmp_path: Path) -> None:
    unstable = smallest_report(stable=False)
    drift = DRIFT["text"]
    with pytest.raises(UnstableReportError) as error:
        held(save, smallest_report(), unstable)
    assert str(error.value) == (
        f"an unstable run says nothing beside another: {tmp_path / 'b.json'} (drift); "
        "measure it again, or pass --force (in Python force=True)"
    )
    found = held(save, smallest_report(), unstable, force=True)
    assert found.warnings == (f"b.json is NOT stable: {drift}",)
    said = found.as_json()
    assert [side["stable"] for side in said["sides"]] == [True, False]
    (pair,) = found.pairs
    assert not pair.stable
    assert not said["series"][0]["stable"]
    low, high = pair.difference.interval
    assert pair.words == (
        "UNSTABLE, so only as it was seen: no difference shown "
        f"(ratio {low:.3f} to {high:.3f})"
    )


def test_several_unstable_runs_are_refused_in_one_sentence(save: Save, tmp_path: Path) -> None:
    first, second = smallest_report(stable=False), smallest_report(stable=False)
    note = dict(DRIFT, code="governor", severe=False)
    first["verdict"]["findings"] = [note, dict(DRIFT, code="throttle"), dict(DRIFT)]
    second["verdict"]["findings"] = [note]
    with pytest.raises(UnstableReportError) as error:
        held(save, first, smallest_report(), second)
    assert str(error.value) == (
        f"an unstable run says nothing beside another: {tmp_path / 'a.json'} (throttle), "
        f"{tmp_path / 'c.json'}; measure them again, or pass --force (in Python force=True)"
    )


def test_a_warning_names_the_run_that_is_unstable(save: Save, tmp_path: Path) -> None:
    reports = [
        smallest_report(label=label, seed=seed, stable=seed != 2)
        for seed, label in enumerate(("old", "new", "old", "new"))
    ]
    found = held(save, *reports, force=True)
    assert found.warnings == (f"old ({tmp_path / 'c.json'}) is NOT stable: {DRIFT['text']}",)


def test_what_was_measured_and_where_is_said(save: Save) -> None:
    same = held(save, smallest_report(), smallest_report(seed=1, machine=MACHINE))
    assert same.measured == (
        "a.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13",
        "b.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13",
        "both ran the same model file (sha256 abababababab...)",
    )
    other = smallest_report(machine=MACHINE | {"board": "Orin"})
    other["model"] |= {"file": "/models/shop.engine", "sha256": "cd" * 32}
    other["provider"]["name"] = "TensorRT"
    found = held(save, smallest_report(), other)
    assert found.measured[1:] == ("b.json: shop.engine, TensorRT on Orin",)
    side = found.as_json()["sides"][1]
    assert {key: side[key] for key in ("model", "model_sha256", "provider", "device")} == {
        "model": "shop.engine",
        "model_sha256": "cd" * 32,
        "provider": "TensorRT",
        "device": "Orin",
    }
    three = held(save, *(smallest_report(seed=seed) for seed in range(3)))
    assert three.measured[-1].startswith("all 3 ran the same model file")


def test_many_reasons_are_cut_short(save: Save) -> None:
    unstable = smallest_report(stable=False)
    unstable["verdict"]["findings"] = [dict(DRIFT, text=f"reason {i}.") for i in range(5)]
    found = held(save, smallest_report(), unstable, force=True)
    (warning,) = found.warnings
    assert warning == "b.json is NOT stable: reason 0; reason 1; reason 2; and 2 more"


# Repeated runs -----------------------------------------------------------------------------


def test_runs_under_one_label_are_one_side(save: Save) -> None:
    reports = [
        smallest_report(2.0 if label == "old" else 1.5, seed=seed, label=label)
        for seed, label in enumerate(("old", "new", "old", "new"))
    ]
    found = held(save, *reports)
    assert [(side.title, len(side.runs)) for side in found.sides] == [("old", 2), ("new", 2)]
    (pair,) = found.pairs
    assert pair.difference.runs == (2, 2)
    assert pair.words.startswith("new is 1.3")
    pooled = np.sort([ns for i in (0, 2) for ns in reports[i]["series"][0]["samples_ns"]])
    assert pair.base_ms["p50"] == pooled[299] / 1e6
    assert found.advice is None


def test_one_run_a_side_is_advised_upon(save: Save) -> None:
    assert held(save, smallest_report(), smallest_report(seed=1)).advice == (
        "two runs of one thing may differ by 1 or 2 % of themselves, which one run a side "
        "can't tell; for small differences measure each side several times, under one --label "
        "each, and give all the reports"
    )


def test_one_label_and_nothing_else_is_two_sides(save: Save) -> None:
    found = held(save, smallest_report(label="x"), smallest_report(label="x", seed=1))
    assert len(found.sides) == 2
    assert len({side.title for side in found.sides}) == 2


def test_one_label_on_what_differs_is_two_sides(save: Save) -> None:
    reports = [smallest_report(label="x", commit=commit) for commit in ("1", "1", "2")]
    found = held(save, *reports)
    assert [len(side.runs) for side in found.sides] == [2, 1]
    assert dict(found.facts) == {"commit": ("1", "2")}


def test_a_report_beside_itself(save: Save) -> None:
    report = save(smallest_report())
    found = compare_reports([report, report])
    assert [side.title for side in found.sides] == [f"{report.path} ({n})" for n in (1, 2)]
    assert found.pairs[0].difference.ratio == 1
    assert not found.pairs[0].difference.significant


def test_one_report_is_no_comparison(save: Save) -> None:
    with pytest.raises(ParameterError) as error:
        compare_reports([save(smallest_report())])
    assert str(error.value) == "a comparison takes two reports or more, got 1"


# Tables and JSON ---------------------------------------------------------------------------


def test_the_table_of_pairs(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(1.6, seed=1))
    (pair,) = found.pairs
    low, high = pair.difference.interval
    times = [f"{pair.base_ms[p]:.3f} / {pair.other_ms[p]:.3f}" for p in ("p50", "p90", "p99")]
    table = found.pairs_table()
    assert table.columns == (
        *("series", "p50", "p90", "p99", "ratio of p50", "interval", "p-value"),
    )
    ratio = (f"{pair.difference.ratio:.3f}", f"{low:.3f} to {high:.3f}")
    assert table.rows == (("fused, batch 1", *times, *ratio, "< 0.001"),)
    narrow = found.pairs_table(narrow=True)
    assert narrow.rows == (("fused, batch 1", *times, "< 0.001"),)
    assert len(narrow.columns) == 5


def test_of_three_the_table_names_each(save: Save) -> None:
    found = held(save, *(smallest_report(seed=seed) for seed in range(3)))
    assert [row[:2] for row in found.pairs_table().rows] == [
        ("fused, batch 1", "b.json"),
        ("fused, batch 1", "c.json"),
    ]


def test_all_of_it_as_json(save: Save) -> None:
    found = held(save, example_report(100), example_report(100, 1.5, seed=1, commit="1"))
    said = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert said["base"] == "a.json"
    assert said["differs"] == {"commit": ["-", "1"]}
    assert [series["title"] for series in said["series"]] == [p.title for p in found.pairs]
    assert said["series"][0]["words"] == found.pairs[0].words
