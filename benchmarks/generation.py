# SPDX-License-Identifier: Apache-2.0
"""k-means of every class against one default scikit-learn `KMeans` per class: time, inertia.

Limits: inertia at most 1.01 of scikit-learn's; at least 10 times as fast where the classes
have fewer modes than k, 3 times on unstructured data; a head of 1,000 classes of 20 proxies in
less than 0.1 s after the clustering. Both sides have the same number of threads: scikit-learn
as OpenMP and BLAS threads within a class, edge-imprint as classes side by side, one BLAS
thread each. Rounds alternate, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from common import write_result
from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.imprinting.imprint import Proxies, assemble, normalized
from edge_imprint.imprinting.proxies import generate
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint_runtime import prepare

Float32 = npt.NDArray[np.float32]

K = 20
LENGTH = 512
SHAPES = ((10, 1_000), (100, 500), (1_000, 100))  # classes, embeddings a class
MODES = 8
NOISE = 1.5  # standard deviation about a mode; the modes' own is 1
SEEDS = 5  # on real embeddings, where one start says little


class Classes:
    """A source in memory."""

    def __init__(self, rows: Sequence[Float32]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, c: int) -> tuple[Float32, None]:
        return self.rows[c], None


def synthetic(classes: int, n: int, modes: int | None) -> Classes:
    """Draw L2-normalised classes of several modes, or of one Gaussian (None)."""
    made = []
    for c in range(classes):
        rng = np.random.default_rng(c)
        rows = rng.standard_normal((n, LENGTH), np.float32)
        if modes is not None:
            middles = rng.standard_normal((modes, LENGTH), np.float32)
            rows = middles[rng.integers(0, modes, n)] + np.float32(NOISE) * rows
        made.append(normalized(rows, "l2"))
    return Classes(made)


def digits() -> Classes:
    """Embed scikit-learn's digits with the demo's backbone: ten real classes."""
    data, backbone = load_digits(), load_backbone("demo")
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = [
        prepare(Image.fromarray(g).convert("RGB"), backbone.info.preprocess) for g in grey
    ]
    rows = normalized(ort_embedder(backbone)(np.stack(pixels)), "l2")
    return Classes([rows[data.target == c] for c in range(10)])


def inertia(source: Classes, centres: Sequence[Float32]) -> float:
    """Sum the squared distances to the nearest centres, in float64."""
    total = 0.0
    for rows, middles in zip(source.rows, centres, strict=True):
        x, c = rows.astype(np.float64), middles.astype(np.float64)
        half = 0.5 * (c**2).sum(axis=1) - x @ c.T
        total += float((x**2).sum() + 2 * half.min(axis=1).sum())
    return total


def timed(run: Callable[[], list[Float32]]) -> tuple[float, list[Float32]]:
    """Return seconds and centres."""
    start = time.perf_counter()
    centres = run()
    return time.perf_counter() - start, centres


def scikit(source: Classes, seed: int) -> list[Float32]:
    """Cluster class by class with scikit-learn's defaults."""
    return [KMeans(K, random_state=seed).fit(rows).cluster_centers_ for rows in source.rows]


def compare(source: Classes, threads: int, seeds: int, rounds: int) -> dict[str, Any]:
    """Measure both on one set, by turns."""
    seconds: dict[str, list[float]] = {"scikit-learn": [], "edge-imprint": []}
    inertias: dict[str, list[float]] = {"scikit-learn": [], "edge-imprint": []}
    ks = [K] * len(source)
    for seed in range(seeds):
        for _ in range(rounds):
            with threadpool_limits(threads):
                spent, theirs = timed(lambda seed=seed: scikit(source, seed))  # type: ignore[misc]
            seconds["scikit-learn"].append(spent)
            spent, ours = timed(
                lambda seed=seed: generate(source, "kmeans", ks, seed, workers=threads)  # type: ignore[misc]
            )
            seconds["edge-imprint"].append(spent)
        inertias["scikit-learn"].append(inertia(source, theirs))
        inertias["edge-imprint"].append(inertia(source, ours))
    fastest = {name: min(values) for name, values in seconds.items()}
    mean = {name: float(np.mean(values)) for name, values in inertias.items()}
    return {
        "times_as_fast": fastest["scikit-learn"] / fastest["edge-imprint"],
        "inertia_ratio": mean["edge-imprint"] / mean["scikit-learn"],
        "seconds": seconds,
        "inertia": inertias,
    }


def head_seconds(classes: int) -> float:
    """Time a head of random proxies, from what the clustering gives on: the best of five."""
    rng = np.random.default_rng(0)
    made = Proxies(tuple(rng.standard_normal((K, LENGTH), np.float32) for _ in range(classes)))
    labels = [f"class {c}" for c in range(classes)]
    recipe = Recipe.parse(f"l2 kmeans:{K} l2 l2 max")
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        assemble(made, labels, recipe)
        spent.append(time.perf_counter() - start)
    return min(spent)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the classes, once")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    share, rounds = (10, 1) if options.quick else (1, options.rounds)
    sets: dict[str, tuple[Classes, float, int]] = {}
    for classes, n in SHAPES:
        count = max(1, classes // share)
        name = f"{count} x {n:,} x {LENGTH}"
        sets[f"{name}, {MODES} modes"] = synthetic(count, n, MODES), 10, 1
        sets[f"{name}, unstructured"] = synthetic(count, n, None), 3, 1
    sets["digits, demo backbone"] = digits(), 3, SEEDS
    results = {}
    for threads in (1, 2):
        print(f"{threads} thread(s) on each side")
        for name, (source, limit, seeds) in sets.items():
            result = compare(source, threads, seeds, rounds)
            results[f"{name}, {threads} threads"] = result
            ours, theirs = (
                min(result["seconds"][s]) for s in ("edge-imprint", "scikit-learn")
            )
            print(
                f"  {name:32} {theirs:7.3f} s -> {ours:7.3f} s: "
                f"{result['times_as_fast']:5.1f} times as fast (limit {limit}), "
                f"inertia {result['inertia_ratio']:.4f} (limit 1.01)",
                flush=True,
            )
    head_classes = 1_000 // share
    spent = head_seconds(head_classes)
    print(f"head of {head_classes:,} x {K} proxies: {spent:.3f} s (limit 0.1 s)")
    write_result(
        "generation",
        {"k": K, "quick": options.quick, "results": results, "head_s": spent},
    )


if __name__ == "__main__":
    main()
