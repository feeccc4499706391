# SPDX-License-Identifier: Apache-2.0
"""What `gpu_check.py` runs in children: photos embedded on a GPU, as `build` embeds them.

Each check takes a `Job`, and a device and a backbone for rehearsals on a CPU.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import MissingPackageError
from gpu_checks import Failed, Job, Skipped

__all__ = ["EMBEDDING", "cuda_autocast", "cuda_build", "cuda_layouts"]

BACKBONE = "timm/resnet18"
LEAST = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.999}
"""The least cosine with float32 on the CPU that each photo must reach."""

BUILD_GOAL = 0.90
ARITHMETICS = ("fp32", "bf16", "fp16")
ROUNDS = 5

Pixels = npt.NDArray[np.uint8]


def cuda_autocast(job: Job, device: str = "cuda", name: str = BACKBONE) -> None:
    """Embeddings of CUDA in each arithmetic against float32 on the CPU, by the deployed graph.

    With the batch that was found, and images a second at it (copies included).
    """
    backbone = _backbone(name, device)
    from edge_imprint.embedding.torch_embedder import TorchEmbedder

    images = _images(backbone, 40 if job.quick else 256)
    wanted = _on_the_cpu(job, backbone, images)
    wrong = []
    for arithmetic in ARITHMETICS:
        autocast = None if arithmetic == "fp32" else arithmetic
        embed = TorchEmbedder(
            backbone.module, backbone.info.preprocess, device, autocast=autocast
        )
        cosines = _cosines(embed(images), wanted)
        stream = itertools.islice(itertools.cycle(images), 160 if job.quick else 20_000)
        rates = []
        for _, rows in _timed(embed.stream_photos((None, one) for one in stream)):
            rates.append(rows)
        job.found[arithmetic] = {
            "least_cosine": float(cosines.min()),
            "median_cosine": float(np.median(cosines)),
            "computed_in": embed.arithmetic,
            "first_batch_cosine": embed.cosine,
            "batch": embed.batch,
            "images_per_s_by_batch": rates,
            "notes": embed.notes,
        }
        embed.close()
        if cosines.min() < LEAST[arithmetic]:
            wrong.append(f"{arithmetic}: the least cosine is {cosines.min():.6f}")
    if wrong:
        raise Failed("; ".join(wrong))


def cuda_layouts(job: Job, device: str = "cuda", name: str = BACKBONE) -> None:
    """The network alone on ready pixels: channels_last memory against the usual, by turns."""
    backbone = _backbone(name, device)
    from edge_imprint.embedding.torch_network import Network

    count = 8 if job.quick else 256
    made = {
        layout: Network(
            backbone.module,
            backbone.info.preprocess,
            device,
            channels_last=layout == "channels_last",
        )
        for layout in ("channels_last", "usual")
    }
    for arithmetic in ARITHMETICS:
        rates: dict[str, list[float]] = {layout: [] for layout in made}
        for _ in range(2 if job.quick else ROUNDS):
            for layout, network in made.items():
                rates[layout].append(_bare(backbone, network, arithmetic, device, count, job))
        medians = {layout: float(np.median(each)) for layout, each in rates.items()}
        job.found[arithmetic] = {
            "images_per_s": rates,
            "channels_last_ratio": medians["channels_last"] / medians["usual"],
        }


def cuda_build(job: Job, device: str = "cuda", name: str = BACKBONE) -> None:
    """Photos a second of the engine that `build` uses against the bare network.

    The bare network runs on pixels that lie on the device, in the engine's arithmetic and
    layout, at the best of some batches; the engine reads, decodes and embeds JPEGs. The goal
    is for what the engine does once photos come out of it (steady); what it takes to start is
    beside it, a second or so, whatever the number of photos.
    """
    backbone = _backbone(name, device)
    from edge_imprint.embedding.local import LocalEngine
    from edge_imprint.embedding.torch_network import Network
    from photo_sets import make_jpegs

    photos = 40 if job.quick else 6_000
    files = make_jpegs(job.out / "jpegs", photos, 10, 0)
    network = Network(backbone.module, backbone.info.preprocess, device, channels_last=True)
    slow = []
    for arithmetic in ARITHMETICS if device == "cuda" else ("fp32",):
        autocast = None if arithmetic == "fp32" else arithmetic
        bare, steady, whole = [], [], []
        for _ in range(2 if job.quick else 3):
            rates = {
                count: _bare(backbone, network, arithmetic, device, count, job)
                for count in ((4,) if job.quick else (64, 256, 1024))
            }
            bare.append(max(rates.values()))
            engine = LocalEngine(backbone, device=device, autocast=autocast)
            came = [(0, time.perf_counter())]
            for one in engine.embed(files):
                came.append((len(getattr(one, "indices", ())), time.perf_counter()))
            notes = list(engine.notes)
            engine.close()
            done = sum(count for count, _ in came)
            if done != photos:
                raise Failed(f"{arithmetic}: {photos - done} photos were not embedded")
            whole.append(done / (came[-1][1] - came[0][1]))
            steady.append((done - came[1][0]) / (came[-1][1] - came[1][1]))
        ratio = float(np.median(np.divide(steady, bare)))
        job.found[arithmetic] = {
            "bare_images_per_s": bare,
            "steady_images_per_s": steady,
            "whole_images_per_s": whole,
            "ratio": ratio,
            "notes": notes,
        }
        if ratio < BUILD_GOAL and not job.quick:
            slow.append(f"{arithmetic}: {ratio:.2f} of the bare network, below {BUILD_GOAL}")
    if slow:
        raise Failed("; ".join(slow))


# Parts -------------------------------------------------------------------------------------


def _backbone(name: str, device: str) -> Any:
    try:
        import torch

        from edge_imprint.backbones import load_backbone

        if device == "cuda" and not torch.cuda.is_available():
            raise Skipped("torch finds no CUDA device")
        backbone = load_backbone(name, random_weights=True)
        _ = backbone.module
    except (ImportError, MissingPackageError) as error:
        raise Skipped(f"{name} can't be loaded in this interpreter: {error}") from error
    return backbone


def _images(backbone: Any, count: int) -> Pixels:
    p = backbone.info.preprocess
    return np.random.default_rng(0).integers(0, 256, (count, p.height, p.width, 3), np.uint8)


def _on_the_cpu(job: Job, backbone: Any, images: Pixels) -> Any:
    """Embed in float32 on the CPU: by the graph that is deployed, or by torch without it."""
    from edge_imprint.embedding.embedders import ort_embedder
    from edge_imprint.embedding.torch_embedder import TorchEmbedder

    try:
        embed: Any = ort_embedder(backbone, "cpu")
        job.found["held_against"] = "ONNX Runtime on the CPU"
    except MissingPackageError as error:
        embed = TorchEmbedder(backbone.module, backbone.info.preprocess, "cpu")
        job.found["held_against"] = f"torch on the CPU, since {error}"
    return np.concatenate([embed(images[i : i + 32]) for i in range(0, len(images), 32)])


def _cosines(a: Any, b: Any) -> npt.NDArray[np.float64]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: npt.NDArray[np.float64] = (a * b).sum(axis=1) / lengths
    return found


def _timed(batches: Any) -> Any:
    """Give, after each batch but the first, its size and images a second since the last."""
    last = None
    for _, rows in batches:
        now = time.perf_counter()
        if last is not None:
            yield len(rows), [len(rows), len(rows) / (now - last)]
        last = now


def _bare(
    backbone: Any, network: Any, arithmetic: str, device: str, count: int, job: Job
) -> float:
    """Return images a second of the network on pixels that are on the device."""
    import torch

    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    pixels = torch.from_numpy(_images(backbone, count)).to(device)
    runs = 2 if job.quick else max(10, 8_192 // count)
    for _ in range(1 if job.quick else 5):
        network(pixels, arithmetic)
    wait()
    began = time.perf_counter()
    for _ in range(runs):
        network(pixels, arithmetic)
    wait()
    return runs * count / (time.perf_counter() - began)


EMBEDDING: dict[str, Callable[..., None]] = {
    check.__name__: check for check in (cuda_autocast, cuda_layouts, cuda_build)
}
