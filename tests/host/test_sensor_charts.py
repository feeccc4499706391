# SPDX-License-Identifier: Apache-2.0
"""Readings are sorted into quantities that may share an axis."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edge_imprint.sensor_charts import groups, render, throttled

TIMES = np.arange(0, 10, 0.25)
FLAT = np.ones(40)


@pytest.mark.parametrize(
    ("name", "label", "short"),
    [
        ("cpu_mhz", "clock, MHz", "cpu"),
        ("cpu_mhz_max", "clock, MHz", "cpu max"),
        ("gpu_memory_mhz", "clock, MHz", "gpu memory"),
        ("emc_mhz", "clock, MHz", "emc"),
        ("temperature_c.soc0", "temperature, °C", "soc0"),
        ("gpu_temperature_c", "temperature, °C", "gpu"),
        ("power_w.VDD_CPU_GPU_CV", "power, W", "VDD_CPU_GPU_CV"),
        ("gpu_power_w", "power, W", "gpu power"),
        ("gpu_percent", "load, %", "gpu"),
        ("fan_percent", "load, %", "fan"),
        ("memory_available_bytes", "memory, MB", "memory available"),
        ("own_rss_bytes", "memory of this process, MB", "resident"),
        ("load_average_1min", "load average 1min", "load average 1min"),
    ],
)
def test_a_name_says_its_quantity(name: str, label: str, short: str) -> None:
    ((found, lines),) = groups(TIMES, {name: 5e6 * FLAT}).items()
    assert (found, list(lines)) == (label, [short])


def test_sums_become_how_many_cores_work() -> None:
    found = groups(TIMES, {"own_cpu_s": 1.5 * TIMES, "busy_cpu_s": 2 * TIMES + 100})
    lines = found["cores at work"]
    assert np.nanmin(lines["this process"]) == pytest.approx(1.5)
    assert np.nanmax(lines["all processes"]) == pytest.approx(2)
    assert np.isnan(lines["this process"][:4]).all()  # nothing is known of the first second


def test_bytes_are_shown_in_units_for_people() -> None:
    found = groups(TIMES, {"gpu_memory_used_bytes": 2e9 * FLAT, "own_rss_bytes": 7e7 * FLAT})
    assert found["memory, MB"]["gpu memory used"][0] == 2_000
    assert found["memory of this process, MB"]["resident"][0] == 70


def test_what_says_nothing_is_left_out() -> None:
    nothing = {
        "cpu_mhz": np.nan * FLAT,
        "power_w.VDD_OFF": 0 * FLAT,
        "gpu_throttle_thermal": FLAT,
        "own_cpu_s": np.where(TIMES > 0.5, np.nan, TIMES),
    }
    assert list(groups(TIMES, nothing)) == []
    assert list(groups(TIMES[:1], {"own_cpu_s": FLAT[:1]})) == []


def test_throttling_is_named_by_its_reason() -> None:
    readings = {
        "gpu_throttle_hw_thermal_slowdown": np.where(TIMES > 5, 1.0, 0.0),
        "gpu_throttle_sw_power_cap": np.where(TIMES > 5, np.nan, 0.0),
        "gpu_mhz": FLAT,
    }
    assert throttled(readings) == ("hw thermal slowdown",)


def test_a_chart_a_quantity_with_the_largest_lines() -> None:
    zones = {f"temperature_c.zone{i}": (30 + i) * FLAT for i in range(9)}
    html = render(TIMES, zones | {"cpu_mhz": 2_400 * FLAT})
    assert html.count("<svg") == 2
    (label,) = re.findall(r'aria-label="(temperature[^"]*)"', html)
    assert "zone8 38 to 38" in label
    assert render(TIMES, {}) == ""
