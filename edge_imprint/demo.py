# SPDX-License-Identifier: Apache-2.0
"""The demonstration: real handwritten digits, a backbone that has seen only letters.

It goes the way a user goes: photos in class folders -> `build` -> one fused ONNX file ->
verified, predicted with, measured. Beside that it compares ways to imprint on three tasks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_imprint import demo_page
from edge_imprint.backbones import graph_for, load_backbone
from edge_imprint.builder import Build, build
from edge_imprint.classifier import ImprintClassifier
from edge_imprint.embedding.run import embed_photos
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import auroc, calibrate
from edge_imprint.judging.crossval import held_out
from edge_imprint.judging.folds import Folds
from edge_imprint.make_head import Progress
from edge_imprint.photos import Photos, find_photos
from edge_imprint_export import fuse, save, verify
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import OutputExistsError, OutputWriteError
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.images import photo_pixels
from edge_imprint_runtime.measuring import Plan, model_subject, run_bench, runner_subject
from edge_imprint_runtime.model import Model, open_model

__all__ = ["KS", "TASKS", "run_demo"]

SCHEMA = "edge-imprint.demo/1"
HELD_OUT = 697
_FILES = {"photos", "digits.imprint", "digits.onnx", "report.html", "report.json"}
K = 20
KS = (1, 2, 5, 10, 20, 50)
SEEN = 8  # digits imprinted to show what it does with the other two

# Each makes classes out of the digits; the last two have classes of several modes.
TASKS = {"ten digits": 10, "odd / even": 2, "digit mod 3": 3}

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Digits:
    """Embedded digits: those to imprint and those held out."""

    train: npt.NDArray[np.float32]
    train_digit: Int64
    test: npt.NDArray[np.float32]
    test_digit: Int64


def run_demo(out: str | os.PathLike[str], progress: Progress) -> dict[str, Any]:
    """Run the demonstration.

    Args:
        out: A folder for its files; made if it is missing, files of an earlier run replaced.
        progress: Told how far it is.

    Returns:
        What ``report.json`` holds: the comparison, the accuracy by k, the verification, the
        latency with raw samples, and the seconds each step took.

    Raises:
        ImportError: scikit-learn, onnx, onnxruntime or matplotlib is not installed.
        OutputExistsError: The folder holds files that no demo made.
        OutputWriteError: The folder can't be written.
        VerificationError: The fused model does not decide as its head.
    """
    begin = time.perf_counter()
    folder = Path(out)
    _check_folder(folder)
    _write_digits(folder / "photos", progress)
    made = build(
        folder / "photos" / "imprint",
        backbone="demo",
        out=folder / "digits.imprint",
        force=True,
        progress=progress,
    )
    model, verification = _export_and_verify(made, folder, progress)
    digits = _embed(folder, progress)
    comparison = _compare(digits, progress)
    by_k = _accuracy_by_k(digits, progress)
    held_out = find_photos(folder / "photos" / "held_out")
    unknown = _unknown(digits, progress)
    latency = _bench(model, folder / "digits.onnx", progress)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "photos_imprinted": len(digits.train),
        "photos_held_out": len(digits.test),
        "k": K,
        "comparison": comparison,
        "accuracy_by_k": by_k,
        "unknown": unknown,
        "verification": verification,
        "model": {
            "file": "digits.onnx",
            "size_bytes": (folder / "digits.onnx").stat().st_size,
            "recipe": made.head.recipe,
            "labels": list(made.head.labels),
        },
        "build_s": {"embed": made.embed_s, "imprint": made.imprint_s},
        "latency": latency,
    }
    answers = _predictions(model, held_out)
    report["model"]["accuracy"] = float(np.mean([a["right"] for a in answers]))
    report["total_s"] = time.perf_counter() - begin
    page = demo_page.render(report, answers)
    write_atomic(folder / "report.html", page.encode(), force=True)
    write_atomic(folder / "report.json", json.dumps(report).encode(), force=True)
    return report


def task_labels(task: str, digit: Int64) -> Int64:
    """Return the class of each digit under a task.

    Args:
        task: A key of `TASKS`.
        digit: (N,) 0..9.

    Returns:
        (N,) 0..C-1.
    """
    return digit % TASKS[task]


def _check_folder(folder: Path) -> None:
    """Replace what an earlier demo left, and nothing else."""
    if not folder.is_dir():
        return
    found = {entry.name for entry in folder.iterdir()}
    if found and not {"photos"} <= found <= _FILES:
        raise OutputExistsError(
            f"{folder} holds other files than a demo's ({sorted(found)[0]}); "
            "name an empty or new folder with --out"
        )


def _write_digits(folder: Path, progress: Progress) -> None:
    """Write scikit-learn's digits as 8 x 8 PNG files: part/digit/number.png."""
    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    everything = np.arange(len(pixels))
    train, _ = train_test_split(
        everything, test_size=HELD_OUT, stratify=data.target, random_state=0
    )
    part = np.where(np.isin(everything, train), "imprint", "held_out")
    try:
        for name in ("imprint", "held_out"):
            for digit in range(10):
                (folder / name / str(digit)).mkdir(parents=True, exist_ok=True)
        for i in everything:
            file = folder / str(part[i]) / str(data.target[i]) / f"{i:04}.png"
            Image.fromarray(pixels[i]).save(file)
            progress("writing photos", int(i) + 1, len(pixels))
    except OSError as error:
        raise OutputWriteError(
            f"cannot write the demo into {folder.parent}: {error.strerror}; "
            "name another folder with --out"
        ) from error


