# SPDX-License-Identifier: Apache-2.0
"""What `gpu_check.py` runs in children: the host's use of a GPU, and how fast models are."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_imprint_runtime import open_model
from edge_imprint_runtime.engine.opening import open_engine
from edge_imprint_runtime.errors import EdgeImprintError, MissingPackageError, ProviderError
from edge_imprint_runtime.measuring import (
    Plan,
    Series,
    measure,
    model_subject,
    run_bench,
    runner_subject,
)
from edge_imprint_runtime.model import Model
from edge_imprint_runtime.reporting.schema import write_report
from gpu_checks import Failed, Job, Skipped, engine_of

__all__ = ["SPEED"]

HEAD_LIMIT = 1.02  # fused against the backbone alone, resnet18 in fp16, batch 1, p50
COSINE = 0.99999
_TRTEXEC = ("trtexec", "/usr/src/tensorrt/bin/trtexec")


# The host's own use of a GPU ---------------------------------------------------------------


def cuda_embedding(job: Job) -> None:
    """Embeddings of torch on CUDA against those of ONNX Runtime on the CPU."""
    backbone = _backbone("timm/resnet18")
    from edge_imprint.embedding.embedders import ort_embedder, torch_embedder

    side = backbone.info.preprocess.height
    images = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), np.uint8)
    embed = torch_embedder(backbone, "cuda")
    embed(images)
    began = time.perf_counter()
    got = embed(images)
    job.found["seconds_for_16"] = time.perf_counter() - began
    wanted = ort_embedder(backbone, "cpu")(images)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((got * wanted).sum(axis=1) / lengths).min())
    job.found["cosine_least"] = cosine
    if cosine < COSINE:
        raise Failed(f"the least cosine is {cosine:.6f}, below {COSINE}")


def cuda_kmeans(job: Job) -> None:
    """Proxies of k-means in torch on CUDA against numpy's."""
    _torch()
    from edge_imprint.imprinting.kmeans_cuda import generator
    from edge_imprint.imprinting.proxies import GENERATORS

    rng = np.random.default_rng(0)
    count = 200 if job.quick else 2_000
    rows = [rng.standard_normal((count + 7 * i, 64)).astype(np.float32) for i in range(5)]
    weights = [np.ones(len(part)) for part in rows]

    def run(make: Callable[..., Any]) -> tuple[list[Any], float]:
        began = time.perf_counter()
        made = make([part.copy() for part in rows], weights, 8, 0)
        return made, time.perf_counter() - began

    wanted, host_s = run(GENERATORS["kmeans"])
    run(generator("cuda"))
    got, cuda_s = run(generator("cuda"))
    off = max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True))
    job.found |= {"host_s": host_s, "cuda_s": cuda_s, "off": off}
    if off > 1e-3:
        raise Failed(f"a centre is {off:.2g} off numpy's")


# Engines beside their backbones ------------------------------------------------------------


def bench_precisions(job: Job) -> None:
    """Each engine beside its backbone alone, in turns, with a report."""
    slow = []
    for name, facts in job.models().items():
        alone = f"{name.removesuffix('.onnx')}-backbone.onnx"
        report = _report(job, engine_of(job, name), engine_of(job, alone), f"engine {name}")
        p50 = {
            (one["name"], one["batch"]): one["p50_ms"]
            for one in report["series"]
            if one["stage"] == "whole"
        }
        job.found[name] = {
            "stable": report["verdict"]["stable"],
            **{
                f"batch_{batch}": {
                    "fused_ms": p50["fused", batch],
                    "backbone_ms": p50["backbone only", batch],
                    "ratio": p50["fused", batch] / p50["backbone only", batch],
                }
                for batch in (1, 8)
            },
        }
        ratio = job.found[name]["batch_1"]["ratio"]
        judged = "resnet18" in name and facts["precision"] == "fp16" and not job.quick
        if judged and ratio > HEAD_LIMIT:
            slow.append(f"{name}: the head costs {ratio:.3f}, above {HEAD_LIMIT}")
    if slow:
        raise Failed("; ".join(slow))


def bench_cpu(job: Job) -> None:
    """The same on ONNX Runtime's CPU, of the smallest model: it shows that bench works."""
    name = next((one for one in job.models() if "fp32" in one), None)
    if name is None:
        raise Skipped("no fp32 model is chosen")
    alone = f"{name.removesuffix('.onnx')}-backbone.onnx"
    report = _report(job, job.folder / name, job.folder / alone, f"cpu {name}", "cpu")
    job.found[name] = {
        f"{one['name']}, batch {one['batch']}": one["p50_ms"]
        for one in report["series"]
        if one["stage"] == "whole"
    }


