# SPDX-License-Identifier: Apache-2.0
"""Large heads in fewer bits: how much faster, and how often the label is float32's.

Speed: the head alone, 1,000 classes x 20 proxies x 1,024, in each precision and dialect, batch
1 and 8, on one thread and on as many as ONNX Runtime likes, against fp32. "warm": call after
call, as far as the caches reach; "cold": between two calls 64 MiB are read, as a backbone may
leave them. Limit: int8 at batch 1, warm, 5x; with neighbours on the machine, who take the
caches, it is less.

Labels: on four sets of queries, how often int8 names the oracle's label, and at which rank it
puts the oracle's proxy; that bounds how many candidates `exact` has to look at again. The
sets: half way between two proxies in a cone, as embeddings lie (most labels hang on little);
the same in a narrow cone; random directions, which are of no class at all; the demo's digits,
each of 1,100 its own proxy. Limit: exact 100 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from common import series_json, write_result
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.head.exact import CANDIDATES
from edge_imprint_export.head.layout import layout_of
from edge_imprint_runtime import Head
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.measuring import Series, measure
from tasks import digit_tasks

CLASSES, K, SIZE = 1_000, 20, 1_024
FORMS = {
    "fp32": ("fp32", "portable"),
    "fp16": ("fp16", "portable"),
    "int8, Q/DQ": ("int8", "tensorrt-11"),
    "int8, MatMulInteger": ("int8", "onnxruntime"),
    "exact, Q/DQ": ("exact", "tensorrt-11"),
    "exact, MatMulInteger": ("exact", "onnxruntime"),
}
COUNTS = (1, 2, 4, 8, 16, 32, 64)
BLOCK = 50
FLUSH_BYTES = 64 * 2**20

Float32 = npt.NDArray[np.float32]


def cone(
    depth: float, queries: int, size: int = SIZE, classes: int = CLASSES
) -> tuple[Head, Float32]:
    """Make a head and queries like embeddings: not negative, modes of classes in a cone.

    Args:
        depth: How far the embeddings' mean lies from the origin; more is narrower.
        queries: Each lies about half way between two random proxies, with noise.
        size: Of an embedding.
        classes: Of 20 proxies each.

    Returns:
        The head, and (queries, size) embeddings.
    """
    rng = np.random.default_rng(0)
    points = depth + rng.standard_normal(size, np.float32)
    points = points + 0.7 * rng.standard_normal((classes, 1, size), np.float32)
    points = points + 0.4 * rng.standard_normal((classes, K, size), np.float32)
    points = np.maximum(points, 0).reshape(-1, size)
    one, other = rng.integers(0, len(points), (2, queries))
    share = rng.uniform(0.4, 0.6, (queries, 1)).astype(np.float32)
    rows = share * points[one] + (1 - share) * points[other]
    rows += 0.5 * rng.standard_normal(rows.shape, np.float32)
    return unit_head(points, np.repeat(np.arange(classes), K)), np.maximum(rows, 0)


def unit_head(points: Float32, index: npt.NDArray[np.int64]) -> Head:
    """Make a head of these proxies, normalised, one label a class."""
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return Head(points, index, [f"class {c}" for c in range(index.max() + 1)])


def random_directions(queries: int) -> tuple[Head, Float32]:
    """Make a head and queries of no structure."""
    rng = np.random.default_rng(1)
    points = rng.standard_normal((CLASSES * K, SIZE), np.float32)
    head = unit_head(points, np.repeat(np.arange(CLASSES), K))
    return head, rng.standard_normal((queries, SIZE), np.float32)


def digits() -> tuple[Head, Float32]:
    """Take the demo's digits: 1,100 are proxies, 697 are queries."""
    task = digit_tasks(0)[0]
    return unit_head(task.train, task.train_y), task.test


def model_of(head: Head, form: str) -> onnx.ModelProto:
    """Make a model of the head alone, in one of `FORMS`."""
    precision, target = FORMS[form]
    return fuse_head(head, head_precision=precision, target=target)


