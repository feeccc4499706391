# SPDX-License-Identifier: Apache-2.0
"""Write the conformance vectors: ``python -m tests.conformance.make_vectors [FOLDER]``.

What is expected comes from numpy (`Head`, and onnx's reference for the backbone), which shares
no code with ONNX Runtime nor with the C runtime. Of models that take camera frames, or compute
in fp16 or int8, it comes from Python's runtime, once it was held against numpy more loosely.
README.md beside this file says what the lines mean.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.precision import to_half, to_int8
from edge_imprint_runtime import Head, Preprocess, open_model
from edge_imprint_runtime.contract import Frame, Teachable, decode
from edge_imprint_runtime.frames import frame_to_rgb, rgb_to_frame
from edge_imprint_runtime.images import normalize, prepare
from edge_imprint_runtime.teaching import forget, teach
from tests.conformance import models
from tests.conformance.bad_files import bad_contracts, bad_heads, bad_models
from tests.conformance.manifest import MANIFEST, OK, TITLE, VECTORS, line
from tests.conformance.models import Pixels

ALL = ("scores", "label", "embedding", "proxy")
IMAGES = 4
# fp32 on any processor; what half a precision and another kernel of int8 may change.
CLOSE, LOOSE = 1e-4, 0.06
FORMATS = {"rgb": "rgb8", "bgr": "bgr8", "nv12": "nv12", "yuyv": "yuyv"}


class Vectors:
    """A folder of vectors in the making: files, and the manifest's lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.say(*TITLE)
        for name, data in (("tiny", models.backbone()), ("flat", models.flat(5, 6))):
            setattr(self, name, data)
        self.tiny: bytes
        self.flat: bytes
        self.steps = models.preprocess()
        self.pool = models.noise(60, 3)
        self.rows = models.embed(self.tiny, self.pool, self.steps)
        self.info = models.info(self.tiny, self.steps)

    def say(self, *fields: object) -> None:
        """Add a line."""
        self.lines.append(line(*fields))

    def put(self, name: str, data: bytes | npt.NDArray[np.generic]) -> str:
        """Write a file; arrays as little-endian numbers. Returns its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(data, bytes):
            data = data.astype(data.dtype.newbyteorder("<")).tobytes()
        path.write_bytes(data)
        return name

    def close(self) -> None:
        """Write the manifest."""
        (self.folder / MANIFEST).write_text("\n".join(self.lines) + "\n")

    def model(self, name: str, data: bytes, head: Head | None = None) -> None:
        """Begin a section with a model, and its head beside it."""
        self.say("section", name)
        path = self.put(f"{name}.onnx", data)
        if head is not None:
            self.put(f"{name}.onnx.head", head.to_bytes())
        self.say("open", path, "beside", OK)
        self._describe(data)

    def _describe(self, data: bytes) -> None:
        contract = decode({p.key: p.value for p in _parsed(data).metadata_props}, model=True)
        graph, back = contract.graph, contract.backbone
        assert graph is not None
        height, width, kind = 1, contract.embedding_size, "float32"
        if graph.frame is not None:
            height, width, kind = (
                graph.frame.height,
                graph.frame.width,
                FORMATS[graph.frame.format],
            )
        elif back is not None and graph.input != "embedding":
            height, width = back.preprocess.height, back.preprocess.width
            kind = "float32" if graph.input == "float32" else "rgb8"
        taught = graph.teachable
        facts: dict[str, object] = {
            "format": kind,
            "width": width,
            "height": height,
            "embedding_size": contract.embedding_size,
            "calibrated": int(contract.temperature is not None),
            "teachable": int(taught is not None),
            "max_classes": taught.max_classes if taught else 0,
            "taught_proxies": taught.taught_proxies if taught else 0,
            "recipe": contract.recipe,
            "backbone": back.name if back else "",
            "precision": graph.precision,
            "target": graph.target,
            "provider": "CPUExecutionProvider",
        }
        for key, value in facts.items():
            self.say("describe", key, value)

    def classes(self, head: Head) -> None:
        """Say which classes there are."""
        self.say("classes", *head.labels)

    def images(self, name: str, array: npt.NDArray[np.generic], kind: str, shape: Any) -> Any:
        """Write images; return the fields that name them, from the file to the count."""
        height, width = shape
        return self.put(f"{name}.raw", array), kind, width, height, len(array)

    def predict(
        self,
        name: str,
        images: Sequence[object],
        expected: dict[str, npt.NDArray[np.generic]],
        tolerance: float,
        proxy: bool = False,
    ) -> None:
        """Expect answers."""
        parts = {n: v for n, v in expected.items() if proxy or n != "proxy"}
        data = b"".join(v.astype(v.dtype.newbyteorder("<")).tobytes() for v in parts.values())
        self.say(
            "predict", *images, self.put(f"{name}.answers", data), ",".join(parts), tolerance
        )


def pixel_models(v: Vectors) -> None:
    """Models of pixels at the network's size, exact in fp32."""
    plain = models.random_head(v.rows, belongs=v.info, seed=1)
    known = models.random_head(v.rows, classes=5, belongs=v.info, seed=2, calibrated=True)
    votes = models.random_head(
        v.rows,
        belongs=v.info,
        seed=3,
        aggregation="mnn",
        distance="cosine",
        neighbors=2,
        weighting="distance",
        calibrated=True,
    )
    for name, head, form in (
        ("uint8", plain, "uint8"),
        ("float32", plain, "float32"),
        ("calibrated", known, "uint8"),
        ("votes", votes, "uint8"),
    ):
        model = to_bytes(fuse(v.tiny, head, input=form, outputs=ALL))
        v.model(name, model)
        v.classes(head)
        chosen = models.stable(head, v.rows, IMAGES, 1e-4, 3e-3)
        pixels = v.pool[chosen]
        expected = models.answers(head, v.rows[chosen])
        rgb = v.images(name, pixels, "rgb8", (models.SIDE, models.SIDE))
        bgr = v.images(f"{name}.bgr", pixels[..., ::-1], "bgr8", (models.SIDE, models.SIDE))
        for images in (rgb, bgr):
            v.predict(name, images, expected, CLOSE, proxy=True)
        one = {part: value[:1] for part, value in expected.items()}
        v.predict(f"{name}.one", (*rgb[:4], 1), one, CLOSE, proxy=True)
        rows = v.put(f"{name}.embeddings", v.rows[chosen])
        v.say("embed", *rgb, rows, CLOSE)
        if form == "float32":
            planes = v.images("planes", normalize(pixels, v.steps), "float32", (16, 16))
            v.predict(name, planes, expected, CLOSE, proxy=True)
            v.put("broken.raw", np.full((1, 3, 16, 16), np.nan, np.float32))
            v.say("refuse", "broken.raw", "float32", 16, 16, 1, "EI_INPUT_VALUE")
        else:
            v.say("refuse", *rgb[:2], 16, 15, 1, "EI_INPUT_SIZE")
            v.say("refuse", rgb[0], "yuyv", 16, 16, 1, "EI_INPUT_FORMAT")
        v.say("teach", "new", rows, len(chosen), 1, "EI_NOT_TEACHABLE")
    v.model("bare", to_bytes(fuse(v.tiny, plain)))
    v.say("embed", *rgb, "", 0.0, "EI_OUTPUT_MISSING")


