# SPDX-License-Identifier: Apache-2.0
"""The form of a report, as ``docs/report.schema.json`` states it: keys, types, bounds.

The file in ``docs`` is normative and tells what each key means; tests hold the two together.
"""

from __future__ import annotations

from typing import Any

from edge_imprint_runtime.measuring.limits import MAX_SAMPLES
from edge_imprint_runtime.measuring.series import PERCENTS, percent_key
from edge_imprint_runtime.reporting import shape as s

__all__ = ["PERCENT_KEYS", "SCHEMA", "check_form"]

SCHEMA = "edge-imprint.report/1"

# Key of a percentile in a series, and its percent.
PERCENT_KEYS = {percent_key(percent): percent for percent in PERCENTS}

_SHORT = s.text(300)
_MS = s.number(0)
_COUNT = s.integer(0)
_BYTES = s.maybe(s.integer(0))
_SHARE = s.number(0, 1)

_MODEL = s.record(
    {
        "file": s.text(4_096),
        "bytes": s.integer(1),
        "sha256": s.text(64, pattern="[0-9a-f]{64}"),
        "precision": s.maybe(_SHORT),
        "input": s.maybe(_SHORT),
        "backbone": s.maybe(_SHORT),
        "classes": s.maybe(s.integer(1)),
        "slots": s.maybe(_COUNT),
        "embedding_size": s.maybe(s.integer(1)),
        "target": s.maybe(_SHORT),
    }
)

_ENGINE = s.record(
    {
        "tensorrt": _SHORT,
        "gpu_name": _SHORT,
        "compute_capability": _SHORT,
        "driver": s.maybe(_SHORT),
        "cuda": s.maybe(_SHORT),
        "precision": s.maybe(_SHORT),
        "build_s": s.maybe(s.number(0)),
    },
    more=s.anything,
)

_PROVIDER = s.record(
    {
        "name": _SHORT,
        "backend": _SHORT,
        "library": _SHORT,
        "threads": _COUNT,
        "nodes": s.mapping(_COUNT),
        "strays": s.listing(s.text(1_000), most=100),
    }
)

_METHOD = s.record(
    {
        "clock": _SHORT,
        "mode": s.choice("turns", "mlperf", "load", "concurrent"),
        "iterations": s.maybe(s.integer(1)),
        "duration_s": s.maybe(s.number(0)),
        "percentiles": s.choice("nearest rank"),
        "confidence": _SHARE,
        "resamples": _COUNT,
        "warm_up": s.text(),
        "interval_s": s.maybe(s.number(0)),
        "seed": _COUNT,
    }
)

_INTERVALS = s.record({key: s.maybe(s.listing(_MS, 2, 2)) for key in PERCENT_KEYS})

_SERIES = s.record(
    {
        "name": _SHORT,
        "batch": s.integer(1),
        "concurrency": s.integer(1),
        "stage": s.text(60, pattern="[a-z][a-z0-9_]*"),
        "clock": s.choice("host", "cuda_events"),
        "iterations": s.integer(1),
        "warm_up_iterations": _COUNT,
        "warmed_up": s.boolean,
        "min_ms": _MS,
        **{f"{key}_ms": _MS for key in PERCENT_KEYS},
        "max_ms": _MS,
        "mean_ms": _MS,
        "intervals_ms": _INTERVALS,
        "throughput_images_per_s": s.number(0),
        "offered_per_s": s.maybe(s.number(0)),
        "samples_ns": s.integers(0, fewest=1, most=MAX_SAMPLES),
        "starts_ns": s.integers(0, most=MAX_SAMPLES),
        "warm_up_ns": s.integers(0, most=MAX_SAMPLES),
    }
)

_MLPERF = s.record(
    {
        "queries": _COUNT,
        "duration_s": s.number(0),
        "percentile": s.number(0, 100),
        "confidence": _SHARE,
        "over_latency": _COUNT,
        "discarded": _COUNT,
        "estimate_ms": s.maybe(_MS),
        "needed_queries": s.maybe(_COUNT),
        "suggested_queries": s.maybe(_COUNT),
        "needed_duration_s": s.maybe(s.number(0)),
        "valid": s.boolean,
        "reason": s.maybe(s.text()),
    }
)

_COLD_START = s.record({"runs_ms": s.listing(_MS, 1, 10_000), "p50_ms": _MS, "what": s.text()})

_MEMORY = s.record(
    {
        "rss_before_bytes": _BYTES,
        "rss_open_bytes": _BYTES,
        "rss_peak_bytes": _BYTES,
        "device_bytes": _BYTES,
    }
)

_ENERGY = s.record(
    {
        "joules_per_image": s.number(0),
        "mean_power_w": s.number(0),
        "source": _SHORT,
        "series": _SHORT,
    }
)

_LAYER = s.record(
    {"name": s.text(1_000), "kind": _SHORT, "mean_ms": _MS, "share": s.maybe(_SHARE)}
)

_SENSORS = s.record(
    {
        "interval_s": s.number(0),
        "times_s": s.listing(s.number(0)),
        "readings": s.mapping(s.listing(s.maybe(s.number()))),
        "lost": s.mapping(s.text()),
    }
)

_VERDICT = s.record(
    {
        "stable": s.boolean,
        "findings": s.listing(
            s.record(
                {
                    "code": s.text(60, pattern="[a-z][a-z0-9_]*"),
                    "series": s.maybe(_SHORT),
                    "text": s.text(),
                    "severe": s.boolean,
                }
            ),
            most=10_000,
        ),
    }
)

_REPORT = s.record(
    {
        "schema": s.choice(SCHEMA),
        "created_unix_s": s.number(0),
        "made_with": _SHORT,
        "label": s.maybe(_SHORT),
        "commit": s.maybe(_SHORT),
        "model": _MODEL,
        "engine": s.maybe(_ENGINE),
        "provider": _PROVIDER,
        "machine": s.mapping(s.scalar),
        "method": _METHOD,
        "series": s.listing(_SERIES, 1, 1_000),
        "mlperf": s.maybe(_MLPERF),
        "cold_start": s.maybe(_COLD_START),
        "memory": _MEMORY,
        "energy": s.maybe(_ENERGY),
        "layers": s.listing(_LAYER, most=100_000),
        "sensors": s.maybe(_SENSORS),
        "verdict": _VERDICT,
    }
)


def check_form(value: Any, where: str) -> None:
    """Hold that a value has the form of a report.

    Args:
        value: What JSON gave.
        where: The place of it within the whole, for the error; "" is the whole.

    Raises:
        ShapeError: It has not; the place and what is wrong there.
    """
    _REPORT(value, where)
