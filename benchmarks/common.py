# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: the models they measure, and where results go."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint_export import fuse
from edge_imprint_export.graph import embedding_size, to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.machine import machine_facts
from edge_imprint_runtime.measuring import Series

__all__ = ["RESULTS", "fused_file", "random_head", "series_json", "write_result"]

RESULTS = Path(__file__).parent / "results"


def random_head(backbone: Backbone, graph: onnx.ModelProto, classes: int, k: int) -> Head:
    """Make a head of random unit proxies: latency does not depend on their values."""
    rng = np.random.default_rng(0)
    proxies = rng.standard_normal((classes * k, embedding_size(graph))).astype(np.float32)
    proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    labels = [f"class {c}" for c in range(classes)]
    index = np.repeat(np.arange(classes), k)
    return Head(proxies, index, labels, backbone=backbone.info)


def fused_file(
    folder: Path, name: str, *, classes: int = 10, k: int = 20, input_form: str = "uint8"
) -> Path:
    """Write a fused model of a timm backbone with random weights (1 x `classes` x `k`)."""
    backbone = load_backbone(name, random_weights=name.startswith("timm/"))
    graph = backbone.onnx
    head = random_head(backbone, graph, classes, k)
    path = folder / f"{name.replace('/', '-')}-{classes}x{k}-{input_form}.onnx"
    path.write_bytes(to_bytes(fuse(graph, head, input=input_form)))
    return path


def series_json(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Turn series into summaries with their raw samples."""
    return [s.summary() | {"samples_ns": s.samples_ns.tolist()} for s in series]


def write_result(name: str, result: dict[str, Any]) -> None:
    """Keep a result with the machine's facts in ``benchmarks/results``."""
    RESULTS.mkdir(exist_ok=True)
    facts = {"created_unix_s": int(time.time()), "machine": machine_facts()}
    (RESULTS / f"{name}.json").write_text(json.dumps(facts | result) + "\n")
    print(f"-> benchmarks/results/{name}.json\n")
