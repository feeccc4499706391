# SPDX-License-Identifier: Apache-2.0
"""What a rule costs: in the oracle against a bare product, in the graph against the maximum.

Oracle: 10,000 embeddings x 1,000 classes x 20 proxies, D = 512, against one float32 product of
embeddings and proxies, taken in blocks. Limits: the maximum 2x, 5-NN (cosine) 4x, mahalanobis
no slower than euclidean. Times are those of heads made ready by a first call. The peak of
memory above what was there before that call is printed too.

Graph: 5-NN against the maximum, limit 1.5x at the median: the head alone (on a backbone of one
convolution, where nothing hides it) and behind the demo backbone, 10 and 1,000 classes x 20
proxies, batch 1 and 32.

Both sides have the same number of threads (--threads, 1).
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from threadpoolctl import threadpool_limits

from common import series_json, write_result
from edge_imprint import load_backbone
from edge_imprint_export import fuse
from edge_imprint_export.backbone.glyphnet import conv_stack
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.measuring import measure

K = 20
ORACLE = {
    "max inner_product": Rule(),
    "max cosine": Rule(distance="cosine"),
    "max euclidean": Rule(distance="euclidean"),
    "max mahalanobis": Rule(distance="mahalanobis"),
    "5-NN cosine": Rule("l2", "mnn", "cosine", 5),
    "5-NN cosine, weighted": Rule("l2", "mnn", "cosine", 5, "distance"),
    "5-NN euclidean, weighted": Rule("l2", "mnn", "euclidean", 5, "distance"),
    "5-NN mahalanobis, weighted": Rule("l2", "mnn", "mahalanobis", 5, "distance"),
}
GRAPH = {
    "max": Rule(),
    "5-NN cosine": Rule("l2", "mnn", "cosine", 5),
    "5-NN cosine, weighted": Rule("l2", "mnn", "cosine", 5, "distance"),
    "5-NN euclidean, weighted": Rule("l2", "mnn", "euclidean", 5, "distance"),
    "20-NN cosine": Rule("l2", "mnn", "cosine", 20),
}
BLOCK_BYTES = 16 * 2**20

Float32 = npt.NDArray[np.float32]


def make_head(
    rule: Rule, classes: int, size: int, backbone: BackboneInfo | None = None
) -> Head:
    """Make a head of random unit proxies."""
    rng = np.random.default_rng(0)
    proxies = rng.standard_normal((classes * K, size), np.float32)
    proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    mahalanobis = rule.distance == "mahalanobis"
    return Head(
        proxies,
        np.repeat(np.arange(classes), K),
        [f"class {c}" for c in range(classes)],
        rule,
        metric=rng.standard_normal((size, size)) / size**0.5 if mahalanobis else None,
        backbone=backbone,
    )


def product(rows: Float32, proxies: Float32) -> None:
    """Multiply and forget, block by block into one buffer: what no rule can do without."""
    block = max(1, BLOCK_BYTES // (4 * len(proxies)))
    out = np.empty((block, len(proxies)), np.float32)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        np.matmul(part, proxies.T, out=out[: len(part)])


def peak_bytes(run: Callable[[], object]) -> int | None:
    """Return how far a call's peak of resident memory is above what it began with (Linux)."""

    def field(name: str) -> int:
        text = Path("/proc/self/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
        assert found is not None
        return int(found[1]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is there now
        before = field("VmRSS")
    except OSError:
        return None
    run()
    return field("VmHWM") - before


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each a few times, in turns; seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def oracle(rows: int, classes: int, size: int, repeats: int) -> dict[str, Any]:
    """Measure every rule of the oracle against the bare product."""
    embeddings = np.random.default_rng(1).standard_normal((rows, size), np.float32)
    heads = {name: make_head(rule, classes, size) for name, rule in ORACLE.items()}
    proxies = heads["max inner_product"].proxies
    runs: dict[str, Callable[[], object]] = {"product": lambda: product(embeddings, proxies)}
    runs |= {name: _bind(head.predict, embeddings) for name, head in heads.items()}
    peaks = {name: peak_bytes(run) for name, run in runs.items()}  # a warm-up too
    seconds = in_turns(runs, repeats)
    best = {name: min(samples) for name, samples in seconds.items()}
    ratios = {name: value / best["product"] for name, value in best.items()}
    print(f"oracle: {rows} embeddings x {classes} classes x {K} proxies, D = {size}")
    for name, value in best.items():
        peak = peaks[name]
        memory = "?" if peak is None else f"{peak / 1e6:.0f} MB"
        print(f"  {name:27} {value:8.3f} s   {ratios[name]:6.2f}x   peak +{memory}")
    print(
        f"  limits: max {ratios['max inner_product']:.2f} <= 2, "
        f"5-NN {ratios['5-NN cosine']:.2f} <= 4, mahalanobis / euclidean "
        f"{best['max mahalanobis'] / best['max euclidean']:.2f} <= 1 (one product more: D x D)"
    )
    return {"seconds": seconds, "ratios_best": ratios, "peak_bytes": peaks}


def one_convolution(size: int) -> tuple[onnx.ModelProto, BackboneInfo]:
    """Make a backbone from one pixel to ``size`` numbers, which costs next to nothing."""
    rng = np.random.default_rng(2)
    weights = {
        "conv0.weight": rng.standard_normal((size, 3, 3, 3), np.float32),
        "conv0.bias": np.zeros(size, np.float32),
    }
    graph = conv_stack([(1, False)], weights, image_size=1, pool_size=1)
    return graph, BackboneInfo("one convolution", "packaged", "0" * 64, Preprocess(1, 1))


def graph(classes: tuple[int, ...], size: int, iterations: int, threads: int) -> list[Any]:
    """Measure votes in the fused graph against the maximum."""
    demo = load_backbone("demo")
    backbones = {
        f"head alone, D = {size}": one_convolution(size),
        "behind the demo backbone": (demo.onnx, demo.info),
    }
    results = []
    for where, (backbone, info) in backbones.items():
        data, length = to_bytes(backbone), embedding_size(backbone)
        p = info.preprocess
        for count in classes:
            runners = {
                name: OrtRunner(
                    to_bytes(fuse(data, make_head(rule, count, length, info))), "cpu", threads
                )
                for name, rule in GRAPH.items()
            }
            for batch in (1, 32):
                rng = np.random.default_rng(3)
                images = rng.integers(0, 256, (batch, p.height, p.width, 3), np.uint8)
                runs = {name: _bind(runner, images) for name, runner in runners.items()}
                series = measure(runs, batch=batch, iterations=iterations)
                p50 = [s.percentile_ms(50) for s in series]
                ratios = {s.name: value / p50[0] for s, value in zip(series, p50, strict=True)}
                print(f"graph: {where}, {count} classes x {K}, batch {batch}")
                for s, value in zip(series, p50, strict=True):
                    print(f"  {s.name:27} p50 {value:8.3f} ms   {ratios[s.name]:5.2f}x")
                results.append(
                    {
                        "where": where,
                        "classes": count,
                        "batch": batch,
                        "ratios_p50": ratios,
                        "series": series_json(series),
                    }
                )
    return results


def _bind(what: Any, given: npt.NDArray[np.generic]) -> Callable[[], object]:
    if isinstance(what, OrtRunner):
        return lambda: what.run(["scores", "label"], given)
    return lambda: what(given)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=512, help="D")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"threads: {given.threads} on both sides")
    with threadpool_limits(given.threads):
        found = oracle(given.embeddings, given.classes, given.size, given.repeats)
    fused = graph((10, given.classes), given.size, given.iterations, given.threads)
    write_result(
        "aggregation",
        {"arguments": vars(given), "oracle": found, "graph": fused},
    )


if __name__ == "__main__":
    main()
