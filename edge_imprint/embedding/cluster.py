# SPDX-License-Identifier: Apache-2.0
"""Photos -> embeddings on a Ray cluster, or on all GPUs of one machine.

::

    locations ---Ray Data---> read, hashed, decoded ---actors---> embeddings, to this process
                    (tasks, on any machine)     (a core or a GPU each)

A photo is done when its result is here. What a lost machine had in hand is made again: tasks
by Ray, from what they were made of; tables that a lost worker held by another worker; and
what still has no result after that in another pass over the photos that lack one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.cluster_classes import generate_on
from edge_imprint.embedding.cluster_nodes import Nodes, first_line
from edge_imprint.embedding.cluster_pool import Pool, Pulled
from edge_imprint.embedding.cluster_tasks import (
    Embedding,
    EmbedWorker,
    Read,
    absolute,
    location_table,
    read_photos,
)
from edge_imprint.embedding.embedders import check_device, embedder_graph
from edge_imprint.embedding.engine import Broken, Embedded, Engine, Result
from edge_imprint.embedding.gpus import choose_device
from edge_imprint.imprinting.class_source import ClassSource
from edge_imprint.imprinting.proxies import generate as generate_here
from edge_imprint.photos import Location
from edge_imprint_runtime.errors import (
    ClusterError,
    EdgeImprintError,
    ParameterError,
    ProviderError,
)
from edge_imprint_runtime.quick import check_decode

__all__ = ["RayEngine"]

Float32: TypeAlias = npt.NDArray[np.float32]

# Photos in one run of Ray Data: their locations, some 100 bytes each, lie in Ray's memory.
_SLICE = 2**18
# Pixels in a table that goes from the tasks to a worker: of 224 x 224 some 55 photos, and 220.
_TABLE_BYTES = {"cpu": 2**23, "cuda": 2**25}
_LEAST_PHOTOS = 4
_FINER = 16  # the next pass over photos without a result has tables this much smaller

# A core is shared by a worker that embeds and a task that reads and decodes, in the shares
# that keep both busy; on GPUs a worker feeds one, and the cores decode.
_WORKER_CPUS = {"cpu": 0.75, "cuda": 1.0}
_TASK_CPUS = {"cpu": 0.25, "cuda": 1.0}
_RETRIES = 3  # how often a task that took its process with it is tried again


class RayEngine(Engine):
    """Embeds on a Ray cluster. On CPUs the embeddings are `LocalEngine`'s, to the last bit.

    Nothing is imported or started before the first photo.

    Args:
        backbone: The backbone. Machines need this version of edge-imprint, not the backbone.
        address: ``HOST:PORT`` of the cluster's head, or ``auto``; None for the cluster that
            Ray's environment names, else for one of this machine alone.
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where this machine has it.
        autocast: ``bf16`` or ``fp16`` on CUDA; None for float32.
        decode: ``quick``, ``draft`` or ``exact``; see `decode_photo`.

    Raises:
        ParameterError: There is no such device or way to decode; or autocast on the CPU.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        address: str | None = None,
        device: str = "auto",
        autocast: str | None = None,
        decode: str = "quick",
    ) -> None:
        check_device(device)
        self.notes: list[str] = []
        self.device = device
        if device == "auto":
            choice = choose_device(device, has_module=backbone.has_module)
            self.device = choice.device
            self.notes += [choice.note] if choice.note else []
        if autocast is not None and self.device == "cpu":
            raise ParameterError(
                "--autocast is for CUDA, and photos are embedded on the CPU; leave it out"
            )
        self.arithmetic = autocast or "fp32"
        self._backbone, self._address, self._autocast = backbone, address, autocast
        check_decode(decode)
        self._decode = decode
        self._nodes: Nodes | None = None
        self._pool: Pool | None = None
        self._pulled: Pulled | None = None

    def embed(self, photos: Sequence[Location]) -> Iterator[Result]:
        """Embed photos, each once, in any order; see `Engine.embed`.

        Raises:
            ClusterError: The cluster can't be reached, or fails.
            ProviderError: CUDA is asked for, and no machine of the cluster has a GPU.
            MissingPackageError: Ray, or what embeds, is not installed.
        """
        if not len(photos):
            return
        nodes = self._connected()
        with self._failing(), _quiet(nodes.context):
            before = nodes.alive()
            pool, embedding = self._start(nodes)
            try:
                pool.wait()
                for start in range(0, len(photos), _SLICE):
                    part = range(start, min(start + _SLICE, len(photos)))
                    yield from self._embed(nodes, pool, photos, part)
                self._note(nodes, pool, before)
            finally:
                self._end()
                del embedding

    def generate(
        self,
        source: ClassSource,
        generation: str,
        ks: Sequence[int],
        seed: int,
        *,
        device: str = "cpu",
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Float32]:
        """Make the proxies of all classes as tasks of the cluster; see `proxies.generate`.

        On CUDA all classes are clustered at once on this machine's GPU, as without a cluster.

        Raises:
            ClusterError: The cluster can't be reached, or fails.
            EdgeImprintError: As `proxies.generate` has them.
        """
        if device != "cpu":
            return generate_here(
                source, generation, ks, seed, device=device, workers=workers, progress=progress
            )
        nodes = self._connected()
        with self._failing():
            return generate_on(nodes, source, generation, ks, seed, progress=progress)

    def close(self) -> None:
        """Leave the cluster, end what was started; an `embed` that is under way ends."""
        self._end()
        if self._nodes is not None:
            self._nodes.close()
            self._nodes = None

    # One embed() ----------------------------------------------------------------------------

    def _connected(self) -> Nodes:
        if self._nodes is None:
            self._nodes = Nodes(self._address)
        return self._nodes

    def _start(self, nodes: Nodes) -> tuple[Pool, Any]:
        cuda = self.device == "cuda"
        if cuda and not nodes.gpus:
            raise ProviderError(
                "no machine of the Ray cluster has a GPU that Ray knows of; "
                "use --device cpu, or start Ray there with --num-gpus"
            )
        module = self._backbone.module if cuda and self._backbone.has_module else None
        graph = b"" if module is not None else embedder_graph(self._backbone)
        preprocess = self._backbone.info.preprocess
        embedding = nodes.ray.put(
            Embedding(preprocess, graph, module, self.device, self._autocast)
        )
        options = {"num_cpus": _WORKER_CPUS[self.device], "num_gpus": int(cuda)}
        actor = nodes.ray.remote(EmbedWorker).options(**options, max_restarts=0)
        self._pool = Pool(
            nodes,
            lambda: actor.remote([embedding]),
            lambda: nodes.gpus if cuda else nodes.cpus,
        )
        return self._pool, embedding

    def _embed(
        self, nodes: Nodes, pool: Pool, photos: Sequence[Location], part: range
    ) -> Iterator[Result]:
        """Embed some photos, pass by pass, until each has its result."""
        todo: Sequence[int] = part
        rows, alone = self._table_photos(len(part), nodes), False
        while todo:
            seen = set[int]()
            for read in self._pass(nodes, pool, photos, todo, rows):
                yield from _results(read, photos, seen)
            left = [i for i in todo if i not in seen]
            if left and alone:
                if not seen:
                    _check_alive(nodes, photos, left)
                yield from (Broken(i, _lost(photos[i])) for i in left)
                return
            todo, rows = left, max(1, rows // _FINER)
            alone = rows == 1  # and not for the first time, when it may be a machine's loss

    def _pass(
        self,
        nodes: Nodes,
        pool: Pool,
        photos: Sequence[Location],
        todo: Sequence[int],
        rows: int,
    ) -> Iterator[Read]:
        tables = [
            location_table(chosen, [photos[i] for i in chosen])
            for chosen in (todo[i : i + rows] for i in range(0, len(todo), rows))
        ]
        data = nodes.ray.data
        cuda = self.device == "cuda"
        tasks = max(1, nodes.cpus - nodes.gpus) if cuda else nodes.cpus
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # max_retries: by another name
            dataset = data.from_blocks(tables).map_batches(
                read_photos,
                batch_size=None,
                batch_format="pyarrow",
                zero_copy_batch=True,
                fn_args=(self._backbone.info.preprocess, self._decode),
                num_cpus=_TASK_CPUS[self.device],
                compute=data.TaskPoolStrategy(size=tasks),
                max_retries=_RETRIES,
            )
        del tables

        def blocks() -> Iterator[Any]:
            for bundle in dataset.iter_internal_ref_bundles():
                yield from bundle.block_refs

        self._pulled = Pulled(blocks, pool.size)
        yield from pool.run(self._pulled)

    def _table_photos(self, count: int, nodes: Nodes) -> int:
        """Return how many photos go together: enough to be worth a task, and for all cores."""
        p = self._backbone.info.preprocess
        most = _TABLE_BYTES[self.device] // (p.height * p.width * 3)
        # All GPUs may be lost meanwhile; others may come, and the pool waits for them.
        workers = max(1, nodes.gpus) if self.device == "cuda" else nodes.cpus
        share = count // (4 * workers)
        return max(1, min(most, max(share, _LEAST_PHOTOS)))

    def _note(self, nodes: Nodes, pool: Pool, before: frozenset[str]) -> None:
        # Of a machine that went the cluster may not know yet, where its worker is known to be.
        lost = len((before - nodes.alive()) | pool.lost)
        if lost:
            self.notes.append(
                f"{lost} of {len(before)} machines of the cluster, or the workers there, were "
                "lost while photos were embedded; the others did their part."
            )
        self.notes += sorted(pool.notes() - set(self.notes))

    def _end(self) -> None:
        if self._pulled is not None:
            self._pulled.close()
        if self._pool is not None:
            self._pool.close()
        self._pulled = self._pool = None

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            ours = isinstance(error, EdgeImprintError)
            if ours or not type(error).__module__.startswith("ray"):
                raise
            raise ClusterError(
                f"the Ray cluster failed: {first_line(error)}; what was embedded is kept: "
                "start the build again, or build with --engine local"
            ) from error


def _results(read: Read, photos: Sequence[Location], seen: set[int]) -> Iterator[Result]:
    """Turn what a worker gave into results; what came before is not given again."""
    fresh = [k for k, i in enumerate(read.indices.tolist()) if i not in seen]
    if fresh:
        indices = tuple(int(read.indices[k]) for k in fresh)
        seen.update(indices)
        yield Embedded(
            indices, tuple(read.digests[k].tobytes() for k in fresh), read.rows[fresh]
        )
    for index, problem in read.problems:
        if index not in seen:
            seen.add(index)
            photo = photos[index]
            # Here it may be relative to a folder that another machine doesn't stand in.
            yield Broken(index, problem.replace(absolute(photo), str(photo)))


def _lost(photo: Location) -> str:
    return f"the image {photo} ended each process that decoded it; replace it or take it out"


def _check_alive(nodes: Nodes, photos: Sequence[Location], left: Sequence[int]) -> None:
    """Tell photos that end processes from a cluster that does nothing any more."""
    if len(left) > 8:
        raise ClusterError(
            f"the cluster of {len(nodes.alive())} machines gave nothing back for {len(left)} "
            f"photos, the first {photos[left[0]]}; look into Ray's logs"
        )


@contextlib.contextmanager
def _quiet(context: Any) -> Iterator[None]:
    """Let Ray Data work without bars, and go on past what ends its processes."""
    settings = {"enable_progress_bars": False, "max_errored_blocks": -1}
    before = {name: getattr(context, name) for name in settings}
    for name, value in settings.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
