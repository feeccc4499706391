# SPDX-License-Identifier: Apache-2.0
"""The report of a model: its latencies, what they hang on, and whether they can be trusted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.cold import cold_start
from edge_imprint_runtime.measuring.early_stopping import estimate
from edge_imprint_runtime.measuring.energy import energy_of
from edge_imprint_runtime.measuring.judge import Verdict, judge
from edge_imprint_runtime.measuring.limits import Limit
from edge_imprint_runtime.measuring.memory import Memory
from edge_imprint_runtime.measuring.plan import Plan
from edge_imprint_runtime.measuring.provenance import (
    commit_here,
    engine_facts,
    made_with,
    model_facts,
    provider_facts,
)
from edge_imprint_runtime.measuring.run import (
    MLPERF_CONFIDENCE,
    MLPERF_PERCENT,
    MLPERF_S,
    Progress,
    Run,
)
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.measuring.subjects import Subject
from edge_imprint_runtime.sensors import Trace

__all__ = ["SCHEMA", "open_subject", "run_bench"]

SCHEMA = "edge-imprint.report/1"
CONFIDENCE = 0.95
RESAMPLES = 1_000

_MEMORY_CALLS = 3
_LAYER_ROUNDS, _LAYER_RUNS = 7, 3
_LAYERS_S = 60.0  # ONNX Runtime opens a session for each round, and TensorRT in it compiles
_WARM_UP = (
    "each was called until its times were steady, by a test for a slope and one for a change "
    "of level, for {limit_s:g} s at most (warmed_up is then false); see docs/measuring.md"
)


def open_subject(make: Callable[[], Subject], plan: Plan) -> tuple[Subject, Memory]:
    """Open what is to be measured, and watch what it takes of the memory.

    Args:
        make: Opens it. What it loads is counted as the model's.
        plan: What is to be measured; its largest batch is run a few times for the peak.

    Returns:
        The subject, and the memory.

    Raises:
        ParameterError: The plan is impossible.
    """
    plan.check()
    memory = Memory()
    subject = make()
    memory.opened()
    try:
        images = subject.images(max(plan.batches), plan.frame_size, seed=plan.seed)
        for _ in range(_MEMORY_CALLS):
            subject.call(images)
    except BaseException:  # an interrupt, too
        if subject.runner is not None:
            subject.runner.close()
        raise
    memory.peaked()
    return subject, memory


def run_bench(
    subject: Subject,
    plan: Plan,
    *,
    path: str | os.PathLike[str],
    beside: Sequence[Subject] = (),
    backend: str = "auto",
    cuda_graph: bool = False,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model, and what is to be compared with it.

    Args:
        subject: The model.
        plan: What is measured, and how.
        path: Its file, for its facts and for cold starts.
        beside: What is measured in turns with it, one call after the other; not under load.
        backend: What was asked for when it was opened.
        cuda_graph: Likewise.
        memory: As `open_subject` gave it.
        progress: Told (step, done, total) now and then; while a call is timed only where
            several callers are at work, or calls come by themselves.

    Returns:
        A report, as docs/report.schema.json has it and JSON takes it: every sample is in it.

    Raises:
        ParameterError: The plan is impossible, or does not fit the model.
    """
    plan.check()
    assert subject.runner is not None  # a file has one
    subject.images(1, plan.frame_size)  # refuse a frame's size before anything runs
    if plan.cold and subject.model is None:
        raise ParameterError(
            f"a cold start ends with a label, and {path} has none; leave out --cold"
        )
    for batch in plan.batches if plan.stages else ():
        subject.in_one_run(batch, "stages")
    if plan.layers:
        subject.in_one_run(plan.batches[0], "layers")
    names = [subject.name, *(other.name for other in beside)]
    if len(set(names)) < len(names):
        raise ParameterError(f"two things are measured under one name: {', '.join(names)}")
    commit = commit_here()
    run = Run(subject, tuple(beside), plan, progress)
    trace = run.recorded()
    # What fails from here on is said, and costs the run nothing.
    layers = cold = None
    if plan.layers:
        layers = run.tried("layers", lambda: _layers(subject, plan))
    if plan.cold:
        cold = run.tried("cold_start", lambda: _cold(subject, run, path, backend, cuda_graph))
    verdict = judge(run.series, trace, run.facts)
    findings = sorted((*verdict.findings, *run.findings), key=lambda one: not one.severe)
    verdict = Verdict(not any(one.severe for one in findings), tuple(findings))
    main = _main(run.series, subject.name)
    return {
        "schema": SCHEMA,
        "created_unix_s": int(time.time()),
        "made_with": made_with(),
        "label": plan.label,
        "commit": commit,
        "model": model_facts(path, subject.model.contract if subject.model else None),
        "engine": engine_facts(subject.runner),
        "provider": provider_facts(subject.runner, backend),
        "machine": run.facts,
        "method": _method(plan, trace),
        "series": [_series_json(series, plan.seed) for series in run.series],
        "mlperf": _mlperf(main) if plan.mlperf else None,
        "cold_start": cold,
        "memory": _memory_json(memory, subject),
        "energy": energy_of(main, trace),
        "layers": layers or [],
        "sensors": trace.as_json() if len(trace.times_s) else None,
        "verdict": verdict.as_json(),
    }


