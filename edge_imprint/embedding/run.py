# SPDX-License-Identifier: Apache-2.0
"""Photos -> embeddings: what the cache holds is taken from it, the rest an engine embeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint.embedding.classes import StoredClasses
from edge_imprint.embedding.digests import Digests, read_digests, remember_digests
from edge_imprint.embedding.engine import Broken, Engine
from edge_imprint.photos import Location, Photos
from edge_imprint_runtime.errors import (
    EmbeddingError,
    NoImagesError,
    ParameterError,
    TooManyBrokenError,
)
from edge_imprint_runtime.quick import check_decode

__all__ = [
    "ENGINES",
    "Embeddings",
    "How",
    "check_max_broken",
    "embed_photos",
    "make_engine",
]

ENGINES = ("local", "ray")
_MAX_VALUE = 1e16
# So many broken photos above what is allowed end a build before it has seen all.
_HOPELESS = 100

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class How:
    """How photos are embedded; the same embeddings, but for ``autocast`` and ``decode``.

    Attributes:
        engine: ``local``: this machine; ``ray``: a Ray cluster, or all GPUs of this machine.
        ray_address: The cluster; None: the one that Ray's environment names, or one of this
            machine's own.
        device: ``auto``, ``cpu`` or ``cuda``.
        autocast: None: float32. ``bf16`` or ``fp16``: what torch casts to on CUDA.
        workers: Processes that decode; None: as many as serve.
        decode: ``quick``, ``draft`` or ``exact``; see `photo_pixels`.
        cache: Whether embeddings are kept for the next build.
    """

    engine: str = "local"
    ray_address: str | None = None
    device: str = "auto"
    autocast: str | None = None
    workers: int | None = None
    decode: str = "quick"
    cache: bool = True

    def check(self) -> None:
        """Refuse what is out of range, before anything is read.

        Raises:
            ParameterError: A value is none of those above, or two contradict each other.
        """
        from edge_imprint.embedding.embedders import check_device
        from edge_imprint.embedding.gpus import check_cuda

        check_device(self.device)
        if self.engine == "local":  # a cluster's GPUs may be elsewhere
            check_cuda(self.device)
        _check_in("engine", self.engine, ENGINES)
        check_decode(self.decode)
        if self.autocast is not None:
            _check_in("autocast", self.autocast, ("bf16", "fp16"))
        if self.engine == "local" and self.ray_address is not None:
            raise ParameterError("--ray-address is for --engine ray; give both, or neither")
        if self.workers is not None and not 0 <= self.workers <= 1024:
            raise ParameterError(f"workers must be from 0 to 1024, got {self.workers}")
        if self.workers is not None and self.engine == "ray":
            raise ParameterError("Ray decides how many workers decode; leave out --workers")


def _check_in(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ParameterError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


@dataclass
class Embeddings:
    """Photos as embeddings, which lie in the store and are read class by class.

    Attributes:
        store: Holds them.
        digests: (n, 32) uint8, the SHA-256 of each readable photo's bytes.
        class_index: (n,) int64 positions in the photos' labels.
        kept: (n,) int64 positions in the photos' paths.
        skipped: The broken photos, each as one sentence.
        embedded: How many were embedded now; of copies one is.
        cached: How many the cache knew before.
        device: Where: ``cpu`` or ``cuda``.
        notes: What a user should know, each a sentence.
    """

    store: EmbeddingStore
    digests: npt.NDArray[np.uint8]
    class_index: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    skipped: tuple[str, ...]
    embedded: int
    cached: int
    device: str
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """All of them, (n, D), in memory."""
        return self.store.read(self.digests)

    @property
    def kmeans_device(self) -> str:
        """Where k-means runs: on CUDA only where torch has it on this machine.

        What embedded on CUDA may be ONNX Runtime, or other machines of a cluster.
        """
        from edge_imprint.embedding.gpus import choose_device

        return "cpu" if self.device == "cpu" else choose_device("auto", has_module=True).device

    def classes(self, *, shots: int | None = None, seed: int = 0) -> StoredClasses:
        """See them class by class, one at a time in memory."""
        return StoredClasses(
            self.store, self.digests, self.class_index, shots=shots, seed=seed
        )


def embed_photos(
    photos: Photos,
    backbone: Backbone,
    how: How | None = None,
    *,
    engine: Engine | None = None,
    digests: Digests | None = None,
    max_broken: float = 0.05,
    progress: Progress | None = None,
) -> Embeddings:
    """Read, prepare and embed photos; those whose content the cache knows are not.

    What was embedded stays in the cache, whatever happens next: a build that is killed goes
    on where it was.

    Args:
        photos: What `find_photos` found.
        backbone: The backbone.
        how: How.
        engine: What `make_engine` made of it, for who needs it again; else made here.
        digests: What `read_digests` read of the photos; None to read them.
        max_broken: Share of broken photos (0..1) above which it stops.
        progress: Told how far it is.

    Returns:
        The embeddings of the readable photos.

    Raises:
        TooManyBrokenError: More photos are broken than allowed.
        NoImagesError: A class has no readable photo left.
        EmbeddingError: An embedding is NaN, infinite or zero.
        ParameterError, ProviderError, MissingPackageError, ClusterError: As `How.check` and
            the engines have them.
    """
    how = how or How()
    how.check()
    made = engine or make_engine(backbone, how)
    try:
        space = Space(backbone.info, f"{made.device} {made.arithmetic}", how.decode)
        run = _Run(photos, EmbeddingStore(space, keep=how.cache), max_broken, progress)
        run.read(digests, anew=how.engine == "ray")
        try:
            while len(missing := run.missing()):
                run.embed(made, missing)
        finally:
            run.store.flush()
            run.remember()
        return run.result(made)
    finally:
        if engine is None:
            made.close()


def make_engine(backbone: Backbone, how: How) -> Engine:
    """Make what embeds; nothing is loaded or started before photos are given to it.

    Raises:
        ParameterError, ProviderError, MissingPackageError: It can't be had here.
    """
    if how.engine == "ray":
        from edge_imprint.embedding.cluster import RayEngine

        return RayEngine(
            backbone,
            address=how.ray_address,
            device=how.device,
            autocast=how.autocast,
            decode=how.decode,
        )
    from edge_imprint.embedding.local import LocalEngine

    return LocalEngine(
        backbone,
        device=how.device,
        autocast=how.autocast,
        workers=how.workers,
        decode=how.decode,
    )


def check_max_broken(max_broken: float) -> None:
    """Refuse what is no share.

    Raises:
        ParameterError: It is not from 0 to 1.
    """
    if not 0 <= max_broken <= 1:
        raise ParameterError(f"max_broken must be a share from 0 to 1, got {max_broken}")


@dataclass
class _Run:
    """One run over the photos: what is known of each, and what is still to do."""

    photos: Photos
    store: EmbeddingStore
    max_broken: float
    progress: Progress | None
    values: npt.NDArray[np.uint8] = field(init=False)
    known: npt.NDArray[np.bool_] = field(init=False)
    broken: dict[int, str] = field(default_factory=dict)
    embedded: int = 0
    cached: int = 0

    def __post_init__(self) -> None:
        check_max_broken(self.max_broken)
        self._learned = False  # whether an engine has told digests that were not known

    def read(self, digests: Digests | None, *, anew: bool) -> None:
        """Get the photos' digests; ``anew``: the engine reads what is not remembered."""
        if digests is None:
            digests = read_digests(
                self.photos.paths,
                progress=self._told("reading"),
                read=not anew or self.store.embedding_size is not None,
            )
        self.values, self.known = digests.values.copy(), digests.known.copy()
        self.cached = int(self.store.holds(self.values[self.known]).sum())

    def missing(self) -> list[int]:
        """List photos to embed: one for each content that the store lacks."""
        todo = ~self.known
        known = np.flatnonzero(self.known)
        lacking = known[~self.store.holds(self.values[known])]
        if self.broken:
            todo[list(self.broken)] = False
            lacking = lacking[~np.isin(lacking, list(self.broken))]
        # Of photos with the same content the first. Once some were broken, copies of those are
        # left, each to be told of: all in one pass, not in one pass each.
        if not self.broken:
            _, first = np.unique(self.values[lacking], axis=0, return_index=True)
            lacking = lacking[first]
        todo[lacking] = True
        return [int(i) for i in np.flatnonzero(todo)]

    def embed(self, engine: Engine, missing: list[int]) -> None:
        """Embed these, and keep what comes."""
        tell, done = self._told("embedding"), 0
        for result in engine.embed(_Some(self.photos.paths, missing)):
            if isinstance(result, Broken):
                self.broken[missing[result.index]] = result.problem
                done += 1
                self._check_broken(beyond=_HOPELESS)
            else:
                indices = [missing[i] for i in result.indices]
                self._check_rows(result.rows, indices)
                self.store.add(result.digests, result.rows)
                self.values[indices] = np.frombuffer(
                    b"".join(result.digests), np.uint8
                ).reshape(-1, 32)
                self._learned |= not self.known[indices].all()
                self.known[indices] = True
                self.embedded += len(indices)
                done += len(indices)
            if tell is not None:
                tell(done, len(missing))

    def remember(self) -> None:
        """Tell the memory of digests what an engine has read."""
        if self._learned:
            remember_digests(self.photos.paths, Digests(self.values, self.known))

    def result(self, engine: Engine) -> Embeddings:
        self._check_broken()
        paths, labels = self.photos.paths, self.photos.labels
        good = np.ones(len(paths), np.bool_)
        good[list(self.broken)] = False
        kept = np.flatnonzero(good)
        index = self.photos.class_index[kept]
        skipped = (*self.photos.problems, *(self.broken[i] for i in sorted(self.broken)))
        empty = np.flatnonzero(np.bincount(index, minlength=len(labels)) == 0)
        if len(empty):
            raise NoImagesError(
                f"the class {labels[int(empty[0])]!r} has no readable photo; "
                f"the first broken: {skipped[0]}"
            )
        return Embeddings(
            self.store,
            self.values[kept],
            index,
            kept,
            skipped,
            self.embedded,
            self.cached,
            engine.device,
            (*engine.notes, *self.store.notes),
        )

    def _check_broken(self, beyond: int = 0) -> None:
        skipped = len(self.photos.problems) + len(self.broken)
        total = len(self.photos.problems) + len(self.photos.paths)
        if skipped > self.max_broken * total + beyond:
            first = (*self.photos.problems, *(self.broken[i] for i in sorted(self.broken)))[0]
            raise TooManyBrokenError(
                f"{skipped} of {total} photos are broken, more than {self.max_broken:.0%}; "
                f"the first: {first}; mend them, or allow more with --max-broken"
            )

    def _check_rows(self, rows: npt.NDArray[np.float32], indices: Sequence[int]) -> None:
        # Above this the float32 square overflows, and the norm with it.
        finite = np.asarray((np.abs(rows) < _MAX_VALUE).all(axis=1))  # False for NaN too
        good = np.asarray(finite & rows.any(axis=1))
        if not good.all():
            first = int(np.argmin(good))
            what = "zero" if finite[first] else "NaN, infinite or too large"
            raise EmbeddingError(
                f"the backbone's embedding of {self.photos.paths[indices[first]]} is {what}; "
                "check the backbone's weights, or take the photo out"
            )

    def _told(self, step: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, of: progress(step, done, of)


@dataclass(frozen=True)
class _Some(Sequence[Location]):
    """Some of the photos' locations, made when they are asked for."""

    paths: Sequence[Location]
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Location:  # type: ignore[override]
        return self.paths[self.chosen[i]]
