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
from edge_imprint_runtime.measuring.difference import compare

LIMIT = 1.02
ROUNDS = 10
WARM_UP_S = 1.0


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    results = {}
    for name, count in (("demo", 1_000), ("timm/resnet18", 60)):
        with tempfile.TemporaryDirectory() as folder:
            path = fused_file(Path(folder), name)
            session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            subject = model_subject(open_model(path, "cpu"))
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
            found = compare(kept["bare loop"], kept[loop])
            ratios[loop] = {"ratio": found.ratio, "interval": found.interval}
            limit = f", limit {LIMIT}" if loop == "bench, runner" else ""
            print(
                f"  {loop:15} / bare {found.ratio:.4f} "
                f"({found.interval[0]:.4f}-{found.interval[1]:.4f}{limit})"
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
    write_result("bench_vs_bare", {"limit": LIMIT, "rounds": rounds, "results": results})


if __name__ == "__main__":
    main()
