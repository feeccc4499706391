# SPDX-License-Identifier: Apache-2.0
"""Readings over time: resampling, energy, and the form a report keeps."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.sensors import Trace

NAN = math.nan


def trace(times: list[float], **readings: list[float]) -> Trace:
    return Trace(np.array(times), {name: np.array(v) for name, v in readings.items()})


STEPS = trace([0.0, 1.0, 2.0, 4.0], w=[10.0, 20.0, NAN, 40.0], none=[NAN] * 4)


def test_between_readings_is_a_line_and_outside_nothing() -> None:
    found = STEPS.at("w", [-0.1, 0.0, 0.5, 1.0, 2.5, 4.0, 4.1])
    np.testing.assert_allclose(found, [NAN, 10.0, 15.0, 20.0, 30.0, 40.0, NAN])
    assert np.isnan(STEPS.at("none", [0.0, 1.0])).all()
    assert np.isnan(STEPS.at("never taken", [0.0])).all()


@pytest.mark.parametrize(
    ("t0_s", "t1_s", "joules"),
    [
        (0.0, 1.0, 15.0),
        (0.0, 4.0, 15.0 + 90.0),
        (0.5, 0.75, (15.0 + 17.5) / 2 * 0.25),
        (1.0, 1.0, 0.0),
        (-0.5, 1.0, None),
        (3.0, 4.5, None),
        (2.0, 1.0, None),
    ],
)
def test_energy(t0_s: float, t1_s: float, joules: float | None) -> None:
    assert STEPS.energy_joules("w", t0_s, t1_s) == pytest.approx(joules)


def test_energy_of_what_was_never_taken() -> None:
    assert STEPS.energy_joules("none", 0.0, 1.0) is None
    assert STEPS.energy_joules("never taken", 0.0, 1.0) is None


@given(
    st.lists(st.floats(0, 500), min_size=2, max_size=30),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_energy_adds_up(watts: list[float], a: float, b: float, c: float) -> None:
    times = np.linspace(0, 1, len(watts)).tolist()
    made = trace(times, w=watts)
    low, middle, high = sorted((a, b, c))
    parts = [made.energy_joules("w", low, middle), made.energy_joules("w", middle, high)]
    whole = made.energy_joules("w", low, high)
    assert whole is not None
    assert None not in parts
    assert sum(part or 0.0 for part in parts) == pytest.approx(whole, abs=1e-9)
    # The oracle: the same line, looked at in 20,000 places.
    fine = np.linspace(low, high, 20_001)
    oracle = np.interp((fine[1:] + fine[:-1]) / 2, times, watts).mean() * (high - low)
    assert whole == pytest.approx(oracle, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        ({"power_w.VDD_SOC", "power_w.total", "gpu_power_w"}, "power_w.total"),
        ({"power_w.package-0", "gpu_power_w"}, "gpu_power_w"),
        ({"power_w.core", "power_w.package-0"}, "power_w.package-0"),
        ({"power_w.core", "cpu_mhz"}, None),
    ],
)
def test_which_power_counts(names: set[str], best: str | None) -> None:
    made = trace([0.0], **{key: [1.0] for key in sorted(names)})
    assert made.power_reading() == best


def test_a_power_that_was_never_read_does_not_count() -> None:
    made = trace([0.0], **{"power_w.total": [NAN], "gpu_power_w": [3.0]})
    assert made.power_reading() == "gpu_power_w"


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
)
def test_json_there_and_back(readings: dict[str, list[float]], lost: dict[str, str]) -> None:
    made = Trace(
        np.array([0.0, 0.25, 0.5]), {k: np.array(v) for k, v in readings.items()}, lost, 0.1
    )
    again = json.loads(json.dumps(made.as_json(), allow_nan=False))
    assert (again["interval_s"], again["times_s"]) == (0.1, [0.0, 0.25, 0.5])
    assert again["lost"] == lost
    assert list(again["readings"]) == list(readings)
    for name, values in readings.items():
        np.testing.assert_array_equal(np.array(again["readings"][name], np.float64), values)


def test_json_has_null_for_what_is_missing() -> None:
    made = Trace(np.array([0.0, 0.25]), {"a_s": np.array([1.0, NAN])}, {"nvml": "gone"})
    assert made.as_json() == {
        "interval_s": 0.25,
        "times_s": [0.0, 0.25],
        "readings": {"a_s": [1.0, None]},
        "lost": {"nvml": "gone"},
    }


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STEPS.interval_s = 1.0  # type: ignore[misc]
