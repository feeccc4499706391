# SPDX-License-Identifier: Apache-2.0
"""Holding runs against each other: what differs between them, and whether one is slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_imprint_runtime.errors import (
    ParameterError,
    ReportFileError,
    UnstableReportError,
)
from edge_imprint_runtime.measuring.difference import Difference
from edge_imprint_runtime.measuring.difference import compare as compare_samples
from edge_imprint_runtime.reporting.schema import Key, Recorded, Report, key_title, percentile
from edge_imprint_runtime.reporting.tables import Facts, Table, device, method, model, provider
from edge_imprint_runtime.reporting.words import fact_name, fact_text, figure

__all__ = ["Comparison", "Pair", "Side", "compare_reports", "p_text"]

PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0}

# Of a machine, what moves by itself from one minute to the next.
_MOVES = frozenset(
    {"disk_free_bytes", "load_average_1min", "memory_available_bytes", "swap_used_bytes"}
)
_DEVICE = ("board", "cpu_model", "architecture", "gpu_name")


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        title: Its name, unlike those of the other sides.
        runs: Its reports: one, or repeated runs of the same.
    """

    title: str
    runs: tuple[Report, ...]

    @property
    def stable(self) -> bool:
        """Whether all its runs judged themselves stable."""
        return all(run.stable for run in self.runs)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The series that all its runs have."""
        first, *others = self.runs
        keys = [series.key for series in first.series]
        return tuple(k for k in keys if all(run.find(k) is not None for run in others))

    def series(self, key: Key) -> list[Recorded]:
        """Return the series with this key, one a run."""
        return [series for run in self.runs if (series := run.find(key)) is not None]

    def percentiles_ms(self, key: Key) -> dict[str, float]:
        """Return percentiles in ms of all samples of all its runs."""
        samples = np.sort(np.concatenate([s.samples_ns for s in self.series(key)]))
        return {name: percentile(samples, at) / 1e6 for name, at in PERCENTS.items()}


@dataclass(frozen=True)
class Pair:
    """One series of the base beside the same of another side.

    Attributes:
        key: The series.
        base: Title of the base.
        other: Title of the other side.
        base_ms: Percentiles in ms, by name.
        other_ms: The same of the other side.
        difference: Of the medians, other over base.
        stable: Whether all runs of both sides judged themselves stable.
    """

    key: Key
    base: str
    other: str
    base_ms: dict[str, float]
    other_ms: dict[str, float]
    difference: Difference
    stable: bool

    @property
    def title(self) -> str:
        """The series' name."""
        return key_title(self.key)

    @property
    def words(self) -> str:
        """Return the difference as a sentence without its end."""
        return (
            self._words if self.stable else f"UNSTABLE, so only as it was seen: {self._words}"
        )

    @property
    def _words(self) -> str:
        found = self.difference
        low, high = found.interval
        if not found.significant:
            return f"no difference shown (ratio {low:.3f} to {high:.3f})"
        if found.ratio > 1:
            return (
                f"{self.other} takes {found.ratio:.3f} x as long as {self.base} "
                f"({low:.3f} to {high:.3f})"
            )
        return (
            f"{self.other} is {1 / found.ratio:.3f} x as fast as {self.base} "
            f"({1 / high:.3f} to {1 / low:.3f})"
        )


