# SPDX-License-Identifier: Apache-2.0
"""Classes clustered as parallel tasks of a cluster; the proxies are those of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.cluster_nodes import Nodes
from edge_imprint.embedding.cluster_pool import cause_of
from edge_imprint.embedding.cluster_tasks import Group, imprint_group
from edge_imprint.imprinting import proxies
from edge_imprint.imprinting.class_source import ClassSource, is_large
from edge_imprint.imprinting.sources import Some

__all__ = ["generate_on"]

Float32: TypeAlias = npt.NDArray[np.float32]

# Bytes of rows that a task takes at once: small classes go together, since a task itself
# costs as much as the proxies of a small class.
_GROUP_BYTES = 2**24
_AHEAD = 2  # groups that wait for each core
_RETRIES = 3  # how often a task that was lost is tried again: rows may be what ends it


def generate_on(
    nodes: Nodes,
    source: ClassSource,
    generation: str,
    ks: Sequence[int],
    seed: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float32]:
    """Make the proxies of all classes on a cluster's CPUs; see `proxies.generate`.

    Rows are read and sent class by class; a class that is larger than memory is clustered
    here, a block at a time, since its rows lie here.

    Args:
        nodes: The cluster.
        source: The classes.
        generation: A key of `GENERATORS`.
        ks: A k for each class.
        seed: For those that draw, >= 0.
        progress: Told (done, total) classes.

    Returns:
        (p, D) float32 for each class: those of `proxies.generate`, to the last bit where the
        machines compute alike.

    Raises:
        ParameterError, EmbeddingError, MissingPackageError: As `proxies.generate` has them.
        ClusterError: A machine of the cluster fails.
    """
    proxies.generate(Some(source, []), generation, [], seed)  # refuses what is out of range
    made: dict[int, Float32] = {}

    def keep(found: Sequence[tuple[int, Float32]]) -> None:
        made.update(found)
        if progress is not None:
            progress(len(made), len(ks))

    large = [c for c in range(len(ks)) if is_large(source, c)]
    small = [c for c in range(len(ks)) if c not in set(large)]
    task = nodes.ray.remote(imprint_group).options(num_cpus=1, max_retries=_RETRIES)
    running: list[Any] = []
    for group in _groups(source, ks, small):
        if len(running) >= _AHEAD * nodes.cpus:
            keep(_next(nodes, running))
        running.append(task.remote(nodes.ray.put(group), generation, seed))
        del group
    for c in large:
        part = Some(source, [c])
        keep([(c, proxies.generate(part, generation, [ks[c]], seed)[0])])
    while running:
        keep(_next(nodes, running))
    return [made[c] for c in range(len(ks))]


def _groups(source: ClassSource, ks: Sequence[int], chosen: Sequence[int]) -> Iterator[Group]:
    group: Group = []
    size = 0
    for c in chosen:
        rows, weights = source[c]
        group.append((c, np.ascontiguousarray(rows, np.float32), weights, ks[c]))
        size += rows.nbytes
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _next(nodes: Nodes, running: list[Any]) -> list[tuple[int, Float32]]:
    """Take the first of the tasks that is done out of them."""
    ray = nodes.ray
    done, _ = ray.wait(running, num_returns=1)
    running.remove(done[0])
    try:
        found: list[tuple[int, Float32]] = ray.get(done[0])
    except ray.exceptions.RayError as error:
        raise cause_of(error, "clustering a class") from error
    return found
