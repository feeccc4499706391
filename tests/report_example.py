# SPDX-License-Identifier: Apache-2.0
"""A report as a run writes it, of random samples: what its readers are tested on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.measuring.series import Series

__all__ = ["example_report", "example_series", "latencies", "smallest_report", "with_series"]

MACHINE = {
    "board": None,
    "cpu_model": "AMD EPYC 7B13",
    "architecture": "x86_64",
    "cores_usable": 2,
    "cores": 2,
    "memory_bytes": 8_300_000_000,
    "cpu_governor": "schedutil",
    "power_mode": None,
    "gpu_name": None,
    "system": "Linux-6.1",
    "python": "3.11.7",
    "onnxruntime": "1.31.1",
}


def latencies(count: int, p50_ms: float, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return (count,) nanoseconds that look like latency: skewed, with a tail, in bouts."""
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.standard_normal(count + 49), np.ones(50) / 50, "valid")
    body = rng.lognormal(0, 0.03, count) * (1 + 0.05 * slow)
    tail = np.where(rng.random(count) < 0.01, rng.exponential(0.5, count), 0)
    return np.round(1e6 * p50_ms * (body + tail)).astype(np.int64)


def example_series(
    name: str, count: int, p50_ms: float, *, batch: int = 1, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Return a series as a report has it."""
    samples = latencies(count, p50_ms, seed)
    warm_up = latencies(60, 1.3 * p50_ms, seed + 1)
    starts = np.cumsum(2 * samples) - 2 * samples[0]
    if "offered_per_s" in more:
        gaps = np.random.default_rng(seed + 2).exponential(1e9 / more["offered_per_s"], count)
        starts = np.cumsum(gaps).astype(np.int64)
    series = Series(name, batch, samples, starts, warm_up_ns=warm_up, **more)
    return series.summary(resamples=100) | {
        "samples_ns": samples.tolist(),
        "starts_ns": starts.tolist(),
        "warm_up_ns": warm_up.tolist(),
    }


def with_series(report: dict[str, Any], *series: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a report with other series."""
    made = {key: value for key, value in report.items() if key != "series"}
    return copy.deepcopy(made) | {"series": list(series)}


def smallest_report(p50_ms: float = 2.0, count: int = 300, **more: Any) -> dict[str, Any]:
    """Return a report of one series with everything left out that may be."""
    return example_report(count, p50_ms, full=False, **more)


def example_report(
    count: int = 2_000,
    p50_ms: float = 2.0,
    *,
    seed: int = 0,
    full: bool = True,
    stable: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """Return a report.

    Args:
        count: Samples a series.
        p50_ms: Of "fused", about.
        seed: Of the samples.
        full: Whether each part that may be there is.
        stable: Whether the run finds itself stable.
        more: Keys of the report that are to be otherwise.
    """
    series = [example_series("fused", count, p50_ms, seed=seed)]
    if full:
        series += _more_series(count, p50_ms, seed)
    report: dict[str, Any] = {
        "schema": "edge-imprint.report/1",
        "created_unix_s": 1_795_345_200,
        "made_with": "edge-imprint 0.5.0",
        "label": None,
        "commit": None,
        "model": {
            "file": "shop.onnx",
            "bytes": 4_300_123,
            "sha256": "ab" * 32,
            "precision": "fp32",
            "input": "uint8",
            "backbone": "glyphnet",
            "classes": 10,
            "slots": None,
            "embedding_size": 128,
            "target": "generic",
        },
        "engine": None,
        "provider": {
            "name": "CPUExecutionProvider",
            "backend": "cpu",
            "library": "onnxruntime 1.31.1",
            "threads": 2,
            "nodes": {"CPUExecutionProvider": 27},
            "strays": [],
        },
        "machine": dict(MACHINE),
        "method": {
            "clock": "perf_counter_ns",
            "mode": "turns",
            "iterations": count,
            "duration_s": None,
            "percentiles": "nearest rank",
            "confidence": 0.95,
            "resamples": 1000,
            "warm_up": "until the slope of the last samples is flat",
            "interval_s": 0.25 if full else None,
            "seed": 0,
        },
        "series": series,
        "mlperf": _MLPERF if full else None,
        "cold_start": _COLD_START if full else None,
        "memory": {
            "rss_before_bytes": 60_000_000 if full else None,
            "rss_open_bytes": 98_000_000 if full else None,
            "rss_peak_bytes": 131_000_000 if full else None,
            "device_bytes": None,
        },
        "energy": _ENERGY if full else None,
        "layers": _LAYERS if full else [],
        "sensors": _sensors(seed) if full else None,
        "verdict": {"stable": stable, "findings": [] if stable else [dict(DRIFT)]},
    }
    return copy.deepcopy(report | more)


DRIFT = {
    "code": "drift",
    "series": "fused",
    "text": "fused, batch 1: the median of the last fifth is 9 % above that of the first",
    "severe": True,
}
_MLPERF = {
    "queries": 2_000,
    "duration_s": 4.1,
    "percentile": 90,
    "confidence": 0.99,
    "over_latency": 170,
    "discarded": 169,
    "estimate_ms": 2.18,
    "needed_queries": 64,
    "suggested_queries": 24_576,
    "needed_duration_s": 600,
    "valid": False,
    "reason": "it ran for 4.1 s, and 600 s are the least",
}
_COLD_START = {
    "runs_ms": [412.0, 398.5, 405.25, 440.0, 401.5],
    "p50_ms": 405.25,
    "what": "from the start of a process to its first label",
}
_ENERGY = {
    "joules_per_image": 0.0231,
    "mean_power_w": 11.2,
    "source": "power_w.VDD_IN",
    "series": "fused",
}
_LAYERS = [
    {"name": f"backbone/conv{i}/Conv", "kind": "Conv", "mean_ms": 0.4 / (i + 1), "share": s}
    for i, s in enumerate((0.4, 0.2, 0.14, 0.1, 0.08))
] + [{"name": "head/scores", "kind": "MatMul", "mean_ms": 0.012, "share": 0.01}]


def _more_series(count: int, p50_ms: float, seed: int) -> list[dict[str, Any]]:
    alone = [example_series("backbone only", count, 0.985 * p50_ms, seed=seed + 10)]
    eights = [
        example_series("fused", count // 4, 6.1 * p50_ms, batch=8, seed=seed + 20),
        example_series("backbone only", count // 4, 6.05 * p50_ms, batch=8, seed=seed + 30),
    ]
    stages = [
        example_series("fused", count // 4, share * p50_ms, seed=seed + 40 + i, stage=stage)
        for i, (stage, share) in enumerate(
            (("copy_in", 0.06), ("compute", 0.9), ("copy_out", 0.02))
        )
    ]
    loads = [
        example_series(
            "fused", count // 4, share * p50_ms, seed=seed + 50 + i, offered_per_s=rate
        )
        for i, (rate, share) in enumerate(((100.0, 1.05), (300.0, 2.2)))
    ]
    return [*alone, *eights, *stages, *loads]


def _sensors(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    times = np.arange(0, 10, 0.25)
    readings = {
        "cpu_percent": 96 + rng.standard_normal(40),
        "cpu_mhz": 2_450 + 10 * rng.standard_normal(40),
        "own_cpu_s": 1.95 * times,
        "busy_cpu_s": 1.97 * times,
        "steal_s": 0.001 * times,
        "temperature_c.cpu": 48 + 4 * (1 - np.exp(-times / 3)),
        "power_w.VDD_IN": 11.2 + 0.3 * rng.standard_normal(40),
        "memory_available_bytes": 5.1e9 + 1e6 * rng.standard_normal(40),
    }
    kept: dict[str, list[float | None]] = {
        name: [round(float(value), 4) for value in values] for name, values in readings.items()
    }
    kept["temperature_c.cpu"][7] = None
    return {
        "interval_s": 0.25,
        "times_s": times.tolist(),
        "readings": kept,
        "lost": {"jtop": "the service jtop went away"},
    }