RULES: dict[str, dict[str, Any]] = {
    "inner-product": {},
    "not-normalised": {"norm": "none"},
    "cosine": {"norm": "none", "distance": "cosine"},
    "euclidean": {"distance": "euclidean", "calibrated": True},
    "manhattan": {"norm": "none", "distance": "manhattan"},
    "mahalanobis": {"distance": "mahalanobis", "calibrated": True},
    "centred": {"center": True},
    "mapped": {"center": True, "transform": True, "calibrated": True},
    "votes-euclidean": {"aggregation": "mnn", "distance": "euclidean", "neighbors": 3},
    "votes-weighted": {
        "aggregation": "mnn",
        "distance": "manhattan",
        "neighbors": 3,
        "weighting": "distance",
        "transform": True,
    },
}


def rule_models(v: Vectors) -> None:
    """Every rule, as a model of a head alone."""
    for number, (name, options) in enumerate(RULES.items()):
        head = models.random_head(v.rows, classes=4, seed=10 + number, **options)
        v.model(name, to_bytes(fuse_head(head, outputs=("scores", "label", "proxy"))))
        chosen = models.stable(head, v.rows, IMAGES, 1e-5, 1e-3)
        rows = v.images(name, v.rows[chosen], "float32", (1, models.EMBEDDING))
        v.predict(name, rows, models.answers(head, v.rows[chosen]), CLOSE, proxy=True)
        v.say("refuse", rows[0], "float32", models.EMBEDDING - 1, 1, 1, "EI_INPUT_SIZE")
        v.say("refuse", rows[0], "rgb8", models.EMBEDDING, 1, 1, "EI_INPUT_FORMAT")
        v.say("head", v.put(f"{name}.head", head.to_bytes()), OK)


