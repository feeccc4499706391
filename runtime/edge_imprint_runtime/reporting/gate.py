# SPDX-License-Identifier: Apache-2.0
"""The gate of a comparison: whether one of the runs is slower by more than is allowed."""

from __future__ import annotations

from edge_imprint_runtime.errors import ReportFileError, SlowerError
from edge_imprint_runtime.reporting.compare import Comparison, Pair
from edge_imprint_runtime.reporting.schema import key_title

__all__ = ["not_told", "require_not_slower"]


def require_not_slower(comparison: Comparison, share: float) -> None:
    """Hold that no whole call takes longer than the base's by more than a share.

    Args:
        comparison: The comparison.
        share: By how much a median may be longer, such as 0.05.

    Raises:
        ReportFileError: A run lacks whole calls that another of the base has, or the base has
            none: what is gone can't be held to anything.
        SlowerError: One is longer by more, and that is no chance.
    """
    _require_all_whole(comparison)
    slower = [f"{p.title}: {p.words}" for p in _whole(comparison) if _is_slower(p, share)]
    if slower:
        raise SlowerError(f"slower by more than {100 * share:g} %: {'; '.join(slower)}")


def not_told(comparison: Comparison, share: float) -> tuple[str, ...]:
    """Say where whole calls may be slower by more than a share, and the runs can't tell.

    Args:
        comparison: The comparison.
        share: By how much a median may be longer, such as 0.05.

    Returns:
        Sentences without their end: one for each pair that is not shown to be slower by more,
        while the interval of its ratio reaches beyond the share.
    """
    several = len(comparison.sides) > 2
    found = []
    for pair in _whole(comparison):
        low, high = pair.difference.interval
        if high > 1 + share and not _is_slower(pair, share):
            name = f"{pair.title}, {pair.other}" if several else pair.title
            found.append(
                f"these runs can't tell {100 * share:g} %: the ratio of {name} is {low:.2f} "
                f"to {high:.2f}; take more samples, or more runs a side"
            )
    return tuple(found)


def _whole(comparison: Comparison) -> list[Pair]:
    return [pair for pair in comparison.pairs if pair.key[3] == "whole"]


def _is_slower(pair: Pair, share: float) -> bool:
    return pair.difference.significant and pair.difference.ratio > 1 + share


def _require_all_whole(comparison: Comparison) -> None:
    base = comparison.sides[0]
    held = dict.fromkeys(s.key for run in base.runs for s in run.series if s.whole)
    if not held:
        raise ReportFileError(
            f"{base.runs[0].path} has no series of whole calls that others could be held "
            "against; measure it again"
        )
    for side in comparison.sides:
        for run in side.runs:
            lost = [key_title(key) for key in held if run.find(key) is None]
            if lost:
                raise ReportFileError(
                    f"{run.path} has no series {'; '.join(lost)}, which the base "
                    f"{base.title} has; measure it again"
                )
