# SPDX-License-Identifier: Apache-2.0
"""What teaching a class on a device is worth beside building it, and what it costs.

    python benchmarks/teaching.py [--seeds 3]

Nine digits are built with calibration, the tenth is taught from a few photos, each digit in
turn, on the demo's backbone. Then the time of one `teach`, and `predict` of a teachable model
beside that of the same model exported without.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small products: threads would only slow them

import numpy as np
import numpy.typing as npt

from common import random_head, series_json, write_result
from edge_imprint.backbones import load_backbone
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import calibrate
from edge_imprint.judging.crossval import Folds, held_out
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.measuring import measure
from edge_imprint_runtime.teaching import teach
from tasks import Task, digit_tasks

PHOTOS = (1, 2, 5, 10, 20, 50)
PROXIES = (1, 5)
DIGITS = 10


def built(task: Task, recipe: Recipe, digits: npt.NDArray[np.int64]) -> Head:
    """Build a calibrated head of some of the digits."""
    inside = np.isin(task.train_y, digits)
    place = np.searchsorted(digits, task.train_y[inside])
    source = ByClass(task.train[inside], place)
    calibration = calibrate(held_out(Folds(source), recipe))
    return imprint(source, [str(d) for d in digits], recipe, calibration=calibration)


def judged(head: Head, task: Task, digit: int) -> dict[str, float]:
    """Ask for all held-out photos, and say how those of one digit fare."""
    label = np.array([int(name) for name in head.labels])[head.predict(task.test)]
    known, own = head.known(task.test), task.test_y == digit
    return {
        "right": float((label == task.test_y).mean()),
        "own_right": float((label[own] == digit).mean()),
        "own_known": float((known & (label == digit))[own].mean()),
        "others_taken": float((known & (label == digit))[~own].mean()),
    }


def quality(seeds: int) -> list[dict[str, object]]:
    """Teach each digit in turn; shares (0..1), mean over digits and seeds."""
    recipe, found = Recipe.parse("imprint"), dict[tuple[int, int], list[dict[str, float]]]()
    for seed in range(seeds):
        task = digit_tasks(seed)[0]
        whole = built(task, recipe, np.arange(DIGITS))
        for digit in range(DIGITS):
            found.setdefault((0, 0), []).append(judged(whole, task, digit))
            head = built(task, recipe, np.delete(np.arange(DIGITS), digit))
            own = np.flatnonzero(task.train_y == digit)
            photos = np.random.default_rng([seed, digit]).permutation(own)
            for count in PHOTOS:
                for k in PROXIES:
                    taught = teach(head, str(digit), task.train[photos[:count]], proxies=k)
                    found.setdefault((count, k), []).append(judged(taught, task, digit))
    rows: list[dict[str, object]] = []
    for (count, k), each in found.items():
        mean = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        rows.append({"photos": count, "proxies": k, **mean})
        what = f"{count:3} photos, {k} proxies" if count else "built with the others"
        print(f"{what:22}", *(f"{key} {value:.1%}" for key, value in mean.items()))
    return rows


def teach_time() -> list[dict[str, object]]:
    """Time one teaching in numpy; median of 5, one thread."""
    rng, rows = np.random.default_rng(0), list[dict[str, object]]()
    proxies = rng.standard_normal((200, 512))
    proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    for calibrated in (False, True):
        head = Head(
            proxies,
            np.repeat(np.arange(10), 20),
            [str(c) for c in range(10)],
            threshold=np.full(10, 0.5) if calibrated else None,
            temperature=0.1 if calibrated else None,
        )
        for count in (10, 100, 1000):
            photos, times_ns = rng.standard_normal((count, 512)), []
            for _ in range(5):
                start = time.perf_counter_ns()
                teach(head, "new", photos)
                times_ns.append(time.perf_counter_ns() - start)
            row = {"calibrated": calibrated, "photos": count, "samples_ns": times_ns}
            rows.append(row | {"p50_ms": float(np.median(times_ns)) / 1e6})
            print(
                f"teach {count:4} photos, calibrated {calibrated}: {rows[-1]['p50_ms']:.1f} ms"
            )
    return rows


def predict_time() -> dict[str, object]:
    """Time `predict`, in turns: exported plainly, and in both teachable forms."""
    results: dict[str, object] = {}
    for name, iterations in (("demo", 3_000), ("timm/resnet18", 300)):
        backbone = load_backbone(name, random_weights=name.startswith("timm/"))
        head = random_head(backbone, backbone.onnx, 10, 20)
        models = {
            "plain": Model(OrtRunner(to_bytes(fuse(backbone.onnx, head)), "cpu", 1), "plain")
        }
        for form in ("default", "input"):
            made = to_bytes(fuse(backbone.onnx, head, teachable=Teachable(form)))
            models[form] = Model(OrtRunner(made, "cpu", 1), form, head=head)
        shape = (1, *models["plain"].input_shape)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        series = measure(
            {
                key: lambda model=model, images=images: model.predict(images)
                for key, model in models.items()
            },
            iterations=iterations,
        )
        plain, *others = (s.percentile_ms(50) for s in series)
        ratios = [other / plain for other in others]
        print(
            f"{name}: plain p50 {plain:.3f} ms, teachable x {ratios[0]:.3f}, {ratios[1]:.3f}"
        )
        results[name] = {"ratios": ratios, "series": series_json(series)}
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    result = {"quality": quality(seeds), "teach": teach_time(), "predict": predict_time()}
    write_result("teaching", {"seeds": seeds, **result})


if __name__ == "__main__":
    main()
