# SPDX-License-Identifier: Apache-2.0
"""Generation of a class that is larger than memory: passes over its blocks, in float64.

`kmeans` begins with rows that were drawn: the best of three starts on some, then Lloyd's
iteration on all of the draw, then on the whole class. A draw misses a few rows that lie far
out, though they may hold most of the inertia. So the first pass over the class keeps the rows
farthest from their centres; where merging two centres costs less than a far row would bring as
a centre, it becomes one, and the better of the two sets of centres goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting import kmeans as in_memory
from edge_imprint.imprinting.canonical import canonical, checked_weights
from edge_imprint.imprinting.class_source import Block, Blocks, ClassSource, is_large
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint_runtime.errors import EmbeddingError, ParameterError

__all__ = ["MAX_PASSES", "STREAMED", "drawn_notes", "kmeans", "mean"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

MAX_PASSES = 100
# Numbers of a block that are turned into float64 at once, and of a table of scores: 8 MiB.
_PART = 2**20
_TOGETHER = 8  # parts whose sums and far rows are in memory
# Numbers of the far rows: 16 MiB.
_FAR = 2**21
# So many starts are tried, on so many numbers of the draw: 16 MiB.
_STARTS, _START = 3, 2**22
# Far rows that may become centres in the second start, and how many do at most.
_SWAP_ROWS, _SWAPS = 1024, 32
# k-means in memory looks at so many rows to begin with, or at so many for each centre.
_LOOK, _LOOK_A_CENTRE = 512, 32
# A row nearer to its centre than this share of the largest square is where its centre is.
_COINCIDES = 1e-12


def mean(blocks: Blocks, draw: Block, k: int, seed: int, workers: int, name: str) -> Float32:
    """Return the mean of a class, summed in float64; arguments as in `kmeans`.

    Returns:
        (1, D) float32.
    """
    total, mass = np.zeros(draw[0].shape[1]), 0.0
    for parts in _parts(blocks, _PART // draw[0].shape[1], name):
        for rows, weights in parts:
            total += weights @ rows.astype(np.float64)
            mass += float(weights.sum())
    return (total / _there(mass, name)).astype(np.float32)[np.newaxis]


def kmeans(blocks: Blocks, draw: Block, k: int, seed: int, workers: int, name: str) -> Float32:
    """Cluster a class.

    Args:
        blocks: The class; read once a pass.
        draw: (m, D) rows that were drawn of it, m >= 1, and their weights.
        k: Centres at most, >= 1.
        seed: For the starts.
        workers: Threads; they change no result.
        name: What messages call the class.

    Returns:
        (p, D) float32 centres, each the mean of the rows nearest to it; fewer than k where
        fewer rows are apart. Another order of the rows may change the last bits. Memory: two
        copies of the draw, a block and about 32 MiB for each worker.

    Raises:
        EmbeddingError: A row holds NaN or infinity.
        ParameterError: The weights are not finite and >= 0, or all zero.
    """
    rows, weights = canonical(*draw, name)
    # Far from zero the distances between near rows would cancel.
    shift = rows.mean(axis=0, dtype=np.float64)
    with ThreadPoolExecutor(workers) as pool:
        on_draw = _Walk(pool, lambda: [(rows, weights)], shift, k, name)
        start = on_draw.until_settled(
            on_draw.step(_first_start(rows, weights, k, seed, shift))
        )
        walk = _Walk(pool, blocks, shift, k, name)
        done = walk.step(start.next)
        again = _second_start(done)
        if again is not None:
            done = min(done, walk.step(again), key=lambda step: step.inertia)
        done = walk.until_settled(done)
    return in_memory.distinct((done.updated + shift).astype(np.float32))


STREAMED: dict[str, Callable[[Blocks, Block, int, int, int, str], Float32]] = {
    "mean": mean,
    "kmeans": kmeans,
}
"""The generations that see the whole of a large class; the others see rows drawn of it."""


def drawn_notes(source: ClassSource, labels: Sequence[str], recipe: Recipe) -> list[str]:
    """Say which classes a recipe's generation sees only a part of.

    Args:
        source: The embeddings, class by class.
        labels: The class names.
        recipe: How they are imprinted.

    Returns:
        One sentence; none where all is seen.
    """
    large = [c for c in range(len(source)) if is_large(source, c)]
    if not large or recipe.generation in STREAMED:
        return []
    shown = ", ".join(repr(labels[c]) for c in large[:5])
    more = f" and {len(large) - 5} more" if len(large) > 5 else ""
    text = (
        f"{shown}{more}: too large to be in memory whole, so that {recipe.generation} used "
        "photos drawn by the seed; kmeans and mean use all"
    )
    return [text]


@dataclass(frozen=True)
class _Step:
    """What one pass of Lloyd's iteration found; all is relative to the shift.

    Attributes:
        updated: (p, D) means of the rows nearest to each centre that has any.
        mass: (p,) their weights.
        added: (a, D) far rows in place of the centres that are missing to k.
        inertia: Of the centres the pass began with.
        fell: By how much moving them to the means lowers it.
        far: The rows farthest from their centres.
        label: Which of ``updated`` those are nearest to.
    """

    updated: Float64
    mass: Float64
    added: Float64
    inertia: float
    fell: float
    far: _Rows
    label: Int64

    @property
    def next(self) -> Float64:
        """The centres to go on with."""
        return np.concatenate([self.updated, self.added])


@dataclass(frozen=True)
class _Rows:
    """Rows far from their centres: (n, D), their weights, squared distances and centres."""

    rows: Float64
    mass: Float64
    apart: Float64
    label: Int64

    def farthest(self, most: int) -> _Rows:
        """Keep the farthest."""
        if len(self.rows) <= most:
            return self
        return self.some(np.argsort(-self.apart, kind="stable")[:most])

    def some(self, chosen: npt.NDArray[np.intp]) -> _Rows:
        """Keep some, as copies."""
        return _Rows(*(part[chosen] for part in vars(self).values()))

    def with_others(self, others: _Rows, most: int) -> _Rows:
        """Join, each row once with the weights of its like, and keep the farthest."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        joined = _Rows(*(np.concatenate(pair) for pair in pairs))
        bytes_of = joined.rows.view(np.dtype((np.void, joined.rows.strides[0])))[:, 0]
        _, first, same = np.unique(bytes_of, return_index=True, return_inverse=True)
        mass = np.bincount(same.ravel(), joined.mass, len(first)).astype(np.float64)
        return replace(joined.some(first), mass=mass).farthest(most)


