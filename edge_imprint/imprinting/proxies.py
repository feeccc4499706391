# SPDX-License-Identifier: Apache-2.0
"""Generation: the embeddings of a class -> its proxies (arXiv 2503.14572, section 3).

A generator sees a class's distinct rows in an order of their own, with weights. So what it
gives depends neither on the order of the caller's rows nor on whether a row is repeated or
weighted. Every class gets the same draws: its proxies don't depend on which classes stand
beside it. Registering it in `GENERATORS` is all that a new one needs.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting import samples
from edge_imprint.imprinting.canonical import canonical
from edge_imprint.imprinting.class_source import Blocks, ClassSource, is_large, whole
from edge_imprint.imprinting.kmeans import kmeans
from edge_imprint.imprinting.streamed import STREAMED
from edge_imprint_runtime.errors import MissingPackageError, ParameterError

__all__ = [
    "GENERATORS",
    "Float32",
    "Float64",
    "Generate",
    "Generator",
    "canonical",
    "cores",
    "generate",
    "make_proxies",
    "one_blas_thread",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Generator: TypeAlias = Callable[[list[Float32], list[Float64], int, int], list[Float32]]
"""Classes, each (n, D) distinct rows in canonical order and its own to overwrite; their (n,)
weights, above 0; k; seed -> (p, D) for each class."""


class Generate(Protocol):
    """What makes the proxies of all classes: `generate` below, or a cluster."""

    def __call__(
        self,
        source: ClassSource,
        generation: str,
        ks: Sequence[int],
        seed: int,
        *,
        device: str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Float32]:
        """Take and give what `generate` does."""


_Class: TypeAlias = tuple[int, Float32, Float64]  # its number, rows, weights

# Numbers in the classes that a thread takes at once: 4 MiB.
_BATCH = 2**20


def make_proxies(
    rows: Float32, generation: str, k: int, seed: int, *, weights: Float64 | None = None
) -> Float32:
    """Make the proxies of one class.

    Args:
        rows: (n, D) float32, the class's embeddings in any order, n >= 1.
        generation: A key of `GENERATORS`.
        k: Proxies at most, >= 1; a class with fewer distinct rows gets one a row. ``mean``
            makes one, ``all`` one for each distinct row, whatever k is.
        seed: For those that draw, >= 0.
        weights: (n,) float64 >= 0; None for ones. Weight 0 leaves a row out, weight 2 is the
            row given twice, to the last bit.

    Returns:
        (p, D) float32.

    Raises:
        ParameterError: k, the generation or the weights are outside their range, or no row
            has a weight above 0.
        EmbeddingError: A row holds NaN or infinity.
        MissingPackageError: threadpoolctl is not installed.
    """
    return generate(_One(rows, weights), generation, [k], seed, workers=1)[0]


def generate(
    source: ClassSource,
    generation: str,
    ks: Sequence[int],
    seed: int,
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float32]:
    """Make the proxies of all classes, side by side on all cores.

    Each core takes whole classes, with one BLAS thread: a class is too small a problem for
    two. They are threads and not processes, since numpy spends nearly all the time without
    the interpreter's lock, and nothing has to be copied to another process.

    Args:
        source: The classes, as `make_proxies` takes them; several threads read it.
        generation: A key of `GENERATORS`.
        ks: A k for each class.
        seed: For those that draw, >= 0; every class gets the same draws.
        device: ``cpu``, or ``cuda``: k-means of all classes at once in torch. The other
            generators run on the CPU.
        workers: Threads; None for one a core. It changes no result.
        progress: Told (done, total) classes, by any of the threads.

    Returns:
        (p, D) float32 for each class, p as in `make_proxies`. Memory holds as many classes as
        there are threads, and a few copies of each. A class that is larger than memory (see
        `LargeClassSource`) is read block by block by ``mean`` and ``kmeans``; the others make
        its proxies of the rows that its source draws.

    Raises:
        ParameterError: As in `make_proxies`; or the device is another one.
        EmbeddingError: A row holds NaN or infinity.
        MissingPackageError: threadpoolctl, or for ``cuda`` torch, is not installed.
        ProviderError: torch finds no CUDA device.
    """
    _check(generation, ks, seed, device)
    make, batch = GENERATORS[generation], _BATCH
    workers = threads = workers or cores()
    if device == "cuda" and generation == "kmeans":
        from edge_imprint.imprinting import kmeans_cuda

        make, batch, workers = kmeans_cuda.generator(device), kmeans_cuda.BATCH, 1
    large = _too_large(source, generation)
    todo, made = deque(sorted(set(range(len(ks))) - large.keys())), dict[int, Float32]()

    def work(_: int) -> None:
        # Sorted rows go to memory that a thread has once: fresh pages cost as much as k-means.
        space = np.empty(batch if len(ks) > 1 else 1, np.float32)
        try:
            while taken := _take(source, todo, space):
                made.update(_make(taken, make, ks, seed))
                if progress is not None:
                    progress(len(made), len(ks))
        finally:
            todo.clear()  # where one fails the others need not go on

    count = min(workers, len(todo))
    with one_blas_thread():
        if count <= 1:
            work(0)
        else:
            with ThreadPoolExecutor(count) as pool:
                try:
                    list(pool.map(work, range(count)))
                finally:
                    todo.clear()  # on an interrupt
        for c, blocks in large.items():  # one after another, each on all cores
            made[c] = STREAMED[generation](
                blocks, source[c], ks[c], seed, threads, f"class {c}"
            )
            if progress is not None:
                progress(len(made), len(ks))
    return [made[c] for c in range(len(ks))]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread: small products are slower on two, and round otherwise."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


class _One:
    """A source of one class."""

    def __init__(self, rows: Float32, weights: Float64 | None) -> None:
        self._class = rows, weights

    def __len__(self) -> int:
        return 1

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self._class


def _take(source: ClassSource, todo: deque[int], space: Float32) -> list[_Class]:
    """Read classes until they fill ``space``; at least one, where one is left."""
    taken: list[_Class] = []
    while len(space):
        try:
            c = todo.popleft()
        except IndexError:
            break
        rows, weights = canonical(*source[c], f"class {c}", space)
        taken.append((c, rows, weights))
        space = space[rows.size :]
        if len(space) < rows.size:  # where the next class is as large, it would not fit
            break
    return taken


def _make(
    taken: list[_Class], make: Generator, ks: Sequence[int], seed: int
) -> dict[int, Float32]:
    by_k: dict[int, list[_Class]] = defaultdict(list)
    for one in taken:
        by_k[ks[one[0]]].append(one)
    made: dict[int, Float32] = {}
    for k, classes in by_k.items():
        proxies = make([rows for _, rows, _ in classes], [w for *_, w in classes], k, seed)
        # Copied, since the rows' memory is used again.
        made |= {c: p.copy() for (c, _, _), p in zip(classes, proxies, strict=True)}
    return made


def _too_large(source: ClassSource, generation: str) -> dict[int, Blocks]:
    """Return what gives the classes that are read block by block."""
    if generation not in STREAMED:
        return {}
    return {c: whole(source, c) for c in range(len(source)) if is_large(source, c)}


def _check(generation: str, ks: Sequence[int], seed: int, device: str) -> None:
    if generation not in GENERATORS:
        raise ParameterError(
            f"generation must be one of {', '.join(GENERATORS)}, got {generation!r}"
        )
    for k in ks:
        if k < 1:
            raise ParameterError(f"k must be an integer >= 1, got {k!r}")
    if seed < 0:
        raise ParameterError(f"seed must be an integer >= 0, got {seed!r}")
    if device not in ("cpu", "cuda"):
        raise ParameterError(f"device must be 'cpu' or 'cuda', got {device!r}")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise MissingPackageError("threadpoolctl", "making proxies", "demo") from error
    return ThreadpoolController()  # finding the libraries takes a millisecond; once is enough


def _each(make: Callable[[Float32, Float64, int, int], Float32]) -> Generator:
    """Turn what makes one class's proxies into a generator."""

    def generator(
        rows: list[Float32], weights: list[Float64], k: int, seed: int
    ) -> list[Float32]:
        return [make(r, w, k, seed) for r, w in zip(rows, weights, strict=True)]

    return generator