def reduced_models(v: Vectors) -> None:
    """fp16 and int8, of backbone and head."""
    head = models.random_head(v.rows, belongs=v.info, seed=4, calibrated=True)
    calibration = [normalize(v.pool, v.steps)]
    for name, graph, options in (
        ("fp16", to_half(_parsed(v.tiny)), {"precision": "fp16"}),
        ("int8", to_int8(_parsed(v.tiny), calibration), {"precision": "int8"}),
        ("head-fp16", v.tiny, {"head_precision": "fp16"}),
        ("head-int8", v.tiny, {"head_precision": "int8"}),
        ("head-exact", v.tiny, {"head_precision": "exact"}),
    ):
        model = to_bytes(fuse(graph, head, outputs=ALL[:3], **options))
        v.model(name, model)
        chosen = models.stable(head, v.rows, IMAGES, 0.03, 1.0)
        by_numpy = models.answers(head, v.rows[chosen])
        del by_numpy["proxy"]
        _by_runtime(v, name, v.pool[chosen], by_numpy, ("rgb8", (16, 16)), LOOSE)


FRAMES = [
    Frame("rgb", 24, 40),
    Frame("bgr", 24, 40),
    Frame("nv12", 24, 40),
    Frame("yuyv", 24, 40, "bt709", "full"),
    Frame("bgr"),
]


def frame_models(v: Vectors) -> None:
    """Camera frames, cropped and resized in the graph."""
    for frame in FRAMES:
        height, width = (21, 33) if frame.any_size else (frame.height, frame.width)
        steps = models.preprocess("linear" if frame.any_size else "bicubic")
        info = models.info(v.tiny, steps)
        coarse = models.noise(60, 5, 6, 8)
        photos = np.stack(
            [np.asarray(Image.fromarray(photo).resize((width, height))) for photo in coarse]
        )
        frames = rgb_to_frame(photos, frame)
        rgb = frame_to_rgb(frames, frame)
        pixels = np.stack(
            [np.asarray(prepare(Image.fromarray(photo), steps)) for photo in rgb]
        )
        rows = models.embed(v.tiny, pixels, steps)
        head = models.random_head(rows, belongs=info, seed=6)
        name = f"frame-{frame.format}{'-any' if frame.any_size else ''}"
        v.model(name, to_bytes(fuse(v.tiny, head, input="frame", frame=frame)))
        chosen = models.stable(head, rows, 2, 0.02, 1.0)
        by_numpy = models.answers(head, rows[chosen])
        del by_numpy["proxy"]
        of = FORMATS[frame.format], (height, width)
        _by_runtime(v, name, frames[chosen], by_numpy, of, CLOSE)


def _parsed(graph: bytes) -> onnx.ModelProto:
    return onnx.load_from_string(graph)


def _by_runtime(
    v: Vectors,
    name: str,
    images: Pixels,
    by_numpy: dict[str, npt.NDArray[np.generic]],
    of: tuple[str, tuple[int, int]],
    tolerance: float,
) -> None:
    """Expect what Python's runtime answers, held against numpy's answer."""
    with open_model(v.folder / f"{name}.onnx", "cpu") as model:
        found = model.predict(images)
    expected = {part: np.asarray(getattr(found, part)) for part in by_numpy}
    for part, values in by_numpy.items():
        np.testing.assert_allclose(
            expected[part], values, atol=LOOSE if values.ndim == 2 else 0
        )
    if "known" in expected:
        expected["known"] = expected["known"].astype(np.int32)
    v.predict(name, v.images(name, images, *of), expected, tolerance)


PHOTOS = ((37, 23), (9, 61), (6, 5), (64, 3))
STEPS = (
    ("bicubic", "crop"),
    ("bilinear", "stretch"),
    ("lanczos", "pad"),
    ("nearest", "crop"),
    ("box", "pad"),
    ("hamming", "stretch"),
    ("linear", "crop"),
)


def prepared(v: Vectors) -> None:
    """Photos of any size, resized and cut."""
    for interpolation, resize in STEPS:
        steps = Preprocess(5, 6, resize, 7, 8, interpolation, models.MEAN, models.STD)
        pixels = models.noise(8, 8, 5, 6)
        rows = normalize(pixels, steps).reshape(8, -1)
        head = models.random_head(rows, classes=2, seed=9, belongs=models.info(v.flat, steps))
        name = f"prepare-{interpolation}"
        v.model(name, to_bytes(fuse(v.flat, head)))
        for width, height in PHOTOS:
            photo = models.noise(1, width, height, width)[0]
            made = np.asarray(prepare(Image.fromarray(photo), steps))
            size = f"{width}x{height}"
            given = v.put(f"photo-{size}.raw", photo)
            v.say("prepare", given, width, height, v.put(f"{name}-{size}.raw", made))


