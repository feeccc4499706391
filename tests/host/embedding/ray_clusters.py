# SPDX-License-Identifier: Apache-2.0
"""Ray clusters of several nodes on this machine, for tests; small, and quick to see a loss."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# A node that does not answer for some 5 s is dead; Ray itself waits for 25 s. Its workers are
# as nice as they can be, and on a busy machine would hardly get to run.
_SYSTEM = {
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
    "worker_niceness": 0,
}


@contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """Start a cluster of so many nodes of one CPU each; give it."""
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Ray will change one day
        cluster = Cluster(
            initialize_head=True,
            connect=False,
            head_node_args=_NODE | {"include_dashboard": False, "_system_config": _SYSTEM},
        )
        for _ in range(nodes - 1):
            cluster.add_node(**_NODE)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(cluster: Any) -> None:
    """End a node that is not the head as a power cut does: by SIGKILL, whatever it was at.

    Returns when the cluster knows: a build that is done sooner has lost nothing to tell of.
    """
    import ray

    node = next(iter(cluster.worker_nodes))
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while all(one["Alive"] for one in ray.nodes()):
        assert time.monotonic() < until, "the cluster does not see that a node is gone"
        time.sleep(0.1)