def speed(head: Head, iterations: int, threads: int) -> list[dict[str, Any]]:
    """Measure every form at batch 1 and 8, warm and cold."""
    runners = {
        name: OrtRunner(to_bytes(model_of(head, name)), "cpu", threads) for name in FORMS
    }
    results = []
    for batch in (1, 8):
        rows = np.random.default_rng(2).standard_normal((batch, SIZE), np.float32)
        runs = {name: _bind(runner, rows) for name, runner in runners.items()}
        for state, timed in (("warm", measure), ("cold", measure_cold)):
            series = timed(runs, batch=batch, iterations=iterations)
            p50 = {s.name: s.percentile_ms(50) for s in series}
            ratios = {name: p50["fp32"] / value for name, value in p50.items()}
            count = "one thread" if threads == 1 else "as many threads as it likes"
            print(f"{CLASSES} x {K} x {SIZE}, batch {batch}, {state}, {count}")
            for name, value in p50.items():
                print(f"  {name:21} p50 {value:7.3f} ms   {ratios[name]:5.2f}x as fast")
            results.append(
                {
                    "batch": batch,
                    "threads": threads,
                    "state": state,
                    "times_as_fast_p50": ratios,
                    "series": series_json(series),
                }
            )
    return results


def measure_cold(
    runs: dict[str, Callable[[], object]], *, batch: int, iterations: int
) -> list[Series]:
    """Time callables in turns, one call each, after the caches were filled with others."""
    other = np.ones(FLUSH_BYTES // 8)
    samples: dict[str, list[int]] = {name: [] for name in runs}
    for _ in range(iterations):
        for name, run in runs.items():
            other.sum()
            start = time.perf_counter_ns()
            run()
            samples[name].append(time.perf_counter_ns() - start)
    return [Series(name, batch, np.array(taken)) for name, taken in samples.items()]


def labels(name: str, head: Head, rows: Float32) -> dict[str, Any]:
    """Compare every form's labels with the oracle's, and find its proxy's rank in int8."""
    label, want = head.predict(rows), head.scores(rows)
    agreement, difference = {}, {}
    for form in FORMS:
        scores, found = _in_blocks(model_of(head, form), ["scores", "label"], rows)
        agreement[form] = float((found == label).mean())
        difference[form] = float(np.abs(scores - want).max())
    model = model_of(head, "int8, Q/DQ")
    value = helper.make_tensor_value_info("head/similarity", TensorProto.FLOAT, None)
    model.graph.output.append(value)
    (similarity,) = _in_blocks(model, ["head/similarity"], rows)
    normed = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    best = np.concatenate([(part @ head.proxies.T).argmax(axis=1) for part in _parts(normed)])
    column = np.empty(len(head.proxies), np.int64)
    layout = layout_of(head)
    own = np.flatnonzero(~layout.padding)
    column[layout.rows[own]] = own
    at = similarity[np.arange(len(rows)), column[best], np.newaxis]
    rank = (similarity[:, own] > at).sum(axis=1)
    enough = {count: float((rank < count).mean()) for count in COUNTS}
    print(f"{name}: {len(rows)} queries, {len(head.proxies)} proxies")
    for form in FORMS:
        print(
            f"  {form:21} labels {agreement[form]:8.3%}   "
            f"max |score difference| {difference[form]:.2g}"
        )
    print(
        f"  the oracle's proxy is in int8 at rank {rank.max() + 1} at worst; among the first "
        + ", ".join(f"{count}: {share:.3%}" for count, share in enough.items())
    )
    return {
        "queries": len(rows),
        "proxies": len(head.proxies),
        "label_agreement": agreement,
        "max_score_difference": difference,
        "worst_rank": int(rank.max()) + 1,
        "share_within_rank": enough,
    }


def _in_blocks(
    model: onnx.ModelProto, names: list[str], rows: Float32
) -> list[npt.NDArray[Any]]:
    runner = OrtRunner(to_bytes(model), "cpu", 1)
    found = [runner.run(names, part) for part in _parts(rows)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _parts(rows: Float32) -> list[Float32]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]


def _bind(runner: OrtRunner, rows: Float32) -> Callable[[], object]:
    return lambda: runner.run(["scores", "label"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--queries", type=int, default=2_000)
    given = parser.parse_args()
    sets = {
        "in a cone": cone(1.0, given.queries),
        "in a narrow cone": cone(5.0, given.queries),
        "random directions": random_directions(given.queries),
        "the demo's digits": digits(),
    }
    fast = [
        found
        for threads in (1, 0)
        for found in speed(sets["in a cone"][0], given.iterations, threads)
    ]
    found = {name: labels(name, *pair) for name, pair in sets.items()}
    write_result(
        "large_heads",
        {
            "arguments": vars(given),
            "candidates": CANDIDATES,
            "speed": fast,
            "labels": found,
        },
    )


if __name__ == "__main__":
    main()
