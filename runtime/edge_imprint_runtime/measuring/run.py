# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan: which series are taken, one after the other, while sensors are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.machine import Facts, machine_facts
from edge_imprint_runtime.measuring.early_stopping import needed_queries
from edge_imprint_runtime.measuring.judge import Finding
from edge_imprint_runtime.measuring.limits import MAX_ALL_SAMPLES, MAX_SAMPLES, Limit, Tell
from edge_imprint_runtime.measuring.load import Offered, closed_loop, offered_load
from edge_imprint_runtime.measuring.plan import Plan
from edge_imprint_runtime.measuring.series import Series, rate_text
from edge_imprint_runtime.measuring.subjects import Array, Subject
from edge_imprint_runtime.measuring.turns import measure, measure_stages, single_stream
from edge_imprint_runtime.sensors import Recorder, Trace, open_sensors

__all__ = [
    "INTERVAL_S",
    "MLPERF_CONFIDENCE",
    "MLPERF_PERCENT",
    "MLPERF_S",
    "Progress",
    "Run",
]

INTERVAL_S = 0.25  # of the sensors
_MAX_TEXT = 2_000  # of an error, which may hold what a library printed
_MOST_STAGES = 6  # copy-in, compute and copy-out, by the host's clock and by the device's
# MLPerf Inference, single stream: its inference_rules.adoc.
MLPERF_S = 600.0
MLPERF_PERCENT = 90.0
MLPERF_CONFIDENCE = 0.99

