# SPDX-License-Identifier: Apache-2.0
"""Memory of generation over 1,000 x 1,000 x 512 embeddings that lie on disk (2 GB).

Limit: the largest class (2 MB) and 200 MB. What counts is the anonymous memory (RssAnon) that
a fresh process gains from just before the call to its peak: pages of the mapped file are the
system's cache, which it takes back at will, and are reported beside it (RssFile).
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
import numpy.typing as npt

from common import write_result
from edge_imprint.imprinting.proxies import generate

CLASSES, ROWS, LENGTH, K = 1_000, 1_000, 512, 20
LIMIT_BYTES = ROWS * LENGTH * 4 + 200 * 2**20
SAMPLE_S = 0.002


class OnDisk:
    """Classes of equal size, one after another in a file of float32."""

    def __init__(self, path: Path, classes: int) -> None:
        self.rows = np.memmap(path, np.float32, "r", shape=(classes, ROWS, LENGTH))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, c: int) -> tuple[npt.NDArray[np.float32], None]:
        return self.rows[c], None


def write(path: Path, classes: int) -> None:
    """Write classes of 8 modes."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(classes):
            modes = rng.standard_normal((8, LENGTH), np.float32)
            noise = rng.standard_normal((ROWS, LENGTH), np.float32)
            file.write((modes[rng.integers(0, 8, ROWS)] + np.float32(1.5) * noise).tobytes())


def resident_bytes(field: str) -> int:
    """Read a line of this process's status, such as ``RssAnon``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system's /proc has no {field}")


def child(path: Path, classes: int, generation: str) -> dict[str, Any]:
    """Generate, and watch the memory meanwhile."""
    source, peak, stop = OnDisk(path, classes), {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            for field in peak:
                peak[field] = max(peak[field], resident_bytes(field))

    before = {field: resident_bytes(field) for field in peak}
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    made = generate(source, generation, [K] * classes, 0)
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    return {
        "seconds": seconds,
        "proxies": sum(map(len, made)),
        "proxies_bytes": sum(part.nbytes for part in made),
        "before_bytes": before,
        "peak_bytes": peak,
        "gained_bytes": peak["RssAnon"] - before["RssAnon"],
    }


def main() -> None:
    """Write the file, run a process for each generation, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the classes")
    parser.add_argument("--child", nargs=3, metavar=("FILE", "CLASSES", "GENERATION"))
    options = parser.parse_args()
    if options.child:
        path, classes, generation = options.child
        print(json.dumps(child(Path(path), int(classes), generation)))
        return
    classes = CLASSES // 10 if options.quick else CLASSES
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.f32"
        write(path, classes)
        for generation in ("mean", "kmeans", "kmedoids", "random", "fps", "cov_max"):
            command = [
                sys.executable,
                __file__,
                "--child",
                str(path),
                str(classes),
                generation,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[generation] = result = json.loads(done.stdout)
            print(
                f"{generation:8} {result['seconds']:6.1f} s, gains "
                f"{result['gained_bytes'] / 2**20:6.1f} MiB of anonymous memory "
                f"({result['proxies_bytes'] / 2**20:.1f} MiB of it are the proxies; "
                f"limit {LIMIT_BYTES / 2**20:.0f} MiB; the data are "
                f"{path.stat().st_size / 2**20:,.0f} MiB)",
                flush=True,
            )
    write_result(
        "generation_memory",
        {"quick": options.quick, "limit_bytes": LIMIT_BYTES, "results": results},
    )


if __name__ == "__main__":
    main()
