# SPDX-License-Identifier: Apache-2.0
"""Peak memory of `build` at 2,000 and at 20,000 photos: the whole process tree.

    python benchmarks/build_memory.py [--backbone timm/resnet18] [--photos 2000 20000]

Classes of equal size, 640x480 JPEGs. Each build is a command of its own, once with no
embedding in the cache and once with all; the backbone's graph is there before, as torch, which
makes it, would hide all the rest. What counts is the proportional set size (PSS), summed over
the command and all processes under it: a page that several share counts once. Its anonymous
part stands beside it; the rest are files, which the system takes back at will. Limit: the
larger count within 10 % of the smaller where photos are embedded. With all in the cache
the process is so small that its largest class (ten times as large) shows: reported, no limit.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import write_result
from photo_sets import make_jpegs

CLASSES = 10
LIMIT = 1.10
SAMPLE_S = 0.02
_FIELD = re.compile(r"^(Pss|Pss_Anon):\s+(\d+) kB$", re.MULTILINE)


def tree(root: int) -> set[int]:
    """Return a process and all under it."""
    parent = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # gone meanwhile
            parent[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, of in parent.items() if of in found} - found:
        found |= more
    return found


def sample(root: int) -> dict[str, int]:
    """Sum over the tree, bytes."""
    total = {"Pss": 0, "Pss_Anon": 0, "processes": 0}
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total["processes"] += 1
        for name, kib in _FIELD.findall(text):
            total[name] += int(kib) * 1024
    return total


def build(photos: Path, backbone: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Run a build, and watch its memory."""
    command = [sys.executable, "-c", "import edge_imprint.cli as c; c.main()", "build"]
    command += [str(photos), "--force"]
    command += ["--backbone", backbone, "--out", str(folder / "head.imprint")]
    command += ["--random-weights"] if backbone.startswith(("timm/", "torchvision/")) else []
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    start = time.perf_counter()
    peak: dict[str, int] = {}
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stop, samples = threading.Event(), 0

        def watch() -> None:
            nonlocal samples
            while not stop.wait(SAMPLE_S):
                for name, value in sample(running.pid).items():
                    peak[name] = max(peak.get(name, 0), value)
                samples += 1

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = running.wait()
        stop.set()
        watcher.join()
    if code:
        raise RuntimeError((folder / "log").read_text())
    return {
        "seconds": time.perf_counter() - start,
        "samples": samples,
        "peak_pss_bytes": peak["Pss"],
        "peak_anonymous_bytes": peak["Pss_Anon"],
        "processes": peak["processes"],
    }


def main() -> None:
    """Make the photos, build, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--photos", nargs=2, type=int, default=[2_000, 20_000])
    parser.add_argument("--folder", type=Path, help="keep the photos here for another time")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"embedding": [], "cached": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = options.folder or folder
        cache = folder / "cache"
        few = photos / "few"
        make_jpegs(few, 2 * CLASSES, CLASSES, seed=1)
        build(few, options.backbone, folder, cache)  # the graph is made and kept
        for count in options.photos:
            many = photos / f"photos-{count}"
            make_jpegs(many, count, CLASSES, seed=0)
            # The smaller set's are the larger's first, which would be in the cache.
            if (kept := cache / "edge-imprint" / "embeddings").exists():
                kept.rename(folder / f"embeddings-before-{count}")
            for name, of in runs.items():
                run = build(many, options.backbone, folder, cache) | {"photos": count}
                of.append(run)
                print(
                    f"{count:6} photos, {name:9} {run['peak_pss_bytes'] / 2**20:7.1f} MiB "
                    f"({run['peak_anonymous_bytes'] / 2**20:.1f} anonymous), "
                    f"{run['processes']} processes, {run['seconds']:.1f} s",
                    flush=True,
                )
    ratios = {
        name: of[1]["peak_pss_bytes"] / of[0]["peak_pss_bytes"] for name, of in runs.items()
    }
    print(f"embedding: {ratios['embedding']:.3f} of the smaller's peak; limit {LIMIT}")
    print(f"cached: {ratios['cached']:.3f} of the smaller's peak")
    write_result(
        "build_memory",
        {
            "backbone": options.backbone,
            "classes": CLASSES,
            "limit": LIMIT,
            "ratios": ratios,
            "runs": runs,
        },
    )


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


if __name__ == "__main__":
    main()
