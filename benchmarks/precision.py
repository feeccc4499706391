# SPDX-License-Identifier: Apache-2.0
"""fp32, fp16 and int8 of five backbones on ONNX Runtime's CPU: size, latency, agreement.

All precisions of a backbone are measured in turns within one run, at batch 1 and 8. The demo's
backbone sees real digits, its head is imprinted on 1,100 of them and 697 others are compared.
The others have random weights: ten places of two photos are their classes, and which of them
a crop is from is what fp32 and the rest must agree on.

Limits: int8 resnet18 1.8 times as fast as fp32 and at most 0.27 of its size, both for the
target onnxruntime; 99 % of the demo's labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from common import series_json, write_result
from edge_imprint import ImprintClassifier, load_backbone
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.precision import int8_dialect, layer_errors, to_half, to_int8
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target
from edge_imprint_runtime import Preprocess, prepare
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.measuring import measure

Array: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]

BACKBONES = (
    "timm/resnet18",
    "timm/mobilenetv3_small_100",
    "timm/efficientnet_lite0",
    "timm/vit_tiny_patch16_224",
    "demo",
)
INT8_TARGETS = ("onnxruntime", "portable", "tensorrt-11")
CALIBRATION, PLACES, CROPS, BATCH = 100, 10, 30, 16


def digits(preprocess: Preprocess) -> tuple[Array, Labels, Array, Labels]:
    """Split the digits into 1,100 to imprint and 697 to compare."""
    data = load_digits()
    cells = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = np.stack([prepare(Image.fromarray(c).convert("RGB"), preprocess) for c in cells])
    order = np.random.default_rng(0).permutation(len(pixels))
    rows, labels = normalize(pixels[order], preprocess), data.target[order]
    return rows[:1100], labels[:1100], rows[1100:], labels[1100:]


def places(preprocess: Preprocess) -> tuple[Array, Labels, Array, Labels]:
    """Cut crops out of ten places of two photos, half to imprint and half to compare."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    crops, labels = [], []
    for place in range(PLACES):
        photo = photos[place % len(photos)]
        side = int(rng.integers(120, 240))
        left, top = (int(rng.integers(20, size - side - 20)) for size in photo.size)
        for _ in range(2 * CROPS):
            x, y = (int(edge + rng.integers(-20, 21)) for edge in (left, top))
            crops.append(prepare(photo.crop((x, y, x + side, y + side)), preprocess))
            labels.append(place)
    rows, index = normalize(np.stack(crops), preprocess), np.array(labels)
    return rows[::2], index[::2], rows[1::2], index[1::2]


def embed(model: bytes, pixels: Array) -> Array:
    """Embed in batches."""
    runner = OrtRunner(model, "cpu")
    parts = [
        runner.run(["embedding"], pixels[start : start + BATCH])[0]
        for start in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts).astype(np.float32)


def variants(graph: onnx.ModelProto, calibration: Array) -> dict[str, onnx.ModelProto]:
    """Make all precisions of a backbone."""
    batches = [calibration[i : i + BATCH] for i in range(0, len(calibration), BATCH)]
    made = {"fp32": graph, "fp16": to_half(graph)}
    for name in INT8_TARGETS:
        lowered = onnx.ModelProto()
        lowered.CopyFrom(graph)
        lower(lowered, target(name))
        made[f"int8 {name}"] = to_int8(lowered, batches, dialect=int8_dialect(target(name)))
    return made


def compare(
    classifier: ImprintClassifier, expected: Array, got: Array, labels: Labels
) -> dict[str, float]:
    """Say how near one precision's embeddings and labels are to fp32's."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    cosine = (expected * got).sum(axis=1) / lengths
    answers = classifier.predict(got)
    return {
        "agreement": float((answers == classifier.predict(expected)).mean()),
        "right": float((answers == labels).mean()),
        "cosine_mean": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
        "relative_error": float(np.linalg.norm(got - expected) / np.linalg.norm(expected)),
    }


def runs(models: dict[str, bytes], pixels: Array) -> dict[str, Callable[[], object]]:
    """Bind each precision to its session."""

    def bind(model: bytes) -> Callable[[], object]:
        runner = OrtRunner(model, "cpu")
        return lambda: runner.run(["embedding"], pixels)

    return {name: bind(model) for name, model in models.items()}


def one_backbone(name: str, iterations: int) -> dict[str, Any]:
    """Measure all precisions of one backbone and print them."""
    backbone = load_backbone(name, random_weights=name != "demo")
    source = digits if name == "demo" else places
    train, train_labels, held_out, labels = source(backbone.info.preprocess)
    graph = backbone.onnx
    order = np.random.default_rng(1).permutation(len(train))[:CALIBRATION]
    graphs = variants(graph, train[order])
    models = {precision: to_bytes(made) for precision, made in graphs.items()}
    classifier = ImprintClassifier().fit(embed(models["fp32"], train), train_labels)
    expected = embed(models["fp32"], held_out)
    result: dict[str, Any] = {"weights": backbone.info.weights, "images": len(held_out)}
    for precision, model in models.items():
        result[precision] = {
            "bytes": len(model),
            "size_ratio": len(model) / len(models["fp32"]),
        } | compare(classifier, expected, embed(model, held_out), labels)
    for precision in ("fp16", "int8 onnxruntime"):
        layers = layer_errors(graph, graphs[precision], held_out[:4])
        result[precision]["layers"] = [
            {"name": layer.name, "op": layer.op, "error": layer.error, "added": layer.added}
            for layer in layers[:5]
        ]
    for batch in (1, 8):
        series = measure(
            runs(models, np.ascontiguousarray(held_out[:batch])),
            batch=batch,
            iterations=max(1, iterations // batch),
        )
        result[f"batch_{batch}"] = series_json(series)
        slowest = series[0].percentile_ms(50)
        for s in series:
            result[s.name][f"speed_up_batch_{batch}"] = slowest / s.percentile_ms(50)
    print(f"{name} ({backbone.info.weights} weights), {len(held_out)} images")
    for precision in models:
        row = result[precision]
        print(
            f"  {precision:17} size {row['size_ratio']:.3f}   "
            f"speed x{row['speed_up_batch_1']:.2f}, batch 8 x{row['speed_up_batch_8']:.2f}   "
            f"labels {row['agreement']:.2%}   right {row['right']:.2%}   "
            f"cosine {row['cosine_mean']:.5f}, least {row['cosine_min']:.5f}"
        )
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--backbone", choices=BACKBONES, action="append")
    given = parser.parse_args()
    results = {
        name: one_backbone(name, given.iterations) for name in given.backbone or BACKBONES
    }
    write_result("precision", {"results": results})


if __name__ == "__main__":
    main()
