# SPDX-License-Identifier: Apache-2.0
"""How far to whiten: the shrinkage under which held-out embeddings are most likely.

Ledoit's and Wolf's share is the best estimate of the covariance. It is not always the best for
the classes: a backbone that was trained on these very classes has put what matters into its
large directions, and whitening levels them; one that never saw them has not. Between whitening
and nothing at all (shrinkage 1, plain L2) the held-out embeddings decide, as in regularised
discriminant analysis (Friedman 1989); docs/whitening.md has the evidence.

For each of three splits the classes are clustered once, under L2. Each candidate then maps the
clusters' members and the held-out rows, and is judged by the log-likelihood of the held-out
classes under a softmax of its own temperature - smoother than the accuracy, which is level
where almost all is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_imprint.imprinting.proxies import generate
from edge_imprint.imprinting.sources import Distinct, Mapped, Sampled, normalized
from edge_imprint.imprinting.whitening import ClassSource, Scatter
from edge_imprint.judging.calibrate import best_log_likelihood
from edge_imprint.judging.folds import Folds
from edge_imprint_runtime.errors import TooFewImagesError

__all__ = ["choose_shrinkage"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_CANDIDATES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
_FOLDS = 3
# Proxies a class, whatever the recipe's: the map is one property of the embeddings.
_K = 20
# Rows to judge by; a larger class is drawn from.
_ROWS_A_CLASS = 200
_ROWS = 20_000


def choose_shrinkage(source: ClassSource, seed: int) -> float:
    """Choose the shrinkage of `fit_whitening`.

    Args:
        source: The embeddings, class by class.
        seed: For the splits and for k-means.

    Returns:
        Ledoit's and Wolf's share, or a larger one up to 1; theirs where no class has two
        different embeddings.
    """
    limit = max(3, min(_ROWS_A_CLASS, _ROWS // len(source)))
    source = Distinct(source)
    sample = Sampled(source, limit, seed)
    least = Scatter.of(source).ledoit_wolf()
    candidates = [least, *(share for share in _CANDIDATES if share > least)]
    try:
        folds = Folds(sample, _FOLDS, seed)
    except TooFewImagesError:
        return least
    scores: list[list[Float32]] = [[] for _ in candidates]
    truths = []
    for fold in range(folds.count):
        training, rest = folds.training(fold), folds.held_out(fold)
        queries = np.concatenate([rest[c][0] for c in range(len(source))])
        truths.append(np.repeat(np.arange(len(source)), [len(r) for r in folds.rows(fold)]))
        for found, answer in zip(
            scores, _judge(training, queries, candidates, seed), strict=True
        ):
            found.append(answer)
    truth = np.concatenate(truths)
    likelihood = [best_log_likelihood(np.concatenate(found), truth) for found in scores]
    # Of equals the larger share, which trusts the estimate less.
    best = len(candidates) - 1 - int(np.argmax(likelihood[::-1]))
    return candidates[best]


def _judge(
    training: ClassSource,
    queries: Float32,
    candidates: list[float],
    seed: int,
) -> list[Float32]:
    """Similarity of the queries to each class under each candidate, (M, C) each."""
    scatter = Scatter.of(training)
    values, vectors = scatter.eigen()
    # A rotation changes no angle: in the eigenvectors' frame each candidate is one scaling.
    frame = vectors.astype(np.float32)
    center = (scatter.center @ vectors).astype(np.float32)
    asked = queries @ frame
    centres = generate(Mapped(training, None, "l2"), "kmeans", [_K] * len(training), seed)
    out = [np.empty((len(queries), len(training)), np.float32) for _ in candidates]
    maps = [
        ((1 - a) * center, (1 / np.sqrt((1 - a) * values + a)).astype(np.float32))
        for a in candidates
    ]
    asked_under = [normalized((asked - shift) * scale, "l2") for shift, scale in maps]
    for c, centre in enumerate(centres):
        rows, weights = training[c]
        nearest = (normalized(rows, "l2") @ centre.T - (centre**2).sum(axis=1) / 2).argmax(
            axis=1
        )
        member = np.zeros((len(centre), len(rows)), np.float32)
        member[nearest, np.arange(len(rows))] = 1 if weights is None else weights
        member = member[member.any(axis=1)]
        turned = rows @ frame
        for scores, asked_so, (shift, scale) in zip(out, asked_under, maps, strict=True):
            proxies = normalized(member @ normalized((turned - shift) * scale, "l2"), "l2")
            scores[:, c] = (asked_so @ proxies.T).max(axis=1)
    return out