def _main(series: Sequence[Series], name: str) -> Series:
    """Return the series that speaks for the run: the first of whole calls, or their load."""
    whole = [one for one in series if one.name == name and one.stage == "whole"]
    return next((one for one in whole if one.offered_per_s is not None), whole[0])


def _method(plan: Plan, trace: Trace) -> dict[str, Any]:
    limit = Limit.of(plan.iterations, plan.duration_s)
    duration_s = plan.duration_s
    if plan.mlperf and plan.iterations is None and duration_s is None:
        duration_s = MLPERF_S
    return {
        "clock": "perf_counter_ns",
        "mode": plan.mode,
        "iterations": None if duration_s is not None else limit.samples,
        "duration_s": duration_s,
        "percentiles": "nearest rank",
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "warm_up": _WARM_UP.format(limit_s=plan.warm_up_s),
        "interval_s": trace.interval_s if len(trace.times_s) else None,
        "seed": plan.seed,
    }


def _series_json(series: Series, seed: int) -> dict[str, Any]:
    said = series.summary(confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
    starts = series.starts_ns
    return said | {
        "samples_ns": series.samples_ns.tolist(),
        "starts_ns": [] if starts is None else starts.tolist(),
        "warm_up_ns": [int(taken_ns) for taken_ns in series.warm_up_ns],
    }


def _mlperf(series: Series) -> dict[str, Any]:
    found = estimate(series.samples_ns, MLPERF_PERCENT, MLPERF_CONFIDENCE)
    assert series.starts_ns is not None  # a single stream knows them
    end_ns = int(series.starts_ns[-1] + series.samples_ns[-1])
    duration_s = (end_ns - int(series.starts_ns[0])) / 1e9
    reasons = []
    if duration_s < MLPERF_S:
        reasons.append(f"it ran for {duration_s:.1f} s, and {MLPERF_S:.0f} s are the least")
    if found.queries < found.needed_queries:
        reasons.append(
            f"it had {found.queries} queries, and {found.needed_queries} are the least"
        )
    estimate_ns = found.estimate_ns
    return {
        "queries": found.queries,
        "duration_s": duration_s,
        "percentile": MLPERF_PERCENT,
        "confidence": MLPERF_CONFIDENCE,
        "over_latency": found.over_latency,
        "discarded": found.discarded,
        "estimate_ms": None if estimate_ns is None else estimate_ns / 1e6,
        "needed_queries": found.needed_queries,
        "suggested_queries": found.suggested_queries,
        "needed_duration_s": MLPERF_S,
        "valid": not reasons,
        "reason": "; ".join(reasons) or None,
    }


def _cold(
    subject: Subject,
    run: Run,
    path: str | os.PathLike[str],
    backend: str,
    cuda_graph: bool,
) -> dict[str, Any]:
    assert subject.runner is not None
    return cold_start(
        path,
        run.plan.cold,
        shape=subject.images(1, run.plan.frame_size).shape[1:],
        dtype=subject.dtype.name,
        backend=backend,
        threads=subject.runner.threads,
        cuda_graph=cuda_graph,
        progress=run.tell("starting processes"),
    )


def _layers(subject: Subject, plan: Plan) -> list[dict[str, Any]]:
    """Time the layers of the first batch size: of each the median of means of a few runs.

    One run that another program holds up is in one of the means, and not in the median.
    """
    images = subject.images(plan.batches[0], plan.frame_size, seed=plan.seed)
    found: dict[tuple[str, str], list[float]] = {}
    end_s = time.monotonic() + _LAYERS_S
    for _ in range(_LAYER_ROUNDS):
        for layer in subject.layers(images, runs=_LAYER_RUNS):
            found.setdefault((layer.name, layer.kind), []).append(layer.mean_ns)
        if not found or time.monotonic() > end_s:
            break
    taken_ns = {layer: median(means_ns) for layer, means_ns in found.items()}
    whole_ns = sum(taken_ns.values())
    return [
        {
            "name": name[:1_000],
            "kind": kind[:300],
            "mean_ms": mean_ns / 1e6,
            "share": mean_ns / whole_ns if whole_ns else None,
        }
        for (name, kind), mean_ns in sorted(taken_ns.items(), key=lambda item: -item[1])
    ]


def _memory_json(memory: Memory | None, subject: Subject) -> dict[str, int | None]:
    assert subject.runner is not None
    device_bytes = subject.runner.device_memory_bytes()
    if memory is not None:
        return memory.as_json(device_bytes)
    unknown = ("rss_before_bytes", "rss_open_bytes", "rss_peak_bytes")
    return dict.fromkeys(unknown) | {"device_bytes": device_bytes}
