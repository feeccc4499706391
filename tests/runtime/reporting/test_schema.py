# SPDX-License-Identifier: Apache-2.0
"""A report is read as it was written, and nothing that its samples contradict is read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.errors import (
    OutputExistsError,
    OutputWriteError,
    ReportFileError,
    ReportVersionError,
)
from edge_imprint_runtime.reporting import schema
from edge_imprint_runtime.reporting.schema import Report, read_report, write_report
from tests.report_example import example_report, smallest_report

Save = Callable[..., Report]
AGAIN = "; measure again with edge-imprint bench MODEL --out FILE"


@pytest.mark.parametrize("full", [True, False])
def test_what_is_written_is_read(full: bool, tmp_path: Path) -> None:
    report = example_report(200, full=full)
    path = write_report(tmp_path / "run.json", report)
    found = read_report(path)
    assert found.data == report
    assert found.path == path
    assert found.stable
    assert found.title == "run.json"
    assert [series.title for series in found.series][:2] == (
        ["fused, batch 1", "backbone only, batch 1"] if full else ["fused, batch 1"]
    )
    for series, said in zip(found.series, report["series"], strict=True):
        assert series.samples_ns.tolist() == said["samples_ns"]
        assert series.starts_ns is not None
        assert series.starts_ns.tolist() == said["starts_ns"]
        assert series.warm_up_ns.tolist() == said["warm_up_ns"]
        assert found.find(series.key) is series
    assert found.find(("other", 1, 1, "whole", None)) is None


def test_titles_tell_series_apart(save: Save) -> None:
    found = save(example_report(200, label="orin, fp16"))
    assert found.title == "orin, fp16"
    assert [series.title for series in found.series][4:] == [
        "fused, batch 1, copy_in",
        "fused, batch 1, compute",
        "fused, batch 1, copy_out",
        "fused, batch 1, 100 calls/s offered",
        "fused, batch 1, 300 calls/s offered",
    ]
    report = smallest_report()
    report["series"][0]["concurrency"] = 4
    assert save(report).series[0].title == "fused, batch 1, 4 callers"


def test_starts_may_be_unknown(save: Save) -> None:
    report = smallest_report()
    report["series"][0]["starts_ns"] = []
    assert save(report).series[0].starts_ns is None


def test_a_written_report_can_be_looked_into(tmp_path: Path) -> None:
    report = example_report(50)
    lines = write_report(tmp_path / "run.json", report).read_text().splitlines()
    assert len(lines) < 50
    assert lines[1] == ' "schema": "edge-imprint.report/1",'
    assert any(line.startswith('  {"name": "backbone only", "batch": 8') for line in lines)


# Writing -----------------------------------------------------------------------------------


def test_writing_replaces_only_when_told(tmp_path: Path) -> None:
    path = write_report(tmp_path / "run.json", smallest_report())
    old = path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_report(path, smallest_report(p50_ms=3))
    assert path.read_bytes() == old
    write_report(path, smallest_report(p50_ms=3), force=True)
    assert path.read_bytes() != old


def test_what_is_not_sound_is_not_written(tmp_path: Path) -> None:
    report = smallest_report()
    report["series"][0]["p50_ms"] = np.float64(2)
    with pytest.raises(ReportFileError) as error:
        write_report(tmp_path / "run.json", report)
    assert str(error.value) == (
        f"{tmp_path / 'run.json'} is no sound report: series[0].p50_ms must be a number >= 0, "
        f"and is {np.float64(2)!r}{AGAIN}"
    )
    assert list(tmp_path.iterdir()) == []


def test_more_than_is_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MAX_BYTES", 3_000_000)
    report = smallest_report()
    report["verdict"]["findings"] = [
        {"code": "drift", "series": None, "text": "x" * 19_000, "severe": False}
    ] * 200
    with pytest.raises(OutputWriteError) as error:
        write_report(tmp_path / "run.json", report)
    assert str(error.value) == (
        f"cannot write {tmp_path / 'run.json'}: the report is 4 MB and 3 MB are the most that "
        "is read; take fewer samples"
    )


# Reading what is no report -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is not JSON from line 1, column 1 on" + AGAIN),
        (b'{"schema": ', "it is not JSON from line 1, column 12 on" + AGAIN),
        (b"\xff\xfe", "it is not text in UTF-8"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"schema": 1' + b"0" * 5_000 + b"}", "a number in it is too long"),
    ],
    ids=["empty", "torn", "bytes", "deep", "digits"],
)
def test_what_is_no_json(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(data)
    with pytest.raises(ReportFileError) as error:
        read_report(path)
    assert str(error.value) == f"{path} is no report: {says}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": "a", "schema": "a"}', "the key 'schema' stands twice in one object"),
        ('{"schema": NaN}', "NaN is no value of JSON"),
        ('{"schema": [-Infinity]}', "-Infinity is no value of JSON"),
    ],
)
def test_json_of_a_looser_kind(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ReportFileError) as error:
        read_report(path)
    assert str(error.value) == f"{path} is no sound report: {says}{AGAIN}"


@pytest.mark.parametrize("value", ["[]", "1", "{}", '{"schema": "edge-imprint.bench/1"}'])
def test_json_of_something_else(value: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(value)
    with pytest.raises(ReportFileError) as error:
        read_report(path)
    assert str(error.value) == (
        f"{path} is no report of edge-imprint: its key schema is not edge-imprint.report/1"
    )


def test_a_newer_schema(save: Save, tmp_path: Path) -> None:
    with pytest.raises(ReportVersionError) as error:
        save({"schema": "edge-imprint.report/2", "all": "else is unknown"})
    assert str(error.value) == (
        f"{tmp_path / 'run.json'} is of the schema edge-imprint.report/2, and this release "
        "reads edge-imprint.report/1; update edge-imprint, or measure again with this one"
    )


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}
    large = tmp_path / "large.json"
    large.write_text(" " * 2_000_001)
    monkeypatch.setattr(schema, "MAX_BYTES", 2_000_000)
    for path in (
        tmp_path / "none",
        tmp_path,
        Path("/dev/null"),
        large,
        tmp_path / ("a" * 300),
    ):
        with pytest.raises(ReportFileError) as error:
            read_report(path)
        said[path.name[:9]] = str(error.value).replace(str(path), "FILE")
    assert said == {
        "none": "there is no report FILE; make it with bench --out",
        tmp_path.name[:9]: "FILE is a folder; name a report in it",
        "null": "FILE is not a regular file; name a report",
        "large.jso": "FILE is no report that is read: it has 2 MB, and 2 MB are the most",
        "aaaaaaaaa": "cannot read FILE: file name too long",
    }


# Figures that contradict each other --------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    report = copy.deepcopy(EXAMPLE)
    change(report)
    return report


EXAMPLE = example_report(100)
FUSED = EXAMPLE["series"][0]


def _set(where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(report: dict[str, Any]) -> None:
        *path, last = where.split("/")
        place: Any = report
        for key in path:
            place = place[int(key) if key.isdigit() else key]
        place[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _set("series/0/p50_ms", 1.0),
            f"series[0].p50_ms is 1, and samples_ns say {FUSED['p50_ms']:.6g}",
        ),
        (
            _set("series/0/p99_9_ms", FUSED["p99_9_ms"] * 1.001),
            (
                f"series[0].p99_9_ms is {FUSED['p99_9_ms'] * 1.001:.6g}, and samples_ns say "
                f"{FUSED['p99_9_ms']:.6g}"
            ),
        ),
        (
            _set("series/0/mean_ms", 9.0),
            f"series[0].mean_ms is 9, and samples_ns say {FUSED['mean_ms']:.6g}",
        ),
        (
            _set("series/0/iterations", 99),
            "series[0].iterations is 99, and samples_ns holds 100 values",
        ),
        (
            _set("series/0/warm_up_ns", [1]),
            "series[0].warm_up_iterations is 60, and warm_up_ns holds 1 values",
        ),
        (
            _set("series/0/starts_ns", [1, 2]),
            "series[0].starts_ns holds 2 values, and samples_ns 100",
        ),
        (
            _set("series/0/intervals_ms/p50", [2.0, 1.0]),
            "series[0].intervals_ms.p50 ends before it begins",
        ),
        (_set("series/1", FUSED), "series[1] is there twice: fused, batch 1"),
        (_set("cold_start/p50_ms", 1.0), "cold_start.p50_ms is 1, and runs_ms say 405.25"),
        (_set("sensors/times_s/3", 0.0), "sensors.times_s runs backwards"),
        (
            _set("sensors/readings/cpu_mhz", [1.0]),
            "sensors.readings.cpu_mhz holds 1 values, and times_s 40",
        ),
        (
            _set(
                "verdict/findings",
                [{"code": "steal", "series": None, "text": "t", "severe": True}],
            ),
            "verdict.stable is true, beside a severe finding: steal",
        ),
        (_set("made_by", "me"), "made_by is no key of this schema"),
        (lambda report: report.pop("energy"), "energy is missing"),
        (
            _set("series/0/samples_ns/7", -1),
            "series[0].samples_ns[7] must be an integer >= 0, and is -1",
        ),
        (
            _set("model/sha256", "AB"),
            "model.sha256 must be of the form [0-9a-f]{64}, and is 'AB'",
        ),
        (_set("series", []), "series must hold 1 to 1000 values, and holds 0"),
        (
            _set("method/mode", "fast"),
            "method.mode must be one of turns, mlperf, load, concurrent, and is 'fast'",
        ),
    ],
)
def test_a_figure_that_is_not_so(
    change: Callable[[dict[str, Any]], None], says: str, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(ReportFileError) as error:
        save(changed(change))
    assert str(error.value) == f"{tmp_path / 'run.json'} is no sound report: {says}{AGAIN}"


def test_figures_too_large_for_a_number(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    text = json.dumps(EXAMPLE).replace('"build_s": null', '"build_s": 1e999')
    path.write_text(text.replace('"mean_power_w": 11.2', '"mean_power_w": 1e999'))
    with pytest.raises(ReportFileError) as error:
        read_report(path)
    assert str(error.value) == (
        f"{path} is no sound report: energy.mean_power_w must be a number >= 0, and is inf"
        f"{AGAIN}"
    )