@dataclass
class _Sums:
    """What a part of the rows adds to a pass."""

    sums: Float64
    mass: Float64
    inertia: float
    largest: float
    far: _Rows


class _Walk:
    """Lloyd's iteration over a class's blocks."""

    def __init__(
        self, pool: ThreadPoolExecutor, blocks: Blocks, shift: Float64, k: int, name: str
    ) -> None:
        self._pool, self._blocks, self._shift, self._name = pool, blocks, shift, name
        self._k, self._passes = k, 0
        self._far = max(k, min(_look(k) - k, _FAR // len(shift)))

    def until_settled(self, step: _Step) -> _Step:
        """Go on until an update lowers the inertia by too little, or the passes run out."""
        tolerance = in_memory.TOLERANCE * step.inertia
        while self._passes < MAX_PASSES and (step.fell > tolerance or len(step.added)):
            step = self.step(step.next)
        return step

    def step(self, centres: Float64) -> _Step:
        """Assign all rows to their nearest centres, and take the means."""
        self._passes += 1
        least = -np.inf  # what is nearer is not among the far rows

        def assign(part: tuple[Float32, Float64]) -> _Sums:
            rows, weights = part
            return _assign(rows - self._shift, weights, centres, self._far, least)

        p, size = centres.shape
        total = _Sums(np.zeros((p, size)), np.zeros(p), 0.0, 0.0, _no_rows(size))
        for parts in _parts(self._blocks, _PART // max(p, size), self._name):
            for found in self._pool.map(assign, parts):
                total.sums += found.sums
                total.mass += found.mass
                total.inertia += found.inertia
                total.largest = max(total.largest, found.largest)
                if len(found.far.rows):
                    total.far = total.far.with_others(found.far, self._far)
            if len(total.far.rows) == self._far:
                least = float(total.far.apart.min())
        _there(float(total.mass.sum()), self._name)
        used = total.mass > 0
        mass = total.mass[used]
        updated = total.sums[used] / mass[:, np.newaxis]
        return _Step(
            updated,
            mass,
            _apart(total.far, self._k - len(updated), _COINCIDES * total.largest),
            total.inertia,
            float(mass @ ((updated - centres[used]) ** 2).sum(axis=1)),
            total.far,
            (np.cumsum(used) - 1)[total.far.label],
        )


def _assign(
    rows: Float64, weights: Float64, centres: Float64, most: int, least: float
) -> _Sums:
    """Assign rows to their nearest centres; keep ``most`` that are as far as ``least``."""
    score = 0.5 * np.einsum("kd,kd->k", centres, centres) - rows @ centres.T
    label = score.argmin(axis=1)
    each = np.arange(len(rows))
    square = np.einsum("nd,nd->n", rows, rows)
    apart = np.maximum(square + 2 * score[each, label], 0)
    belongs = np.zeros((len(centres), len(rows)))
    belongs[label, each] = weights
    far = _Rows(rows, weights, apart, label).some(np.flatnonzero(apart >= least))
    return _Sums(
        belongs @ rows,
        belongs.sum(axis=1),
        float(weights @ apart),
        float(square.max()),
        far.farthest(most),
    )


def _first_start(
    rows: Float32, weights: Float64, k: int, seed: int, shift: Float64
) -> Float64:
    """Cluster some of the rows three times; the best centres, relative to the shift."""
    if len(rows) <= k:
        return rows - shift
    step = -(-len(rows) // max(_look(k), _START // rows.shape[1]))
    some, mass = rows[::step], weights[::step]
    starts = [
        in_memory.kmeans([some.copy()], [mass], k, seed + i)[0] - shift for i in range(_STARTS)
    ]
    return min(starts, key=lambda at: _assign(some - shift, mass, at, 0, np.inf).inertia)


def _apart(far: _Rows, count: int, limit: float) -> Float64:
    """Choose far rows, each the farthest from the centres and from those chosen before."""
    apart, chosen = far.apart.copy(), list[int]()
    while len(chosen) < count and len(apart) and apart.max() > limit:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, ((far.rows - far.rows[chosen[-1]]) ** 2).sum(axis=1))
    return far.rows[chosen]


def _second_start(step: _Step) -> Float64 | None:
    """Give far rows centres of their own where merging two others costs less than that brings.

    Returns:
        The centres; None where nothing was gained.
    """
    far, centres, mass = step.far.farthest(_SWAP_ROWS), step.updated.copy(), step.mass.copy()
    apart, gained = far.apart, False
    between = _squares(far.rows, far.rows)
    cost = _merging(centres, mass)
    for _ in range(_SWAPS):
        gains = far.mass @ np.maximum(apart[:, np.newaxis] - between, 0)
        best = int(gains.argmax())
        one, other = np.unravel_index(int(cost.argmin()), cost.shape)
        if gains[best] <= cost[one, other]:
            break
        together = mass[one] + mass[other]
        centres[one] = (mass[one] * centres[one] + mass[other] * centres[other]) / together
        mass[one] = together
        captured = between[best] < apart
        centres[other], mass[other] = far.rows[best], far.mass[captured].sum()
        apart = np.minimum(apart, between[best])
        cost, gained = _merging(centres, mass), True
    return centres if gained else None


def _squares(a: Float64, b: Float64) -> Float64:
    """Return (n, m) squared distances."""
    squares: Float64 = np.einsum("nd,nd->n", a, a)[:, np.newaxis] - 2 * (a @ b.T)
    squares += np.einsum("nd,nd->n", b, b)
    return np.maximum(squares, 0)


def _merging(centres: Float64, mass: Float64) -> Float64:
    """Return (p, p): by how much it raises the inertia that two centres become one (Ward)."""
    cost = _squares(centres, centres) * mass * mass[:, np.newaxis]
    cost /= mass + mass[:, np.newaxis]
    np.fill_diagonal(cost, np.inf)
    return cost


def _look(k: int) -> int:
    """Return how many rows k-means in memory looks at before it begins."""
    return max(_LOOK, _LOOK_A_CENTRE * k)


def _no_rows(size: int) -> _Rows:
    return _Rows(np.empty((0, size)), np.empty(0), np.empty(0), np.empty(0, np.int64))


def _parts(blocks: Blocks, most: int, name: str) -> Iterator[list[tuple[Float32, Float64]]]:
    """Give all rows in parts of ``most``, with weights above 0; a few parts at a time."""
    before, step = 0, max(1, most)
    for rows, given in blocks():
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise EmbeddingError(
                f"row {before + int(finite.argmin())} of {name} holds NaN or infinity; "
                "mend it or leave it out"
            )
        before += len(rows)
        weights = checked_weights(given, len(rows), name)
        if weights is None:
            weights = np.ones(len(rows))
        elif not weights.all():
            rows, weights = rows[weights > 0], weights[weights > 0]
        starts = range(0, len(rows), step)
        for first in range(0, len(starts), _TOGETHER):
            yield [
                (rows[start : start + step], weights[start : start + step])
                for start in starts[first : first + _TOGETHER]
            ]


def _there(mass: float, name: str) -> float:
    if mass <= 0:
        raise ParameterError(f"{name} has no row with a weight above 0")
    return mass
