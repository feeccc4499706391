# SPDX-License-Identifier: Apache-2.0
"""Latency measurements: what is counted, in which order, and what a percentile is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_imprint_runtime import bench, open_model
from edge_imprint_runtime.bench import (
    DEFAULT_ITERATIONS,
    SCHEMA,
    WARMUP_ITERATIONS,
    Series,
    bench_model,
    measure,
)
from edge_imprint_runtime.errors import ParameterError


def series(samples_ns: list[int], batch: int = 1) -> Series:
    return Series("a", batch, np.array(samples_ns, np.int64))


@given(
    st.lists(st.integers(1, 10**12), min_size=1, max_size=200),
    st.integers(0, 100),
)
@example([*range(1, 101)], 7)  # 7 / 100 * 100 is above 7
def test_a_percentile_is_the_nearest_rank(samples_ns: list[int], percent: int) -> None:
    value_ns = series(samples_ns).percentile_ms(percent) * 1e6
    # By its definition: the smallest sample that at least so many percent do not exceed.
    want = next(
        sample
        for sample in sorted(samples_ns)
        if 100 * sum(other <= sample for other in samples_ns) >= percent * len(samples_ns)
    )
    assert math.isclose(value_ns, want, rel_tol=1e-12)


def test_percentiles_by_hand() -> None:
    hundred = series([i * 1_000_000 for i in range(100, 0, -1)])
    assert [hundred.percentile_ms(p) for p in (0, 1, 50, 90, 99, 100)] == [
        1,
        1,
        50,
        90,
        99,
        100,
    ]
    five = series([15_000_000, 20_000_000, 35_000_000, 40_000_000, 50_000_000])
    assert [five.percentile_ms(p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    assert series([7_000_000]).percentile_ms(50) == 7


def test_a_summary_by_hand() -> None:
    assert series([2_000_000, 1_000_000, 6_000_000, 3_000_000], batch=8).summary() == {
        "name": "a",
        "batch": 8,
        "iterations": 4,
        "min_ms": 1.0,
        "p50_ms": 2.0,
        "p90_ms": 6.0,
        "p99_ms": 6.0,
        "max_ms": 6.0,
        "mean_ms": 3.0,
        "throughput_images_per_s": 8 / 3e-3,
    }


@pytest.mark.parametrize("iterations", [1, 7, 1_000, None])
def test_every_call_but_the_warm_up_is_a_sample(iterations: int | None) -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    runs = {name: lambda name=name: count(name) for name in calls}
    found = measure(runs, iterations=iterations, batch=3)
    wanted = iterations or DEFAULT_ITERATIONS
    assert [(s.name, s.batch, len(s.samples_ns)) for s in found] == [
        ("a", 3, wanted),
        ("b", 3, wanted),
    ]
    # Beside the samples: the warm-up, and one call a turn that is not kept.
    turns = min(wanted, 10)
    assert set(calls.values()) == {wanted + WARMUP_ITERATIONS + turns}
    for one in found:
        assert one.samples_ns.dtype == np.int64
        assert (one.samples_ns >= 0).all()


def test_series_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of one call each, where a call is longer than a turn."""
    monkeypatch.setattr(bench, "_TURN_NS", 1)
    order: list[str] = []
    measure({name: lambda name=name: order.append(name) for name in "abc"}, iterations=5)
    assert "".join(order[3 * WARMUP_ITERATIONS :]) == "aabbcc" * 5


def test_a_turn_holds_many_fast_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    measure({name: lambda name=name: order.append(name) for name in "ab"}, iterations=50)
    timed = "".join(order[2 * WARMUP_ITERATIONS :])
    assert timed == ("a" * 6 + "b" * 6) * 10  # ten turns of five, each after one not kept


def test_a_slower_thing_takes_longer() -> None:
    small, large = (np.random.default_rng(0).standard_normal((n, n)) for n in (2, 200))
    fast, slow = measure(
        {"fast": lambda: small @ small, "slow": lambda: large @ large}, iterations=40
    )
    assert fast.percentile_ms(50) < slow.percentile_ms(50)


def test_a_duration_is_held() -> None:
    told: list[tuple[int, int]] = []
    runs = {"a": lambda: sum(range(1_000)), "b": lambda: None}
    a, b = measure(runs, duration_s=0.15, progress=lambda *at: told.append(at))
    assert len(a.samples_ns) == len(b.samples_ns) > 100
    assert a.samples_ns.sum() + b.samples_ns.sum() >= 0.02 * 1e9
    assert told[-1] == (150, 150)
    assert told == sorted(told)


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    measure({"a": lambda: None}, iterations=30, progress=lambda *at: told.append(at))
    assert told[-1] == (30, 30)
    assert told == sorted(told)


@pytest.mark.parametrize(
    "limits",
    [
        {"iterations": 0},
        {"iterations": -1},
        {"duration_s": 0.0},
        {"duration_s": -1.0},
        {"duration_s": 86_401.0},
        {"duration_s": math.nan},
        {"duration_s": math.inf},
        {"iterations": 10, "duration_s": 1.0},
    ],
)
def test_impossible_limits(limits: dict[str, float]) -> None:
    def never() -> None:
        pytest.fail("it was run")

    with pytest.raises(ParameterError, match=r"iterations|duration"):
        measure({"a": never}, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("batches", [(), (0,), (1, -1), (4_097,)])
def test_impossible_batches(tiny_model: Path, batches: tuple[int, ...]) -> None:
    model = open_model(tiny_model, "cpu")
    with pytest.raises(ParameterError, match="batch must be integers from 1 to 4096"):
        bench_model({"tiny": model}, model, batches=batches)


def test_a_report_on_the_tiny_model(tiny_model: Path) -> None:
    model = open_model(tiny_model, "cpu", threads=1)
    seen: list[npt.NDArray[np.generic]] = []
    call: Callable[[npt.NDArray[np.generic]], object] = seen.append
    report = bench_model({"fused": model, "call": call}, model, batches=(1, 4), iterations=12)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["schema"] == SCHEMA == "edge-imprint.bench/1"
    assert report["provider"] == "CPUExecutionProvider"
    assert report["warmup_iterations"] == WARMUP_ITERATIONS
    assert report["machine"]["cores"] >= 1
    ran = [(row["name"], row["batch"], row["iterations"]) for row in report["series"]]
    assert ran == [("fused", 1, 12), ("call", 1, 12), ("fused", 4, 12), ("call", 4, 12)]
    for row in report["series"]:
        raw = Series(row["name"], row["batch"], np.array(row.pop("samples_ns"), np.int64))
        assert raw.summary() == row
        ordered = [row[key] for key in ("min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms")]
        assert ordered == sorted(ordered)
    assert {images.shape for images in seen} == {(1, 16, 16, 3), (4, 16, 16, 3)}
    assert {images.dtype for images in seen} == {np.dtype(np.uint8)}


def test_all_models_see_the_same_images(tiny_model: Path) -> None:
    model = open_model(tiny_model, "cpu")
    seen: dict[str, set[bytes]] = {"a": set(), "b": set()}
    calls = {name: lambda x, name=name: seen[name].add(x.tobytes()) for name in seen}
    bench_model(calls, model, iterations=3)
    bench_model(calls, model, iterations=3)
    assert seen["a"] == seen["b"]
    assert len(seen["a"]) == 1
