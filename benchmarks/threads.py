# SPDX-License-Identifier: Apache-2.0
"""Eight threads on one model: the same answers, more of them, and no growing memory.

1. Eight threads predict 10,000 images each; every answer is held against the serial one's,
   bit for bit.
2. Images a second of one and of eight callers, in turns, with one thread an operator (what
   several callers want) and with ONNX Runtime's own choice (what one caller wants). Limit:
   with one thread, on two cores, eight callers are 1.5 times as fast as one, on the demo's
   model.
3. Resident memory over a million predictions by eight threads. Limit: it grows by < 2 MB.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from common import fused_file, write_result
from edge_imprint_runtime import Model, Predictions, open_model

CALLERS = 8
IMAGES = 64
MODELS = {"demo": (4_000, 5), "timm/resnet18": (80, 3)}  # predictions a turn, and turns


def in_threads(work: Callable[[int], None], callers: int) -> float:
    """Run ``work(caller)`` in so many threads at once; returns the seconds it took."""
    failed: list[BaseException] = []

    def guarded(caller: int) -> None:
        try:
            work(caller)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    if failed:
        raise failed[0]
    return taken


def images_of(model: Model) -> npt.NDArray[np.uint8]:
    """Draw the images that all threads share."""
    shape = (IMAGES, 1, *model.input_shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def same(a: Predictions, b: Predictions) -> bool:
    """Tell whether two answers are equal, bit for bit."""
    return a.scores.tobytes() == b.scores.tobytes() and a.label.tobytes() == b.label.tobytes()


def hold_against_serial(model: Model, each: int) -> dict[str, Any]:
    """Predict in threads, and count the answers that are not the serial one's."""
    images = images_of(model)
    serial = [model.predict(image) for image in images]
    different = [0] * CALLERS

    def work(caller: int) -> None:
        order = np.random.default_rng(caller).integers(0, IMAGES, each)
        for number in order:
            different[caller] += not same(model.predict(images[number]), serial[number])

    taken = in_threads(work, CALLERS)
    return {
        "callers": CALLERS,
        "predictions_each": each,
        "different": sum(different),
        "seconds": taken,
    }


def speed(model: Model, count: int, turns: int) -> dict[str, Any]:
    """Measure images a second of one caller and of eight, in turns."""
    images = images_of(model)

    def work_of(share: int) -> Callable[[int], None]:
        def work(caller: int) -> None:
            for number in range(share):
                model.predict(images[(number + caller) % IMAGES])

        return work

    found: dict[str, list[float]] = {"1": [], str(CALLERS): []}
    cpu_s: dict[str, list[float]] = {"1": [], str(CALLERS): []}
    in_threads(work_of(count // 10), CALLERS)
    for _ in range(turns):
        for callers in (1, CALLERS):
            share = count // callers
            before = time.process_time()
            taken = in_threads(work_of(share), callers)
            cpu_s[str(callers)].append((time.process_time() - before) / (share * callers))
            found[str(callers)].append(share * callers / taken)
    one, eight = (float(np.median(found[name])) for name in ("1", str(CALLERS)))
    return {
        "images_per_s": found,
        "cpu_s_per_image": cpu_s,
        "median_images_per_s": {"1": one, str(CALLERS): eight},
        "ratio": eight / one,
    }


def growth(model: Model, total: int) -> dict[str, Any]:
    """Predict many times in eight threads, and read the resident memory now and then."""
    images, step = images_of(model), max(CALLERS, total // 40)

    def work(caller: int) -> None:
        for number in range(step // CALLERS):
            model.predict(images[(number + caller) % IMAGES])

    process = psutil.Process()
    in_threads(work, CALLERS)  # threads' stacks and ONNX Runtime's arena
    rss = [process.memory_info().rss]
    done = [0]
    while done[-1] < total:
        in_threads(work, CALLERS)
        rss.append(process.memory_info().rss)
        done.append(done[-1] + step // CALLERS * CALLERS)
    return {"predictions": done, "rss_bytes": rss, "grown_bytes": max(rss) - rss[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=10_000, help="predictions a thread")
    parser.add_argument("--total", type=int, default=1_000_000, help="predictions for memory")
    given = parser.parse_args()
    result: dict[str, Any] = {"speed": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: fused_file(Path(folder), name) for name in MODELS}
        with open_model(files["demo"], "cpu", threads=1) as model:
            result["equality"] = hold_against_serial(model, given.each)
            print(
                f"{CALLERS} x {given.each:,} predictions: "
                f"{result['equality']['different']} differ from the serial ones"
            )
            result["memory"] = growth(model, given.total)
        megabytes = result["memory"]["grown_bytes"] / 1e6
        print(f"{given.total:,} predictions: memory grows by {megabytes:.2f} MB (limit 2)")
        for name, (count, turns) in MODELS.items():
            for threads in (1, 0):
                with open_model(files[name], "cpu", threads=threads) as model:
                    found = speed(model, count, turns)
                result["speed"][f"{name} threads={threads}"] = found
                rates = found["median_images_per_s"]
                cpu_ms = {n: np.median(v) * 1e3 for n, v in found["cpu_s_per_image"].items()}
                limit = " (limit 1.5)" if (name, threads) == ("demo", 1) else ""
                print(
                    f"{name:14} threads={threads}: 1 caller {rates['1']:8.1f} images/s "
                    f"({cpu_ms['1']:.2f} ms of CPU each), {CALLERS} callers "
                    f"{rates[str(CALLERS)]:8.1f} ({cpu_ms[str(CALLERS)]:.2f}): "
                    f"{found['ratio']:.2f}x{limit}"
                )
    write_result("threads", result)


if __name__ == "__main__":
    main()
