# SPDX-License-Identifier: Apache-2.0
"""A run judges itself: quiet ones stand, and each thing that disturbs one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_runtime.measuring.findings import Finding, Verdict
from edge_imprint_runtime.measuring.judge import judge
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.sensors import Trace

Floats = npt.NDArray[np.float64]
Facts = Mapping[str, str | int | float | None]
FACTS: Facts = {"cores": 2, "cpu_governor": "performance"}
RUN_S, EACH_NS = 20.0, 10_000_000


def series(factor: Floats | float = 1.0, **options: object) -> Series:
    """Two thousand runs of 10 ms, in 20 s."""
    count = int(RUN_S * 1e9 / EACH_NS)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(count))
    samples = (EACH_NS * noise * factor).astype(np.int64)
    starts = np.arange(count, dtype=np.int64) * EACH_NS
    return Series("fused", 1, samples, starts, **options)  # type: ignore[arg-type]


def trace(**readings: Floats | float) -> Trace:
    """A reading every quarter of a second; a rate in CPUs becomes its running total."""
    times = np.arange(0, RUN_S + 0.01, 0.25)
    found: dict[str, Floats] = {"own_cpu_s": 1.0 * times, "busy_cpu_s": 1.04 * times}
    for name, values in readings.items():
        found[name.replace("__", ".")] = np.broadcast_to(values, times.shape).astype(
            np.float64
        )
    return Trace(times, found)


def total(rate: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(rate[1:] * 0.25)])


TIMES = np.arange(0, RUN_S + 0.01, 0.25)
SAMPLES_S = np.arange(2_000) / 100


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def only(verdict: Verdict) -> Finding:
    (finding,) = verdict.findings
    return finding


def test_a_quiet_run_stands() -> None:
    assert judge([series()], trace(), FACTS) == Verdict(True, ())


def test_a_busy_loop_on_both_cores_in_mid_run() -> None:
    """It takes half of each core from 8 to 13 s, and every other run waits for it."""
    others = np.where((TIMES > 8) & (TIMES <= 13), 1.0, 0.04)
    hit = (SAMPLES_S > 8) & (SAMPLES_S < 13) & (np.arange(2_000) % 2 == 0)
    verdict = judge(
        [series(np.where(hit, 3.0, 1.0))],
        trace(own_cpu_s=total(np.full(len(TIMES), 1.0)), busy_cpu_s=total(1 + others)),
        FACTS,
    )
    assert not verdict.stable
    assert set(codes(verdict)) == {"level_shift", "other_load"}
    (load,) = (f for f in verdict.findings if f.code == "other_load")
    assert load == Finding(
        "other_load",
        None,
        "other programs used 14 % of all 2 cores, and 50 % at their worst; end them "
        "(top shows which) and measure again",
        True,
    )


def test_a_short_burst_is_seen_by_the_load_alone() -> None:
    others = np.where((TIMES > 8) & (TIMES <= 10), 1.0, 0.02)
    verdict = judge([series()], trace(busy_cpu_s=1.0 * TIMES + total(others)), FACTS)
    assert only(verdict).code == "other_load"
    assert not verdict.stable


def test_load_while_nothing_was_measured_does_not_count() -> None:
    """Between two series, 5 s in which another program had the machine."""
    one = series()
    assert one.starts_ns is not None
    kept = (one.starts_ns < 8e9) | (one.starts_ns > 13e9)
    gap = Series("fused", 1, one.samples_ns[kept], one.starts_ns[kept])
    others = np.where((TIMES > 8.6) & (TIMES < 12.4), 2.0, 0.04)
    loaded = trace(busy_cpu_s=1.0 * TIMES + total(others))
    assert judge([gap], loaded, FACTS).stable
    assert not judge([one], loaded, FACTS).stable


def test_more_cores_bear_more() -> None:
    loaded = trace(busy_cpu_s=1.3 * TIMES)
    assert not judge([series()], loaded, FACTS).stable
    assert judge([series()], loaded, {"cores": 16, "cpu_governor": "performance"}).stable


def test_drift_is_told_with_its_size() -> None:
    verdict = judge([series(1 + 0.1 * SAMPLES_S / RUN_S)], trace(), FACTS)
    finding = only(verdict)
    assert (finding.code, finding.series, verdict.stable) == ("drift", "fused", False)
    assert finding.text.startswith("fused (batch 1) drifted by +")
    assert finding.text.endswith(
        " % over the run (p < 0.001); let the device reach its temperature, lock its clocks, "
        "and measure again"
    )


def test_a_shift_is_told_with_its_time() -> None:
    verdict = judge([series(np.where(SAMPLES_S < 12, 1.0, 1.2))], trace(), FACTS)
    finding = only(verdict)
    assert (finding.code, finding.series, verdict.stable) == ("level_shift", "fused", False)
    words = finding.text.split()
    assert finding.text.startswith("the median of fused (batch 1) lay at ")
    assert float(words[words.index("from") + 1]) == pytest.approx(12, abs=0.4)
    assert " ms else (+2" in finding.text


def test_calls_that_come_at_random_do_not_shift() -> None:
    moved = np.where((SAMPLES_S > 5) & (SAMPLES_S < 9), 3.0, 1.0)
    assert judge([series(moved, offered_per_s=100.0)], trace(), FACTS).stable
    assert not judge([series(moved)], trace(), FACTS).stable


def test_stages_are_not_looked_at_by_themselves() -> None:
    verdict = judge([series(), series(1 + SAMPLES_S / RUN_S, stage="copy_in")], trace(), FACTS)
    assert verdict == Verdict(True, ())


def test_a_warm_up_that_did_not_end() -> None:
    finding = only(judge([series(warmed_up=False)], trace(), FACTS))
    assert finding == Finding(
        "not_warmed_up",
        "fused",
        "fused (batch 1) was not seen to be steady before its warm-up ran out of time; lock "
        "the clocks, or give it a longer --warm-up",
        True,
    )


@pytest.mark.parametrize(("name", "at_rest_mhz"), [("cpu_mhz_max", 5_000), ("gpu_mhz", 210)])
def test_a_clock_before_the_run_is_no_change_of_it(name: str, at_rest_mhz: float) -> None:
    """Sensors repeat a slow reading for a second: a short run's first ones are of before."""
    run = series()
    assert run.starts_ns is not None
    short = Series("fused", 1, run.samples_ns[:400], run.starts_ns[:400] // 5 + 600_000_000)
    times = np.arange(0, 1.51, 0.25)
    readings = {name: np.where(times < 1, at_rest_mhz, 4_200.0)}
    assert "clock_change" not in codes(judge([short], Trace(times, readings), FACTS))


def test_too_few_samples_are_told_and_stand() -> None:
    short = Series("fused", 8, np.full(100, EACH_NS, np.int64), concurrency=2)
    verdict = judge([short], trace(), FACTS)
    assert verdict.stable
    assert only(verdict) == Finding(
        "too_few_samples",
        "fused",
        "100 samples of fused (batch 8, 2 at once) bound no p99; take at least 368 if it "
        "matters",
        False,
    )


def test_samples_that_resemble_each_other_are_worth_fewer() -> None:
    noise = np.repeat(np.random.default_rng(0).standard_normal(100), 20)
    assert only(judge([series(np.exp(0.05 * noise))], trace(), FACTS)) == Finding(
        "too_few_samples",
        "fused",
        "2,000 samples of fused (batch 1) resemble their neighbours and are worth 239 "
        "independent ones, too few to bound p99; take about 3,100 if it matters",
        False,
    )


@pytest.mark.parametrize("run_s", [2.0, 3.0, 8.0, 20.0, 120.0])
def test_jitter_is_no_change_of_a_clock(run_s: float) -> None:
    """A desktop's boost: each second another clock, between 4.2 and 4.95 GHz."""
    times = np.arange(0, run_s + 0.01, 0.25)
    starts = np.arange(int(run_s * 100), dtype=np.int64) * EACH_NS
    quiet = Series("fused", 1, np.full(len(starts), EACH_NS, np.int64), starts)
    called = 0
    for seed in range(200):
        clocks = np.random.default_rng(seed).uniform(4_200, 4_950, int(run_s) + 2)
        readings = {"cpu_mhz_max": clocks[times.astype(int)]}
        called += "clock_change" in codes(judge([quiet], Trace(times, readings), FACTS))
    assert called <= 4


def test_a_hot_run_is_told_however_short() -> None:
    times = np.arange(0, 1.01, 0.25)
    quiet = Series("fused", 1, np.full(100, EACH_NS), np.arange(100) * EACH_NS)
    hot = Trace(times, {"temperature_c.tj": np.full(len(times), 90.0)})
    assert "temperature" in codes(judge([quiet], hot, FACTS))


@pytest.mark.parametrize(
    ("readings", "facts", "want"),
    [
        (
            # At rest between two batches; it is locked where it mostly was.
            {"gpu_mhz": np.where((TIMES > 6) & (TIMES < 11), 210.0, 1_900.0)},
            {},
            Finding(
                "clock_change",
                None,
                "the clock of the GPU moved between 210 and 1,900 MHz while it ran; lock it: "
                "sudo nvidia-smi --lock-gpu-clocks=1900",
                True,
            ),
        ),
        (
            {"gpu_memory_mhz": np.where(TIMES < 7, 7_000.0, 9_500.0)},
            {},
            Finding(
                "clock_change",
                None,
                "the clock of the GPU's memory moved between 7,000 and 9,500 MHz while it "
                "ran; lock it: sudo nvidia-smi --lock-memory-clocks=9500",
                True,
            ),
        ),
        (
            {"cpu_mhz_max": np.where(TIMES < 10, 3_200.0, 1_900.0)},
            {},
            Finding(
                "clock_change",
                None,
                "the clock of the CPU moved between 1,900 and 3,200 MHz while it ran; lock "
                "it: sudo cpupower frequency-set -g performance",
                True,
            ),
        ),
        (
            {"gpu_mhz": np.where(TIMES < 10, 918.0, 612.0)},
            {"l4t": "36.4.0", "jetson_clocks": "on"},
            Finding(
                "clock_change",
                None,
                "the clock of the GPU moved between 612 and 918 MHz while it ran; lock it: "
                "sudo jetson_clocks",
                True,
            ),
        ),
        (
            {"steal_s": 0.2 * TIMES},
            {},
            Finding(
                "steal",
                None,
                "the hypervisor gave 10.0 % of the cores' time to other machines, and 10 % at "
                "worst; measure on a machine that is not shared",
                True,
            ),
        ),
        (
            {"gpu_throttle_sw_thermal_slowdown": np.where(TIMES > 15, 1.0, 0.0)},
            {},
            Finding(
                "throttle",
                None,
                "the GPU was slowed down (sw thermal slowdown) in 25 % of the readings; cool "
                "it, or lock a lower clock, and measure again",
                True,
            ),
        ),
        (
            {"gpu_throttle_sw_power_cap": 1.0},
            {},
            Finding(
                "throttle",
                None,
                "the GPU was slowed down (sw power cap) in 100 % of the readings; the figures "
                "are those of its power limit",
                False,
            ),
        ),
        (
            {"cpu_throttle_count": np.where(TIMES > 15, 7.0, 4.0)},
            {},
            Finding(
                "throttle",
                None,
                "the CPU was slowed down 3 times for its heat; cool it, or lock a lower "
                "clock, and measure again",
                True,
            ),
        ),
        (
            {"quota_throttled_s": 0.3 * TIMES},
            {},
            Finding(
                "throttle",
                None,
                "the container's CPU quota held processes up for 30 % of the time; give it "
                "more CPUs, or the model fewer --threads",
                True,
            ),
        ),
        (
            {"temperature_c__tj": 60 + 1.6 * TIMES},
            {},
            Finding(
                "temperature",
                None,
                "tj went from 62 to 90 degrees C, where devices slow themselves down; cool "
                "it, or let it reach its temperature before",
                True,
            ),
        ),
        (
            {},
            {"cpu_governor": "powersave"},
            Finding(
                "governor",
                None,
                "the CPU's governor is powersave; for figures that repeat run sudo cpupower "
                "frequency-set -g performance",
                False,
            ),
        ),
        (
            {},
            {"jetpack": "6.2", "jetson_clocks": "off", "cpu_governor": "schedutil"},
            Finding(
                "governor",
                None,
                "the clocks of this Jetson are not locked; run sudo jetson_clocks for figures "
                "that repeat",
                False,
            ),
        ),
        (
            {},
            {"l4t": "36.4.0", "gpu_clocks_locked": "no"},
            Finding(
                "governor",
                None,
                "the clocks of this Jetson are not locked; run sudo jetson_clocks for figures "
                "that repeat",
                False,
            ),
        ),
    ],
    ids=lambda value: value.code if isinstance(value, Finding) else "",
)
def test_what_the_machine_did(
    readings: dict[str, Floats | float], facts: Facts, want: Finding
) -> None:
    verdict = judge([series()], trace(**readings), {**FACTS, **facts})
    assert only(verdict) == want
    assert verdict.stable == (not want.severe)


@pytest.mark.parametrize(
    "readings",
    [
        # Jitter; a reading that is missing throughout; hot, but no hotter.
        {"cpu_mhz_max": 2_500 + 700 * (np.arange(len(TIMES)) % 2)},
        {"gpu_mhz": np.nan, "steal_s": np.nan, "temperature_c__gpu": np.nan},
        {"cpu_mhz": 0.0, "temperature_c__cpu": 55.0, "gpu_throttle_hw_slowdown": 0.0},
    ],
)
def test_what_does_not_matter(readings: dict[str, Floats | float]) -> None:
    assert judge([series()], trace(**readings), FACTS) == Verdict(True, ())


def test_hot_throughout_is_told_and_stands() -> None:
    finding = only(judge([series()], trace(temperature_c__gpu=88.0), FACTS))
    assert (finding.code, finding.severe) == ("temperature", False)


def test_sensors_that_vanish_are_told_and_the_rest_is_read() -> None:
    gone = trace(gpu_mhz=np.where(TIMES < 5, 900.0, np.nan), busy_cpu_s=1.9 * TIMES)
    gone = Trace(gone.times_s, gone.readings, {"nvml": "NVML: GPU is lost"})
    verdict = judge([series()], gone, FACTS)
    assert codes(verdict) == ["other_load", "sensor_lost"]
    assert verdict.findings[1] == Finding(
        "sensor_lost",
        None,
        "the sensors of nvml were not read to the end (NVML: GPU is lost); what they would "
        "have shown is not known",
        False,
    )


@pytest.mark.parametrize("nothing", [None, Trace(np.zeros(1), {})])
def test_without_sensors(nothing: Trace | None) -> None:
    verdict = judge([series()], nothing, FACTS)
    assert verdict.stable
    assert only(verdict) == Finding(
        "no_sensors",
        None,
        "nothing was read of the machine meanwhile, so that other load, clocks and "
        "temperatures are not known; install psutil, or measure for longer than a second",
        False,
    )


def test_a_verdict_is_json() -> None:
    told = judge([series(warmed_up=False)], None, FACTS).as_json()
    assert json.loads(json.dumps(told)) == told
    assert [(f["code"], f["severe"]) for f in told["findings"]] == [
        ("not_warmed_up", True),
        ("no_sensors", False),
    ]
    assert told["stable"] is False


def test_no_series_at_all() -> None:
    assert judge([], trace(), FACTS).stable
    assert judge([Series("a", 1, np.array([], np.int64))], trace(), FACTS).stable
