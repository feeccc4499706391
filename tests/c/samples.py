# SPDX-License-Identifier: Apache-2.0
"""Series of samples for the tests of statistics: quiet, moved and measured ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import signal

from tests.c.asking import Asked

Samples = npt.NDArray[np.int64]

KINDS = (
    "lognormal",
    "two modes",
    "heavy tail",
    "resembling",
    "much resembling",
    "drift",
    "step",
    "burst",
    "tail burst",
    "decay",
    "ties",
    "rising",
    "falling",
    "equal",
    "zero",
)
COUNTS = (1, 2, 7, 8, 9, 23, 36, 50, 100, 368, 1_000, 4_096)


def made(kind: str, count: int, seed: int = 0) -> Samples:
    """A series: quiet ones of several shapes, and moved ones."""
    rng, at = np.random.default_rng(seed), np.arange(count)
    noise = np.exp(0.05 * rng.standard_normal(count))
    likeness = 0.95 if kind == "much resembling" else 0.8
    walk = signal.lfilter([1], [1, -likeness], rng.standard_normal(count + 300))[300:]
    in_middle = (at >= 0.4 * count) & (at < 0.6 * count)
    values = {
        "lognormal": noise,
        "two modes": np.where(rng.random(count) < 0.3, 1.5, 1.0) * noise**0.4,
        "heavy tail": 1 + 0.3 * rng.pareto(2.0, count),
        "resembling": np.exp(0.03 * walk),
        "much resembling": np.exp(0.02 * walk),
        "drift": noise * (1 + 0.1 * at / count),
        "step": noise * np.where(at >= 0.6 * count, 1.2, 1.0),
        "burst": noise * np.where(in_middle, 1.3, 1.0),
        "tail burst": noise * np.where(in_middle & (rng.random(count) < 0.3), 4.0, 1.0),
        "decay": noise * (1 + np.exp(-at / (0.1 * count))),
        "ties": rng.integers(1, 5, count).astype(np.float64),
        "rising": 1 + at / count,
        "falling": 2 - at / count,
        "equal": np.ones(count),
        "zero": np.zeros(count),
    }[kind]
    samples: Samples = (1e6 * values).astype(np.int64)
    return samples


def recorded(count: int) -> Samples:
    """What really was measured: the time of small products, one after another."""
    import time

    a, samples = np.ones((64, 64)), np.empty(count, np.int64)
    for i in range(count):
        began = time.perf_counter_ns()
        a @ a
        samples[i] = time.perf_counter_ns() - began
    return samples


def give(ask: Asked, samples: Samples, starts: Samples | None = None) -> None:
    ask("series", ask.file(samples), len(samples))
    if starts is not None:
        ask("starts", ask.file(starts))
