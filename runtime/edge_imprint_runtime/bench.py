# SPDX-License-Identifier: Apache-2.0
"""Latency: warmed up, interleaved, on a monotonic clock, every sample kept.

What is compared is measured in turns within one run, so that a clock that throttles or a
neighbour that wakes up hits all series alike. Percentiles are by nearest rank: a percentile
is always a sample that was seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract.spec import MAX_SIDE_PIXELS
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.model import Model

__all__ = ["SCHEMA", "Series", "bench_model", "measure"]

SCHEMA = "edge-imprint.bench/1"
DEFAULT_ITERATIONS = 1_000
WARMUP_ITERATIONS = 20
# A turn of one series is long against what the others' threads leave behind (ONNX Runtime's
# spin on for a while), and short against a throttle; each series gets ten turns at least.
_TURN_NS = 500_000_000
_MIN_TURNS = 10


@dataclass(frozen=True)
class Series:
    """The samples of one thing measured.

    Attributes:
        name: What ran.
        batch: Images a sample.
        samples_ns: (S,) int64 nanoseconds, in the order in which they were taken.
    """

    name: str
    batch: int
    samples_ns: npt.NDArray[np.int64]

    def percentile_ms(self, percent: float) -> float:
        """Return the nearest-rank percentile in milliseconds: a sample that was seen."""
        ordered = np.sort(self.samples_ns)
        rank = max(1, math.ceil(percent * len(ordered) / 100))
        return float(ordered[rank - 1]) / 1e6

    def summary(self) -> dict[str, Any]:
        """Return name, batch, counts, latencies in ms and throughput, as JSON takes them."""
        mean_ms = float(self.samples_ns.mean()) / 1e6
        return {
            "name": self.name,
            "batch": self.batch,
            "iterations": len(self.samples_ns),
            "min_ms": float(self.samples_ns.min()) / 1e6,
            "p50_ms": self.percentile_ms(50),
            "p90_ms": self.percentile_ms(90),
            "p99_ms": self.percentile_ms(99),
            "max_ms": float(self.samples_ns.max()) / 1e6,
            "mean_ms": mean_ms,
            "throughput_images_per_s": self.batch / mean_ms * 1e3,
        }


def measure(
    runs: Mapping[str, Callable[[], object]],
    *,
    batch: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Series]:
    """Time callables in turns.

    Args:
        runs: What to time, by name; each call is one sample.
        batch: Images that one call takes.
        iterations: Samples of each (default 1,000 where no duration is given).
        duration_s: Instead: seconds for all of them together.
        progress: Told (done, total) now and then: samples, or milliseconds.

    Returns:
        One series a callable, of equal length.

    Raises:
        ParameterError: Both or an impossible limit given.
    """
    if iterations is not None and duration_s is not None:
        raise ParameterError("give iterations or duration, not both")
    if iterations is not None and iterations < 1:
        raise ParameterError(f"iterations must be an integer >= 1, got {iterations}")
    if duration_s is not None and not 0 < duration_s <= 86_400:
        raise ParameterError(f"duration must be above 0 s and at most a day, got {duration_s}")
    wanted = iterations or (None if duration_s else DEFAULT_ITERATIONS)
    slowest_ns = _warm_up(runs)
    if wanted is None:
        share_ns = int((duration_s or 0) * 1e9 / _MIN_TURNS / len(runs))
        turn = max(1, min(_TURN_NS, share_ns) // slowest_ns)
    else:
        turn = max(1, min(_TURN_NS // slowest_ns, wanted // _MIN_TURNS))
    samples: dict[str, list[int]] = {name: [] for name in runs}
    clock, begin, done = time.perf_counter_ns, time.perf_counter_ns(), 0
    while True:
        count = turn if wanted is None else min(turn, wanted - done)
        for name, run in runs.items():
            kept = samples[name]
            run()  # not kept: it meets the caches and threads that another series left
            for _ in range(count):
                start = clock()
                run()
                kept.append(clock() - start)
        done += count
        elapsed_ns = clock() - begin
        if progress is not None:
            total = wanted or int((duration_s or 0) * 1e3)
            progress(min(done if wanted else elapsed_ns // 1_000_000, total), total)
        if done == wanted or (duration_s is not None and elapsed_ns >= duration_s * 1e9):
            return [
                Series(name, batch, np.array(kept, np.int64)) for name, kept in samples.items()
            ]


def bench_model(
    models: Mapping[str, Model | Callable[[npt.NDArray[np.generic]], object]],
    like: Model,
    *,
    batches: tuple[int, ...] = (1,),
    frame_size: tuple[int, int] | None = None,
    iterations: int | None = None,
    duration_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure models on the same random images.

    Args:
        models: By name, a `Model` (its `predict` is timed) or what takes the images.
        like: The model whose input they all take.
        batches: Batch sizes, each a set of series.
        frame_size: Height and width in pixels, for models that take frames of any size.
        iterations: As in `measure`.
        duration_s: As in `measure`, for each batch size.
        progress: As in `measure`.

    Returns:
        A report, as JSON takes it: schema, machine facts, provider, and the series with their
        raw samples in nanoseconds.

    Raises:
        ParameterError: A limit, a batch size or the frame's size is impossible.
    """
    shape = _image_shape(like, frame_size)
    if not batches or min(batches) < 1 or max(batches) > 4_096:
        raise ParameterError(f"batch must be integers from 1 to 4096, got {batches}")
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "created_unix_s": int(time.time()),
        "clock": "perf_counter_ns",
        "warmup_iterations": WARMUP_ITERATIONS,
        "percentiles": "nearest rank",
        "provider": like.provider,
        "threads": like.threads,
        "machine": machine_facts(),
        "series": [],
    }
    for batch in batches:
        images = _random_images(like, (batch, *shape))
        runs: dict[str, Callable[[], object]] = {
            name: _bind(model.predict if isinstance(model, Model) else model, images)
            for name, model in models.items()
        }
        for series in measure(
            runs, batch=batch, iterations=iterations, duration_s=duration_s, progress=progress
        ):
            raw = {"samples_ns": series.samples_ns.tolist()}
            report["series"].append(series.summary() | raw)
    return report


def _bind(
    call: Callable[[Any], object], images: npt.NDArray[np.generic]
) -> Callable[[], object]:
    return lambda: call(images)


def _image_shape(model: Model, frame_size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of one image; of a frame of any size, the one asked for."""
    any_size = 0 in model.input_shape
    if any_size != (frame_size is not None):
        raise ParameterError(
            "the model takes frames of any size; say of which it is measured, such as "
            "--frame-size 1280x720"
            if any_size
            else "the model takes images of one size; leave out the frame's size"
        )
    if frame_size is None:
        return model.input_shape
    if not all(1 <= side <= MAX_SIDE_PIXELS for side in frame_size):
        raise ParameterError(f"a frame's sides are 1 to {MAX_SIDE_PIXELS}, got {frame_size}")
    return (*frame_size, model.input_shape[2])


def _random_images(model: Model, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    rng = np.random.default_rng(0)
    if model.input_dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(model.input_dtype)


def _warm_up(runs: Mapping[str, Callable[[], object]]) -> int:
    """Run each a few times; return the nanoseconds of a call of the slowest."""
    slowest_ns = 1
    for run in runs.values():
        start = time.perf_counter_ns()
        for _ in range(WARMUP_ITERATIONS):
            run()
        slowest_ns = max(slowest_ns, (time.perf_counter_ns() - start) // WARMUP_ITERATIONS)
    return slowest_ns
