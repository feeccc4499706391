# SPDX-License-Identifier: Apache-2.0
"""What a head costs: the fused model beside its backbone, measured in turns in one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.reporting.schema import Recorded, Report
from edge_imprint_runtime.reporting.words import figure, percent

__all__ = ["HeadCost", "head_costs", "several_modes"]

_FEWEST = 100  # samples, below which a second mode can't be told from chance
_FEWEST_BINS, _BINS = 5, 40
_SMOOTH = np.array([1, 4, 6, 4, 1]) / 16


@dataclass(frozen=True)
class HeadCost:
    """What the head adds to its backbone: fused minus backbone only, at the median.

    Attributes:
        batch: Images a call.
        bare_ms: The median of the backbone only, milliseconds.
        ms: Milliseconds a call.
        bounds_ms: The interval of it.
        ratio: Fused over backbone only.
        bounds: The interval of the ratio.
        shown: Whether it is told apart from nothing.
        doubt: Why it is not to be relied upon, or "".
    """

    batch: int
    bare_ms: float
    ms: float
    bounds_ms: tuple[float, float]
    ratio: float
    bounds: tuple[float, float]
    shown: bool
    doubt: str

    @property
    def short(self) -> str:
        """Return the milliseconds with their sign and unit."""
        return f"{_signed(self.ms)} ms"

    @property
    def bounds_text(self) -> str:
        """Return the interval of the milliseconds."""
        return " to ".join(_signed(side) for side in self.bounds_ms)

    @property
    def share_text(self) -> str:
        """Return it as a share of the backbone."""
        return percent(self.ratio - 1)

    @property
    def text(self) -> str:
        """Return it as a sentence without its end, with the doubt about it."""
        costs = f"{self.short} ({self.bounds_text}), {self.share_text} of the backbone"
        found = costs if self.shown else f"none shown: {costs}"
        return f"{found}; NOT reliable: {self.doubt}" if self.doubt else found


def head_costs(report: Report) -> tuple[HeadCost, ...]:
    """Return what the head costs, for each batch at which both series were measured."""
    alone = {s.key[1:]: s for s in report.series if s.name == "backbone only" and s.whole}
    found = []
    for fused in report.series:
        bare = alone.get(fused.key[1:])
        if fused.name != "fused" or bare is None:
            continue
        seen = compare(bare.samples_ns, fused.samples_ns)
        base_ms = bare.summary["p50_ms"]
        low, high = ((side - 1) * base_ms for side in seen.interval)
        ms = fused.summary["p50_ms"] - base_ms
        found.append(
            HeadCost(
                fused.batch,
                base_ms,
                ms,
                (low, high),
                seen.ratio,
                seen.interval,
                seen.significant,
                _doubt(report, bare, fused),
            )
        )
    return tuple(found)


def several_modes(samples_ns: npt.NDArray[np.int64]) -> bool:
    """Say whether times gather around two values or more, between which a median may jump.

    Two peaks of a smoothed histogram count as two where each side of the lowest place between
    them holds a fifth of the samples, and that place is below half of the lower peak.

    Args:
        samples_ns: (S,) int64 nanoseconds.

    Returns:
        True where they do; False too where there are fewer than 100.
    """
    if len(samples_ns) < _FEWEST:
        return False
    low, high = np.percentile(samples_ns, (1, 95))  # the tail would take all the room
    if high <= low:
        return False
    inner = samples_ns[(samples_ns >= low) & (samples_ns <= high)]
    step = np.diff(np.unique(inner)).min()  # of a coarse clock; bins finer than it have holes
    bins = min(_BINS, len(inner) // 10, int((high - low) / (3 * step)))
    if bins < _FEWEST_BINS:
        return False
    counts = np.histogram(inner, bins)[0]
    smooth = np.convolve(counts, _SMOOTH, "same")
    below = np.cumsum(counts) / counts.sum()
    for place in range(1, len(smooth) - 1):
        peaks = min(smooth[:place].max(), smooth[place + 1 :].max())
        if 0.2 <= below[place] <= 0.8 and smooth[place] < 0.5 * peaks:
            return True
    return False


def _doubt(report: Report, bare: Recorded, fused: Recorded) -> str:
    if not report.stable:
        return "the run is not stable"
    if several_modes(bare.samples_ns) or several_modes(fused.samples_ns):
        return "times gather around several values, between which the median may jump"
    return ""


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{'-' if value < 0 else '+'}{figure(abs(value))}"
