# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint bench` against a loop that anyone would write: p50 within 2 %.

By turns: a plain loop of ``InferenceSession.run``, the bench on the same file with nothing
but its runner in between, and the bench as users get it (`Model.predict`, which checks what
goes in and what comes out). What `predict` adds is stated; the limit holds for the runner.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from common import fused_file, write_result
from edge_imprint_runtime import open_model
from edge_imprint_runtime.measuring import measure, model_subject

LIMIT = 1.02
# Many short turns: what else the machine does from second to second hits all loops alike. One
# thread each, since two pools that spin on the same cores disturb each other by more than 2 %.
ROUNDS = 25
WARM_UP_S = 0.2
THREADS = 1


def bare(
    session: ort.InferenceSession, images: npt.NDArray[np.uint8], count: int
) -> list[int]:
    """Time calls as in any tutorial: warmed up, then one after the other."""
    taken_ns = []
    end = time.perf_counter() + WARM_UP_S / 2
    while time.perf_counter() < end:
        session.run(["scores", "label"], {"images": images})
    for _ in range(count):
        start = time.perf_counter_ns()
        session.run(["scores", "label"], {"images": images})
        taken_ns.append(time.perf_counter_ns() - start)
    return taken_ns


def by_bench(call: Callable[[], object], count: int) -> list[int]:
    """Time calls as `edge-imprint bench` does."""
    (series,) = measure({"call": call}, iterations=count, warm_up_s=WARM_UP_S)
    taken_ns: list[int] = series.samples_ns.tolist()
    return taken_ns


def paired(
    base: list[npt.NDArray[np.int64]], other: list[npt.NDArray[np.int64]]
) -> tuple[float, tuple[float, float]]:
    """Return the median of the rounds' ratios of p50, and its 95 % bootstrap interval."""
    pairs = zip(base, other, strict=True)
    ratios = np.array([np.median(theirs) / np.median(own) for own, theirs in pairs])
    drawn = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    results = {}
    for name, count in (("demo", 500), ("timm/resnet18", 15)):
        with tempfile.TemporaryDirectory() as folder:
            path = fused_file(Path(folder), name)
            options = ort.SessionOptions()
            options.intra_op_num_threads = THREADS
            session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            subject = model_subject(open_model(path, "cpu", threads=THREADS))
        images = np.random.default_rng(0).integers(0, 256, (1, *subject.shape), np.uint8)
        runner, outputs = subject.runner, ["scores", "label"]
        assert runner is not None
        loops: dict[str, Callable[[int], list[int]]] = {
            "bare loop": partial(bare, session, images),
            "bench, runner": partial(by_bench, partial(runner.run, outputs, images)),
            "bench, predict": partial(by_bench, subject.bound(images)),
        }
        kept: dict[str, list[npt.NDArray[np.int64]]] = {loop: [] for loop in loops}
        for number in range(rounds):
            order = list(loops) if number % 2 else list(loops)[::-1]
            for loop in order:
                kept[loop].append(np.array(loops[loop](count), np.int64))
        base = np.concatenate(kept["bare loop"])
        print(f"{name}: p50 of the bare loop {np.median(base) / 1e6:.4f} ms")
        ratios = {}
        for loop in list(loops)[1:]:
            ratio, interval = paired(kept["bare loop"], kept[loop])
            ratios[loop] = {"ratio": ratio, "interval": interval}
            limit = f", limit {LIMIT}" if loop == "bench, runner" else ""
            print(
                f"  {loop:15} / bare {ratio:.4f} ({interval[0]:.4f}-{interval[1]:.4f}{limit})"
            )
        added_us = (np.median(np.concatenate(kept["bench, predict"])) - np.median(base)) / 1e3
        print(f"  predict adds {added_us:.1f} us")
        results[name] = {
            "ratios_p50": ratios,
            "predict_adds_us": added_us,
            "samples_ns": {
                loop: [row.tolist() for row in rows] for loop, rows in kept.items()
            },
        }
    facts = {"limit": LIMIT, "rounds": rounds, "threads": THREADS}
    write_result("bench_vs_bare", facts | {"results": results})


if __name__ == "__main__":
    main()