Progress: TypeAlias = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass
class Run:
    """A plan as it is carried out.

    Attributes:
        subject: What is measured.
        beside: What is measured in turns with it.
        plan: How.
        progress: Told (step, done, total).
        series: What was taken so far.
        findings: What was seen while it was.
        facts: The machine's, as it was found before the first series.
    """

    subject: Subject
    beside: tuple[Subject, ...]
    plan: Plan
    progress: Progress | None = None
    series: list[Series] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)
    _began_ns: int = 0

    @property
    def most(self) -> int:
        """Samples of a series at most: all of them share a report that can still be read."""
        plan = self.plan
        whole = 1 + len(self.beside) if plan.mode == "turns" else 1
        each = whole + (plan.rate_share is not None) + _MOST_STAGES * plan.stages
        return min(MAX_SAMPLES, MAX_ALL_SAMPLES // (each * len(plan.batches)))

    def recorded(self) -> Trace:
        """Take all series, and read the sensors meanwhile.

        Returns:
            What the sensors said; the series' starts are counted from its begin.

        Raises:
            ParameterError: So many samples of so many series fit into no report.
        """
        Limit.of(self.plan.iterations, self.plan.duration_s, self.most)
        sources = open_sensors()
        try:
            self.facts = machine_facts(sources)
            with Recorder(sources, INTERVAL_S) as recorder:
                self._began_ns = recorder.start_ns
                for batch in self.plan.batches:
                    self._take(batch)
            return recorder.trace()
        finally:
            for source in sources:
                source.close()

    def tell(self, step: str) -> Tell | None:
        """Return what is told (done, total) of one step."""
        if self.progress is None:
            return None
        progress = self.progress
        return lambda done, total: progress(step, done, total)

    def tried(self, part: str, take: Callable[[], T]) -> T | None:
        """Take a part of the report that comes last.

        Args:
            part: Its key.
            take: Makes it.

        Returns:
            It; None where it failed, which is then a finding: the series are worth keeping.
        """
        try:
            return take()
        except EdgeImprintError as error:
            self._find(f"{part}_failed", str(error)[:_MAX_TEXT])
            return None

    def _take(self, batch: int) -> None:
        plan, name = self.plan, self.subject.name
        images = self.subject.images(batch, plan.frame_size, seed=plan.seed)
        before = len(self.series)
        if plan.mode == "turns":
            self._take_turns(batch, images)
        elif plan.mode == "mlperf":
            short = plan.duration_s is not None or plan.iterations is not None
            queries = needed_queries(MLPERF_PERCENT, MLPERF_CONFIDENCE)
            self.series.append(
                single_stream(
                    name,
                    self.subject.bound(images),
                    queries=(plan.iterations or 1) if short else queries,
                    duration_s=(plan.duration_s or 0.0) if short else MLPERF_S,
                    progress=self.tell("measuring a single stream"),
                    began_ns=self._began_ns,
                    warm_up_s=plan.warm_up_s,
                )
            )
        else:
            self._take_load(batch, images)
        if plan.stages:
            step = f"measuring the stages of batch {batch}"
            run = self.subject.stages(images)
            self.series += measure_stages(name, run, **self._common(batch, step))
        duration_s = plan.duration_s
        if plan.mlperf and duration_s is None and plan.iterations is None:
            duration_s = MLPERF_S
        full = any(len(one.samples_ns) >= self.most for one in self.series[before:])
        if duration_s is not None and full:
            self._find(
                "sample_limit",
                f"it ended before {duration_s:g} s were over, since a series of a report "
                f"holds at most {self.most:,} samples",
            )

    def _take_turns(self, batch: int, images: Array) -> None:
        runs = {self.subject.name: self.subject.bound(images)}
        for other in self.beside:
            same = (other.shape, other.dtype) == (self.subject.shape, self.subject.dtype)
            size = self.plan.frame_size if 0 in other.shape else None
            own = images if same else other.images(batch, size, seed=self.plan.seed)
            runs[other.name] = other.bound(own)
        self.series += measure(runs, **self._common(batch, f"measuring batch {batch}"))

    def _take_load(self, batch: int, images: Array) -> None:
        plan, name = self.plan, self.subject.name
        # Each thread has images of its own, as callers have.
        calls = [self.subject.bound(images.copy()) for _ in range(plan.concurrency)]
        rate_per_s = plan.rate_per_s
        if rate_per_s is None:
            at_once = f", {plan.concurrency} at once" if plan.concurrency > 1 else ""
            step = f"measuring batch {batch}{at_once}"
            closed = closed_loop(name, calls, **self._common(batch, step))
            self.series.append(closed)
            if plan.rate_share is None:
                return
            rate_per_s = plan.rate_share * closed.throughput_images_per_s() / batch
        step = f"measuring batch {batch}, {rate_text(rate_per_s)} calls a second"
        options = self._common(batch, step)
        offered = offered_load(name, calls, rate_per_s, seed=plan.seed, **options)
        self.series.append(offered.series)
        self._judge_load(offered)

    def _judge_load(self, offered: Offered) -> None:
        name, threads = offered.series.name, offered.series.concurrency
        busy = "the thread was" if threads == 1 else f"the {threads} threads were"
        asked, drawn = rate_text(offered.offered_per_s), rate_text(offered.drawn_per_s)
        self._find(
            "backlog",
            f"{name} at {asked} calls a second, of which chance made {drawn}: a call found "
            f"{offered.backlog_mean:.2g} others waiting on average, {offered.backlog_max} at "
            f"most; {busy} busy {offered.busy_share:.0%} of the time",
        )
        if offered.overloaded:
            left = f", and {offered.unserved} were given up" if offered.unserved else ""
            self._find(
                "overload",
                f"{rate_text(offered.offered_per_s)} calls a second are more than "
                f"{'one thread answers' if threads == 1 else f'{threads} threads answer'} "
                f"with {name}: {offered.backlog_end} of "
                f"{offered.arrivals} still waited when the last one came{left}; give a lower "
                "--rate",
                severe=True,
            )

    def _common(self, batch: int, step: str) -> dict[str, Any]:
        return {
            "batch": batch,
            "iterations": self.plan.iterations,
            "duration_s": self.plan.duration_s,
            "progress": self.tell(step),
            "began_ns": self._began_ns,
            "warm_up_s": self.plan.warm_up_s,
            "most": self.most,
        }

    def _find(self, code: str, text: str, *, severe: bool = False) -> None:
        self.findings.append(Finding(code, self.subject.name, text, severe))
