# SPDX-License-Identifier: Apache-2.0
"""ei-bench judges a measurement as Python's bench does: the same findings, word for word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.measuring.judge import judge
from edge_imprint_runtime.measuring.series import Series, rate_text
from edge_imprint_runtime.sensors import Trace
from tests.c.asking import Asked

Floats = npt.NDArray[np.float64]
Facts = Mapping[str, str | int | float | None]

QUIET_FACTS: Facts = {"cores": 2, "cpu_governor": "performance"}
RUN_S, EACH_NS, COUNT = 20.0, 10_000_000, 2_000
TIMES: Floats = np.arange(0, RUN_S + 0.01, 0.25, dtype=np.float64)
SAMPLES_S = np.arange(COUNT) / 100

NOISE = np.exp(0.02 * np.random.default_rng(0).standard_normal(COUNT))
ALIKE = np.exp(0.05 * np.repeat(np.random.default_rng(0).standard_normal(100), 20))
MIDDLE = (SAMPLES_S > 8) & (SAMPLES_S < 13)
RARE = np.random.default_rng(1).random(COUNT) < 0.3

# How latency goes over the run; what it is multiplied by.
FACTORS: dict[str, Floats] = {
    "quiet": np.ones(COUNT),
    "drift": 1 + 0.1 * SAMPLES_S / RUN_S,
    "falling": 1 - 0.1 * SAMPLES_S / RUN_S,
    "step": np.where(SAMPLES_S < 12, 1.0, 1.2),
    "burst": np.where(MIDDLE, 1.3, 1.0),
    "tail burst": np.where(MIDDLE & RARE, 3.0, 1.0),
    "two bursts": np.where((SAMPLES_S % 10 > 4) & (SAMPLES_S % 10 < 6.5), 1.5, 1.0),
    "alike": ALIKE,
}

# What the sensors of a quiet run say, and what else they may say.
QUIET: dict[str, Floats] = {"own_cpu_s": TIMES, "busy_cpu_s": 1.04 * TIMES}
READINGS: dict[str, dict[str, Floats]] = {
    "quiet": {},
    "other load": {"busy_cpu_s": 1.5 * TIMES},
    "a burst of load": {"busy_cpu_s": 1.02 * TIMES + np.clip(TIMES - 8, 0, 2)},
    "steal": {"steal_s": 0.2 * TIMES},
    "a little steal": {"steal_s": 0.01 * TIMES},
    "quota": {"quota_throttled_s": 0.3 * TIMES},
    "gpu clock": {"gpu_mhz": np.where((TIMES > 6) & (TIMES < 11), 210.0, 1_900.0)},
    "gpu memory clock": {"gpu_memory_mhz": np.where(TIMES < 7, 7_000.0, 9_500.0)},
    "memory clock": {"emc_mhz": np.where(TIMES < 7, 2_133.0, 3_199.0)},
    "cpu clock": {"cpu_mhz_max": np.where(TIMES < 10, 3_200.0, 1_900.0), "cpu_mhz": TIMES},
    "mean cpu clock": {"cpu_mhz": np.where(TIMES < 10, 3_200.0, 1_900.0)},
    "jitter": {"cpu_mhz_max": np.where(np.arange(len(TIMES)) % 2, 3_200.0, 2_500.0)},
    "heat slows": {"gpu_throttle_sw_thermal_slowdown": np.where(TIMES > 15, 1.0, 0.0)},
    "a power cap": {"gpu_throttle_sw_power_cap": np.ones_like(TIMES)},
    "synced": {"gpu_throttle_sync_boost": np.ones_like(TIMES)},
    "not slowed": {"gpu_throttle_hw_slowdown": np.zeros_like(TIMES)},
    "cpu throttle": {"cpu_throttle_count": np.where(TIMES > 15, 7.0, 4.0)},
    "getting hot": {"temperature_c.tj": 60 + 1.6 * TIMES, "temperature_c.gpu": 50 + TIMES},
    "hot": {"temperature_c.gpu": np.full_like(TIMES, 88.0)},
    "nothing": {
        name: np.full_like(TIMES, np.nan)
        for name in ("gpu_mhz", "steal_s", "temperature_c.gpu", "gpu_throttle_hw_slowdown")
    },
    "gone": {"gpu_mhz": np.where(TIMES < 5, 900.0, np.nan)},
}
FACTS: dict[str, dict[str, str | int | float]] = {
    "quiet": {},
    "many cores": {"cores": 16},
    "no cores": {"cores": 0},
    "powersave": {"cpu_governor": "powersave"},
    "a Jetson": {"l4t": "36.4.0", "jetson_clocks": "on"},
    "a Jetson at rest": {
        "jetpack": "6.2",
        "jetson_clocks": "off",
        "cpu_governor": "schedutil",
    },
    "a Jetson's files": {"l4t": "36.4.0", "gpu_clocks_locked": "no"},
}


def series(factor: str = "quiet", **options: Any) -> Series:
    """Two thousand runs of 10 ms, in 20 s."""
    samples = (EACH_NS * NOISE * FACTORS[factor]).astype(np.int64)
    starts = np.arange(COUNT, dtype=np.int64) * EACH_NS
    options = {"name": "fused", "batch": 1, "starts_ns": starts, **options}
    return Series(samples_ns=samples, **options)


def cut(one: Series, first: int, last: int, **options: Any) -> Series:
    starts = None if one.starts_ns is None else one.starts_ns[first:last]
    return Series("fused", 1, one.samples_ns[first:last], starts, **options)


@pytest.fixture(scope="module")
def ask(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One judge_check for all tests of this file."""
    folder = tmp_path_factory.mktemp("judge")
    with Asked(c_build / "tests" / "judge_check", folder, separator="\t") as program:
        yield program


