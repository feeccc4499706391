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
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting import samples
from edge_imprint.imprinting.kmeans import kmeans
from edge_imprint.imprinting.whitening import ClassSource
from edge_imprint_runtime.errors import EmbeddingError, MissingPackageError, ParameterError

__all__ = [
    "GENERATORS",
    "Float32",
    "Float64",
    "Generator",
    "canonical",
    "generate",
    "make_proxies",
    "one_blas_thread",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Generator: TypeAlias = Callable[[list[Float32], list[Float64], int, int], list[Float32]]
"""Classes, each (n, D) distinct rows in canonical order and its own to overwrite; their (n,)
weights, above 0; k; seed -> (p, D) for each class."""

_Class: TypeAlias = tuple[int, Float32, Float64]  # its number, rows, weights

# Numbers in the classes that a thread takes at once: 4 MiB.
_BATCH = 2**20
_MINUS_ZERO = np.iinfo(np.int32).min  # its bits, read as an integer


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
        there are threads, and a few copies of each.

    Raises:
        ParameterError: As in `make_proxies`; or the device is another one.
        EmbeddingError: A row holds NaN or infinity.
        MissingPackageError: threadpoolctl, or for ``cuda`` torch, is not installed.
        ProviderError: torch finds no CUDA device.
    """
    _check(generation, ks, seed, device)
    make, batch = GENERATORS[generation], _BATCH
    if device == "cuda" and generation == "kmeans":
        from edge_imprint.imprinting import kmeans_cuda

        make, batch, workers = kmeans_cuda.generator(device), kmeans_cuda.BATCH, 1
    todo, made = deque(range(len(ks))), dict[int, Float32]()

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

    count = min(workers or _cores(), len(ks))
    with one_blas_thread():
        if count <= 1:
            work(0)
        else:
            with ThreadPoolExecutor(count) as pool:
                try:
                    list(pool.map(work, range(count)))
                finally:
                    todo.clear()  # on an interrupt
    return [made[c] for c in range(len(ks))]


def canonical(
    rows: Float32,
    weights: Float64 | None,
    name: str = "the class",
    space: Float32 | None = None,
) -> tuple[Float32, Float64]:
    """Give rows an order of their own, and merge equal ones into one with their weights' sum.

    Args:
        rows: (n, D), any real type and memory layout.
        weights: (n,) >= 0; None for ones.
        name: What messages call the class.
        space: Where the result may lie, if it is large enough.

    Returns:
        (m, D) float32 distinct rows, in ``space`` or a new array, and (m,) float64 weights
        above 0.

    Raises:
        ParameterError: The weights are not as above, or all zero; or there is no row.
        EmbeddingError: A row holds NaN or infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(rows, np.float32)
        finite = np.isfinite(np.vdot(rows, rows))  # or large: look closer
    if rows.size and rows.view(np.int32).min() == _MINUS_ZERO:
        rows = rows + np.float32(0)  # makes it equal to the other zero in its bytes as well
    if not finite and not (each := np.isfinite(rows).all(axis=1)).all():
        raise EmbeddingError(
            f"row {int(each.argmin())} of {name} holds NaN or infinity; "
            "mend it or leave it out"
        )
    weights = _checked_weights(weights, len(rows), name)
    if weights is not None:
        # Equal rows in the order of their weights, so that their sum has one last bit.
        by_weight = np.argsort(weights, kind="stable")[np.count_nonzero(weights == 0) :]
        rows, weights = rows[by_weight], weights[by_weight]
    if not len(rows):
        raise ParameterError(f"{name} has no row with a weight above 0")
    order = np.argsort(rows.view(np.dtype((np.void, rows.shape[1] * 4)))[:, 0], kind="stable")
    if space is not None and rows.size <= len(space):
        out = space[: rows.size].reshape(rows.shape)
        rows = np.take(rows, order, axis=0, out=out, mode="clip")  # clip: without a detour
    else:
        rows = rows[order]
    weights = np.ones(len(rows)) if weights is None else weights[order]
    like = np.arange(len(rows) - 1)
    for column in range(0, rows.shape[1], max(1, rows.shape[1] // 8)):
        like = like[rows[like + 1, column] == rows[like, column]]
    same = like[(rows[like + 1] == rows[like]).all(axis=1)]
    if len(same):
        first = np.delete(np.arange(len(rows)), same + 1)
        rows, weights = rows[first], np.add.reduceat(weights, first)
    return rows, weights


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


def _checked_weights(weights: Float64 | None, n: int, name: str) -> Float64 | None:
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,):
        raise ParameterError(f"the weights of {name} must be {n}, got shape {weights.shape}")
    if not ((weights >= 0) & np.isfinite(weights)).all():
        raise ParameterError(f"the weights of {name} must be finite and >= 0")
    return weights


def _cores() -> int:
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
