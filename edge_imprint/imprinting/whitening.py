# SPDX-License-Identifier: Apache-2.0
"""Whitening by the pooled within-class covariance: one affine map, no gradient.

What varies within the classes (light, pose, stroke) says nothing about the class, yet it
fills the embedding. Dividing it out leaves a space in which a class's own scatter is the same
in all directions, so that nearest means most likely (Fisher 1936; docs/whitening.md has the
evidence). The covariance is shrunk towards a multiple of the identity by the share that Ledoit
and Wolf (2004) derive, so that few samples (N < D) give a usable map: with one photo a class
it is the identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.class_source import Blocks, ClassSource, whole

__all__ = ["ClassSource", "Scatter", "Whitening", "fit_whitening"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Rows that are turned into float64 at once.
_PART_BYTES = 32 * 2**20
# Never trust the covariance fully: a direction without any scatter in the training embeddings
# (a dead ReLU, a pixel that is always black) would be blown up beyond bounds.
MIN_SHRINKAGE = 0.01
# Beyond this a full map costs more than it brings; see docs/whitening.md.
_MAX_SIZE = 512


@dataclass(frozen=True)
class Whitening:
    """The map ``(z - center) @ transform``.

    Attributes:
        center: (D,) float32, the mean of the class means, as far as it is trusted.
        transform: (D, E) float32.
        shrinkage: Share (0..1) of the identity in the covariance; 1 says that the samples
            told nothing of it.
    """

    center: Float32
    transform: Float32
    shrinkage: float

    def apply(self, rows: Float32) -> Float32:
        """Map (N, D) rows to (N, E)."""
        return np.asarray((rows - self.center) @ self.transform, np.float32)


@dataclass
class Scatter:
    """Sums over classes that were given whole, in any order. D x D memory, float64.

    Attributes:
        within: (D, D) sum of w (x - class mean)(x - class mean)^T.
        means: The class means, (D,) each.
        counts: The classes' sums of weights.
        quartic: Sum of w |x - class mean|^4, each corrected for its class's size.
        quartic_weight: The weights that went into it.
    """

    within: Float64
    means: list[Float64]
    counts: list[float]
    quartic: float = 0.0
    quartic_weight: float = 0.0

    @classmethod
    def of(cls, source: ClassSource) -> Scatter:
        """Sum over all classes of a source, in one pass."""
        scatter: Scatter | None = None
        for c in range(len(source)):
            blocks = whole(source, c)
            if scatter is None:
                size = next(iter(blocks()))[0].shape[1]
                scatter = cls(np.zeros((size,) * 2), [], [])
            scatter.add_blocks(blocks)
        assert scatter is not None  # a source has a class
        return scatter

    def add(self, rows: Float32, weights: Float64 | None = None) -> None:
        """Add one class: (n, D) float32 rows, (n,) weights."""
        self.add_blocks(lambda: [(rows, weights)])

    def add_blocks(self, blocks: Blocks) -> None:
        """Add one class, a block at a time; its blocks are asked for twice."""
        mean, count = np.zeros(self.size), 0.0
        for part, part_w in _parts(blocks):
            mean += part_w @ part
            count += float(part_w.sum())
        mean /= count
        # A row lies nearer to a mean that it is part of: 1 - 1/n of its true scatter.
        inflate = count / (count - 1) if count > 1 else 0.0
        for part, part_w in _parts(blocks):
            part -= mean
            self.within += (part * part_w[:, np.newaxis]).T @ part
            square = inflate * np.einsum("ij,ij->i", part, part)
            self.quartic += float(part_w @ square**2)
        self.quartic_weight += count if inflate else 0.0
        self.means.append(mean)
        self.counts.append(count)

    @property
    def size(self) -> int:
        """Length D of an embedding."""
        return len(self.within)

    def ledoit_wolf(self) -> float:
        """Return the share of the identity that the covariance should get.

        Ledoit and Wolf (2004, section 3.2) derive it for independent samples; residuals about
        C class means are not. Counting N - C samples, and scaling each residual to the scatter
        it stands for, mends that.

        Returns:
            0.01..1; 1 where no class has two different samples.
        """
        free = sum(self.counts) - len(self.counts)
        scale = np.trace(self.within) / self.size
        if free <= 0 or scale <= 0:
            return 1.0
        covariance = self.within / free
        distance = np.sum((covariance - scale / free * np.eye(self.size)) ** 2)
        error = (self.quartic / self.quartic_weight - np.sum(covariance**2)) / free
        return 1.0 if distance <= 0 else float(min(max(error / distance, MIN_SHRINKAGE), 1.0))

    def eigen(self) -> tuple[Float64, Float64]:
        """Return the within-class scatter's eigenvalues (D,), of mean 1, and vectors (D, D).

        The scale means nothing under L2. Where there is no scatter the values are ones.
        """
        scale = np.trace(self.within) / self.size
        if scale <= 0:
            return np.ones(self.size), np.eye(self.size)
        values, vectors = np.linalg.eigh(self.within / scale)
        return np.maximum(values, 0), vectors

    @property
    def center(self) -> Float64:
        """(D,) mean of the class means: a class counts the same with few photos or many."""
        mean: Float64 = np.stack(self.means).mean(axis=0)
        return mean


def fit_whitening(
    source: ClassSource, size: int | None = None, shrinkage: float | None = None
) -> Whitening:
    """Estimate the map from training embeddings, in one pass.

    With S the pooled within-class covariance scaled to a mean variance of 1, and a its
    shrinkage, the map is ``(z - (1 - a) mean) ((1 - a) S + a I)^-1/2``: whitening and centring
    at a = 0, and nothing at all at a = 1.

    Args:
        source: The embeddings, class by class.
        size: Directions to keep, E. None: all D, at most 512. Where E < D these are the ones
            in which the whitened embeddings vary most.
        shrinkage: a, above 0 and up to 1; None for Ledoit's and Wolf's.

    Returns:
        The map. It is a function of the set of classes, not of their order, up to the last
        bits of float64 sums.
    """
    scatter = Scatter.of(source)
    share = scatter.ledoit_wolf() if shrinkage is None else float(shrinkage)
    values, vectors = scatter.eigen()
    root: Float64 = (vectors / np.sqrt((1 - share) * values + share)) @ vectors.T
    center = scatter.center
    kept = min(scatter.size, _MAX_SIZE if size is None else size)
    if kept < scatter.size:
        about = np.stack(scatter.means) - center
        total = scatter.within + (about.T * scatter.counts) @ about
        _, directions = np.linalg.eigh(root @ total @ root)
        root = root @ directions[:, ::-1][:, :kept]
    return Whitening(((1 - share) * center).astype(np.float32), root.astype(np.float32), share)


def _parts(blocks: Blocks) -> Iterator[tuple[Float64, Float64]]:
    for rows, weights in blocks():
        w = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
        step = max(1, _PART_BYTES // (8 * rows.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            yield rows[part].astype(np.float64), w[part]
