# SPDX-License-Identifier: Apache-2.0
"""The charts of latency draw what was measured, thinned, and keep the slowest samples."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from edge_imprint import bench_charts
from edge_imprint_runtime.reporting.schema import Recorded
from tests.report_example import example_series, latencies


def recorded(count: int, *, batch: int = 1, name: str = "fused") -> Recorded:
    made = example_series(name, count, 2.0 * batch, batch=batch)
    samples, starts, warm_up = (
        np.array(made.pop(key), np.int64) for key in ("samples_ns", "starts_ns", "warm_up_ns")
    )
    return Recorded(made, samples, starts, warm_up)


@pytest.mark.parametrize("count", [1, 7, 240, 20_000])
def test_the_distribution_ends_at_all_of_them(count: int) -> None:
    figure, samples = Figure(), latencies(count, 2.0)
    bench_charts.ecdf(figure, [("fused", samples)])
    (line,) = figure.axes[0].get_lines()
    ms, share = (np.asarray(side, float) for side in line.get_data())
    assert len(ms) <= 240
    assert share[-1] == 100
    assert ms[-1] == samples.max() / 1e6
    for x, y in zip(ms, share, strict=True):
        assert y == pytest.approx(100 * (samples / 1e6 <= x).mean(), abs=101 / count)


def test_the_tail_goes_through_the_percentiles() -> None:
    figure, series = Figure(), recorded(10_000)
    bench_charts.tail(figure, [("fused", series.samples_ns)])
    (line,) = figure.axes[0].get_lines()
    nines, ms = (np.asarray(side, float) for side in line.get_data())
    for key, at in (("p90_ms", 1), ("p99_ms", 2), ("p99_9_ms", 3)):
        near = np.abs(nines - at) < 0.03
        assert ms[near].min() <= series.summary[key] <= ms[near].max() * 1.01
    assert ms[-1] == series.samples_ns.max() / 1e6


@pytest.mark.parametrize("count", [300, 5_000])
def test_over_time_the_slowest_are_kept(count: int) -> None:
    figure, series = Figure(), recorded(count)
    series.samples_ns[count // 2] = 10**9
    bench_charts.over_time(figure, [series], {"fused, batch 1": ["drift"]})
    warm, axes = figure.axes
    assert len(warm.get_lines()[0].get_xdata()) == 60
    points = [line.get_ydata() for line in axes.get_lines()]
    assert max(np.max(np.asarray(ms, float)) for ms in points) == 1_000
    assert sum(len(ms) for ms in points) <= 1_200
    legend = axes.get_legend()
    assert legend is not None
    (text,) = legend.get_texts()
    assert text.get_text() == "fused, batch 1 - drift"
    assert text.get_color() == "#b91c1c"


def test_by_batch_is_by_image() -> None:
    figure, series = Figure(), [recorded(50), recorded(50, batch=8)]
    bench_charts.by_batch(figure, series)
    p50, p99 = figure.axes[0].get_lines()
    assert list(np.asarray(p50.get_ydata())) == [s.summary["p50_ms"] / s.batch for s in series]
    assert list(np.asarray(p99.get_ydata())) == [s.summary["p99_ms"] / s.batch for s in series]


def test_a_name_is_no_formula_and_its_end_is_kept() -> None:
    assert bench_charts.plain("$a$") == r"\$a\$"
    assert bench_charts.plain("x" * 60 + "/Conv", 20) == f"…{'x' * 14}/Conv"
