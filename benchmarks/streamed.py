# SPDX-License-Identifier: Apache-2.0
"""k-means of a class larger than memory: its inertia against k-means of the whole in memory.

    python benchmarks/streamed.py [--quick]

A tenth of the rows is drawn (on real rows, too, which would fit), the rest is read in blocks.
Real: all of scikit-learn's digits on the demo's backbone as one class, and their raw pixels.
Hostile: what a draw or a start can miss. Limit: within 5 % of the whole, for each seed; where
k-means in memory misses what lies far out, the stream may be far better.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from common import write_result
from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.imprinting.class_source import Block
from edge_imprint.imprinting.proxies import generate, make_proxies
from edge_imprint_runtime.images import photo_pixels

Float32 = npt.NDArray[np.float32]

LIMIT = 1.05
KS = (5, 20, 100)
LENGTH = 64
DRAWN = 10  # one row in so many


class InBlocks:
    """One class in memory that says it is too large for it."""

    def __init__(self, rows: Float32) -> None:
        self.rows, self.passes = rows, 0
        drawn = np.random.default_rng(0).permutation(len(rows))[: len(rows) // DRAWN]
        self.drawn = rows[np.sort(drawn)]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, c: int) -> Block:
        return self.drawn, None

    def large(self, c: int) -> bool:
        """Say that it is."""
        return True

    def blocks(self, c: int) -> Iterator[Block]:
        """Give 16 MiB at a time."""
        self.passes += 1
        step = 2**22 // self.rows.shape[1]
        for start in range(0, len(self.rows), step):
            yield self.rows[start : start + step], None


def digits() -> dict[str, Float32]:
    """Embed the digits, and take them as they are."""
    backbone = load_backbone("demo")
    embed = ort_embedder(backbone, "cpu")
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = [photo_pixels(Image.fromarray(i), backbone.info.preprocess) for i in images]
    parts = [embed(np.stack(pixels[i : i + 32])) for i in range(0, len(pixels), 32)]
    return {"digits on the demo": np.concatenate(parts), "digits, pixels": data.data}


def hostile(n: int, seed: int) -> dict[str, Float32]:
    """Make rows that a draw or a start can go wrong on."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, LENGTH), np.float32)
    made = {"noise": noise}
    made["8 modes"] = noise + 4 * rng.standard_normal((8, LENGTH))[rng.integers(0, 8, n)]
    made["half of it far away"] = noise + np.where(np.arange(n) < n // 2, 1e3, 0)[:, None]
    made["10 outliers"] = noise.copy()
    out = rng.permutation(n)[:10]
    made["10 outliers"][out] += (1e3 * rng.standard_normal((10, LENGTH))).astype(np.float32)
    made["one outlier, 1e6"] = noise.copy()
    made["one outlier, 1e6"][n // 3] += 1e6
    made["0.5 % far away"] = noise.copy()
    made["0.5 % far away"][rng.permutation(n)[: n // 200]] += 300
    modes = 10 * rng.standard_normal((30, LENGTH))
    made["30 tight modes"] = noise / 10 + modes[rng.integers(0, 30, n)]
    made["rare modes"] = noise / 10 + modes[np.minimum(rng.geometric(0.3, n) - 1, 29)]
    made["500 rows, many times"] = noise[rng.integers(0, 500, n)]
    made["nine tenths one row"] = noise.copy()
    made["nine tenths one row"][: n * 9 // 10] = noise[0]
    wide = noise * np.where(np.arange(LENGTH) == 0, 30, 1)
    made["sorted"] = wide[np.argsort(wide[:, 0])]
    made["far from zero"] = noise / 100 + 1e3
    return {name: np.ascontiguousarray(rows, np.float32) for name, rows in made.items()}


def inertia(rows: Float32, centres: Float32) -> float:
    """Sum the squared distances to the nearest centre, by differences in float64."""
    total = 0.0
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096].astype(np.float64)
        near = np.full(len(part), np.inf)
        for centre in centres:
            near = np.minimum(near, ((part - centre) ** 2).sum(axis=1))
        total += float(near.sum())
    return total


def timed(call: Callable[[], Float32]) -> tuple[Float32, float]:
    """Return what it gives, and its seconds."""
    start = time.perf_counter()
    made = call()
    return made, time.perf_counter() - start


def compare(rows: Float32, k: int, seed: int) -> dict[str, Any]:
    """Cluster rows in memory and in a stream."""
    whole, whole_s = timed(lambda: make_proxies(rows, "kmeans", k, seed))
    source = InBlocks(rows)
    stream, stream_s = timed(lambda: generate(source, "kmeans", [k], seed)[0])
    expected, found = inertia(rows, whole), inertia(rows, stream)
    return {
        "k": k,
        "seed": seed,
        "rows": len(rows),
        "inertia_whole": expected,
        "inertia_streamed": found,
        "ratio": found / expected,
        "passes": source.passes,
        "whole_s": whole_s,
        "streamed_s": stream_s,
    }


def main() -> None:
    """Compare on all sets, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one seed")
    quick = parser.parse_args().quick
    n, seeds = (5_000, 1) if quick else (50_000, 3)
    results: dict[str, list[dict[str, Any]]] = {}
    real = digits()
    for seed in range(seeds):
        for name, rows in (real | hostile(n, seed)).items():
            rows = np.ascontiguousarray(rows, np.float32)
            for k in KS:
                results.setdefault(name, []).append(compare(rows, k, seed))
    for name, runs in results.items():
        of_k = []
        for k in KS:
            ratios = [run["ratio"] for run in runs if run["k"] == k]
            of_k.append(f"k={k}: {min(ratios):.4f}..{max(ratios):.4f}")
        passes = [run["passes"] for run in runs]
        print(f"{name:22} {', '.join(of_k)}; {min(passes)}..{max(passes)} passes", flush=True)
    worst = max(run["ratio"] for runs in results.values() for run in runs)
    print(f"worst {worst:.4f} of the whole's inertia; limit {LIMIT}")
    write_result(
        "streamed", {"quick": quick, "limit": LIMIT, "worst": worst, "results": results}
    )


if __name__ == "__main__":
    main()
