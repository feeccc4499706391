# SPDX-License-Identifier: Apache-2.0
"""The gate: what is slower fails, what is gone fails, and what can't be told is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.errors import ReportFileError, SlowerError
from edge_imprint_runtime.reporting.compare import Comparison, compare_reports
from edge_imprint_runtime.reporting.gate import not_told, require_not_slower
from edge_imprint_runtime.reporting.schema import Report
from tests.report_example import example_series, smallest_report, with_series

Save = Callable[..., Report]


def held(save: Save, *reports: dict[str, Any]) -> Comparison:
    letters = "abcdef"[: len(reports)]
    made = [save(r, f"{letter}.json") for letter, r in zip(letters, reports, strict=True)]
    return compare_reports(made)


def test_a_run_that_is_slower(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(2.2, seed=1))
    require_not_slower(found, 0.2)
    assert not_told(found, 0.2) == ()
    with pytest.raises(SlowerError) as error:
        require_not_slower(found, 0.05)
    assert str(error.value) == (
        f"slower by more than 5 %: fused, batch 1: {found.pairs[0].words}"
    )
    assert not_told(found, 0.05) == ()  # it is told: slower


def test_a_run_that_is_faster(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(1.6, seed=1))
    require_not_slower(found, 0.0)
    assert not_told(found, 0.0) == ()


def test_runs_of_the_same(save: Save) -> None:
    found = held(save, smallest_report(2.0), smallest_report(2.0, seed=1))
    require_not_slower(found, 0.0)
    low, high = found.pairs[0].difference.interval
    (line,) = not_told(found, 0.0)
    assert line == (
        f"these runs can't tell 0 %: the ratio of fused, batch 1 is {low:.2f} to {high:.2f}; "
        "take more samples, or more runs a side"
    )


def test_a_difference_by_chance_is_none_and_said(save: Save) -> None:
    # Four samples a side bound no median: whatever the ratio is, it shows nothing.
    few = [smallest_report(ms, count=4, seed=seed) for seed, ms in enumerate((2.0, 4.0, 4.0))]
    found = held(save, *few)
    assert found.pairs[0].difference.ratio > 1.5
    require_not_slower(found, 0.05)
    lines = not_told(found, 0.05)
    assert [line[: line.index(" is ")] for line in lines] == [
        "these runs can't tell 5 %: the ratio of fused, batch 1, b.json",
        "these runs can't tell 5 %: the ratio of fused, batch 1, c.json",
    ]


def test_a_slower_stage_does_not_fail(save: Save) -> None:
    whole = example_series("fused", 300, 2.0)
    fast = example_series("fused", 300, 0.1, stage="copy_in")
    slow = example_series("fused", 300, 0.3, stage="copy_in", seed=1)
    base = smallest_report()
    found = held(save, with_series(base, whole, fast), with_series(base, whole, slow))
    assert [pair.difference.significant for pair in found.pairs] == [False, True]
    require_not_slower(found, 0.05)


def test_a_series_that_is_gone_fails(save: Save, tmp_path: Path) -> None:
    base = smallest_report()
    one, eight = example_series("fused", 200, 2.0), example_series("fused", 50, 9.0, batch=8)
    stage = example_series("fused", 200, 1.0, stage="compute")
    found = held(save, with_series(base, one, eight, stage), with_series(base, eight))
    with pytest.raises(ReportFileError) as error:
        require_not_slower(found, 0.5)
    assert str(error.value) == (
        f"{tmp_path / 'b.json'} has no series fused, batch 1, which the base a.json has; "
        "measure it again"
    )
    # A series more, or a stage less, is nothing to judge.
    require_not_slower(held(save, with_series(base, eight), with_series(base, one, eight)), 0)
    require_not_slower(
        held(save, with_series(base, eight, stage), with_series(base, eight)), 0
    )


def test_a_series_that_one_of_the_repeated_runs_lacks_fails(
    save: Save, tmp_path: Path
) -> None:
    one, eight = example_series("fused", 200, 2.0), example_series("fused", 50, 9.0, batch=8)
    reports = [
        with_series(smallest_report(label=label), *series)
        for label, series in (("old", [one, eight]), ("new", [one]), ("old", [one]))
    ]
    found = held(save, *reports)
    assert [pair.title for pair in found.pairs] == ["fused, batch 1"]
    with pytest.raises(ReportFileError) as error:
        require_not_slower(found, 0.5)
    assert str(error.value) == (
        f"{tmp_path / 'c.json'} has no series fused, batch 8, which the base old has; "
        "measure it again"
    )


def test_a_base_without_whole_calls_fails(save: Save, tmp_path: Path) -> None:
    stage = with_series(smallest_report(), example_series("fused", 9, 1.0, stage="compute"))
    with pytest.raises(ReportFileError) as error:
        require_not_slower(held(save, stage, stage), 0.5)
    assert str(error.value) == (
        f"{tmp_path / 'a.json'} has no series of whole calls that others could be held "
        "against; measure it again"
    )
