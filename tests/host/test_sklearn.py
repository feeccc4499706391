# SPDX-License-Identifier: Apache-2.0
"""`ImprintClassifier` among scikit-learn's own: its checks, pipelines, searches, clones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from edge_imprint import ImprintClassifier
from edge_imprint_runtime.errors import ParameterError


# None of the checks is expected to fail. (Of the generations that take samples as they are,
# seven would: those that give sample_weight, which is refused there.)
@parametrize_with_checks(
    [
        ImprintClassifier(),
        ImprintClassifier("mean"),
        ImprintClassifier(pre_norm="whiten"),
        ImprintClassifier(pre_norm="whiten", whiten_shrinkage="auto"),
        ImprintClassifier.from_recipe("least-squares"),
        ImprintClassifier(
            pre_norm="none",
            post_norm="none",
            aggregation="mnn",
            neighbors=3,
            distance="cosine",
        ),
    ]
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    data = load_digits()
    return data.data[:600], data.target[:600]


def test_in_a_pipeline_and_cross_validation(digits: tuple[Any, Any]) -> None:
    pipe = make_pipeline(MinMaxScaler(), ImprintClassifier(proxies=5))
    assert cross_val_score(pipe, *digits, cv=3).min() > 0.85
    names = np.array(list("abcdefghij"))[digits[1]]
    assert set(cross_val_predict(pipe, digits[0], names, cv=3)) <= set(names)


def test_a_grid_search_over_proxies_and_norms(digits: tuple[Any, Any]) -> None:
    x, y = digits[0] + 1.0, digits[1] % 2  # five modes a class
    grid = {
        "imprintclassifier__proxies": [1, 10],
        "imprintclassifier__pre_norm": ["l2", "whiten"],
    }
    pipe = make_pipeline(StandardScaler(with_std=False), ImprintClassifier())
    search = GridSearchCV(pipe, grid, cv=3).fit(x, y)
    assert search.best_params_["imprintclassifier__proxies"] == 10
    assert search.best_score_ > 0.9
    ridges = np.geomspace(1e-4, 1, 3)  # numpy's numbers, which the recipe's line must print
    base = ImprintClassifier.from_recipe("least-squares")
    search = GridSearchCV(base, {"ridge": ridges}, cv=3).fit(x, y)
    recipe = search.best_estimator_.head_.recipe
    assert ImprintClassifier.from_recipe(recipe).ridge == search.best_params_["ridge"]


def test_weights_and_scores_reach_it_through_a_pipeline(digits: tuple[Any, Any]) -> None:
    pipe = make_pipeline(MinMaxScaler(), ImprintClassifier("mean"))
    weights = (digits[1] != 3).astype(float)
    pipe.fit(*digits, imprintclassifier__sample_weight=weights)
    assert 3 not in pipe.classes_
    assert pipe.decision_function(digits[0]).shape == (600, 9)
    assert (
        cross_val_score(
            ImprintClassifier(), digits[0], digits[1] < 5, cv=3, scoring="roc_auc"
        ).min()
        > 0.8
    )


def test_a_clone_has_the_parameters_and_nothing_else(digits: tuple[Any, Any]) -> None:
    made = ImprintClassifier("random", 7, random_state=3, whiten_size=None).fit(*digits)
    fresh = clone(made)
    assert fresh.get_params() == made.get_params()
    assert set(vars(fresh)) == set(made.get_params())
    fresh.set_params(proxies=2)
    assert fresh.fit(*digits).head_.recipe == "l2 random:2 l2 l2 max"
    assert made.head_.recipe == "l2 random:7 l2 l2 max"


def test_parameters_are_looked_at_in_fit_only(digits: tuple[Any, Any]) -> None:
    made = ImprintClassifier(proxies=-5, pre_norm="nothing")
    assert clone(made).get_params()["proxies"] == -5
    with pytest.raises(ParameterError):
        made.fit(*digits)
    with pytest.raises(ValueError, match="Invalid parameter 'k'"):
        made.set_params(k=3)
