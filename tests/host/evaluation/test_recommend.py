# SPDX-License-Identifier: Apache-2.0
"""The rule of the recommendation, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_imprint.evaluation.recommend import recommend
from edge_imprint.evaluation.result import RULE, Row


def row(name: str, head_kb: int | None, recipe: str = "l2", **changes: Any) -> Row:
    size = None if head_kb is None else 1_000 * head_kb
    values: dict[str, Any] = {"kind": "k", "recipe": recipe, "head_bytes": size}
    return Row(name, **(values | changes))


def choose(*cases: tuple[Row, list[int]]) -> Any:
    """Rows with the positions, of 100 answers, that are wrong."""
    rows, right = [], {}
    for given, wrong in cases:
        answers = np.ones(100, bool)
        answers[wrong] = False
        share = float(answers.mean())
        accuracy = None if given.failed else share
        rows.append(Row(**{**given.__dict__, "accuracy": accuracy}))
        if given.failed is None:
            right[given.name] = answers
    return recommend(rows, right)


def test_the_best_where_nothing_smaller_is_near() -> None:
    found = choose((row("few", 10), list(range(30))), (row("many", 200), [0]))
    assert (found.row, found.recipe, found.rule) == ("many", "l2", RULE)
    assert found.reason == (
        "it is the best with 99.0 % right, and no smaller head is within one standard error "
        "of it"
    )


def test_the_smallest_within_one_standard_error() -> None:
    # They differ in five answers of 100, three one way and two the other.
    found = choose((row("few", 10), [1, 2, 3]), (row("many", 200), [0, 4]))
    assert found.row == "few"
    assert found.reason == (
        "the best is 'many' with 98.0 % right (a head of 200 kB); 'few' (10 kB) is the "
        "smallest within one standard error: 1.0 points below, where the error is 2.4"
    )
    assert choose((row("few", 10), [1, 2]), (row("many", 200), [1])).row == "few"
    assert choose((row("few", 10), [1, 2, 3]), (row("many", 200), [])).row == "many"


def test_of_equals_the_smallest_then_the_first() -> None:
    plain, again = row("plain", 10), row("again", 10)
    assert choose((plain, [1]), (again, [1])).row == "plain"
    assert choose((row("more", 20), [1]), (plain, [1])).row == "plain"


def test_a_comparison_is_never_chosen_and_named_where_it_wins() -> None:
    linear = row("linear", None, kind="comparison", note="trained")
    found = choose((row("ours", 10), list(range(20))), (linear, []))
    assert found.row == "ours"
    assert found.warnings == (
        (
            "linear is better here by 20.0 points (95 % interval 11.0 to 29.0); it needs all "
            "classes at once (trained), so that no class can be added on the device"
        ),
    )
    assert choose((row("ours", 10), [1, 2]), (linear, [])).warnings == ()


def test_what_has_failed_plays_no_part() -> None:
    broken = row("broken", None, failed="too few images")
    linear = row("linear", None, kind="comparison", failed="too large")
    assert choose((broken, []), (linear, []), (row("ours", 10), [1])).row == "ours"