def tell(ask: Asked, measured: list[Series], trace: Trace | None, facts: Facts) -> None:
    for one in measured:
        starts = "-" if one.starts_ns is None else ask.file(one.starts_ns)
        words = (one.name, one.batch, one.stage, one.concurrency, int(one.warmed_up))
        offered = one.offered_per_s or 0
        ask("series", *words, offered, len(one.samples_ns), ask.file(one.samples_ns), starts)
    if trace is not None:
        ask("trace", len(trace.times_s), ask.file(trace.times_s))
        for name, values in trace.readings.items():
            ask("reading", name, ask.file(values))
        for source, reason in trace.lost.items():
            ask("lost", source, reason)
    for fact, value in facts.items():
        ask("fact", fact, value)


def both(ask: Asked, measured: list[Series], trace: Trace | None, facts: Facts) -> list[str]:
    """Hold both sides' findings equal; return their codes."""
    tell(ask, measured, trace, facts)
    stable, findings = ask("judge")
    want = judge(measured, trace, facts).as_json()
    for finding in want["findings"]:  # the C program reads its sensors itself
        finding["text"] = finding["text"].replace("install psutil, or measure", "measure")
    assert findings == want["findings"]
    assert stable == want["stable"]
    return [finding["code"] for finding in findings]


def seen(readings: str, lost: Mapping[str, str] | None = None) -> Trace:
    return Trace(TIMES, QUIET | READINGS[readings], lost or {})


def test_a_quiet_run_stands(ask: Asked) -> None:
    assert both(ask, [series()], seen("quiet"), QUIET_FACTS) == []


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("timed", [True, False], ids=["timed", "untimed"])
def test_what_the_samples_say(ask: Asked, factor: str, timed: bool) -> None:
    options: dict[str, Any] = {} if timed else {"starts_ns": None}
    codes = both(ask, [series(factor, **options)], seen("quiet"), QUIET_FACTS)
    want = {
        "quiet": [],
        "drift": ["drift"],
        "falling": ["drift"],
        "alike": ["too_few_samples"],
        "two bursts": ["too_few_samples"],  # as often up as down is likeness, no shift
    }
    assert codes == want.get(factor, ["level_shift"])


@pytest.mark.parametrize("readings", READINGS)
@pytest.mark.parametrize("facts", FACTS)
def test_what_the_machine_says(ask: Asked, readings: str, facts: str) -> None:
    codes = both(ask, [series()], seen(readings), {**QUIET_FACTS, **FACTS[facts]})
    if facts == "quiet":
        nothing = ("quiet", "a little steal", "jitter", "not slowed", "nothing", "gone")
        assert bool(codes) == (readings not in nothing)


def test_every_finding_was_provoked(ask: Asked) -> None:
    """Of all the codes that judging has, at once, the severe ones first."""
    everything: dict[str, Floats] = dict(QUIET)
    for readings in READINGS.values():
        everything |= {name: v for name, v in readings.items() if not np.isnan(v).any()}
    everything |= {"busy_cpu_s": 1.5 * TIMES, "steal_s": 0.2 * TIMES}
    trace = Trace(TIMES, everything, {"sysfs": "it was taken away (no file)"})
    measured = [
        series("drift", warmed_up=False),
        series("step", name="backbone only"),
        cut(series("alike"), 0, 100, concurrency=3),
    ]
    codes = both(ask, measured, trace, {"cores": 2, "cpu_governor": "powersave"})
    assert set(codes) == {
        "not_warmed_up",
        "drift",
        "level_shift",
        "too_few_samples",
        "other_load",
        "steal",
        "throttle",
        "clock_change",
        "temperature",
        "sensor_lost",
        "governor",
    }
    assert both(ask, measured, None, {})[-1] == "no_sensors"


@pytest.mark.parametrize("cores", [1, 2, 6])
@pytest.mark.parametrize(("first", "last"), [(0, 2_000), (0, 800), (1_300, 2_000), (700, 750)])
def test_readings_count_while_samples_were_taken(
    ask: Asked, cores: int, first: int, last: int
) -> None:
    others = np.cumsum(np.where((TIMES > 8.6) & (TIMES < 12.4), 0.5, 0.01))
    trace = Trace(TIMES, {"own_cpu_s": TIMES, "busy_cpu_s": TIMES + others})
    both(ask, [cut(series(), first, last)], trace, {"cores": cores})
    parts = [cut(series(), 0, 800), cut(series(), 1_300, 2_000)]
    both(ask, parts, trace, {"cores": cores})
    both(ask, parts[::-1], trace, {"cores": cores})


