# SPDX-License-Identifier: Apache-2.0
"""Which way to recommend, by a rule that is stated (`RULE`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_imprint.evaluation.result import RULE, Recommendation, Row
from edge_imprint.judging.measures import paired_difference
from edge_imprint_runtime.files import size_text

__all__ = ["recommend"]

Bool = npt.NDArray[np.bool_]

_Z95 = 1.96


def recommend(rows: Sequence[Row], right: Mapping[str, Bool]) -> Recommendation:
    """Choose a row of the table.

    Args:
        rows: The table; comparisons are never chosen. One other row at least has run.
        right: For each row that has run: (M,) whether its answers are right, all of them
            about the same images.

    Returns:
        The recommendation.
    """
    tried = [row for row in rows if row.failed is None and row.kind != "comparison"]
    best = max(tried, key=lambda row: (row.accuracy or 0.0, _small_first(row)))
    within = []
    for row in tried:
        loss, error = paired_difference(right[best.name], right[row.name])
        if loss <= error:
            within.append(row)
    chosen = max(within, key=_small_first)
    return Recommendation(
        row=chosen.name,
        recipe=chosen.recipe or "",
        rule=RULE,
        reason=_reason(best, chosen, right),
        warnings=tuple(_warnings(rows, chosen, right)),
    )


def _small_first(row: Row) -> int:
    return -(row.head_bytes or 0)


def _reason(best: Row, chosen: Row, right: Mapping[str, Bool]) -> str:
    assert best.accuracy is not None
    assert chosen.accuracy is not None
    assert best.head_bytes is not None
    assert chosen.head_bytes is not None
    share = f"{100 * best.accuracy:.1f} %"
    if chosen is best:
        return (
            f"it is the best with {share} right, and no smaller head is within one standard "
            "error of it"
        )
    loss, error = paired_difference(right[best.name], right[chosen.name])
    return (
        f"the best is '{best.name}' with {share} right (a head of "
        f"{size_text(best.head_bytes)}); '{chosen.name}' ({size_text(chosen.head_bytes)}) is "
        f"the smallest within one standard error: {100 * loss:.1f} points below, where the "
        f"error is {100 * error:.1f}"
    )


def _warnings(rows: Sequence[Row], chosen: Row, right: Mapping[str, Bool]) -> list[str]:
    found = []
    for row in rows:
        if row.kind != "comparison" or row.failed is not None:
            continue
        gain, error = paired_difference(right[row.name], right[chosen.name])
        low, high = 100 * (gain - _Z95 * error), 100 * (gain + _Z95 * error)
        if low > 0:
            found.append(
                f"{row.name} is better here by {100 * gain:.1f} points (95 % interval "
                f"{low:.1f} to {high:.1f}); it needs all classes at once ({row.note}), "
                "so that no class can be added on the device"
            )
    return found