def taught(v: Vectors) -> None:
    """Sequences of teaching and forgetting, and what the model knows then."""
    forms = (("default", v.info, False), ("input", v.info, True), ("default", None, True))
    for form, info, calibrated in forms:
        name = f"taught-{form}" if info else "taught-embedding"
        head = models.random_head(
            v.rows, belongs=info, seed=20, calibrated=calibrated, center=calibrated
        )
        room = Teachable(form, 5, 3)
        if info is None:
            data = to_bytes(fuse_head(head, teachable=room))
        else:
            data = to_bytes(fuse(v.tiny, head, teachable=room, outputs=ALL[:3]))
        v.model(name, data, head)
        _teach_and_forget(v, name, head, v.put("rows.f32", v.rows[:12]))
        v.say("saved", f"{name}.onnx.head", 0.0)
        _foreign_heads(v, name, head)
    v.say("section", "no head beside")
    v.say("open", "taught-input.onnx", "none", "EI_HEAD_FILE")
    v.say("open", "taught-default.onnx", "none", OK)
    v.say("teach", "new", "rows.f32", 2, 1, "EI_HEAD_FILE")
    v.say("open", "taught-default.onnx", "uint8.onnx", "EI_HEAD_FILE")


def _teach_and_forget(v: Vectors, name: str, head: Head, rows: str) -> None:
    known = head
    steps = [("new", 7, 3), ("new", 12, 3), ("cup", 5, 2), ("neu ☕", 1, 1)]
    for number, (label, count, proxies) in enumerate(steps):
        v.say("teach", label, rows, count, proxies, OK)
        known = teach(known, label, v.rows[:count], proxies=proxies)
        _expect_taught(v, f"{name}-{number}", known)
    full = "one too many"
    refused = (
        (full, rows, 2, 1, "EI_NO_ROOM"),
        ("new", rows, 5, 4, "EI_NO_ROOM"),
        ("new", rows, 5, -1, "EI_INVALID_ARGUMENT"),
        ("", rows, 2, 1, "EI_CONTRACT_VALUE"),
        ("x" * 1025, rows, 2, 1, "EI_CONTRACT_VALUE"),
        ("new", v.put("nan.f32", np.full((1, 8), np.nan, np.float32)), 1, 1, "EI_INPUT_VALUE"),
    )
    for fields in refused:
        v.say("teach", *fields)
    v.say("forget", "nobody", "EI_NO_SUCH_CLASS")
    for label in ("new", "neu ☕"):
        v.say("forget", label, OK)
        known = forget(known, label)
    _expect_taught(v, f"{name}-left", known)
    v.say("load", f"{name}.onnx.head", OK)
    v.classes(head)
    zero = v.put("zero.f32", np.zeros((1, 8), np.float32))
    if head.center is None:
        v.say("teach", "new", zero, 1, 1, "EI_ZERO_EMBEDDING")
    v.say("teach", "new", rows, 3, 0, OK)
    v.say("forget", "new", OK)


def _expect_taught(v: Vectors, name: str, known: Head) -> None:
    """The classes, the head file, and answers of the model with that head."""
    v.classes(known)
    v.say("saved", v.put(f"{name}.head", known.to_bytes()), 1e-5)
    chosen = models.stable(known, v.rows, 2, 1e-4, 1e-2)
    expected = models.answers(known, v.rows[chosen])
    if known.backbone is None:
        images = v.images(name, v.rows[chosen], "float32", (1, models.EMBEDDING))
    else:
        images = v.images(name, v.pool[chosen], "rgb8", (models.SIDE, models.SIDE))
    v.predict(name, images, expected, CLOSE)


def _foreign_heads(v: Vectors, name: str, head: Head) -> None:
    others = {
        "classes": models.random_head(v.rows, classes=5, seed=30, belongs=head.backbone),
        "size": models.random_head(v.rows[:, :6], seed=31),
        "rule": head.replaced(rule=models.Rule("l2", distance="euclidean")),
        "slots": head.replaced(
            proxies=np.concatenate([head.proxies, v.rows[:20]]),
            class_index=np.concatenate([head.class_index, np.zeros(20, np.int64)]),
        ),
    }
    for kind, other in others.items():
        path = v.put(f"{name}-{kind}.head", other.to_bytes())
        fits = kind == "classes" and head.threshold is None
        v.say("load", path, OK if fits else "EI_HEAD_MISMATCH")
    v.say("load", "nowhere.head", "EI_HEAD_FILE")
    v.say("load", f"{name}.onnx", "EI_HEAD_FILE")


def main(folder: Path) -> None:
    """Write all vectors into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    v = Vectors(folder)
    for part in (pixel_models, rule_models, reduced_models, frame_models, prepared, taught):
        part(v)
    for part in (bad_contracts, bad_heads, bad_models):
        part(v.say, v.put)
    v.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else VECTORS)
