# SPDX-License-Identifier: Apache-2.0
"""The C runtime: beside a bare loop of `OrtApi.Run`, and beside Python's `Model.predict`.

Builds the library (cmake), then measures in processes of their own, one thread each:

- `ei_predict` by turns with a bare loop: at most 1 % + 5 us more, at p50;
- `ei_predict` and `Model.predict` by turns of processes: p50, p99, resident memory;
- cold start by turns: `ei-classify` and `edge-imprint predict`, and the least that either
  language can do, from the start of a process to the label; limit 0.5;
- teaching 20 embeddings of 512 as 5 proxies: 5 ms;
- a head of 1,000 classes x 20 proxies x 512 in place of another: 20 ms;
- the library's size, stripped: 120,000 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from bench_vs_bare import paired
from common import fused_file, write_result
from edge_imprint_export import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Teachable

ROOT = Path(__file__).parents[1]
LIBRARY = next(Path(ort.__file__).parent.glob("capi/libonnxruntime.so.*"))
MODELS = (("demo", 500), ("timm/resnet18", 20))
EMBEDDING_SIZE = 512

SERVE = """\
import json, sys, time
import numpy as np
from edge_imprint_runtime import open_model

model, count = open_model(sys.argv[1], "cpu", threads=1), int(sys.argv[2])
image = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape), np.uint8)
end, taken = time.perf_counter() + 0.1, []
while len(taken) < count:
    start = time.perf_counter_ns()
    model.predict(image)
    if time.perf_counter() > end:
        taken.append(time.perf_counter_ns() - start)
print("Model.predict", *taken)
status = open("/proc/self/status").read()
print("rss_bytes", int(status.split("VmRSS:")[1].split()[0]) * 1024)
"""


def build(folder: Path) -> tuple[Path, Path]:
    """Build library, programs and the program that measures; returns the last two's places."""
    made = ROOT / "build/c"
    configure = ["cmake", "-S", str(ROOT / "runtime/c"), "-B", str(made)]
    subprocess.run([*configure, "-DCMAKE_BUILD_TYPE=Release"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(made), "-j2"], check=True, capture_output=True)
    measure = folder / "measure"
    source = ROOT / "runtime/c"
    words = ["cc", "-O2", "-std=gnu11", f"-I{source / 'include'}", f"-I{source / 'src'}"]
    words += ["-o", str(measure), str(ROOT / "benchmarks/c/measure.c")]
    words += [str(made / "libedge_imprint_static.a"), "-lm", "-ldl", "-lpthread"]
    subprocess.run(words, check=True)
    return made, measure


def series(arguments: list[str]) -> list[tuple[str, list[int]]]:
    """Run one program; its lines are a name and numbers."""
    environment = os.environ | {"EDGE_IMPRINT_ONNXRUNTIME": str(LIBRARY)}
    done = subprocess.run(
        arguments, check=True, capture_output=True, text=True, env=environment
    )
    rows = (line.split() for line in done.stdout.splitlines())
    return [(name, [int(word) for word in words]) for name, *words in rows]


def against_bare(measure: Path, model: Path, count: int, rounds: int) -> dict[str, Any]:
    """`ei_predict` and a bare loop, by turns within one process."""
    kept: dict[str, list[Any]] = {"bare": [], "ei_predict": []}
    for name, taken in series([str(measure), "predict", str(model), str(rounds), str(count)]):
        kept[name].append(np.array(taken, np.int64))
    ratio, interval = paired(kept["bare"], kept["ei_predict"])
    bare, ours = (float(np.median(np.concatenate(kept[name]))) for name in kept)
    pairs = zip(kept["bare"], kept["ei_predict"], strict=True)
    added_us = float(np.median([np.median(o) - np.median(b) for b, o in pairs])) / 1e3
    allowed_us = bare * 0.01 / 1e3 + 5
    print(
        f"  bare loop p50 {bare / 1e6:.4f} ms, ei_predict {ours / 1e6:.4f} ms: ratio "
        f"{ratio:.4f} ({interval[0]:.4f}-{interval[1]:.4f}), adds {added_us:.2f} us "
        f"(limit {allowed_us:.1f} us)"
    )
    return {
        "ratio_p50": ratio,
        "interval": interval,
        "added_us": added_us,
        "allowed_us": allowed_us,
        "samples_ns": {name: [row.tolist() for row in rows] for name, rows in kept.items()},
    }


