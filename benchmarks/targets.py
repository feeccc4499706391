# SPDX-License-Identifier: Apache-2.0
"""Every target, five backbones: does it take the file, and does the file still say the same?

Each backbone (timm's with random weights) is brought into each target's form, fused with a
random head, checked, and run on random images beside the file as it comes from the exporter:
node by node as it is written, and optimised, where ONNX Runtime finds LayerNormalization and
Gelu in the arithmetic again. Limits: nothing refused or wrong, and 100 % of labels agree.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from common import random_head, write_result
from edge_imprint import load_backbone
from edge_imprint_export import fuse
from edge_imprint_export.graph import default_opset, parse, to_bytes
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import TARGETS, Target
from edge_imprint_runtime import Head
from edge_imprint_runtime.backends.ort import OrtRunner

BACKBONES = (
    "timm/resnet18",
    "timm/mobilenetv3_small_100",
    "timm/efficientnet_lite0",
    "timm/vit_tiny_patch16_224",
    "demo",
)
_OUTPUTS = ("scores", "label", "embedding")
_BATCH = 8

Answers = dict[str, npt.NDArray[Any]]


def answers(
    model: onnx.ModelProto, images: npt.NDArray[np.uint8], optimization: str = "all"
) -> Answers:
    """Run a fused model in batches."""
    runner = OrtRunner(to_bytes(model), "cpu", optimization=optimization)
    parts = [
        runner.run(list(_OUTPUTS), images[start : start + _BATCH])
        for start in range(0, len(images), _BATCH)
    ]
    return {
        name: np.concatenate(found)
        for name, found in zip(_OUTPUTS, zip(*parts, strict=True), strict=True)
    }


def compared(
    graph: bytes, head: Head, images: npt.NDArray[np.uint8], expected: Answers, target: Target
) -> dict[str, Any]:
    """Bring a backbone into a target's form, fuse it, and hold it against what to expect."""
    backbone = parse(graph, "the backbone")
    start = time.perf_counter()
    lower(backbone, target)
    lowering_ms = 1e3 * (time.perf_counter() - start)
    model = fuse(backbone, head, outputs=_OUTPUTS, target=target.name)
    findings = check(model, target)
    result: dict[str, Any] = {
        "opset": default_opset(model),
        "nodes": len(model.graph.node),
        "lowering_ms": lowering_ms,
        "notes": sum(not finding.fails for finding in findings),
        "refused_or_wrong": [str(finding) for finding in findings if finding.fails],
    }
    scale = float(np.abs(expected["embedding"]).max())
    for form, optimization in (("as_written", "disable"), ("optimized", "all")):
        found = answers(model, images, optimization)
        gap = {name: np.abs(found[name] - expected[name]).max() for name in _OUTPUTS}
        result[form] = {
            "max_embedding_difference": float(gap["embedding"]) / scale,
            "max_score_difference": float(gap["scores"]),
            "label_agreement": float((found["label"] == expected["label"]).mean()),
        }
    return result


def main() -> None:
    """Measure, print, and fail where a limit is not held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    count = parser.parse_args().images
    results: dict[str, dict[str, Any]] = {}
    failed = []
    for name in BACKBONES:
        backbone = load_backbone(name, random_weights=name.startswith("timm/"))
        graph = backbone.onnx
        head = random_head(backbone, graph, 10, 20)
        size = backbone.info.preprocess
        images = np.random.default_rng(1).integers(
            0, 256, (count, size.height, size.width, 3), np.uint8
        )
        data = to_bytes(graph)
        expected = answers(fuse(graph, head, outputs=_OUTPUTS), images)
        results[name] = {}
        for target in TARGETS.values():
            found = compared(data, head, images, expected, target)
            results[name][target.name] = found
            clean = not found["refused_or_wrong"]
            forms = (found["as_written"], found["optimized"])
            difference = max(form["max_embedding_difference"] for form in forms)
            agreement = min(form["label_agreement"] for form in forms)
            print(
                f"{name} {target.name}: opset {found['opset']}, {found['nodes']} nodes, "
                f"lowered in {found['lowering_ms']:.0f} ms, "
                f"check {'clean' if clean else 'NOT clean'}, "
                f"embeddings within {difference:.1g}, labels {agreement:.2%}",
                flush=True,
            )
            if not clean or agreement < 1:
                failed.append(f"{name} {target.name}")
    write_result("targets", {"images": count, "results": results})
    if failed:
        raise SystemExit(f"a limit is not held: {', '.join(failed)}")


if __name__ == "__main__":
    main()
