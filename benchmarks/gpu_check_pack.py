# SPDX-License-Identifier: Apache-2.0
"""Prepare all that `gpu_check.py` needs on a machine without network, torch and onnx.

    python benchmarks/gpu_check_pack.py --out PACK [--backbone demo] [--wheels 3.10]

Fused models of the demo's backbone and of resnet18 (random weights: latency and parity do not
depend on them) in fp32, fp16 and int8, each beside its backbone alone; a teachable model whose
proxies are an input; the same model with other proxies; images, and what the numpy oracle says
of them on embeddings that ONNX Runtime's CPU provider computes. Large weights are rounded to
half precision, so that one file of them serves all precisions: 33 MB together. With --wheels
also the packages that an interpreter with no more than numpy and TensorRT lacks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.precision import int8_dialect, to_half, to_int8
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target
from edge_imprint_runtime import Head, prepare
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.knowledge import head_beside
from gpu_models import LARGE_BYTES, MANIFEST, WHEELS_FOLDER, pieces

BACKBONES = ("demo", "timm/resnet18")
WHEELS = (
    "click", "cuda-bindings", "cuda-pathfinder", "markdown-it-py", "mdurl", "nvidia-ml-py",
    "pillow", "psutil", "py-cpuinfo", "pygments", "rich", "safetensors",
)  # fmt: skip
_TARGET = "portable"
_CLASSES, _SEEN, _ASKED, _BATCH = 10, 12, 24, 8

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass
class Pack:
    """What is written: files, and what each is.

    Attributes:
        folder: Where.
        files: By name: digest, pieces and base, for `gpu_models.unpack`.
        models: By name: ``precision``, ``backbone``, and the ``part``.
    """

    folder: Path
    files: dict[str, Any]
    models: dict[str, Any]

    def add(self, name: str, data: bytes, base: str | None = None, **facts: Any) -> None:
        """Write a file, or the pieces by which it differs from one that was written."""
        made_of = None
        if base is None:
            (self.folder / name).write_bytes(data)
        else:
            whole = (self.folder / base).read_bytes()
            made_of = pieces(data, _arrays(data), whole, _arrays(whole, np.float16))
        digest = hashlib.sha256(data).hexdigest()
        self.files[name] = {"sha256": digest, "pieces": made_of, "base": base}
        if facts:
            self.models[name] = facts | {"bytes": len(data)}


def photos(backbone: Backbone) -> tuple[UInt8, npt.NDArray[np.int64]]:
    """Return images (N, H, W, 3) of ten classes, and their classes, in turns."""
    preprocess = backbone.info.preprocess
    if backbone.info.name == "demo":
        data = load_digits()
        cells = np.round(data.images * (255 / 16)).astype(np.uint8)
        order = np.random.default_rng(0).permutation(len(cells))[: _CLASSES * (_SEEN + 4)]
        made = [prepare(Image.fromarray(cells[i]).convert("RGB"), preprocess) for i in order]
        return np.stack(made), data.target[order]
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(photo) for photo in load_sample_images().images]
    crops, labels = [], []
    for place in range(_CLASSES):
        side = int(rng.integers(120, 240))
        photo = scenes[place % len(scenes)]
        left, top = (int(rng.integers(20, size - side - 20)) for size in photo.size)
        for _ in range(_SEEN + 3):
            x, y = (int(edge + rng.integers(-15, 16)) for edge in (left, top))
            crops.append(prepare(photo.crop((x, y, x + side, y + side)), preprocess))
            labels.append(place)
    order = rng.permutation(len(crops))
    return np.stack(crops)[order], np.array(labels)[order]


def make_head(backbone: Backbone, rows: Float32, labels: npt.NDArray[np.int64]) -> Head:
    """Imprint the means of classes around their common centre."""
    center = rows.mean(axis=0)
    moved = rows - center
    means = np.stack([moved[labels == c].mean(axis=0) for c in range(_CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    names = [f"class {c}" for c in range(_CLASSES)]
    index = np.arange(_CLASSES)
    return Head(means, index, names, center=center, backbone=backbone.info, recipe="means")


def embed(graph: bytes, pixels: npt.NDArray[np.generic]) -> Float32:
    """Embed on the CPU."""
    runner = OrtRunner(graph, "cpu")
    parts = [
        runner.run(["embedding"], pixels[start : start + _BATCH])[0]
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float32)


def one_backbone(pack: Pack, name: str) -> None:
    """Write a backbone's models, parts and answers."""
    backbone = load_backbone(name, random_weights=name.startswith("timm/"))
    images, labels = photos(backbone)
    pixels = normalize(images, backbone.info.preprocess)
    plain = backbone.onnx
    lower(plain, target(_TARGET))
    round_weights(plain)
    rows = embed(to_bytes(plain), pixels)
    asked = slice(-_ASKED, None)
    head = make_head(backbone, rows[:-_ASKED], labels[:-_ASKED])
    batches = [pixels[i : i + _BATCH] for i in range(0, 10 * _BATCH, _BATCH)]
    graphs = {
        "fp32": plain,
        "fp16": to_half(plain),
        "int8": to_int8(plain, batches, dialect=int8_dialect(target(_TARGET))),
    }
    short = name.rpartition("/")[2]
    base = f"{short}-fp16.onnx"
    for precision in ("fp16", "fp32", "int8"):
        graph = graphs[precision]
        fused = fuse(to_bytes(graph), head, precision=precision, target=_TARGET)
        part = headless(to_bytes(fused), name)
        file = f"{short}-{precision}"
        facts = {"precision": precision, "backbone": name}
        pack.add(
            f"{file}.onnx",
            to_bytes(fused),
            None if precision == "fp16" else base,
            part="fused",
            **facts,
        )
        pack.add(f"{file}-backbone.onnx", part, base, part="backbone", **facts)
        got = embed(part, images[asked])
        np.savez_compressed(
            pack.folder / f"{file}.npz",
            images=images[asked],
            scores=head.scores(got),
            label=head.predict(got),
            right=labels[asked],
            embedding=got,
        )
    if name == "demo":
        variants(pack, backbone, to_bytes(plain), head)