def _choice(
    choose: Callable[[Float32, Float64, int, int], npt.NDArray[np.int64]],
) -> Generator:
    """Turn what chooses k of a class's rows, n > k, into a generator."""
    return _each(lambda r, w, k, seed: r[choose(r, w, k, seed)] if len(r) > k else r)


def _mean(rows: Float32, weights: Float64, k: int, seed: int) -> Float32:
    return samples.weighted_mean(rows, weights).astype(np.float32)[np.newaxis]


def _kmeans(rows: list[Float32], weights: list[Float64], k: int, seed: int) -> list[Float32]:
    made = list(rows)  # one proxy a row where k rows are all there are
    chosen = [i for i, part in enumerate(rows) if len(part) > k]
    if chosen:
        centres = kmeans([rows[i] for i in chosen], [weights[i] for i in chosen], k, seed)
        for i, found in zip(chosen, centres, strict=True):
            made[i] = found
    return made


GENERATORS: dict[str, Generator] = {
    "mean": _each(_mean),
    "kmeans": _kmeans,
    "kmedoids": _choice(samples.kmedoids),
    "random": _choice(samples.random_rows),
    "all": _each(lambda rows, weights, k, seed: rows),
    "fps": _choice(samples.farthest_points),
    "cov_max": _choice(samples.cov_max),
}
