# SPDX-License-Identifier: Apache-2.0
"""Energy of an image, against integrals done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_imprint_runtime.measuring.energy import energy_of
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.sensors import Trace

S = 1_000_000_000


def trace(**readings: list[float]) -> Trace:
    times = np.arange(len(next(iter(readings.values()))), dtype=np.float64)
    named = {name.replace("__", "."): np.array(v, float) for name, v in readings.items()}
    return Trace(times, named)


def series(samples_s: list[float], starts_s: list[float], **options: float) -> Series:
    samples, starts = (np.array(v) * S for v in (samples_s, starts_s))
    return Series("fused", 2, samples.astype(np.int64), starts.astype(np.int64), **options)  # type: ignore[arg-type]


def test_only_its_own_turns_are_counted() -> None:
    """10 W while it runs, 30 W while another does."""
    power = trace(gpu_power_w=[10, 10, 30, 30, 10, 10])
    found = energy_of(series([0.5, 0.5], [0.2, 4.3]), power)
    assert found == {
        "joules_per_image": pytest.approx(10 * 1.0 / 4),
        "mean_power_w": pytest.approx(10.0),
        "source": "gpu_power_w",
        "series": "fused",
    }


def test_a_rising_power_is_read_where_the_sample_lies() -> None:
    found = energy_of(series([1.0], [1.5]), trace(gpu_power_w=[0, 10, 20, 30]))
    assert found is not None
    assert found["joules_per_image"] == pytest.approx(20 * 1.0 / 2)


@pytest.mark.parametrize("options", [{"concurrency": 2}, {"offered_per_s": 5.0}])
def test_calls_that_overlap_share_the_whole_span(options: dict[str, float]) -> None:
    found = energy_of(
        series([1.0, 1.0], [0.5, 0.5], **options), trace(gpu_power_w=[10, 10, 10])
    )
    assert found is not None
    assert found["joules_per_image"] == pytest.approx(10 * 1.0 / 4)
    assert found["mean_power_w"] == pytest.approx(10.0)


def test_the_whole_board_goes_before_the_gpu() -> None:
    found = energy_of(
        series([1.0], [0.5]), trace(gpu_power_w=[5, 5, 5], power_w__total=[20, 20, 20])
    )
    assert found is not None
    assert (found["source"], found["mean_power_w"]) == ("power_w.total", 20)


def test_without_a_power_there_is_no_energy() -> None:
    assert energy_of(series([1.0], [0.5]), trace(cpu_percent=[1, 2, 3])) is None
    assert energy_of(series([1.0], [0.5]), Trace(np.empty(0), {})) is None
    # Readings that end before the series does tell nothing of the rest of it.
    assert energy_of(series([1.0, 1.0], [0.5, 8.0]), trace(gpu_power_w=[1, 1, 1])) is None
    late = series([1.0, 1.0], [0.5, 8.0], concurrency=2)
    assert energy_of(late, trace(gpu_power_w=[1, 1, 1])) is None
    bare = Series("fused", 1, np.array([S], np.int64))
    assert energy_of(bare, trace(gpu_power_w=[1, 1, 1])) is None
