# SPDX-License-Identifier: Apache-2.0
"""The model of a cluster against what can be reckoned by hand."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RATES = {
    "photo_bytes": 80e3,
    "pixels_bytes": 150528,
    "row_bytes": 2048,
    "list_s": 5e-6,
    "list_bytes": 100,
    "read_s": 5e-5,
    "hash_s": 6e-5,
    "decode_s": 3e-3,
    "embed_s": 16e-3,
    "hand_out_s": 2e-3,
    "add_s": 5e-6,
    "take_s": 2e-6,
    "cluster_s": 5e-5,
}
TIMES = st.floats(0.01, 10)


@pytest.fixture(scope="module")
def model() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("scale_model")


def row(model: ModuleType, *stages: tuple[int, float]) -> list[Any]:
    return [model.Stage(str(i), servers, time_s) for i, (servers, time_s) in enumerate(stages)]


@given(times=st.lists(TIMES, min_size=1, max_size=5), tables=st.integers(1, 300))
def test_single_servers_in_a_row(model: ModuleType, times: list[float], tables: int) -> None:
    made = row(model, *((1, time_s) for time_s in times))
    expected = sum(times) + (tables - 1) * max(times)
    assert model.makespan_s(made, tables, 10**6) == pytest.approx(expected)


@given(servers=st.integers(1, 40), tables=st.integers(1, 300), time_s=TIMES)
def test_one_stage_works_in_waves(
    model: ModuleType, servers: int, tables: int, time_s: float
) -> None:
    expected = math.ceil(tables / servers) * time_s
    assert model.makespan_s(row(model, (servers, time_s)), tables, 10**6) == pytest.approx(
        expected
    )


def test_one_table_under_way_goes_alone(model: ModuleType) -> None:
    made = row(model, (4, 1.0), (2, 3.0), (8, 0.5))
    assert model.makespan_s(made, 20, 1) == pytest.approx(20 * 4.5)


def test_few_tables_under_way_set_the_pace(model: ModuleType) -> None:
    # Little's law: three are under way for 4.5 s each.
    made = row(model, (4, 1.0), (9, 3.0), (8, 0.5))
    assert model.makespan_s(made, 3000, 3) == pytest.approx(1000 * 4.5, rel=1e-3)


@given(
    st.lists(st.tuples(st.integers(1, 12), TIMES), min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_the_pace_is_that_of_the_slowest_stage(
    model: ModuleType, stages: list[tuple[int, float]], under_way: int
) -> None:
    made = row(model, *stages)
    tables = 100_000
    pace = min(
        min(stage.tables_per_s for stage in made),
        under_way / sum(time_s for _, time_s in stages),
    )
    found = tables / model.makespan_s(made, tables, under_way)
    assert found <= pace * 1.02  # half a wave of servers more or less is left to reckon
    # Waves of servers and of tables under way need not fit each other.
    assert found >= 0.45 * pace


def test_what_is_not_followed_goes_on_at_the_same_pace(
    model: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = row(model, (3, 1.0), (7, 2.5), (1, 0.2))
    short = model.makespan_s(made, 20_000, 60)
    monkeypatch.setattr(model, "_FOLLOWED", 10**6)
    assert short == pytest.approx(model.makespan_s(made, 20_000, 60), rel=1e-3)


def test_a_build_by_hand(model: ModuleType) -> None:
    rates = model.Rates(**RATES)
    found = model.cost(rates, model.Fleet("one", 1, 2), 1_000_000)
    core_s = 5e-5 + 6e-5 + 3e-3 + 16e-3
    assert found.bottleneck == "cores"
    assert found.images_per_s == pytest.approx(2 / core_s, rel=1e-2)
    assert found.listing_s == pytest.approx(5)
    assert found.clustering_s == pytest.approx(25)
    assert found.read_bytes == 80e9
    assert found.kept_bytes == 2080e6
    assert found.memory_bytes == 132e6
    assert found.machine_hours == found.hours


def test_the_bottleneck_moves_as_machines_are_added(model: ModuleType) -> None:
    rates = model.Rates(**RATES | {"hand_out_s": 1e-4})
    one = model.cost(rates, model.Fleet("", 1, 16, gpus=1), 10**8)
    many = model.cost(rates, model.Fleet("", 8, 64, gpus=8, storage_bytes_per_s=1e12), 10**9)
    huge = model.cost(rates, model.Fleet("", 4096, 64, storage_bytes_per_s=5e9), 10**9)
    assert one.bottleneck == "GPUs"
    assert many.bottleneck == "network"
    assert huge.bottleneck == "storage"


@given(st.integers(1, 60), st.integers(1, 60))
def test_more_machines_embed_no_slower(model: ModuleType, few: int, more: int) -> None:
    rates = model.Rates(**RATES)
    # The share of tables that travel grows with the machines: the network is left out.
    fleets = [model.Fleet("", n, 8, network_bytes_per_s=1e15) for n in (few, few + more)]
    slow, fast = (model.cost(rates, fleet, 10**7) for fleet in fleets)
    assert fast.images_per_s >= slow.images_per_s * 0.99
