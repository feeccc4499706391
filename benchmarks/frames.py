# SPDX-License-Identifier: Apache-2.0
"""What a camera's frame costs in the graph: 1280 x 720 to 224 by way of 256, batch 1.

First the frame's nodes alone, beside Pillow on the same picture. Then with each backbone, in
turns within one run: ready pixels of 224 x 224; frames in RGB, NV12 and YUYV resized inside
the graph, antialiased bicubic or bilinear as Pillow does it, or linear and of any size; and
the usual way, Pillow on the host and then the model. Pillow gets RGB: to make that of NV12 on
the host comes on top. Each way is compared with Pillow pixel by pixel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from PIL import Image

from common import random_head, series_json, write_result
from edge_imprint import load_backbone
from edge_imprint_export import fuse
from edge_imprint_export.frames.nodes import add_frame
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime import Head, Preprocess
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.frames import frame_shape, frame_to_rgb, rgb_to_frame
from edge_imprint_runtime.images import prepare
from edge_imprint_runtime.measuring import measure

BACKBONES = ("timm/resnet18", "timm/mobilenetv3_small_100")
HEIGHT, WIDTH = 720, 1280
RGB, NV12, ANY = Frame("rgb", HEIGHT, WIDTH), Frame("nv12", HEIGHT, WIDTH), Frame("rgb")
WAYS = {
    "rgb, bicubic": (RGB, "bicubic"),
    "nv12, bicubic": (NV12, "bicubic"),
    "yuyv, bicubic": (Frame("yuyv", HEIGHT, WIDTH), "bicubic"),
    "rgb, bilinear": (RGB, "bilinear"),
    "nv12, bilinear": (NV12, "bilinear"),
    "rgb of any size, linear": (ANY, "linear"),
}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model with ONNX Runtime's defaults on the CPU."""
    return ort.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])


def with_filter(head: Head, interpolation: str) -> Head:
    """Return the head with the usual way from a photo to 224 x 224."""
    assert head.backbone is not None
    old = head.backbone.preprocess
    new = replace(steps_of(interpolation), mean=old.mean, std=old.std)
    return Head(
        head.proxies,
        head.class_index,
        head.labels,
        head.rule,
        backbone=replace(head.backbone, preprocess=new),
    )


def picture() -> npt.NDArray[np.uint8]:
    """Return something like a photo: waves and a camera's noise."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [127 + 110 * np.sin(columns / (7 + c) + rows / (11 + c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 25, (HEIGHT, WIDTH, 3))
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def steps_of(interpolation: str) -> Preprocess:
    """Return the usual way from a photo to 224 x 224."""
    return Preprocess(224, 224, "crop", 256, 256, interpolation)


def nodes_alone(frame: Frame, preprocess: Preprocess) -> onnx.ModelProto:
    """Return a model of the frame's nodes and nothing else."""
    nodes = Nodes(17)
    add_frame(nodes, "images", frame, preprocess, "out")
    values = onnx.helper.make_tensor_value_info
    sides = ["N", *(side or f"side{i}" for i, side in enumerate(frame_shape(frame)))]
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "frame",
        [values("images", onnx.TensorProto.UINT8, sides)],
        [values("out", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])],
        nodes.constants,
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def measure_alone(iterations: int) -> dict[str, Any]:
    """Time the frame's nodes and Pillow, and compare their pixels."""
    rgb, pixels = picture()[np.newaxis], {}
    runs: dict[str, Callable[[], object]] = {}
    for way, (frame, interpolation) in WAYS.items():
        steps, frames = steps_of(interpolation), rgb_to_frame(rgb, frame)
        model = nodes_alone(frame, steps)
        made = session(model)
        got = made.run(["out"], {"images": frames})[0][0]
        seen = Image.fromarray(frame_to_rgb(frames, frame)[0])
        off = np.abs(got - prepare(seen, steps).transpose(2, 0, 1))
        pixels[way] = {
            "equal": float((off == 0).mean()),
            "within_one_level": float((off <= 1).mean()),
            "nodes": len(model.graph.node),
            "bytes": len(to_bytes(model)),
        }
        runs[way] = lambda m=made, f=frames: m.run(["out"], {"images": f})
    for interpolation in ("bicubic", "bilinear", "linear"):
        steps = steps_of(interpolation)
        runs[f"Pillow on the host, {interpolation}"] = lambda p=steps: prepare(
            Image.fromarray(rgb[0]), p
        )
    series = measure(runs, iterations=iterations)
    p50 = {s.name: s.percentile_ms(50) for s in series}
    for way, value in p50.items():
        same = f"   {100 * pixels[way]['equal']:.3f} % equal" if way in pixels else ""
        print(f"{way:30} p50 {value:7.3f} ms{same}", flush=True)
    return {"p50_ms": p50, "pixels": pixels, "series": series_json(series)}


def runs_of(name: str) -> dict[str, Callable[[], object]]:
    """Return what is timed for one backbone."""
    backbone = load_backbone(name, random_weights=True)
    plain = random_head(backbone, backbone.onnx, 10, 20)
    rgb = picture()
    runs: dict[str, Callable[[], object]] = {}

    def add(way: str, model: ort.InferenceSession, feed: Callable[[], Any]) -> None:
        runs[way] = lambda: model.run(["scores", "label"], {"images": feed()})

    for interpolation in ("bicubic", "bilinear"):
        head = with_filter(plain, interpolation)
        assert head.backbone is not None
        steps = head.backbone.preprocess
        model = session(fuse(backbone.onnx, head))
        ready = prepare(Image.fromarray(rgb), steps)[np.newaxis]
        if interpolation == "bicubic":
            add("ready pixels", model, lambda ready=ready: ready)
        add(
            f"Pillow on the host, {interpolation}",
            model,
            lambda steps=steps: prepare(Image.fromarray(rgb), steps)[np.newaxis],
        )
    for way, (frame, interpolation) in WAYS.items():
        head = with_filter(plain, interpolation)
        model = session(fuse(backbone.onnx, head, input="frame", frame=frame))
        frames = rgb_to_frame(rgb[np.newaxis], frame)
        add(way, model, lambda frames=frames: frames)
    return runs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=300)
    iterations = parser.parse_args().iterations
    result: dict[str, Any] = {"alone": measure_alone(iterations), "backbones": {}}
    for name in BACKBONES:
        series = measure(runs_of(name), iterations=iterations)
        p50 = {s.name: s.percentile_ms(50) for s in series}
        print(f"\n{name}")
        for way, value in p50.items():
            more = value - p50["ready pixels"]
            print(f"{way:30} p50 {value:7.3f} ms   + {more:6.3f} ms", flush=True)
        result["backbones"][name] = {
            "p50_ms": p50,
            "more_ms": {way: value - p50["ready pixels"] for way, value in p50.items()},
            "series": series_json(series),
        }
    write_result("frames", result)


if __name__ == "__main__":
    main()
