# SPDX-License-Identifier: Apache-2.0
"""Embedding on a CPU: ONNX Runtime, as the host does it, against eager torch.

    python benchmarks/ort_vs_torch.py [--rounds 25] [--threads 2] [--batch 8]

Both start from the same uint8 pixels, with the same weights (random: speed does not depend on
them) and the same number of threads, each library in a process of its own, since two thread
pools in one process disturb each other. They take turns; the ratio is of images a second, its
interval is over the turns. Eager torch is shown as in any tutorial, and in channels_last
memory, which suits convolutions; the ratio is against the faster of the two. ONNX Runtime is
shown with all threads on one run, and as the host embeds: a run of one thread a core.
Embeddings of both are held against each other before anything is timed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_vs_bare import paired
from common import write_result
from edge_imprint.backbones import load_backbone

MODELS = (
    "timm/resnet18",
    "timm/mobilenetv3_small_100",
    "timm/mobilenetv3_large_100",
    "timm/vit_tiny_patch16_224",
)
COSINE = 0.99999
TURN_S = 0.4
WARM_UP_S = 0.1

Embed = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def ort_ways(name: str, threads: int) -> dict[str, Embed]:
    """Return what embeds with ONNX Runtime: one run of all threads, and lanes of one each."""
    from edge_imprint.embedding.embedders import OrtEmbedder, embedder_graph

    graph = embedder_graph(load_backbone(name, random_weights=True))
    together = OrtEmbedder(graph, "cpu", threads=threads)
    lane = OrtEmbedder(graph, "cpu", threads=1)
    pool = ThreadPoolExecutor(threads)

    def lanes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.concatenate(list(pool.map(lane, np.array_split(pixels, threads))))

    return {"ONNX Runtime": together, "ONNX Runtime, lanes": lanes}


def torch_ways(name: str, threads: int) -> dict[str, Embed]:
    """Return what embeds with eager torch, in both layouts."""
    import torch

    from edge_imprint.embedding.torch_network import Network

    torch.set_num_threads(threads)
    backbone = load_backbone(name, random_weights=True)
    assert backbone.module is not None

    def way(*, channels_last: bool) -> Embed:
        network = Network(
            backbone.module, backbone.info.preprocess, "cpu", channels_last=channels_last
        )
        return lambda pixels: network(torch.from_numpy(pixels)).numpy()

    return {
        "torch": way(channels_last=False),
        "torch, channels_last": way(channels_last=True),
    }


def serve(pipe: Connection, library: str, name: str, threads: int, batch: int) -> None:
    """Answer turns: this is what a child does."""
    ways = (ort_ways if library == "ort" else torch_ways)(name, threads)
    side = load_backbone(name, random_weights=True).info.preprocess.height
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    pipe.send({way: embed(pixels) for way, embed in ways.items()})
    while (asked := pipe.recv()) is not None:
        pipe.send(turn(ways[asked], pixels))


def turn(embed: Embed, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Embed for a while; returns what each run took, ns."""
    clock = time.perf_counter_ns
    end = clock() + int(WARM_UP_S * 1e9)
    while clock() < end:
        embed(pixels)
    taken: list[int] = []
    end = clock() + int(TURN_S * 1e9)
    while clock() < end or len(taken) < 3:
        began = clock()
        embed(pixels)
        taken.append(clock() - began)
    return np.array(taken)


def least_cosine(rows: dict[str, npt.NDArray[np.float32]]) -> float:
    """Return the least cosine between any way's embeddings and the first way's."""
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in rows.values()]
    return min(float((unit[0] * other).sum(axis=1).min()) for other in unit[1:])


def one_model(name: str, threads: int, batch: int, rounds: int) -> dict[str, Any]:
    """Measure a model; returns its figures with all raw samples."""
    context = multiprocessing.get_context("spawn")
    pipes, children, rows = {}, [], {}
    owners: dict[str, str] = {}
    load_backbone(name, random_weights=True).ensure_graph()  # not made in the child's turn
    try:
        for library in ("torch", "ort"):
            pipes[library], theirs = context.Pipe()
            child = context.Process(
                target=serve, args=(theirs, library, name, threads, batch), daemon=True
            )
            child.start()
            children.append(child)
            theirs.close()
            found = pipes[library].recv()
            rows |= found
            owners |= dict.fromkeys(found, library)
        cosine = least_cosine(rows)
        if cosine < COSINE:
            raise SystemExit(f"{name}: embeddings differ, the least cosine is {cosine:.6f}")
        samples: dict[str, list[npt.NDArray[np.int64]]] = {way: [] for way in owners}
        for number in range(rounds):
            order = list(owners) if number % 2 else list(owners)[::-1]
            for way in order:
                pipes[owners[way]].send(way)
                samples[way].append(pipes[owners[way]].recv())
        for pipe in pipes.values():
            pipe.send(None)
    finally:
        for child in children:
            child.join(timeout=10)
            child.terminate()
    rates = {
        way: batch * 1e9 / float(np.median([np.median(one) for one in each]))
        for way, each in samples.items()
    }
    torch_best = max((way for way in rates if owners[way] == "torch"), key=rates.__getitem__)
    # The ratio of times, torch to ONNX Runtime, is that of images a second the other way.
    ratios = {
        way: paired(samples[way], samples[torch_best]) for way in rates if owners[way] == "ort"
    }
    return {
        "least_cosine": cosine,
        "images_per_s": rates,
        "against": torch_best,
        "ratios": {way: {"ratio": r, "interval": i} for way, (r, i) in ratios.items()},
        "samples_ns": {way: [one.tolist() for one in each] for way, each in samples.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--batch", type=int, default=8, help="images a run, for all ways")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--try-out", action="store_true", help="write no result")
    given = parser.parse_args()
    result: dict[str, Any] = {}
    print(f"{given.threads} threads, {given.batch} images a run, images/s (higher is better)")
    for name in given.models:
        found = one_model(name, given.threads, given.batch, given.rounds)
        result[name] = found
        print(f"{name} (least cosine {found['least_cosine']:.7f})")
        for way, rate in found["images_per_s"].items():
            said = ""
            if way in found["ratios"]:
                ratio, (low, high) = found["ratios"][way].values()
                said = f"{ratio:6.2f}x {found['against']} ({low:.2f} to {high:.2f})"
            print(f"  {way:22} {rate:8.1f} {said}")
    if not given.try_out:
        write_result(
            "ort_vs_torch",
            {"threads": given.threads, "batch": given.batch, "models": result},
        )


if __name__ == "__main__":
    main()
