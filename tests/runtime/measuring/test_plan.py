# SPDX-License-Identifier: Apache-2.0
"""Plans: what each is called, and those that can't be carried out."""

from __future__ import annotations

import os
from typing import Any

import pytest

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.limits import check_threads
from edge_imprint_runtime.measuring.plan import Plan


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "turns"),
        ({"batches": (1, 8), "stages": True, "layers": True}, "turns"),
        ({"concurrency": 2}, "concurrent"),
        ({"rate_per_s": 5.0}, "load"),
        ({"rate_share": 0.8, "concurrency": 2}, "load"),
        ({"mlperf": True}, "mlperf"),
        ({"mlperf": True, "duration_s": 5.0, "cold": 1, "layers": True}, "mlperf"),
    ],
)
def test_a_plan_and_its_mode(given: dict[str, Any], mode: str) -> None:
    plan = Plan(**given)
    plan.check()
    assert plan.mode == mode


def test_threads_are_at_most_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    check_threads(0)
    check_threads(2)
    with pytest.raises(ParameterError) as caught:
        check_threads(1_000)
    assert str(caught.value) == (
        "threads must be at most 2, as many cores as this process may use, got 1000: more of "
        "them fight each other"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batches": ()}, "batch must be integers from 1 to 4096, got ()"),
        ({"batches": (1, -1)}, "batch must be integers from 1 to 4096, got (1, -1)"),
        ({"batches": (4_097,)}, "batch must be integers from 1 to 4096, got (4097,)"),
        ({"batches": (1, 8, 1)}, "a batch is measured once, got (1, 8, 1)"),
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ({"duration_s": 1.0}, "give iterations or duration, not both"),
        ({"concurrency": 0}, "concurrency must be an integer from 1 to 256, got 0"),
        ({"concurrency": 257}, "concurrency must be an integer from 1 to 256, got 257"),
        ({"cold": -1}, "cold must be an integer from 0 to 1000, got -1"),
        ({"cold": 1_001}, "cold must be an integer from 0 to 1000, got 1001"),
        ({"label": ""}, "a label has 1 to 300 characters"),
        ({"label": "x" * 301}, "a label has 1 to 300 characters"),
        ({"warm_up_s": 0.0}, "warm-up must be above 0 s and at most an hour, got 0.0"),
        ({"rate_per_s": 0.0}, "rate must be above 0 and at most 1000000 a second, got 0"),
        (
            {"rate_share": 0.0},
            "rate must be above 0 % and at most 1000% of the throughput, got 0",
        ),
        (
            {"rate_share": 11.0},
            "rate must be above 0 % and at most 1000% of the throughput, got 11",
        ),
        (
            {"rate_share": 0.5, "rate_per_s": 5.0},
            "give a rate a second or a share of the throughput, not both",
        ),
        *(
            (
                {"mlperf": True} | other,
                (
                    "MLPerf's single stream is one query of one image after the other; leave "
                    "out batch, concurrency, rate and stages"
                ),
            )
            for other in (
                {"concurrency": 2},
                {"batches": (8,)},
                {"rate_per_s": 5.0},
                {"stages": True},
            )
        ),
    ],
)
def test_impossible_plans(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Plan(**{"iterations": 12} | given).check()
    assert str(caught.value) == said
