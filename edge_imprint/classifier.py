# SPDX-License-Identifier: Apache-2.0
"""`ImprintClassifier`: embeddings and labels -> a head, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from edge_imprint.proxies import Float32, make_proxies
from edge_imprint_runtime.contract import EPSILON, Rule
from edge_imprint_runtime.contract.spec import check_choice
from edge_imprint_runtime.errors import (
    ParameterError,
    TooFewClassesError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.head import Head

__all__ = ["ImprintClassifier"]


class ImprintClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Weight imprinting: no gradient, one pass (arXiv 2503.14572).

    Embeddings are normalised (``pre_norm``), each class's are turned into proxies
    (``generation``), these are normalised (``post_norm``), and a new embedding, normalised
    (``inference_norm``), gets the class of its nearest proxy (``aggregation``).

    Args:
        generation: ``mean``, ``kmeans``, ``random`` (k of the samples) or ``all`` (every
            sample). ``kmedoids``, ``fps``, ``cov_max`` and ``least_squares`` are not in this
            release.
        proxies: Proxies a class, k >= 1, for ``kmeans`` and ``random``. A class with fewer
            distinct samples gets one a sample.
        pre_norm: ``none`` or ``l2`` (``whiten``: not in this release).
        post_norm: ``none`` or ``l2`` (``quantile``: not in this release).
        inference_norm: ``none`` or ``l2``.
        aggregation: ``max`` (``mnn``: not in this release).
        distance: ``inner_product`` (others: not in this release).
        neighbors: 1.
        weighting: ``uniform``.
        shots: None (samples a class to use: not in this release).
        random_state: Seed; equal seeds give equal heads, whatever the order of the samples.

    Attributes:
        classes_: (C,) the class labels, sorted.
        head_: The `Head` that was made.
        n_features_in_: D.
    """

    def __init__(
        self,
        generation: str = "kmeans",
        proxies: int = 20,
        *,
        pre_norm: str = "l2",
        post_norm: str = "l2",
        inference_norm: str = "l2",
        aggregation: str = "max",
        distance: str = "inner_product",
        neighbors: int = 1,
        weighting: str = "uniform",
        shots: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.generation = generation
        self.proxies = proxies
        self.pre_norm = pre_norm
        self.post_norm = post_norm
        self.inference_norm = inference_norm
        self.aggregation = aggregation
        self.distance = distance
        self.neighbors = neighbors
        self.weighting = weighting
        self.shots = shots
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> ImprintClassifier:  # noqa: N803
        """Imprint the classes.

        Args:
            X: (N, D) embeddings, finite.
            y: (N,) class labels.

        Returns:
            Itself.

        Raises:
            ParameterError: A parameter is outside its range.
            UnsupportedOptionError: A parameter's value is not in this release.
            TooFewClassesError: Fewer than two classes.
            ValueError: X or y have the wrong shape, or hold NaN or infinity (scikit-learn's).
        """
        rule = self.check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise TooFewClassesError(
                "a classifier needs at least two classes, "
                f"got one class: {str(self.classes_[0])!r}"
            )
        rows = _normalized(np.asarray(X, np.float32), self.pre_norm)
        made = [
            make_proxies(rows[index == c], self.generation, self.proxies, self.random_state)
            for c in range(len(self.classes_))
        ]
        self.head_ = Head(
            _normalized(np.concatenate(made), self.post_norm),
            np.repeat(np.arange(len(made)), [len(part) for part in made]),
            [str(label) for label in self.classes_],
            rule,
            recipe=self.recipe,
        )
        return self

    @property
    def recipe(self) -> str:
        """The choices in one line: pre, generation, post, inference, aggregation."""
        k = f":{self.proxies}" if self.generation in ("kmeans", "random") else ""
        return (
            f"{self.pre_norm} {self.generation}{k} {self.post_norm} "
            f"{self.inference_norm} {self.aggregation}"
        )

    def decision_function(self, X: npt.ArrayLike) -> Float32:  # noqa: N803
        """Score embeddings.

        Args:
            X: (N, D) embeddings, finite.

        Returns:
            (N, C) float32, higher is nearer; (N,) for two classes: second minus first, as
            scikit-learn has it.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Name the class of each embedding.

        Args:
            X: (N, D) embeddings, finite.

        Returns:
            (N,) labels out of ``classes_``.
        """
        best = self._scores(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def _scores(self, X: npt.ArrayLike) -> Float32:  # noqa: N803
        check_is_fitted(self)
        return self.head_.scores(validate_data(self, X, dtype=np.float32, reset=False))

    def check_parameters(self) -> Rule:
        """Check the parameters, as `fit` does first.

        Returns:
            The rule that they amount to.

        Raises:
            ParameterError: A parameter is outside its range.
            UnsupportedOptionError: A parameter's value is not in this release.
        """
        later = ("kmedoids", "fps", "cov_max", "least_squares")
        check_choice("generation", self.generation, ("mean", "kmeans", "random", "all"), later)
        check_choice("pre_norm", self.pre_norm, ("none", "l2"), ("whiten",))
        check_choice("post_norm", self.post_norm, ("none", "l2"), ("quantile",))
        check_choice("inference_norm", self.inference_norm, ("none", "l2"), ())
        if not _is_integer(self.proxies) or self.proxies < 1:
            raise ParameterError(f"proxies must be an integer >= 1, got {self.proxies!r}")
        if not _is_integer(self.random_state) or self.random_state < 0:
            raise ParameterError(
                f"random_state must be an integer >= 0, got {self.random_state!r}"
            )
        if self.shots is not None:
            raise UnsupportedOptionError(
                f"shots={self.shots!r} is not available in this release; use None"
            )
        return Rule(
            self.inference_norm,
            self.aggregation,
            self.distance,
            self.neighbors,
            self.weighting,
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _normalized(rows: Float32, norm: str) -> Float32:
    if norm == "none":
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    normalized: Float32 = rows / np.maximum(norms, np.float32(EPSILON))
    return normalized
