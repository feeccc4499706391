# SPDX-License-Identifier: Apache-2.0
"""Seconds of whole commands, process start included.

Limits: `edge-imprint --help` 0.25 s; `export` of resnet18 with its backbone cached 1 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import random_head, write_result
from edge_imprint import load_backbone

REPEATS = 15


def seconds(command: list[str], repeats: int = REPEATS) -> list[float]:
    """Run a command some times; returns the seconds of each, after one run to warm up."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return taken[1:]


def main() -> None:
    """Measure and print."""
    command = [str(Path(sys.executable).parent / "edge-imprint")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        backbone = load_backbone("timm/resnet18", random_weights=True)
        start = time.perf_counter()
        graph = backbone.onnx
        first_s = time.perf_counter() - start
        random_head(backbone, graph, 10, 20).save(folder / "shop.imprint")
        export = ["export", str(folder / "shop.imprint"), "--out", str(folder / "shop.onnx")]
        samples = {
            "python -c pass": seconds([sys.executable, "-c", "pass"]),
            "edge-imprint --help": seconds([*command, "--help"]),
            "edge-imprint export, cached": seconds([*command, *export, "--force"]),
        }
    print(f"{'first export of the backbone':30} {first_s:.2f} s, then cached")
    for name, values in samples.items():
        print(f"{name:30} median {np.median(values):.3f} s, max {max(values):.3f} s")
    result = {"first_backbone_export_s": first_s, "samples_s": samples}
    write_result("command_time", result)


if __name__ == "__main__":
    main()