@pytest.mark.parametrize("run_s", [0.5, 2.0, 3.0, 8.0, 20.0, 120.0])
def test_runs_of_any_length(ask: Asked, run_s: float) -> None:
    times = np.arange(0, run_s + 0.01, 0.25)
    starts = np.arange(int(run_s * 100), dtype=np.int64) * EACH_NS
    quiet = Series("fused", 1, np.full(len(starts), EACH_NS, np.int64), starts)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        readings = {
            "cpu_mhz_max": rng.uniform(3_000, 4_950, len(times)).round(),
            "gpu_mhz": np.where(rng.random(len(times)) < 0.2, np.nan, 900.0 * (seed % 3)),
            "temperature_c.cpu": rng.uniform(70, 100, len(times)),
            "busy_cpu_s": np.cumsum(rng.uniform(0, 0.2, len(times))),
            "own_cpu_s": np.zeros(len(times)),
        }
        both(ask, [quiet], Trace(times, readings), QUIET_FACTS)


def test_stages_and_loads_and_empty_series(ask: Asked) -> None:
    moved = series("burst", stage="copy_in")
    assert both(ask, [series(), moved], seen("quiet"), QUIET_FACTS) == []
    load = series("burst", offered_per_s=1_234.5, concurrency=4)
    assert both(ask, [load], seen("quiet"), QUIET_FACTS) == ["too_few_samples"]
    short = cut(series(), 0, 50, offered_per_s=0.5, concurrency=4)
    assert both(ask, [short], seen("quiet"), QUIET_FACTS) == ["too_few_samples"]
    empty = Series("a", 1, np.array([], np.int64))
    assert both(ask, [empty], seen("other load"), QUIET_FACTS) == ["other_load"]
    assert both(ask, [], seen("other load"), QUIET_FACTS) == ["other_load"]


def test_a_trace_of_one_reading_is_none(ask: Asked) -> None:
    one = Trace(np.zeros(1), {"gpu_mhz": np.ones(1)})
    assert both(ask, [series()], one, QUIET_FACTS) == ["no_sensors"]


@given(
    st.lists(st.sampled_from(sorted(FACTORS)), min_size=1, max_size=3),
    st.lists(st.sampled_from(sorted(READINGS)), max_size=4),
    st.sampled_from(sorted(FACTS)),
    st.integers(20, 2_000),
    st.integers(0, 1_900),
    st.booleans(),
)
def test_any_measurement(
    ask: Asked,
    factors: list[str],
    readings: list[str],
    facts: str,
    count: int,
    first: int,
    warmed_up: bool,
) -> None:
    said = dict(QUIET)
    for name in readings:
        said |= READINGS[name]
    measured = [
        cut(series(factor), first, first + count, warmed_up=warmed_up) for factor in factors
    ]
    lost = {"sysfs": "gone"} if "gone" in readings else {}
    both(ask, measured, Trace(TIMES, said, lost), {**QUIET_FACTS, **FACTS[facts]})


# Numbers, lists, memory ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 8, "concurrency": 4},
        {"offered_per_s": 90.0},
        {"offered_per_s": 90.0, "starts_ns": None},
    ],
)
def test_throughput_is_pythons(ask: Asked, options: dict[str, Any]) -> None:
    one = series(**options)
    tell(ask, [one], None, {})
    assert ask("throughput") == pytest.approx(one.throughput_images_per_s(), rel=1e-12)


@given(st.floats(1e-6, 1e15))
def test_numbers_are_written_as_python_writes_them(ask: Asked, value: float) -> None:
    assert ask("number", repr(value)) == [rate_text(value), f"{value:,.0f}"]


def test_numbers_of_no_size_are_written_too(ask: Asked) -> None:
    assert ask("number", "1e300") == ["1e+300", "1e+300"]
    assert ask("number", "-1234567")[1] == "-1,234,567"


@given(st.text("sn", min_size=1, max_size=40))
def test_the_severe_come_first(ask: Asked, order: str) -> None:
    want = sorted(range(len(order)), key=lambda at: order[at] != "s")
    assert ask("sort", order) == want


def test_each_allocation_may_fail(ask: Asked) -> None:
    """Each in turn: the error is told. A build with sanitizers sees leaks here, too."""
    trace = seen("other load", {"sysfs": "gone"})
    measured = [series("step"), series("alike")]
    want, failed = both(ask, measured, trace, QUIET_FACTS), 0
    tell(ask, measured, trace, QUIET_FACTS)
    for at in range(1, 200):
        ask("fail_at", at)
        answer = ask("judge")
        if isinstance(answer, list):
            break
        assert answer == {"failed": "this one was asked to fail"}
        failed += 1
    ask("fail_at", 0)
    assert [finding["code"] for finding in answer[1]] == want
    assert 10 < failed < 199