def variants(pack: Pack, backbone: Backbone, graph: bytes, head: Head) -> None:
    """Write the teachable model with its head, and the same model with other proxies."""
    form = Teachable("input", max_classes=16, taught_proxies=3)
    outputs = ("scores", "label", "embedding")
    teachable = fuse(graph, head, teachable=form, outputs=outputs, target=_TARGET)
    name = "demo-teachable.onnx"
    facts = {"precision": "fp32", "backbone": "demo"}
    base = "demo-fp16.onnx"
    pack.add(name, to_bytes(teachable), base, part="teachable", **facts)
    pack.add(head_beside(name).name, head.to_bytes())
    rng = np.random.default_rng(1)
    moved = head.proxies + 0.05 * rng.standard_normal(head.proxies.shape)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    other = head.replaced(proxies=moved.astype(np.float32))
    data = to_bytes(fuse(graph, other, target=_TARGET))
    pack.add("demo-other.onnx", data, base, part="other", **facts)
    with np.load(pack.folder / "demo-fp32.npz") as answers:
        images, rows = answers["images"], answers["embedding"]
    np.savez_compressed(
        pack.folder / "demo-other.npz",
        images=images,
        scores=other.scores(rows),
        label=other.predict(rows),
        embedding=rows,
    )


def round_weights(graph: onnx.ModelProto) -> None:
    """Round large float32 weights to what float16 holds, in place."""
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.nbytes >= LARGE_BYTES:
            rounded = array.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def fetch_wheels(folder: Path, python: str) -> None:
    """Download wheels for another interpreter on x86_64 Linux, without what they need."""
    platforms = [
        part
        for tag in ("2_28", "2_27", "2_24", "2_17", "2_12", "2014", "2010", "1")
        for part in ("--platform", f"manylinux{'_' * ('_' in tag)}{tag}_x86_64")
    ]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    subprocess.run([*command, *platforms, "--dest", str(folder), *WHEELS], check=True)


def _arrays(data: bytes, dtype: Any = None) -> list[bytes]:
    graph = onnx.load_from_string(data).graph
    found = [numpy_helper.to_array(one) for one in graph.initializer]
    return [array.tobytes() for array in found if dtype in (None, array.dtype)]


def main() -> None:
    """Write the pack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, action="append")
    parser.add_argument("--wheels", metavar="PYTHON", help="for this Python, such as 3.10")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pack = Pack(given.out, {}, {})
    for name in given.backbone or BACKBONES:
        one_backbone(pack, name)
    text = json.dumps({"models": pack.models, "files": pack.files})
    (given.out / MANIFEST).write_text(text)
    if given.wheels:
        fetch_wheels(given.out / WHEELS_FOLDER, given.wheels)
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(f"{given.out}: {len(pack.models)} models, {size / 1e6:.1f} MB")
    if not given.wheels:
        print("packages that are needed there: numpy, " + ", ".join(WHEELS))


if __name__ == "__main__":
    main()
