# SPDX-License-Identifier: Apache-2.0
"""The page of a measurement and of a comparison: whole, escaped, small, and without charts
where nothing can draw them. What a browser makes of them: `test_pages_in_a_browser`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from edge_imprint import bench_charts, bench_page, compare_page
from edge_imprint_runtime.reporting.compare import compare_reports
from edge_imprint_runtime.reporting.schema import Report, read_report
from tests.report_example import (
    DRIFT,
    MACHINE,
    example_report,
    example_series,
    smallest_report,
    with_series,
)

Save = Callable[..., Report]
EVIL = "<script>alert('x')</script> $a$ & \"b\""
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """Reads a page; every tag that is opened must be closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.sources: list[str] = []
        self.labels: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.sources += [value or "" for name, value in attrs if name in names]
        self.labels += [value or "" for name, value in attrs if name == "aria-label"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(made: dict[str, Any], name: str = "run.json") -> Report:
        (tmp_path / name).write_text(json.dumps(made))
        return read_report(tmp_path / name)

    return save


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def opens_offline(text: str) -> Page:
    page = Page(text)
    assert {"script", "link", "iframe", "object", "img"} & set(page.tags) == set()
    assert all(source.startswith("#") for source in page.sources)
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "@import" not in text
    return page


# One report --------------------------------------------------------------------------------


def test_the_page_shows_all(save: Save) -> None:
    found = save(example_report(400, label="on the bench"))
    text = bench_page.render(found)
    page = opens_offline(text)
    assert page.headings == [
        "The run found itself stable",
        "Latency",
        "By batch",
        "What the head costs",
        "Stages",
        "Under load",
        "MLPerf Inference, single stream",
        "Cold start",
        "Memory",
        "Energy",
        "Layers",
        "Sensors",
        "Environment",
        "How it was measured",
    ]
    assert page.texts[0] == "Latency of shop.onnx"
    assert (
        "CPUExecutionProvider (onnxruntime 1.31.1) on AMD EPYC 7B13. on the bench, "
        "2026-11-22 11:00 UTC." in page.texts
    )
    fused = found.series[0].summary
    assert f"{fused['p50_ms']:.3f}" in page.texts
    low, high = fused["intervals_ms"]["p90"]
    assert f"{low:.3f} to {high:.3f}" in page.texts
    assert "jtop fell silent: the service jtop went away." in page.texts
    assert page.tags.count("svg") == 15
    assert len(page.labels) == 15
    assert page.tags.count("caption") == page.tags.count("table")
    assert text.count(' scope="col"') == page.tags.count("th")


def test_a_small_report_has_no_empty_part(save: Save) -> None:
    page = opens_offline(bench_page.render(save(smallest_report())))
    assert page.headings == [
        "The run found itself stable",
        "Latency",
        "Environment",
        "How it was measured",
    ]
    assert page.tags.count("svg") == 3


def test_an_unstable_run_is_said_in_words_and_colour(save: Save) -> None:
    text = bench_page.render(save(smallest_report(stable=False)))
    page = opens_offline(text)
    assert '<div class="card bad"><b>NOT stable</b>' in text
    assert '<section class="verdict bad"><h2>The run found itself NOT stable</h2>' in text
    assert (
        "NOT stable: fused, batch 1: the median of the last fifth is 9 % above that of the "
        "first (drift)." in page.texts
    )
    assert 'class="card bad"' not in bench_page.render(save(smallest_report()))


def test_equal_reports_give_equal_bytes(save: Save) -> None:
    found = save(smallest_report())
    assert bench_page.render(found) == bench_page.render(found)


def test_names_are_escaped(save: Save) -> None:
    made = example_report(100, stable=False, label=EVIL)
    made["model"]["file"] = EVIL
    made["provider"]["strays"] = [EVIL]
    made["machine"] = {EVIL: EVIL, "board": EVIL}
    made["layers"][0]["name"] = EVIL
    made["verdict"]["findings"][0]["text"] = EVIL
    made["sensors"]["readings"]["temperature_c." + EVIL] = [40.0] * 40
    made["sensors"]["lost"] = {EVIL: EVIL}
    for series in made["series"][:2]:
        series["name"] = EVIL + series["name"]
    page = opens_offline(bench_page.render(save(made)))
    assert page.shown.count("<script>") > 10


def test_samples_of_unknown_times_and_odd_shapes(save: Save) -> None:
    one = example_series("fused", 1, 2.0)
    same = example_series("same", 50, 2.0)
    same["samples_ns"] = [1_000] * 50
    same |= {f"{key}_ms": 0.001 for key in ("min", "p50", "p90", "p95", "p99", "p99_9", "max")}
    zero = json.loads(json.dumps(same).replace("0.001", "0.0")) | {"name": "zero"}
    zero["samples_ns"] = [0] * 50
    zero["mean_ms"], same["mean_ms"] = 0.0, 0.001
    for series in (one, same, zero):
        series["starts_ns"] = []
        series["warm_up_ns"], series["warm_up_iterations"] = [], 0
    found = save(with_series(smallest_report(), one, same, zero))
    assert opens_offline(bench_page.render(found)).tags.count("svg") == 3


def test_sensors_of_one_reading(save: Save) -> None:
    made = smallest_report()
    made["sensors"] = {
        "interval_s": 0.25,
        "times_s": [0.0],
        "readings": {"cpu_percent": [None], "own_cpu_s": [1.0], "gpu_mhz": [600.0]},
        "lost": {},
    }
    page = opens_offline(bench_page.render(save(made)))
    assert "clock, MHz" in page.texts


def test_clocks_held_down_are_said(save: Save) -> None:
    made = example_report(50)
    made["sensors"]["readings"] |= {
        "gpu_throttle_sw_power_cap": [0.0] * 39 + [1.0],
        "gpu_throttle_hw_slowdown": [0.0] * 40,
    }
    page = opens_offline(bench_page.render(save(made)))
    assert "Clocks were held down: sw power cap." in page.texts


def test_a_long_run_gives_a_small_page_soon(save: Save) -> None:
    made = smallest_report()
    series = [
        example_series(name, 50_000, 0.3, seed=seed)
        for seed, name in enumerate(("fused", "backbone only"))
    ]
    sensors = example_report(10)["sensors"]
    times = [0.25 * i for i in range(2_400)]
    sensors["times_s"] = times
    sensors["readings"] = {
        name: [float(values[i % 40] or 0) for i in range(2_400)]
        for name, values in sensors["readings"].items()
    }
    found = save(with_series(made | {"sensors": sensors}, *series))
    start = time.process_time()
    text = bench_page.render(found)
    assert len(text) < 1_500_000
    assert time.process_time() - start < 60  # a slow machine; else it takes three


@pytest.mark.usefixtures("no_matplotlib")
def test_without_the_package_that_draws(save: Save) -> None:
    page = opens_offline(bench_page.render(save(example_report(100))))
    assert "svg" not in page.tags
    assert bench_page.NO_CHARTS in page.texts
    assert "pip install 'edge-imprint[demo]'" in bench_page.NO_CHARTS
    assert page.tags.count("table") == 6
    both = compare_reports([save(smallest_report(), "a"), save(smallest_report(1.5), "b")])
    page = opens_offline(compare_page.render(both))
    assert "svg" not in page.tags
    assert bench_page.NO_CHARTS in page.texts


def test_under_load_cards_and_rows_name_the_load(save: Save) -> None:
    series = [example_series("fused", 200, ms, **of) for ms, of in _CLOSED_AND_OFFERED]
    text = bench_page.render(save(with_series(smallest_report(), *series)))
    p50 = f"{series[1]['p50_ms']:.3f} ms"
    name = "fused, batch 1, 80 calls/s offered"
    assert f'<div class="card"><b>{p50}</b><span>p50, {name}</span></div>' in text
    for title in ("fused, batch 1", name):
        assert f"<span>{title}<small>200 samples</small></span>" in text


_CLOSED_AND_OFFERED: tuple[tuple[float, dict[str, float]], ...] = (
    (2.0, {}),
    (5.0, {"offered_per_s": 80.0}),
)


def test_a_head_of_an_unstable_run_is_marked(save: Save) -> None:
    text = bench_page.render(save(example_report(300, stable=False)))
    page = opens_offline(text)
    assert "Batch 1 is NOT reliable: the run is not stable." in page.texts
    assert "the head's cost at the median, batch 1: NOT reliable" in page.texts
    assert text.count('class="card bad"') == 2
    assert "NOT reliable" not in bench_page.render(save(example_report(300)))


def test_the_layers_of_an_engine_are_folded(save: Save) -> None:
    engine = {
        "tensorrt": "10.3.0.30",
        "gpu_name": "Orin",
        "compute_capability": "8.7",
        "driver": None,
        "cuda": "12.6",
        "precision": "fp16",
        "build_s": 431.0,
        "inspector": [{"Name": EVIL, "LayerType": "Conv"}, "scores"],
    }
    text = bench_page.render(save(smallest_report(engine=engine)))
    page = opens_offline(text)
    assert "<details><summary>Layers of the engine</summary>" in text
    assert page.tags.count("details") == 1
    assert EVIL in page.texts


# Two ---------------------------------------------------------------------------------------


def test_the_page_of_a_comparison(save: Save) -> None:
    one = save(example_report(300), "a.json")
    two = save(example_report(300, 1.6, seed=9, commit="0123abc"), "b.json")
    found = compare_reports([one, two])
    page = opens_offline(compare_page.render(found))
    assert page.texts[0] == "b.json beside a.json"
    assert page.headings == [
        *(
            "What was measured",
            "What is shown",
            "Distributions",
            "Figures",
            "What differs",
            "The runs",
        ),
    ]
    for pair in found.pairs:
        assert f"{pair.title}: {pair.words}." in page.texts
        assert f"{pair.difference.ratio:.3f}" in page.texts
    assert page.tags.count("svg") == 7
    assert "0123abc" in page.texts


def test_what_must_be_known_before_the_figures(save: Save) -> None:
    one = save(smallest_report(), "a.json")
    other = example_report(100, stable=False, machine=MACHINE | {"board": "Orin"})
    found = compare_reports([one, save(other, "b.json")], force=True)
    page = opens_offline(compare_page.render(found))
    assert page.headings[0] == "Before the figures"
    assert page.headings[-3] == "Not in all"
    for line in found.warnings:
        assert f"{line}." in page.texts
    assert "NOT stable" in page.texts


def test_an_unstable_run_gets_no_green_card(save: Save) -> None:
    base, fast = smallest_report(), smallest_report(1.6, seed=1)
    found = compare_reports([save(base, "a.json"), save(fast, "b.json")])
    text = compare_page.render(found)
    assert '<div class="card good"><b>1.2' in text
    fast["verdict"] = {"stable": False, "findings": [dict(DRIFT)]}
    found = compare_reports([save(base, "a.json"), save(fast, "b.json")], force=True)
    text = compare_page.render(found)
    assert '<div class="card bad"><b>unstable</b><span>fused, batch 1</span></div>' in text
    assert 'class="card good"' not in text
    page = opens_offline(text)
    for line in found.measured:
        assert f"{line}." in page.texts
    assert "both ran the same model file (sha256 abababababab...)." in page.texts


def test_the_chart_of_ratios_is_green_of_stable_runs_alone(save: Save) -> None:
    base, fast = smallest_report(), smallest_report(1.6, seed=1)
    for stable in (True, False):
        fast["verdict"] = {"stable": stable, "findings": [] if stable else [dict(DRIFT)]}
        found = compare_reports([save(base, "a.json"), save(fast, "b.json")], force=True)
        figure = Figure()
        bench_charts.ratios(figure, found)
        colors = {line.get_color() for line in figure.axes[0].lines}
        assert ("#15803d" in colors) == stable


def test_many_runs_and_evil_names(save: Save) -> None:
    reports = [
        save(smallest_report(seed=i, label=f"{EVIL}{i}"), f"{i}.json") for i in range(5)
    ]
    page = opens_offline(compare_page.render(compare_reports(reports)))
    assert page.shown.count("<script>") > 20


def test_a_finding_marks_its_batch_however_many_call(save: Save) -> None:
    made = with_series(
        smallest_report(stable=False),
        *(example_series("fused", 50, 2.0, batch=n, concurrency=2) for n in (1, 8)),
    )
    finding = made["verdict"]["findings"][0]
    finding |= {"series": "fused", "text": "fused (batch 8, 2 at once) drifted by 5 %"}
    found = save(made)
    marks = bench_page._marks(found, found.series)
    assert [s.batch for s in found.series if marks[s.title]] == [8]
