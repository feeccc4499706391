# SPDX-License-Identifier: Apache-2.0
"""Photos a second of a whole `build` against the bare backbone on ready tensors: >= 0.90.

2,000 JPEGs of 640x480, resnet18 with random weights, all in one run, taking turns. The bare
loop is what nobody can be faster than here: ONNX Runtime over ready float tensors, in the best
of the ways to use the cores. Photos are decoded in both quick ways, ``quick`` and ``draft``.
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from common import write_result
from edge_imprint import Backbone, build, load_backbone
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.embedding.run import How
from edge_imprint.imprinting.proxies import cores
from edge_imprint_export.graph import to_bytes
from photo_sets import make_jpegs

GOAL = 0.90
CLASSES = 10
READY = 256  # tensors of 600 kB: more than any cache holds
DECODES = ("quick", "draft")
TRIAL = 128  # images for choosing the bare loop's way


@dataclass(frozen=True)
class Way:
    """How the bare loop uses the cores: so many Python threads, each in runs of its own."""

    lanes: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.lanes} lanes x {self.threads} threads, batch {self.batch}"


@dataclass(frozen=True)
class Spent:
    """What something took: wall-clock seconds, and the processor's of all its processes."""

    wall_s: float
    cpu_s: float


def cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(one)[:2]) for one in who)


def timed(work: Callable[[], object]) -> Spent:
    """Run it once."""
    start, start_cpu = time.perf_counter(), cpu_s()
    work()
    return Spent(time.perf_counter() - start, cpu_s() - start_cpu)


class BareLoop:
    """The backbone alone, on (N, 3, H, W) float32 tensors that are ready in memory."""

    def __init__(self, backbone: Backbone) -> None:
        self._graph = to_bytes(backbone.onnx)
        self._sessions: dict[int, Any] = {}
        p = backbone.info.preprocess
        rng = np.random.default_rng(0)
        self._ready = rng.standard_normal((READY, 3, p.height, p.width), np.float32)

    def run(self, way: Way, images: int) -> None:
        """Embed so many images."""
        session = self._session(way.threads)
        starts = iter(range(0, images, way.batch))
        lock = threading.Lock()

        def lane() -> None:
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                count, at = min(way.batch, images - start), start % READY
                session.run(["embedding"], {"pixels": self._batch(at, count)})

        lanes = [threading.Thread(target=lane) for _ in range(way.lanes)]
        for one in lanes:
            one.start()
        for one in lanes:
            one.join()

    def best_way(self) -> tuple[Way, dict[str, float]]:
        """Try the plausible ways in turns; return the best, and images a second of each."""
        ways = [Way(cores(), 1, batch) for batch in (1, 4, 8)]
        ways += [Way(1, cores(), batch) for batch in (1, 8, 32)]
        rates = dict.fromkeys(map(str, ways), 0.0)
        for way in ways:
            self.run(way, 2 * way.lanes * way.batch)
        for _ in range(2):
            for way in ways:
                rate = TRIAL / timed(lambda way=way: self.run(way, TRIAL)).wall_s
                rates[str(way)] = max(rates[str(way)], rate)
        return max(ways, key=lambda way: rates[str(way)]), rates

    def _session(self, threads: int) -> Any:
        if threads not in self._sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            self._sessions[threads] = ort.InferenceSession(
                self._graph, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads]

    def _batch(self, at: int, count: int) -> npt.NDArray[np.float32]:
        return self._ready[min(at, READY - count) :][:count]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--folder", type=Path, help="where the photos are, or are to be kept")
    parser.add_argument("--decode", choices=DECODES, help="only this way; else both, in turns")
    given = parser.parse_args()
    decodes = (given.decode,) if given.decode else DECODES
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "photos"
        files = make_jpegs(folder, given.photos, CLASSES, seed=0)
        if given.folder and len(list(folder.rglob("*.jpg"))) != len(files):
            parser.error(f"{folder} holds other photos, too; name another --folder")
        result = compare(given.backbone, folder, files, given.rounds, Path(scratch), decodes)
    write_result("build_speed", {"goal": GOAL, **result})


def compare(
    name: str,
    folder: Path,
    files: list[Path],
    rounds: int,
    scratch: Path,
    decodes: Sequence[str],
) -> dict[str, Any]:
    """Take turns: the bare loop, the engine, `build`, the command; none has a cache to use.

    `build` has a turn for each way to decode; the engine and the command take the first.
    """
    random = not name.startswith(("demo", "onnx:"))
    backbone = load_backbone(name, random_weights=random)
    bare = BareLoop(backbone)
    way, rates = bare.best_way()
    print(f"bare loop: {way} is the best of {len(rates)} ways")
    command = [str(Path(sys.executable).with_name("edge-imprint")), "build", str(folder)]
    command += ["--backbone", name, "--no-cache", "--force", "--out", str(scratch / "head")]
    command += ["--decode", decodes[0], *(["--random-weights"] if random else [])]
    embed_s: dict[str, list[float]] = {decode: [] for decode in decodes}

    def embed() -> None:
        engine = LocalEngine(backbone, device="cpu", decode=decodes[0])
        embedded = sum(len(result.indices) for result in engine.embed(files))  # type: ignore[union-attr]
        engine.close()
        assert embedded == len(files)

    def whole(decode: str) -> None:
        how = How(device="cpu", cache=False, decode=decode)
        embed_s[decode].append(build(folder, backbone=backbone, how=how).embed_s)

    turns: dict[str, Callable[[], object]] = {
        "bare loop": lambda: bare.run(way, len(files)),
        "engine": embed,
        **{f"build, {one}": functools.partial(whole, one) for one in decodes},
        "command": lambda: subprocess.run(command, check=True, capture_output=True),
    }
    spent: dict[str, list[Spent]] = {turn: [] for turn in turns}
    for number in range(rounds):
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for turn in order:
            spent[turn].append(timed(turns[turn]))
    return summary(spent, embed_s, len(files), name) | {"ways_images_per_s": rates}


def summary(
    spent: dict[str, list[Spent]], embed_s: dict[str, list[float]], photos: int, name: str
) -> dict[str, Any]:
    """Compare round by round, print the middle of each, and keep all."""
    walls = {turn: [one.wall_s for one in all_] for turn, all_ in spent.items()}
    walls |= {f"build's embedding, {decode}": own for decode, own in embed_s.items()}
    base = walls["bare loop"]
    ratios = {
        turn: [a / b for a, b in zip(base, own, strict=True)] for turn, own in walls.items()
    }
    print(f"{name}, {photos} photos, {len(base)} rounds:")
    for turn, own in walls.items():
        rate, ratio = photos / float(np.median(own)), float(np.median(ratios[turn]))
        goal = f" (goal {GOAL:.2f})" if turn.startswith("build's") else ""
        print(f"  {turn:24} {rate:7.1f} photos/s, {ratio:.3f} of the bare loop{goal}")
    return {
        "backbone": name,
        "photos": photos,
        "ratio_to_bare_loop": ratios,
        "spent": {turn: [asdict(one) for one in all_] for turn, all_ in spent.items()},
        "build_embed_s": embed_s,
    }


if __name__ == "__main__":
    main()
