# SPDX-License-Identifier: Apache-2.0
"""A measurement judges itself: what moved while it ran, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edge_imprint_runtime.measuring.blocks import BlockBootstrap
from edge_imprint_runtime.measuring.conditions import TraceLike, machine_findings
from edge_imprint_runtime.measuring.findings import Finding, Verdict
from edge_imprint_runtime.measuring.intervals import fewest_samples
from edge_imprint_runtime.measuring.series import Series, rate_text
from edge_imprint_runtime.measuring.shifts import (
    LevelShift,
    find_drift,
    find_level_shifts,
    is_a_step,
)

__all__ = ["Finding", "Verdict", "judge"]

# The percentile that a run ought to bound; p99.9 would need 3,688 samples.
_TAIL_PERCENT = 99.0


def judge(
    series: Sequence[Series],
    trace: TraceLike | None,
    facts: Mapping[str, str | int | float | None],
) -> Verdict:
    """Say whether a measurement can be trusted.

    Args:
        series: What was measured; stages of a whole are not looked at by themselves.
        trace: What the sensors read meanwhile, its times on the clock of ``starts_ns``; None
            where there were none.
        facts: The machine's, as `machine_facts` gives them.

    Returns:
        The verdict: unstable where anything severe was found.
    """
    found: list[Finding] = []
    for one in series:
        if one.stage == "whole" and len(one.samples_ns):
            found += _of_series(one)
    found += machine_findings(series, trace, facts)
    found.sort(key=lambda finding: not finding.severe)
    return Verdict(not any(finding.severe for finding in found), tuple(found))


def _of_series(one: Series) -> Iterator[Finding]:
    if not one.warmed_up:
        yield Finding(
            "not_warmed_up",
            one.name,
            f"{_label(one)} was not seen to be steady before its warm-up ran out of time; "
            "lock the clocks, or give it a longer --warm-up",
            True,
        )
    # Where calls come at random, latency follows the queue: a burst of them is no shift.
    moved = list(_moved(one)) if one.offered_per_s is None else []
    yield from moved
    yield from _too_few(one, bool(moved))


def _moved(one: Series) -> Iterator[Finding]:
    """Tell of a shift or of a drift, whichever fits better where both are seen."""
    drift = find_drift(one.samples_ns, one.starts_ns)
    shifts = find_level_shifts(one.samples_ns)
    if drift.found and not (shifts and is_a_step(one.samples_ns, shifts[0])):
        yield Finding(
            "drift",
            one.name,
            f"{_label(one)} drifted by {drift.change_percent:+.1f} % over the run "
            f"(p {_p(drift.p_value)}); let the device reach its temperature, lock its clocks, "
            "and measure again",
            True,
        )
    elif shifts:
        yield Finding("level_shift", one.name, _shift_text(one, shifts), True)


def _shift_text(one: Series, shifts: tuple[LevelShift, ...]) -> str:
    first = shifts[0]
    what = "the median" if first.percent == 50 else "the 90th percentile"
    until = "" if first.last == len(one.samples_ns) else f" to {_when(one, first.last)}"
    more = f", and {len(shifts) - 1} more such" if len(shifts) > 1 else ""
    return (
        f"{what} of {_label(one)} lay at {first.level_ns / 1e6:.4g} ms from "
        f"{_when(one, first.first)}{until}, at {first.before_ns / 1e6:.4g} ms else "
        f"({first.change_percent:+.1f} %, p {_p(first.p_value)}){more}; end what else runs, "
        "lock the clocks, and measure again"
    )


def _when(one: Series, index: int) -> str:
    if one.starts_ns is None:
        return f"sample {index:,}"
    return f"{one.starts_ns[min(index, len(one.starts_ns) - 1)] / 1e9:.1f} s"


def _too_few(one: Series, moved: bool) -> Iterator[Finding]:
    count, needed = len(one.samples_ns), fewest_samples(_TAIL_PERCENT)
    if count < needed:
        yield Finding(
            "too_few_samples",
            one.name,
            f"{count:,} samples of {_label(one)} bound no p{_TAIL_PERCENT:g}; take at least "
            f"{needed:,} if it matters",
            False,
        )
        return
    if moved:  # samples of two levels resemble their neighbours; more of them are no help
        return
    design = BlockBootstrap(one.samples_ns, (_TAIL_PERCENT,)).design[_TAIL_PERCENT]
    if count / design < needed:
        yield Finding(
            "too_few_samples",
            one.name,
            f"{count:,} samples of {_label(one)} resemble their neighbours and are worth "
            f"{count / design:,.0f} independent ones, too few to bound p{_TAIL_PERCENT:g}; "
            f"take about {_round_up(design * needed):,} if it matters",
            False,
        )


def _label(one: Series) -> str:
    at_once = f", {one.concurrency} at once" if one.concurrency > 1 else ""
    rate = (
        ""
        if one.offered_per_s is None
        else f", {rate_text(one.offered_per_s)} calls/s offered"
    )
    return f"{one.name} (batch {one.batch}{at_once}{rate})"


def _round_up(count: float) -> int:
    """Round a number of samples to two digits."""
    step = int(10 ** max(0, len(str(int(count))) - 2))
    return math.ceil(count / step) * step


def _p(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
