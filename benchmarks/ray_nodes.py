# SPDX-License-Identifier: Apache-2.0
"""Two Ray nodes of one core against one such node; a node lost in mid-embedding.

    python benchmarks/ray_nodes.py [--photos 1000] [--rounds 3] [--backbone timm/resnet18]

Nodes are processes of this machine, each held to one core. The process that hands out the
work runs on any core, which is to one node's advantage: two have no core to spare for it.
Images/s are counted from the first result to the last, since a cluster starts once; the whole
time, with the start of the workers, is kept beside. One node and two take turns.

Then one of two nodes is killed (SIGKILL of its raylet, which ends its workers) as a third of
the photos is embedded. What comes out must be what this machine gives without Ray, bit by bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster

from common import write_result
from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.embedding.cluster import RayEngine
from edge_imprint.embedding.engine import Broken, Engine
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.photos import Location
from photo_sets import make_jpegs

_STORE_BYTES = 200 * 2**20
# A node that does not answer for 5 s is dead; by default Ray waits for some 25 s.
_SYSTEM = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}

Rows = dict[int, bytes]


def main() -> None:
    """Measure, and keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="timm/resnet18")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two nodes need two cores")
    named = arguments.backbone
    backbone = load_backbone(named, random_weights=named.startswith("timm/"))
    with tempfile.TemporaryDirectory(prefix="edge-imprint-") as folder:
        photos = make_jpegs(folder, arguments.photos, 10, seed=0)
        rounds = []
        for _ in range(arguments.rounds):
            for nodes in (1, 2):
                with _nodes(cores[:nodes]) as cluster:
                    rounds.append({"nodes": nodes} | _measured(cluster, backbone, photos)[0])
                print(rounds[-1])
        loss = _with_a_loss(cores[:2], backbone, photos)
    speed = {
        nodes: [r["images_per_s"] for r in rounds if r["nodes"] == nodes] for nodes in (1, 2)
    }
    ratios = [two / one for one, two in zip(speed[1], speed[2], strict=True)]
    print(f"2 nodes / 1 node: {statistics.median(ratios):.2f} ({_shown(ratios)})")
    print(f"a node lost: {loss}")
    write_result(
        "ray_nodes",
        {
            "backbone": named,
            "photos": len(photos),
            "rounds": rounds,
            "ratio_2_to_1": ratios,
            "ratio_2_to_1_median": statistics.median(ratios),
            "node_loss": loss,
        },
    )


def _measured(
    cluster: Any, backbone: Backbone, photos: Sequence[Location], kill_at: int | None = None
) -> tuple[dict[str, Any], Rows]:
    engine = RayEngine(backbone, device="cpu", address=cluster.address)
    rows: Rows = {}
    begun = time.perf_counter()
    first: tuple[float, int] | None = None
    longest_gap_s, last = 0.0, begun
    for count in _collect(engine, photos, rows):
        now = time.perf_counter()
        if first is None:
            first = now, count
        else:
            longest_gap_s = max(longest_gap_s, now - last)
        last = now
        if kill_at is not None and count >= kill_at:
            _kill(cluster)
            kill_at = None
    notes = list(engine.notes)
    engine.close()
    assert first is not None
    figures = {
        "images_per_s": (len(rows) - first[1]) / (last - first[0]),
        "first_result_s": first[0] - begun,
        "whole_s": last - begun,
        "longest_gap_s": longest_gap_s,
        "notes": notes,
    }
    return figures, rows


def _with_a_loss(
    cores: Sequence[int], backbone: Backbone, photos: Sequence[Location]
) -> dict[str, Any]:
    with _nodes(cores) as cluster:
        figures, rows = _measured(cluster, backbone, photos, kill_at=len(photos) // 3)
    local = LocalEngine(backbone, device="cpu")
    here: Rows = {}
    for _ in _collect(local, photos, here):
        pass
    local.close()
    if rows != here:
        raise SystemExit("the embeddings after a loss are not those of this machine")
    return figures | {"embeddings_equal": True}


def _collect(engine: Engine, photos: Sequence[Location], rows: Rows) -> Iterator[int]:
    """Embed photos into ``rows``; tell how many there are, each time some come."""
    for result in engine.embed(photos):
        if isinstance(result, Broken):
            raise SystemExit(result.problem)
        for index, row in zip(result.indices, result.rows, strict=True):
            if index in rows:
                raise SystemExit(f"photo {index} came twice")
            rows[index] = row.tobytes()
        yield len(rows)


@contextmanager
def _nodes(cores: Sequence[int]) -> Iterator[Any]:
    """Start a cluster with a node on each of these cores."""
    own = os.sched_getaffinity(0)
    node = {"num_cpus": 1, "object_store_memory": _STORE_BYTES}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.sched_setaffinity(0, {cores[0]})  # what is started inherits it
            cluster = Cluster(
                initialize_head=True,
                connect=False,
                head_node_args=node | {"include_dashboard": False, "_system_config": _SYSTEM},
            )
            for core in cores[1:]:
                os.sched_setaffinity(0, {core})
                cluster.add_node(**node)
    finally:
        os.sched_setaffinity(0, own)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _kill(cluster: Any) -> None:
    node = next(iter(cluster.worker_nodes))
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def _shown(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


if __name__ == "__main__":
    main()