def against_python(measure: Path, model: Path, count: int, rounds: int) -> dict[str, Any]:
    """`ei_predict` and `Model.predict`, processes by turns, one ONNX Runtime."""
    commands = {
        "ei_predict": [str(measure), "serve", str(model), str(count)],
        "Model.predict": [sys.executable, "-c", SERVE, str(model), str(count)],
    }
    taken: dict[str, list[list[int]]] = {name: [] for name in commands}
    rss: dict[str, list[int]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands) if number % 2 else list(commands)[::-1]:
            found = dict(series(commands[name]))
            taken[name].append(found[name])
            rss[name] += found["rss_bytes"]
    ratio, interval = paired(
        *([np.array(row) for row in taken[name]] for name in ("Model.predict", "ei_predict"))
    )
    result: dict[str, Any] = {"ratio_p50": ratio, "interval": interval, "samples_ns": taken}
    for name, rows in taken.items():
        p50, p99 = (float(np.percentile(np.concatenate(rows), p)) / 1e6 for p in (50, 99))
        rss_mb = float(np.median(rss[name])) / 1e6
        print(f"  {name:13} p50 {p50:.4f} ms, p99 {p99:.4f} ms, resident {rss_mb:.0f} MB")
        result[name] = {"p50_ms": p50, "p99_ms": p99, "rss_mb": rss_mb}
    print(f"  ei_predict / Model.predict {ratio:.4f} ({interval[0]:.4f}-{interval[1]:.4f})")
    return result


def cold_start(made: Path, model: Path, photo: Path, repeats: int) -> dict[str, Any]:
    """From the start of a process to its end, by turns; files are in the system's cache."""
    command = str(Path(sys.executable).parent / "edge-imprint")
    options = ["--library", str(LIBRARY)]
    commands = {
        "ei-classify": [str(made / "ei-classify"), *options, str(model), str(photo)],
        "edge-imprint predict": [command, "predict", str(model), str(photo)],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(repeats + 1):
        for name, words in commands.items():
            start = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first writes bytecode and finds cold files
                taken[name].append(time.perf_counter() - start)
    p50 = {name: float(np.median(rows)) * 1e3 for name, rows in taken.items()}
    ratio = p50["ei-classify"] / p50["edge-imprint predict"]
    print(
        f"  cold start: ei-classify {p50['ei-classify']:.0f} ms, edge-imprint predict "
        f"{p50['edge-imprint predict']:.0f} ms: {ratio:.2f}x (limit 0.5)"
    )
    return {"ratio": ratio, "p50_ms": p50, "samples_s": taken}


def heads(measure: Path, folder: Path, repeats: int) -> dict[str, Any]:
    """Teaching, and a large head in place of another, in a model that takes embeddings."""
    rng = np.random.default_rng(0)
    paths = []
    for number, (classes, k) in enumerate(((10, 5), (1_000, 20), (1_000, 20))):
        proxies = rng.standard_normal((classes * k, EMBEDDING_SIZE)).astype(np.float32)
        proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
        labels = [f"class {c}" for c in range(classes)]
        head = Head(proxies, np.repeat(np.arange(classes), k), labels)
        path = folder / f"model-{number}.onnx"
        path.write_bytes(to_bytes(fuse_head(head, teachable=Teachable(max_classes=1_010))))
        head.save(Path(f"{path}.head"))
        paths.append(path)
    result: dict[str, Any] = {}
    for what, arguments, limit_ms in (
        ("teach", [str(paths[0]), str(repeats)], 5),
        ("load", [str(paths[1]), str(repeats), *(f"{p}.head" for p in paths[1:])], 20),
    ):
        ((_, taken),) = series([str(measure), what, *arguments])
        p50, p99 = (float(np.percentile(taken, p)) / 1e6 for p in (50, 99))
        print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms (limit {limit_ms} ms)")
        result[what] = {"p50_ms": p50, "p99_ms": p99, "samples_ns": taken}
    return result


def stripped_bytes(made: Path, folder: Path) -> int:
    """Return the size of the library without symbols."""
    stripped = folder / "stripped.so"
    library = str((made / "libedge_imprint.so").resolve())
    subprocess.run(["strip", "--strip-unneeded", "-o", str(stripped), library], check=True)
    return stripped.stat().st_size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=31)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made, measure = build(folder)
        photo = folder / "photo.png"
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(photo)
        size = stripped_bytes(made, folder)
        print(f"libedge_imprint.so, stripped: {size:,} bytes (limit 120,000)")
        for backbone, count in MODELS:
            print(backbone)
            model = fused_file(folder, backbone)
            results[backbone] = {
                "bare": against_bare(measure, model, count, given.rounds),
                "python": against_python(measure, model, count, given.rounds // 2),
                "cold_start": cold_start(made, model, photo, given.repeats),
            }
        results["heads"] = heads(measure, folder, given.repeats)
    facts = {"rounds": given.rounds, "threads": 1, "library_bytes": size}
    write_result("c_runtime", json.loads(json.dumps(facts | {"results": results})))


if __name__ == "__main__":
    main()
