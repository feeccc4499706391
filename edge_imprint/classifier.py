# SPDX-License-Identifier: Apache-2.0
"""`ImprintClassifier`: embeddings and labels -> a head, as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from edge_imprint.imprinting.imprint import assemble, is_local, make_all, resolved
from edge_imprint.imprinting.recipe import Recipe, check_seed, check_shots
from edge_imprint.imprinting.sources import ByClass
from edge_imprint_runtime.errors import InputError, ParameterError, TooFewClassesError

__all__ = ["ImprintClassifier"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_UNWEIGHTED = ("random", "fps", "kmedoids", "cov_max", "all")


class ImprintClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Weight imprinting: no gradient, one pass (arXiv 2503.14572).

    Embeddings are normalised (``pre_norm``), each class's are turned into proxies
    (``generation``), these are normalised (``post_norm``), and a new embedding, normalised
    (``inference_norm``), gets the class that its nearest proxies say (``aggregation``).

    The training embeddings are kept, so that `partial_fit` and `forget` give what `fit` would
    have given on all samples, whatever their order. The head does not hold them.

    Args:
        generation: ``mean``, ``kmeans``, ``kmedoids``, ``random`` (k of the samples), ``all``
            (every sample), ``fps`` (farthest points), ``cov_max`` (largest column sums of the
            covariance between samples) or ``least_squares`` (sees all classes at once).
        proxies: Proxies a class, k >= 1; a class with fewer distinct samples gets one a
            sample. ``auto`` chooses k for each class by cross-validation (k-means only).
        pre_norm: ``none``, ``l2``, or ``whiten`` (centred, whitened by the pooled within-class
            covariance, then L2; see `edge_imprint.imprinting.whitening`).
        post_norm: ``none``, ``l2`` or ``quantile`` (see `edge_imprint.imprinting.quantile`).
        inference_norm: ``none`` or ``l2``.
        aggregation: ``max``, or ``mnn``: votes of the nearest proxies.
        distance: ``inner_product``, ``cosine``, ``euclidean``, ``manhattan`` or
            ``mahalanobis`` (by the pooled within-class covariance of the training embeddings).
        neighbors: How many proxies vote under ``mnn``.
        weighting: ``uniform`` or ``distance``.
        shots: Samples a class to use, drawn by the seed; None for all.
        random_state: Seed; equal seeds give equal heads, whatever the order of the samples.
        whiten_shrinkage: How little whitening trusts the covariance, above 0 (fully) to 1 (it
            is as if not whitened); None for Ledoit's and Wolf's estimate, ``auto`` for what
            held-out samples say.
        whiten_size: Directions that whitening keeps at most; None for its own choice.
        ridge: Least squares' lambda, as a share of the scatter's mean diagonal.
        balanced: Whether each class counts the same in least squares.

    Attributes:
        classes_: (C,) the class labels, sorted.
        head_: The `Head` that was made.
        proxies_: (C,) how many proxies each class has.
        n_features_in_: D.
    """

    def __init__(
        self,
        generation: str = "kmeans",
        proxies: int | str = 20,
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
        whiten_shrinkage: float | str | None = None,
        whiten_size: int | None = None,
        ridge: float = 0.01,
        balanced: bool = False,
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
        self.whiten_shrinkage = whiten_shrinkage
        self.whiten_size = whiten_size
        self.ridge = ridge
        self.balanced = balanced

    @classmethod
    def from_recipe(
        cls, recipe: str | Recipe, *, shots: int | None = None, random_state: int = 0
    ) -> ImprintClassifier:
        """Make a classifier of a recipe.

        Args:
            recipe: A preset's name or a line such as ``l2 kmeans:20 l2 l2 max``.
            shots: As in the constructor.
            random_state: As in the constructor.

        Returns:
            The classifier, not yet fitted.

        Raises:
            ParameterError: The recipe is malformed.
        """
        parsed = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
        values = {field.name: getattr(parsed, field.name) for field in fields(parsed)}
        return cls(**values, shots=shots, random_state=random_state)

    @property
    def recipe(self) -> Recipe:
        """The choices as one `Recipe`; its text is one line.

        Raises:
            ParameterError: A parameter is outside its range.
        """
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> ImprintClassifier:
        """Imprint the classes.

        Args:
            X: (N, D) embeddings, finite; used as float32.
            y: (N,) class labels, all text or all numbers.
            sample_weight: (N,) numbers >= 0, for ``mean``, ``kmeans`` and ``least_squares``:
                2 counts as the sample given twice, 0 as not given. ``shots`` are drawn of the
                samples, whatever their weights.

        Returns:
            Itself.

        Raises:
            ParameterError: A parameter is outside its range, labels are of mixed types, or
                the generation has no use for weights.
            InputError: A row holds NaN or infinity.
            TooFewClassesError: Fewer than two classes.
            TooFewImagesError: ``proxies="auto"``, and no class has two different samples.
            ValueError: X or y have the wrong shape (scikit-learn's).
        """
        self.check_parameters()
        rows, labels, weights = self._checked(X, y, sample_weight, reset=True)
        if len(np.unique(labels)) < 2:
            raise TooFewClassesError(
                f"a classifier needs at least two classes, got one class: {str(labels[0])!r}"
            )
        self._made: dict[Any, Float32] = {}
        self._made_by: object = None
        self._set(rows, labels, weights)
        return self

    def partial_fit(
        self,
        X: npt.ArrayLike,  # noqa: N803
        y: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> ImprintClassifier:
        """Add samples to classes, or new classes.

        The result is that of `fit` on all samples given so far. Where a class's proxies
        depend on that class alone (no whitening, no least squares) only the classes given
        here are made anew.

        Args:
            X: (N, D) embeddings, as in `fit`.
            y: (N,) class labels; new ones become new classes.
            classes: Not needed, and nothing is done with it: classes may come at any time.
                scikit-learn's tools pass it.
            sample_weight: As in `fit`.

        Returns:
            Itself.

        Raises:
            ParameterError, InputError, TooFewImagesError, ValueError: As in `fit`; one class
                is enough.
        """
        self.check_parameters()
        fitted = hasattr(self, "classes_")
        rows, labels, weights = self._checked(X, y, sample_weight, reset=not fitted)
        if not fitted:
            self._made, self._made_by = {}, None
            self._set(rows, labels, weights)
            return self
        if (labels.dtype.kind in "OU") != (self.classes_.dtype.kind in "OU"):
            raise ParameterError(
                f"the new labels are {labels.dtype}, those before {self.classes_.dtype}; "
                "give labels of one type"
            )
        for label in np.unique(labels):
            self._made.pop(_plain(label), None)
        self._set(
            np.concatenate([self._rows, rows]),
            np.concatenate([self._labels, labels]),
            np.concatenate([self._weights, weights]),
        )
        return self

    def forget(self, label: object) -> ImprintClassifier:
        """Take a class away, as if it had never been given.

        Args:
            label: One of ``classes_``.

        Returns:
            Itself.

        Raises:
            ParameterError: There is no such class.
            TooFewClassesError: It is one of the last two.
        """
        check_is_fitted(self)
        gone = np.array([_plain(known) == label for known in self.classes_])
        if not gone.any():
            shown = ", ".join(repr(_plain(known)) for known in self.classes_[:10])
            raise ParameterError(f"there is no class {label!r} to forget; there are: {shown}")
        if len(self.classes_) <= 2:
            raise TooFewClassesError(
                f"a classifier needs at least two classes; without {label!r} one is left"
            )
        kept = self._labels != self.classes_[gone][0]
        self._made.pop(_plain(self.classes_[gone][0]), None)
        self._set(self._rows[kept], self._labels[kept], self._weights[kept])
        return self

    def decision_function(self, X: npt.ArrayLike) -> Float32:  # noqa: N803
        """Score embeddings.

        Args:
            X: (N, D) embeddings, finite.

        Returns:
            (N, C) float32, higher is nearer, and highest for the class that `predict` names;
            (N,) for two classes: second minus first, as scikit-learn has it.
        """
        check_is_fitted(self)
        rows = self._queries(X)
        scores = self.head_.scores(rows)
        if self.head_.rule.aggregation == "mnn":  # of equal votes the nearest class's count
            best = np.nextafter(scores.max(axis=1), np.float32(np.inf))
            scores[np.arange(len(rows)), self.head_.predict(rows)] = best
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Name the class of each embedding.

        Args:
            X: (N, D) embeddings, finite.

        Returns:
            (N,) labels out of ``classes_``.
        """
        check_is_fitted(self)
        labels: npt.NDArray[Any] = self.classes_[self.head_.predict(self._queries(X))]
        return labels

    def check_parameters(self) -> Recipe:
        """Check the parameters, as `fit` does first.

        Returns:
            The recipe that they amount to.

        Raises:
            ParameterError: A parameter is outside its range.
        """
        recipe = self.recipe
        check_seed(self.random_state)
        check_shots(self.shots)
        return recipe

    def _set(self, rows: Float32, labels: npt.NDArray[Any], weights: Float64) -> None:
        """Make the head of all samples; nothing of this object changes where that fails."""
        recipe = self.recipe
        classes, index = np.unique(labels, return_inverse=True)
        source = ByClass(
            rows,
            index,
            None if (weights == 1).all() else weights,
            shots=self.shots,
            seed=self.random_state,
        )
        names = [str(label) for label in classes]
        recipe = resolved(source, recipe, self.random_state)
        ks = self._choose(source, recipe)
        known: dict[int, Float32] = {}
        # Proxies made before `set_params` changed something are no longer true.
        made_by = (recipe, self.shots, self.random_state)
        if made_by == self._made_by and is_local(recipe) and recipe.proxies != "auto":
            known = {
                c: self._made[_plain(label)]
                for c, label in enumerate(classes)
                if _plain(label) in self._made
            }
        made = make_all(source, recipe, seed=self.random_state, ks=ks, known=known)
        head = assemble(made, names, recipe)
        self._rows, self._labels, self._weights = rows, labels, weights
        self._made_by = made_by
        self._made = {
            _plain(label): part for label, part in zip(classes, made.by_class, strict=True)
        }
        self.classes_, self.head_ = classes, head
        self.proxies_ = np.bincount(head.class_index)

    def _choose(self, source: ByClass, recipe: Recipe) -> list[int] | None:
        if recipe.proxies != "auto":
            return None
        from edge_imprint.judging.choose import choose_proxies

        return choose_proxies(source, recipe, seed=self.random_state).ks

    def _checked(
        self,
        X: npt.ArrayLike,  # noqa: N803
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        *,
        reset: bool,
    ) -> tuple[Float32, npt.NDArray[Any], Float64]:
        _check_label_types(y)
        with np.errstate(over="ignore"):  # infinity then, which is refused by the row
            rows, labels = validate_data(
                self, X, y, dtype=np.float32, reset=reset, ensure_all_finite=False
            )
        check_finite(rows)
        check_classification_targets(labels)
        if sample_weight is None:
            return rows, labels, np.ones(len(rows))
        if self.generation in _UNWEIGHTED:
            raise ParameterError(
                f"generation={self.generation!r} takes samples as they are and has no use for "
                "sample_weight; give none, or use 'kmeans'"
            )
        weights = _check_sample_weight(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
        there = weights > 0
        if not there.any():
            raise ParameterError("sample_weight is zero for every sample; give some above 0")
        return rows[there], labels[there], weights[there]

    def _queries(self, X: npt.ArrayLike) -> Float32:  # noqa: N803
        with np.errstate(over="ignore"):
            rows = validate_data(
                self, X, dtype=np.float32, reset=False, ensure_all_finite=False
            )
        return check_finite(rows)


def check_finite(rows: Float32) -> Float32:
    """Refuse NaN and infinity by the row.

    Args:
        rows: (N, D) float32.

    Returns:
        The same.

    Raises:
        InputError: A row holds NaN or infinity.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        what = (
            "NaN" if np.isnan(rows[bad]).any() else "inf, or a number beyond float32's range"
        )
        raise InputError(f"row {bad} of the embeddings holds {what}; mend it or leave it out")
    return rows


def _check_label_types(y: npt.ArrayLike) -> None:
    # numpy would turn [1, "a"] into text without a word.
    if isinstance(y, np.ndarray) and y.dtype != object:
        return
    items = list(np.asarray(y, dtype=object).ravel())
    text = [item for item in items if isinstance(item, str)]
    if text and len(text) < len(items):
        other = next(item for item in items if not isinstance(item, str))
        raise ParameterError(
            f"labels must be all text or all numbers, got both ({text[0]!r} and {other!r})"
        )


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label