@dataclass(frozen=True)
class Comparison:
    """Runs held against the first of them.

    Attributes:
        sides: What is compared; the first is the base.
        facts: What differs: a name, and a text for each side.
        pairs: Each series of the base beside each side that has it too.
        alone: Series that some side lacks: title, and titles of the sides that have it.
        devices: What computes, by side, where that differs; else empty.
    """

    sides: tuple[Side, ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    pairs: tuple[Pair, ...]
    alone: tuple[tuple[str, tuple[str, ...]], ...]
    devices: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before the figures, as sentences without their end."""
        found = [
            f"{_named(side, run)} is NOT stable: {_why(run)}"
            for side in self.sides
            for run in side.runs
            if not run.stable
        ]
        if self.devices:
            names = (f"{s.title}: {d}" for s, d in zip(self.sides, self.devices, strict=True))
            found.append(f"these are DIFFERENT DEVICES ({'; '.join(names)})")
        return tuple(found)

    @property
    def measured(self) -> tuple[str, ...]:
        """What was measured and where, for each side, as sentences without their end."""
        runs = [side.runs[0] for side in self.sides]
        found = [
            f"{side.title}: {run.model_name}, {run.data['provider']['name']} on {device(run)}"
            for side, run in zip(self.sides, runs, strict=True)
        ]
        models = {run.data["model"]["sha256"] for run in runs}
        if len(models) == 1:
            which = "both" if len(runs) == 2 else f"all {len(runs)}"
            found.append(f"{which} ran the same model file (sha256 {models.pop()[:12]}...)")
        return tuple(found)

    @property
    def facts_table(self) -> Table:
        """What differs, a column a side."""
        columns = ("what differs", *(side.title for side in self.sides))
        rows = tuple((name, *texts) for name, texts in self.facts)
        return Table("What differs between the runs", columns, rows, len(columns))

    @property
    def advice(self) -> str | None:
        """What one run a side can't tell, as a sentence without its end."""
        if any(len(side.runs) > 1 for side in self.sides):
            return None
        return (
            "two runs of one thing may differ by 1 or 2 % of themselves, which one run a side "
            "can't tell; for small differences measure each side several times, under one "
            "--label each, and give all the reports"
        )

    def pairs_table(self, *, narrow: bool = False) -> Table:
        """Return percentiles of both sides, the ratio of the medians and the p-value.

        Args:
            narrow: Whether the ratio is left out, for a terminal, where `Pair.words` say it.
        """
        names = ["series", "beside the base"] if len(self.sides) > 2 else ["series"]
        extra = [] if narrow else ["ratio of p50", "interval"]
        rows = []
        for pair in self.pairs:
            found = pair.difference
            low, high = found.interval
            row = [pair.title, pair.other][: len(names)]
            row += [
                f"{figure(pair.base_ms[p])} / {figure(pair.other_ms[p])}" for p in PERCENTS
            ]
            row += [f"{found.ratio:.3f}", f"{low:.3f} to {high:.3f}"][: len(extra)]
            rows.append((*row, p_text(found.p_value)))
        title = f"Latency in ms: {self.sides[0].title} / other"
        columns = (*names, *PERCENTS, *extra, "p-value")
        return Table(title, columns, tuple(rows), len(names))

    def as_json(self) -> dict[str, Any]:
        """Return all of it, as JSON takes it."""
        return {
            "base": self.sides[0].title,
            "sides": [
                {
                    "title": side.title,
                    "files": [str(run.path) for run in side.runs],
                    "stable": side.stable,
                    "model": side.runs[0].model_name,
                    "model_sha256": side.runs[0].data["model"]["sha256"],
                    "provider": side.runs[0].data["provider"]["name"],
                    "device": device(side.runs[0]),
                }
                for side in self.sides
            ],
            "warnings": list(self.warnings),
            "advice": self.advice,
            "differs": {name: list(texts) for name, texts in self.facts},
            "series": [
                {
                    "title": pair.title,
                    "other": pair.other,
                    "base_ms": pair.base_ms,
                    "other_ms": pair.other_ms,
                    "ratio": pair.difference.ratio,
                    "interval": list(pair.difference.interval),
                    "p_value": pair.difference.p_value,
                    "significant": pair.difference.significant,
                    "stable": pair.stable,
                    "words": pair.words,
                }
                for pair in self.pairs
            ],
            "alone": [{"title": title, "in": list(sides)} for title, sides in self.alone],
        }


def compare_reports(reports: Sequence[Report], *, force: bool = False) -> Comparison:
    """Hold reports against the first of them.

    Reports that bear the same label and differ in nothing but their samples are repeated
    runs of one side, where that leaves two sides at least.

    Args:
        reports: Two or more; the first is the base.
        force: Whether unstable runs are compared, and marked.

    Returns:
        The comparison.

    Raises:
        ParameterError: Fewer than two reports.
        UnstableReportError: A run judged itself unstable, and ``force`` is false.
        ReportFileError: Two sides have no series in common.
    """
    if len(reports) < 2:
        raise ParameterError(f"a comparison takes two reports or more, got {len(reports)}")
    unstable = [report for report in reports if not report.stable]
    if unstable and not force:
        named = ", ".join(f"{report.path}{_worst(report)}" for report in unstable)
        again = "it" if len(unstable) == 1 else "them"
        raise UnstableReportError(
            f"an unstable run says nothing beside another: {named}; measure {again} again, or "
            "pass --force (in Python force=True)"
        )
    sides = _sides(reports)
    return Comparison(
        sides,
        _facts(sides),
        _pairs(sides),
        _alone(sides),
        _devices(sides),
    )


def p_text(value: float) -> str:
    """Write a p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _why(report: Report) -> str:
    severe = [f["text"].rstrip(".") for f in report.data["verdict"]["findings"] if f["severe"]]
    more = f"; and {len(severe) - 3} more" if len(severe) > 3 else ""
    return "; ".join(severe[:3]) + more if severe else "it judged itself unstable"


def _worst(report: Report) -> str:
    """Return the code of the first severe finding, in brackets."""
    codes = [f["code"] for f in report.data["verdict"]["findings"] if f["severe"]]
    return f" ({codes[0]})" if codes else ""


def _named(side: Side, run: Report) -> str:
    """Return the side's title, with the run's file where that does not tell it."""
    told = side.title == run.path.name or str(run.path) in side.title
    return side.title if told else f"{side.title} ({run.path})"


def _sides(reports: Sequence[Report]) -> tuple[Side, ...]:
    groups: dict[Any, list[Report]] = {}
    for number, report in enumerate(reports):
        label = report.data["label"]
        same = number if label is None else (label, tuple(_identity(report).items()))
        groups.setdefault(same, []).append(report)
    runs = list(groups.values()) if len(groups) > 1 else [[report] for report in reports]
    names = [group[0].title for group in runs]
    if len(set(names)) < len(names):
        names = [str(group[0].path) for group in runs]
    if len(set(names)) < len(names):  # a file beside itself
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    return tuple(Side(name, tuple(group)) for name, group in zip(names, runs, strict=True))


def _identity(report: Report) -> Facts:
    """Return all that may tell two runs apart, but for what they measured."""
    own = {
        key: text for key, text in method(report).items() if key not in ("measured", "label")
    }
    facts = {
        fact_name(key): text
        for key, value in report.data["machine"].items()
        if key not in _MOVES and (text := fact_text(key, value)) is not None
    }
    return model(report) | provider(report) | facts | own


def _facts(sides: Sequence[Side]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    known = [_identity(side.runs[0]) for side in sides]
    names = dict.fromkeys(name for facts in known for name in facts)
    rows = [(name, tuple(facts.get(name, "-") for facts in known)) for name in names]
    return tuple((name, texts) for name, texts in rows if len(set(texts)) > 1)


def _pairs(sides: Sequence[Side]) -> tuple[Pair, ...]:
    base = sides[0]
    found = []
    for other in sides[1:]:
        shared = [key for key in base.keys if key in other.keys]
        if not shared:
            has = "; ".join(f"{s.title} has {_titles(s.keys)}" for s in (base, other))
            raise ReportFileError(
                f"{other.runs[0].path} and {base.runs[0].path} have no series in common: {has}"
            )
        for key in shared:
            samples = [[s.samples_ns for s in side.series(key)] for side in (base, other)]
            found.append(
                Pair(
                    key,
                    base.title,
                    other.title,
                    base.percentiles_ms(key),
                    other.percentiles_ms(key),
                    compare_samples(samples[0], samples[1]),
                    base.stable and other.stable,
                )
            )
    order = {key: number for number, key in enumerate(base.keys)}
    return tuple(sorted(found, key=lambda pair: order[pair.key]))


def _titles(keys: Sequence[Key]) -> str:
    return ", ".join(key_title(key) for key in keys) or "none"


def _alone(sides: Sequence[Side]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    keys = dict.fromkeys(key for side in sides for key in side.keys)
    having = {key: tuple(s.title for s in sides if key in s.keys) for key in keys}
    return tuple(
        (key_title(key), titles) for key, titles in having.items() if len(titles) < len(sides)
    )


def _devices(sides: Sequence[Side]) -> tuple[str, ...]:
    kinds = [tuple(s.runs[0].data["machine"].get(key) for key in _DEVICE) for s in sides]
    return tuple(device(side.runs[0]) for side in sides) if len(set(kinds)) > 1 else ()