def _report(
    job: Job, path: Path, alone: Path, label: str, backend: str = "auto"
) -> dict[str, Any]:
    """Bench a file beside its backbone, and write the report."""
    iterations = 30 if job.quick else 2_000
    plan = Plan(
        batches=(1, 8),
        iterations=iterations,
        stages=True,
        layers=not job.quick,
        label=label,
        warm_up_s=1.0 if job.quick else 10.0,
    )
    with contextlib.ExitStack() as opened:
        model = opened.enter_context(open_model(path, backend))
        if path.suffix == ".engine":
            runner: Any = open_engine(alone)
        else:
            from edge_imprint_runtime.backends.ort import OrtRunner

            runner = OrtRunner(alone, backend)
        opened.callback(runner.close)
        subject, other = model_subject(model), runner_subject(runner)
        report = run_bench(subject, plan, path=path, beside=[other], backend=backend)
    folder = job.out / "reports"
    folder.mkdir(exist_ok=True)
    write_report(folder / f"{label.replace(' ', '-')}.json", report, force=True)
    return report


def bench_ways(job: Job) -> None:
    """One model by every way that this interpreter has, in turns."""
    name = _resnet(job)
    images = job.answers(name)["images"][:1]
    runs: dict[str, Callable[[], object]] = {}
    left: dict[str, str] = {}
    with contextlib.ExitStack() as opened:
        for way, path, backend in (
            ("TensorRT", job.engine(name), "auto"),
            ("CUDA provider", job.folder / name, "cuda"),
            ("TensorRT provider", job.folder / name, "tensorrt"),
        ):
            try:
                model = opened.enter_context(open_model(path, backend))
            except EdgeImprintError as error:
                left[way] = str(error)
            else:
                runs[way] = _bound(model, images)
        try:
            runs |= _eager(images)
        except (Skipped, ProviderError) as error:
            left["torch eager"] = str(error)
        job.found["left_out"] = left
        if len(runs) < 2:
            raise Skipped(f"there is but {', '.join(runs) or 'nothing'} to compare")
        series = measure(runs, iterations=30 if job.quick else 2_000)
    job.found["p50_ms"] = {one.name: one.percentile_ms(50) for one in series}
    job.found["against_the_first"] = _ratios(series)


def _ratios(series: list[Series]) -> dict[str, float]:
    first = series[0].percentile_ms(50)
    return {one.name: one.percentile_ms(50) / first for one in series}


def _bound(model: Model, images: Any) -> Callable[[], object]:
    return lambda: model.predict(images)


def _eager(images: Any) -> dict[str, Callable[[], object]]:
    torch = _torch()
    backbone = _backbone("timm/resnet18")
    from edge_imprint.embedding.embedders import torch_embedder

    runs: dict[str, Callable[[], object]] = {}
    embed = torch_embedder(backbone, "cuda")
    runs["torch eager fp32"] = lambda: embed(images)
    module = backbone.module.half().to("cuda")

    def half() -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to("cuda").permute(0, 3, 1, 2).half()
            return module(pixels / 255).float().cpu().numpy()

    runs["torch eager fp16"] = half
    return runs


def trtexec(job: Job) -> None:
    """NVIDIA's own timer on the same engine; its defaults differ from version to version."""
    program = next((found for one in _TRTEXEC if (found := shutil.which(one))), None)
    if program is None:
        raise Skipped("there is no trtexec here")
    name = _resnet(job)
    engine = engine_of(job, name)
    images = job.answers(name)["images"][:1]
    shape = "x".join(map(str, images.shape))
    with open_model(engine) as model:
        (given,) = model.runner.inputs
        command = [program, f"--loadEngine={engine}", f"--shapes={given}:{shape}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise Failed(f"trtexec ended with {done.returncode}: {done.stdout[-300:]}")
        outputs = [one for one in ("scores", "label") if one in model.runner.outputs]
        times: dict[str, list[int]] = {}
        for _ in range(500):
            for stage, taken in model.runner.run_stages(outputs, images)[1].items():
                times.setdefault(stage, []).append(taken)
        (series,) = measure({"ours": _bound(model, images)}, iterations=2_000)
    medians = re.findall(r"(Latency|GPU Compute Time):.*?median = ([0-9.]+) ms", done.stdout)
    job.found["trtexec_ms"] = {what: float(value) for what, value in medians}
    job.found["ours_ms"] = {"whole": series.percentile_ms(50)} | {
        stage: float(np.median(taken)) / 1e6 for stage, taken in times.items()
    }
    theirs = job.found["trtexec_ms"].get("GPU Compute Time")
    if theirs and "compute_gpu" in job.found["ours_ms"]:
        job.found["compute_ratio"] = job.found["ours_ms"]["compute_gpu"] / theirs


def _resnet(job: Job) -> str:
    every = list(job.models())
    half = [name for name in every if "fp16" in name]
    return next((name for name in half if "resnet18" in name), (half or every)[0])


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Skipped(f"torch is not installed in this interpreter: {error}") from error
    if not torch.cuda.is_available():
        raise Skipped("torch finds no CUDA device")
    return torch


def _backbone(name: str) -> Any:
    _torch()
    try:
        from edge_imprint.backbones import load_backbone

        return load_backbone(name, random_weights=True)
    except (ImportError, MissingPackageError) as error:
        raise Skipped(f"{name} can't be loaded in this interpreter: {error}") from error


SPEED: dict[str, Callable[[Job], None]] = {
    check.__name__: check
    for check in (
        cuda_embedding, cuda_kmeans, bench_cpu, bench_precisions, bench_ways, trtexec,
    )
}  # fmt: skip
