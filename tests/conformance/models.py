# SPDX-License-Identifier: Apache-2.0
"""Tiny backbones, heads and images that the conformance vectors are made of."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edge_imprint_export.backbone.glyphnet import conv_stack
from edge_imprint_export.graph import tidy, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime.images import normalize

SIDE, EMBEDDING = 16, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def backbone() -> bytes:
    """Three convolutions with seeded random weights: 16 px -> 8 numbers."""
    rng, weights = np.random.default_rng(7), {}
    for i, (into, out) in enumerate(itertools.pairwise((3, 4, 8, EMBEDDING))):
        kernel = np.sqrt(2 / (9 * into)) * rng.standard_normal((out, into, 3, 3))
        weights[f"conv{i}.weight"] = kernel.astype(np.float32)
        weights[f"conv{i}.bias"] = (0.1 * rng.standard_normal(out)).astype(np.float32)
    layers = [(2, True), (2, True), (1, False)]
    return to_bytes(conv_stack(layers, weights, image_size=SIDE, pool_size=4))


def flat(height: int, width: int) -> bytes:
    """A backbone whose embedding is its pixels."""
    size, values = 3 * height * width, helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["in"], ["out"], axis=1)],
        "flat",
        [values("in", TensorProto.FLOAT, ["N", 3, height, width])],
        [values("out", TensorProto.FLOAT, ["N", size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return to_bytes(tidy(model, size=size))


def preprocess(interpolation: str = "bicubic", resize: str = "crop") -> Preprocess:
    """The tiny backbone's: ImageNet's statistics."""
    return Preprocess(SIDE, SIDE, resize, 18, 18, interpolation, MEAN, STD)


def info(graph: bytes, steps: Preprocess) -> BackboneInfo:
    """What a head remembers of a backbone."""
    return BackboneInfo("tiny", "packaged", hashlib.sha256(graph).hexdigest(), steps)


def embed(graph: bytes, pixels: Pixels, steps: Preprocess) -> Rows:
    """Run a backbone in numpy, by onnx's own reference: an oracle without ONNX Runtime."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph))
    (rows,) = evaluator.run(None, {evaluator.input_names[0]: normalize(pixels, steps)})
    return np.asarray(rows, np.float32)


def noise(count: int, seed: int, height: int = SIDE, width: int = SIDE) -> Pixels:
    """Noise about a colour each, which embeddings tell apart: (count, height, width, 3)."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (count, 1, 1, 3))
    found = colour + rng.integers(-60, 60, (count, height, width, 3))
    return np.clip(found, 0, 255).astype(np.uint8)


def random_head(
    rows: Rows,
    *,
    classes: int = 3,
    seed: int = 0,
    belongs: BackboneInfo | None = None,
    center: bool = False,
    transform: bool = False,
    calibrated: bool = False,
    neighbors: int = 1,
    norm: str = "l2",
    **rule: str,
) -> Head:
    """Make a head whose proxies lie among the given embeddings, 1 to 3 a class.

    A calibrated one knows about half of them.
    """
    rng = np.random.default_rng(seed)
    dim, counts = rows.shape[1], rng.integers(1, 4, classes)
    middle = rows.mean(axis=0) if center else None
    mapping = rng.standard_normal((dim, dim + 3)) / np.sqrt(dim) if transform else None
    near = rows[rng.choice(len(rows), counts.sum(), replace=False)] - (
        0 if middle is None else middle
    )
    near = near if mapping is None else near @ mapping
    made = Rule(norm, neighbors=neighbors, **rule)
    metric = None
    if made.distance == "mahalanobis":
        metric = rng.standard_normal((near.shape[1], near.shape[1] + 1)) / 2
    head = Head(
        near / np.linalg.norm(near, axis=1, keepdims=True) if norm == "l2" else near,
        np.repeat(np.arange(classes), counts),
        ["cup", "tea pot", "Löffel ☕", "a\tb", "5 %"][:classes],
        made,
        center=middle,
        transform=mapping,
        metric=metric,
        recipe="random",
        backbone=belongs,
    )
    if not calibrated:
        return head
    found = np.take_along_axis(head.nearest(rows), head.predict(rows)[:, np.newaxis], axis=1)
    return head.replaced(threshold=np.full(classes, np.median(found)), temperature=0.25)


def answers(head: Head, rows: Rows) -> dict[str, npt.NDArray[np.generic]]:
    """What the oracle says of embeddings: scores, label, and the rest where there is one."""
    similarity = head.comparison().similarity(rows)
    label = head.predict(rows)
    own = np.where(head.class_index == label[:, np.newaxis], similarity, -np.inf)
    found: dict[str, npt.NDArray[np.generic]] = {"scores": head.scores(rows), "label": label}
    if head.threshold is not None:
        found["known"] = head.known(rows).astype(np.int32)
        found["probability"] = head.probability(rows)
    found["proxy"] = own.argmax(axis=1).astype(np.int32)
    return found


def stable(head: Head, rows: Rows, count: int, off: float, tolerance: float) -> list[int]:
    """Choose embeddings whose answer stands when they are off by a little.

    Args:
        head: What answers.
        rows: Embeddings to choose from.
        count: How many to choose.
        off: How much they may be off, relative to their length.
        tolerance: How much scores and probabilities may differ then.

    Returns:
        Their positions.
    """
    rng, first = np.random.default_rng(1), answers(head, rows)
    steady = np.ones(len(rows), bool)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    for _ in range(50):
        direction = rng.standard_normal(rows.shape)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        other = answers(head, (rows + off * length * direction).astype(np.float32))
        for name, values in first.items():
            near = np.abs(values - other[name]) <= (tolerance if values.ndim == 2 else 0)
            steady &= near.reshape(len(rows), -1).all(axis=1)
    found = np.flatnonzero(steady)[:count].tolist()
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {len(rows)} answers stand; give more rows")
    return found


Choose = Callable[[Head, Rows], list[int]]
