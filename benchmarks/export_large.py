# SPDX-License-Identifier: Apache-2.0
"""Seconds and memory of making the file of ViT-B/16 (344 MB), its backbone cached.

Limits: to fuse 1 s; what the process gains at its peak, from just before it reads the cached
backbone to the written file, 3 times the model. Random weights: neither depends on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import random_head, write_result
from edge_imprint import load_backbone
from edge_imprint.backbones import graph_for
from edge_imprint_export import fuse, save
from edge_imprint_export.graph import embedding_size
from edge_imprint_export.targets.lower import lowered
from edge_imprint_export.targets.records import target
from edge_imprint_runtime import Head
from generation_memory import resident_bytes

BACKBONE = "timm/vit_base_patch16_224"
TARGETS = ("portable", "jetpack-6.2")
REPEATS = 5
SAMPLE_S = 0.002


def once(head_file: Path, target_name: str, out: Path) -> dict[str, Any]:
    """Make the file once, in this fresh process."""
    head = Head.load(head_file)
    assert head.backbone is not None
    chosen = target(target_name)
    before, peak, done = resident_bytes("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            peak[0] = max(peak[0], resident_bytes("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    times = [time.perf_counter()]
    graph = lowered(graph_for(head), head.backbone, chosen)
    times.append(time.perf_counter())
    model = fuse(graph, head, target=target_name)
    times.append(time.perf_counter())
    save(model, out, force=True)
    times.append(time.perf_counter())
    done.set()
    watcher.join()
    steps = dict(zip(("read_s", "fuse_s", "save_s"), np.diff(times).tolist(), strict=True))
    size = out.stat().st_size
    return steps | {"size_bytes": size, "gained_bytes": peak[0] - before}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--once", nargs=3)
    arguments = parser.parse_args()
    if arguments.once:
        head_file, name, out = arguments.once
        print(json.dumps(once(Path(head_file), name, Path(out))))
        return
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = load_backbone(BACKBONE, random_weights=True)
        graph = backbone.onnx
        head = random_head(backbone, graph, 10, 20)
        assert embedding_size(graph) == head.embedding_size
        head.save(folder / "head")
        for target_name in TARGETS:
            command = [sys.executable, __file__, "--once", str(folder / "head"), target_name]
            command += [str(folder / "model.onnx")]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(REPEATS + 1)
            ][1:]  # the first one lowers the backbone, verifies that and keeps it
            results[target_name] = runs
            fuse_s = np.median([run["fuse_s"] for run in runs])
            read_s, save_s = (
                np.median([run[key] for run in runs]) for key in ("read_s", "save_s")
            )
            ratio = max(run["gained_bytes"] / run["size_bytes"] for run in runs)
            print(
                f"{target_name:12} read {read_s:.2f} s, fuse {fuse_s:.2f} s (limit 1), "
                f"write {save_s:.2f} s; memory gained {ratio:.2f} x the model (limit 3)"
            )
    write_result("export_large", {"backbone": BACKBONE, "runs": results})


if __name__ == "__main__":
    main()
