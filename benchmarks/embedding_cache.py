# SPDX-License-Identifier: Apache-2.0
"""What the embedding cache saves, and what a kill costs.

1. The same build twice, over 2,000 JPEGs: limit 50 times faster the second time. "First" is
   timed with the backbone's graph there already, and once more with nothing there.
2. 1 % more photos, then another build: limit 2 % of the first one and a second.
3. Builds that are killed (SIGKILL) at random moments, each started again: limit 100 of 100
   heads are byte for byte the one of a build that was left alone, and no process is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import write_result
from photo_sets import make_jpegs

COMMAND = Path(sys.executable).with_name("edge-imprint")
# A file is remembered if it did not change for two seconds before it was read.
SETTLE_S = 3.0
ORPHANS_S = 10.0

_IN_PROCESS = """
import json, sys, time
import edge_imprint
start = time.perf_counter()
made = edge_imprint.build(
    sys.argv[1], backbone=sys.argv[2], random_weights=sys.argv[2] != "demo", out=sys.argv[3],
    force=True,
)
print(json.dumps([time.perf_counter() - start, made.embedded]))
"""


@dataclass
class Shop:
    """Photos, a cache of their own, and the command that builds a head of them.

    Attributes:
        photos: The folder of photos.
        home: Where cache and head lie.
        backbone: Its name.
    """

    photos: Path
    home: Path
    backbone: str

    def __post_init__(self) -> None:
        self.head = self.home / "head.imprint"
        self.cache = self.home / "cache"
        self.environment = os.environ | {"XDG_CACHE_HOME": str(self.cache)}

    def arguments(self) -> list[str]:
        """Return the build's command line."""
        given = [str(COMMAND), "build", str(self.photos), "--backbone", self.backbone]
        given += ["--out", str(self.head), "--force", "--json"]
        return given + (["--random-weights"] if self.backbone != "demo" else [])

    def build(self) -> tuple[float, dict[str, Any]]:
        """Build; returns the seconds of the whole command, and what it printed."""
        start = time.perf_counter()
        done = subprocess.run(
            self.arguments(), check=True, capture_output=True, text=True, env=self.environment
        )
        return time.perf_counter() - start, json.loads(done.stdout)

    def build_in_process(self) -> tuple[float, int]:
        """Build from Python; returns the seconds of the call, and photos embedded."""
        arguments = [str(self.photos), self.backbone, str(self.head)]
        done = subprocess.run(
            [sys.executable, "-c", _IN_PROCESS, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        seconds, embedded = json.loads(done.stdout.splitlines()[-1])
        return seconds, embedded

    def forget(self) -> None:
        """Clear embeddings and digests, and leave the backbone's graph."""
        subprocess.run(
            [COMMAND, "cache", "clear"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self.environment,
        )

    def digest(self) -> str:
        """Return the head's SHA-256, empty where there is none."""
        return hashlib.sha256(self.head.read_bytes()).hexdigest() if self.head.exists() else ""


def twice(shop: Shop, photos: int, repeats: int) -> dict[str, Any]:
    """Build again and again: all anew, from the cache, from Python."""
    samples: dict[str, list[float]] = {
        name: [] for name in ("first", "second", "first in Python", "second in Python")
    }
    nothing_there_s, _ = shop.build()
    heads = {shop.digest()}
    for _ in range(repeats):
        shop.forget()
        seconds, told = shop.build()
        samples["first"].append(seconds)
        expect(told["embedded"] == photos, "the first build embeds all")
        for _ in range(3):
            seconds, told = shop.build()
            samples["second"].append(seconds)
            expect(told["embedded"] == 0, "the second build embeds none")
            heads.add(shop.digest())
        shop.forget()
        samples["first in Python"].append(shop.build_in_process()[0])
        for _ in range(3):
            seconds, embedded = shop.build_in_process()
            samples["second in Python"].append(seconds)
            expect(embedded == 0, "the second build embeds none")
        heads.add(shop.digest())
    p50 = {name: float(np.median(values)) for name, values in samples.items()}
    ratios = {
        "command": p50["first"] / p50["second"],
        "command, nothing there": nothing_there_s / p50["second"],
        "in Python": p50["first in Python"] / p50["second in Python"],
    }
    print(f"{photos} photos, {shop.backbone}: first {p50['first']:.2f} s, ", end="")
    print(f"second {p50['second']:.3f} s: {ratios['command']:.0f}x (limit 50x)")
    print(f"  with nothing there {nothing_there_s:.2f} s: ", end="")
    print(f"{ratios['command, nothing there']:.0f}x; in Python {ratios['in Python']:.0f}x")
    print(f"  {len(heads)} different heads (limit 1)")
    return {
        "photos": photos,
        "ratios": ratios,
        "p50_s": p50,
        "nothing_there_s": nothing_there_s,
        "samples_s": samples,
        "different_heads": len(heads),
    }


def one_percent_more(
    shop: Shop, photos: int, classes: int, repeats: int, first_s: float
) -> dict[str, Any]:
    """Add 1 % and build, again and again; the cache is warm."""
    samples = []
    more = max(1, photos // 100)
    for turn in range(1, repeats + 1):
        make_jpegs(shop.photos, photos + turn * more, classes, 0)
        time.sleep(SETTLE_S)
        seconds, told = shop.build()
        expect(told["embedded"] == more, "the build embeds what was added")
        samples.append(seconds)
    p50, limit = float(np.median(samples)), 0.02 * first_s + 1
    print(f"{more} photos more: {p50:.2f} s (limit 2 % of the first and 1 s: {limit:.2f} s)")
    return {"added": more, "p50_s": p50, "limit_s": limit, "samples_s": samples}


def kills(shop: Shop, count: int, seed: int) -> dict[str, Any]:
    """Kill builds at random moments, each with a cache of its own; then build to the end."""
    shop.build()
    wanted, rng = shop.digest(), np.random.default_rng(seed)
    shop.forget()
    whole_s, told = shop.build()
    photos = told["embedded"]
    expect(shop.digest() == wanted, "two builds make one head")
    trials, orphans = [], 0
    for number in range(count):
        shutil.rmtree(shop.cache)
        shop.head.unlink(missing_ok=True)
        phase, ended, orphaned = killed(shop, float(rng.uniform(0, 1.02 * whole_s)))
        torn = shop.digest() not in ("", wanted)
        leftovers = sum(1 for _ in shop.cache.rglob("*.tmp")) if shop.cache.exists() else 0
        seconds, told = shop.build()
        trials.append(
            {
                "phase": phase,
                "ended_by_itself": ended,
                "found": photos - told["embedded"],
                "same": shop.digest() == wanted and not torn,
                "half_files": leftovers,
                "notes": told["notes"],
                "restart_s": seconds,
            }
        )
        orphans += orphaned
        if not trials[-1]["same"]:
            print(f"kill {number} in {phase!r}: another head")
    same = sum(bool(trial["same"]) for trial in trials)
    phases = Counter(str(trial["phase"]) for trial in trials)
    kept = [int(trial["found"]) for trial in trials]
    print(f"{count} kills of a build of {photos} photos ({whole_s:.1f} s): ", end="")
    print(f"{same} restarts made the same head; {orphans} processes were left (limit 0)")
    print(
        f"  killed while: {dict(phases)}; the restart found {np.mean(kept):.0f} photos ",
        end="",
    )
    print(f"on average, {sum(0 < n < photos for n in kept)} times some but not all")
    print(
        f"  half-written files left: {sum(int(trial['half_files']) for trial in trials)}; ",
        end="",
    )
    print(f"damaged ones: {sum('damaged' in str(trial['notes']) for trial in trials)}")
    return {
        "kills": count,
        "same": same,
        "whole_s": whole_s,
        "phases": phases,
        "orphans": orphans,
        "trials": trials,
    }


def killed(shop: Shop, after_s: float) -> tuple[str, bool, int]:
    """Start a build and kill it.

    Returns:
        What it was about, whether it had ended by itself, and how many of its processes were
        there ten seconds later.
    """
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            shop.arguments(),
            stdout=subprocess.DEVNULL,
            stderr=told,
            env=shop.environment,
            start_new_session=True,
        )
        time.sleep(after_s)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        told.seek(0)
        steps = [line[:-4] for line in told.read().splitlines() if line.endswith(" ...")]
    phase = "after its end" if ended else (steps[-1] if steps else "starting")
    deadline = time.monotonic() + ORPHANS_S
    while (left := group_size(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        os.killpg(process.pid, signal.SIGKILL)
    return phase, ended, left


def group_size(group: int) -> int:
    """Count the living processes of a group."""
    alive = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        alive += fields[0] != "Z" and int(fields[2]) == group
    return alive


def expect(true: bool, what: str) -> None:
    """Stop where a figure would mean something else."""
    if not true:
        raise SystemExit(f"this does not hold: {what}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=100)
    # Twice the 1,024 rows that are written together, so that most kills find some of them.
    parser.add_argument("--kill-photos", type=int, default=2500)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        shop = Shop(home / "photos", home / "a", given.backbone)
        shop.home.mkdir()
        make_jpegs(shop.photos, given.photos, given.classes, 0)
        time.sleep(SETTLE_S)
        result["twice"] = twice(shop, given.photos, given.repeats)
        first_s = result["twice"]["p50_s"]["first"]
        result["one_percent_more"] = one_percent_more(
            shop, given.photos, given.classes, given.repeats, first_s
        )
        if given.kills:
            victim = Shop(home / "victims", home / "b", "demo")
            victim.home.mkdir()
            make_jpegs(victim.photos, given.kill_photos, given.classes, 1)
            time.sleep(SETTLE_S)
            result["kills"] = kills(victim, given.kills, seed=0)
    write_result("embedding_cache", result)


if __name__ == "__main__":
    main()