def _export_and_verify(
    made: Build, folder: Path, progress: Progress
) -> tuple[Model, dict[str, Any]]:
    progress("exporting", 0, 1)
    start = time.perf_counter()
    backbone_onnx = to_bytes(graph_for(made.head))
    path = save(fuse(backbone_onnx, made.head), folder / "digits.onnx", force=True)
    export_s = time.perf_counter() - start
    model = open_model(path, "cpu")
    assert made.head.backbone is not None  # build always names it
    parts = [find_photos(folder / "photos" / part) for part in ("imprint", "held_out")]
    files = [file for photos in parts for file in photos.paths]
    pixels = np.stack([photo_pixels(f, made.head.backbone.preprocess) for f in files])
    result = verify(model, made.head, backbone_onnx, pixels).require()
    return model, asdict(result) | {"export_s": export_s}


def _embed(folder: Path, progress: Progress) -> _Digits:
    backbone = load_backbone("demo")
    parts = []
    for part in ("imprint", "held_out"):
        photos = find_photos(folder / "photos" / part)
        embedded = embed_photos(photos, backbone, progress=progress)
        parts += [embedded.rows, embedded.class_index]
    train, train_digit, test, test_digit = parts
    return _Digits(train, train_digit, test, test_digit)  # type: ignore[arg-type]


def _compare(digits: _Digits, progress: Progress) -> list[dict[str, Any]]:
    """Accuracy and seconds of four ways on three tasks."""
    ways: dict[str, Callable[[], Any]] = {
        "mean": lambda: ImprintClassifier("mean"),
        f"k-means, k = {K}": lambda: ImprintClassifier("kmeans", K),
        "whitened": lambda: ImprintClassifier.from_recipe("whitened"),
        "logistic regression": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1_000)
        ),
    }
    rows = []
    for done, task in enumerate(TASKS):
        train, test = (task_labels(task, d) for d in (digits.train_digit, digits.test_digit))
        for name, way in ways.items():
            classifier = way()
            start = time.perf_counter()
            classifier.fit(digits.train, train)
            fit_s = time.perf_counter() - start
            right = classifier.predict(digits.test) == test
            rows.append(
                {"task": task, "method": name, "accuracy": float(right.mean()), "fit_s": fit_s}
            )
        progress("comparing", done + 1, len(TASKS))
    return rows


def _accuracy_by_k(digits: _Digits, progress: Progress) -> dict[str, dict[int, float]]:
    result: dict[str, dict[int, float]] = {}
    for done, task in enumerate(TASKS):
        train, test = (task_labels(task, d) for d in (digits.train_digit, digits.test_digit))
        result[task] = {}
        for k in KS:
            classifier = ImprintClassifier("kmeans", k).fit(digits.train, train)
            result[task][k] = float((classifier.predict(digits.test) == test).mean())
        progress("accuracy by k", done + 1, len(TASKS))
    return result


def _unknown(digits: _Digits, progress: Progress) -> dict[str, Any]:
    """Imprint some of the digits, calibrated, and show it those it has never seen."""
    inside = digits.train_digit < SEEN
    source = ByClass(digits.train[inside], digits.train_digit[inside])
    calibration = calibrate(held_out(Folds(source), Recipe()))
    labels = [str(digit) for digit in range(SEEN)]
    head = imprint(source, labels, Recipe(), calibration=calibration)
    nearest, label = head.nearest(digits.test), head.predict(digits.test)
    margin = nearest[np.arange(len(label)), label] - calibration.threshold[label]
    known, seen = head.known(digits.test), digits.test_digit < SEEN
    answered = seen & known
    progress("showing it what it does not know", 1, 1)
    return {
        "imprinted": SEEN,
        "photos_of_known": int(seen.sum()),
        "photos_of_unknown": int((~seen).sum()),
        "false_alarm": float((~known[seen]).mean()),
        "detected": float((~known[~seen]).mean()),
        "auroc": auroc(margin[seen], margin[~seen]),
        "accuracy_where_known": float((label == digits.test_digit)[answered].mean()),
        "margin_of_known": margin[seen].tolist(),
        "margin_of_unknown": margin[~seen].tolist(),
    }


def _predictions(model: Model, photos: Photos) -> list[dict[str, Any]]:
    """Classify the held-out photos with the fused model, as a device would."""
    answers = model.predict([str(path) for path in photos.paths])
    return [
        {
            "path": str(path),
            "truth": photos.labels[index],
            "label": answer.label,
            "score": answer.score,
            "right": answer.label == photos.labels[index],
        }
        for path, index, answer in zip(photos.paths, photos.class_index, answers, strict=True)
    ]


def _bench(model: Model, path: Path, progress: Progress) -> dict[str, Any]:
    backbone = OrtRunner(headless(path.read_bytes(), str(path)), "cpu")
    return run_bench(
        model_subject(model),
        Plan(label="demo", warm_up_s=5),
        path=path,
        beside=[runner_subject(backbone)],
        backend="cpu",
        progress=lambda _, done, total: progress("measuring latency", done, total),
    )
