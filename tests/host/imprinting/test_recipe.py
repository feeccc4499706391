# SPDX-License-Identifier: Apache-2.0
"""Recipes: what prints parses back, and each refusal in its own words."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.proxies import GENERATORS
from edge_imprint.imprinting.recipe import (
    GENERATIONS,
    PRESETS,
    Recipe,
    check_seed,
    check_shots,
)
from edge_imprint_runtime import Rule
from edge_imprint_runtime.errors import ParameterError

WHOLE = st.integers(1, 999_999_999)
ABOVE_ZERO = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any valid recipe whose unprinted fields are at their defaults."""
    values: dict[str, Any] = {
        "pre_norm": draw(st.sampled_from(["none", "l2", "whiten"])),
        "generation": draw(st.sampled_from(GENERATIONS)),
        "post_norm": draw(st.sampled_from(["none", "l2", "quantile"])),
        "inference_norm": draw(st.sampled_from(["none", "l2"])),
        "aggregation": draw(st.sampled_from(["max", "mnn"])),
        "distance": draw(
            st.sampled_from(
                ["inner_product", "cosine", "euclidean", "manhattan", "mahalanobis"]
            )
        ),
    }
    if values["pre_norm"] == "whiten":
        share = ABOVE_ZERO.filter(lambda a: a <= 1)
        values["whiten_shrinkage"] = draw(st.none() | st.just("auto") | share)
        values["whiten_size"] = draw(st.none() | WHOLE)
    if values["generation"] not in ("mean", "all"):
        values["proxies"] = draw(WHOLE)
    if values["generation"] == "least_squares":
        values["ridge"] = draw(ABOVE_ZERO)
        values["balanced"] = draw(st.booleans())
    if values["aggregation"] == "mnn":
        values["neighbors"] = draw(WHOLE)
        if values["distance"] != "inner_product":
            values["weighting"] = draw(st.sampled_from(["uniform", "distance"]))
    elif values["generation"] == "kmeans" and values["post_norm"] != "quantile":
        values["proxies"] = draw(WHOLE | st.just("auto"))
    return Recipe(**values)


@given(recipes())
def test_what_prints_parses_back(recipe: Recipe) -> None:
    line = str(recipe)
    assert Recipe.parse(line) == recipe
    assert str(Recipe.parse(line)) == line
    assert len(line.split()) == 5


@given(recipes())
def test_the_rule_is_the_inference_half(recipe: Recipe) -> None:
    names = [field.name for field in dataclasses.fields(Rule)]
    for name in names[1:]:
        assert getattr(recipe.rule, name) == getattr(recipe, name)
    assert recipe.rule.embedding_norm == recipe.inference_norm


@pytest.mark.parametrize("value", [0.05, np.float64(0.05), 1, 10**22])
def test_numbers_of_any_type_print_as_numbers(value: Any) -> None:
    recipe = Recipe(generation="least_squares", proxies=np.int64(3), ridge=value)
    assert str(recipe) == f"l2 least_squares:3:ridge={float(value)} l2 l2 max"
    assert Recipe.parse(str(recipe)) == recipe
    votes = Recipe(aggregation="mnn", neighbors=np.int64(3))
    assert (str(votes), votes.rule.neighbors) == ("l2 kmeans:20 l2 l2 mnn:3", 3)
    whitened = Recipe(pre_norm="whiten", whiten_shrinkage=np.float64(0.1), whiten_size=2)
    assert str(whitened) == "whiten:0.1:size=2 kmeans:20 l2 l2 max"


LINES = {
    "l2 kmeans:20 l2 l2 max": Recipe(),
    "l2 kmeans l2 l2 max": Recipe(),
    "l2 kmeans:007 l2 l2 max:inner_product": Recipe(proxies=7),
    "  whiten\tmean\n none l2   mnn:3:cosine:distance ": Recipe(
        "whiten", "mean", 20, "none", "l2", "mnn", "cosine", 3, "distance"
    ),
    "whiten:size=64:0.1 fps:2 none none max:mahalanobis": Recipe(
        "whiten",
        "fps",
        2,
        "none",
        "none",
        distance="mahalanobis",
        whiten_shrinkage=0.1,
        whiten_size=64,
    ),
    "none least_squares none none max": Recipe("none", "least_squares", 1, "none", "none"),
    "none least_squares:balanced:ridge=1e-3 none none max": Recipe(
        "none", "least_squares", 1, "none", "none", ridge=0.001, balanced=True
    ),
    "l2 kmeans:auto none l2 max:euclidean": Recipe(
        proxies="auto", post_norm="none", distance="euclidean"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_lines_that_people_write(line: str) -> None:
    assert Recipe.parse(line) == LINES[line]


def test_presets() -> None:
    assert PRESETS == {
        "qi2018": "l2 mean l2 l2 max",
        "hosoda2024": "none mean quantile none max",
        "janson2022": "none mean none none mnn:1:euclidean",
        "imprint": "l2 kmeans:20 l2 l2 max",
        "whitened": "whiten:auto kmeans:20 l2 l2 max",
        "least-squares": "none least_squares:1 none none max",
    }
    for name, line in PRESETS.items():
        assert str(Recipe.parse(name)) == line
    assert Recipe.parse("imprint") == Recipe()


def test_every_generation_can_be_named() -> None:
    assert set(GENERATIONS) == {*GENERATORS, "least_squares"}
    made = {name: Recipe(generation=name, proxies=7) for name in GENERATIONS}
    assert {name for name, recipe in made.items() if not recipe.makes_k} == {"mean", "all"}
    assert [made["mean"].k, made["fps"].k] == [1, 7]


def test_with_proxies() -> None:
    assert Recipe.parse("qi2018").with_proxies(5) == Recipe(generation="mean", proxies=5)
    assert str(Recipe().with_proxies("auto")) == "l2 kmeans:auto l2 l2 max"
    with pytest.raises(ParameterError):
        Recipe.parse("qi2018").with_proxies("auto")


# Refusals ----------------------------------------------------------------------------------

NO_LINE = (
    "a recipe is a preset (qi2018, hosoda2024, janson2022, imprint, whitened, least-squares) "
    "or five words such as 'l2 kmeans:20 l2 l2 max', got {!r}"
)
GENERATION = " or ".join(repr(name) for name in GENERATIONS)
WHOLE_NUMBER = "the recipe's word {!r} must have one whole number after its colon"
UNKNOWN_OPTION = "the recipe's word {!r} has the unknown option {!r}"
MALFORMED = {
    "": NO_LINE.format(""),
    "Imprint": NO_LINE.format("Imprint") + "; did you mean 'imprint'?",
    "whitend": NO_LINE.format("whitend") + "; did you mean 'whitened'?",
    "l2 kmean:20 l2 l2 max": f"generation must be {GENERATION}, got 'kmean'",
    "l3:5 mean l2 l2 max": "pre_norm must be 'none' or 'l2' or 'whiten', got 'l3'",
    "l2 mean l2 l2": NO_LINE.format("l2 mean l2 l2"),
    "l2 mean l2 l2 max max": NO_LINE.format("l2 mean l2 l2 max max"),
    "l3 mean l2 l2 max": "pre_norm must be 'none' or 'l2' or 'whiten', got 'l3'",
    "l2 average l2 l2 max": f"generation must be {GENERATION}, got 'average'",
    "l2 mean whiten l2 max": "post_norm must be 'none' or 'l2' or 'quantile', got 'whiten'",
    "l2 mean l2 whiten max": "inference_norm must be 'none' or 'l2', got 'whiten'",
    "l2 mean l2 l2 min": "aggregation must be 'max' or 'mnn', got 'min'",
    "l2 kmeans: l2 l2 max": WHOLE_NUMBER.format("kmeans:"),
    "l2 kmeans:-1 l2 l2 max": WHOLE_NUMBER.format("kmeans:-1"),
    "l2 kmeans:2.0 l2 l2 max": WHOLE_NUMBER.format("kmeans:2.0"),
    "l2 kmeans:٣ l2 l2 max": WHOLE_NUMBER.format("kmeans:٣"),
    "l2 kmeans:0 l2 l2 max": "proxies must be an integer >= 1 or 'auto', got 0",
    "l2 kmeans:2:3 l2 l2 max": UNKNOWN_OPTION.format("kmeans:2:3", "3"),
    "l2 mean:2 l2 l2 max": UNKNOWN_OPTION.format("mean:2", "2"),
    "l2 kmeans:2:balanced l2 l2 max": UNKNOWN_OPTION.format("kmeans:2:balanced", "balanced"),
    "l2 least_squares:ridge=x l2 l2 max": UNKNOWN_OPTION.format(
        "least_squares:ridge=x", "ridge=x"
    ),
    "l2 least_squares:ridge=0 l2 l2 max": "ridge must be a number above 0, got 0.0",
    "l2 random:auto l2 l2 max": (
        "proxies='auto' chooses k for generation='kmeans', not for 'random'; give a number"
    ),
    "l2:0.1 mean l2 l2 max": "whiten_shrinkage=0.1 needs pre_norm='whiten', got 'l2'",
    "l2:size=3 mean l2 l2 max": "whiten_size=3 needs pre_norm='whiten', got 'l2'",
    "whiten:2 mean l2 l2 max": (
        "whiten_shrinkage must be None, 'auto' or a number above 0 up to 1, got 2.0"
    ),
    "whiten:0 mean l2 l2 max": (
        "whiten_shrinkage must be None, 'auto' or a number above 0 up to 1, got 0.0"
    ),
    "whiten:much mean l2 l2 max": UNKNOWN_OPTION.format("whiten:much", "much"),
    "whiten:auto:0.1 mean l2 l2 max": UNKNOWN_OPTION.format("whiten:auto:0.1", "0.1"),
    "whiten:size=2:size=3 mean l2 l2 max": UNKNOWN_OPTION.format(
        "whiten:size=2:size=3", "size=3"
    ),
    "whiten:size= mean l2 l2 max": WHOLE_NUMBER.format("whiten:size="),
    "whiten:size=0 mean l2 l2 max": "whiten_size must be None or an integer >= 1, got 0",
    "l2 mean l2 l2 mnn": (
        "the recipe's word 'mnn' lacks the number of neighbours, such as mnn:5"
    ),
    "l2 mean l2 l2 mnn:cosine": WHOLE_NUMBER.format("mnn:cosine"),
    "l2 mean l2 l2 mnn:0": "neighbors must be an integer >= 1, got 0",
    "l2 mean l2 l2 mnn:5:distance": (
        "weighting='distance' needs a distance, and an inner product is none; "
        "use distance='cosine'"
    ),
    "l2 mean l2 l2 mnn:5:cosine:uniform": UNKNOWN_OPTION.format(
        "mnn:5:cosine:uniform", "uniform"
    ),
    "l2 mean l2 l2 max:cosine:distance": (
        "weighting must be 'uniform' under aggregation='max', got 'distance'; "
        "use aggregation='mnn'"
    ),
    "l2 mean l2 l2 mnn:5:inner_product:distance": (
        "weighting='distance' needs a distance, and an inner product is none; "
        "use distance='cosine'"
    ),
    **{
        line: (
            "k can be chosen class by class under aggregation='max' and post_norm 'none' or "
            f"'l2', not in the recipe '{line}'; give a number of proxies"
        )
        for line in ("l2 kmeans:auto l2 l2 mnn:5", "l2 kmeans:auto quantile l2 max")
    },
}


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_line(line: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.parse(line)
    assert str(caught.value) == MALFORMED[line]


VALUES = [
    ("proxies", -1, "an integer >= 1 or 'auto'"),
    ("proxies", 2.0, "an integer >= 1 or 'auto'"),
    ("proxies", True, "an integer >= 1 or 'auto'"),
    ("proxies", None, "an integer >= 1 or 'auto'"),
    ("ridge", -0.1, "a number above 0"),
    ("ridge", float("nan"), "a number above 0"),
    ("ridge", float("inf"), "a number above 0"),
    ("ridge", 10**400, "a number above 0"),
    ("ridge", True, "a number above 0"),
    ("ridge", "1", "a number above 0"),
    ("balanced", "balanced", "True or False"),
    ("balanced", None, "True or False"),
    ("whiten_shrinkage", float("nan"), "None, 'auto' or a number above 0 up to 1"),
    ("whiten_shrinkage", 10**400, "None, 'auto' or a number above 0 up to 1"),
    ("whiten_shrinkage", True, "None, 'auto' or a number above 0 up to 1"),
    ("whiten_shrinkage", "much", "None, 'auto' or a number above 0 up to 1"),
    ("whiten_size", 1.5, "None or an integer >= 1"),
    ("whiten_size", True, "None or an integer >= 1"),
]


@pytest.mark.parametrize(("name", "value", "rule"), VALUES)
def test_a_value_that_no_line_can_have(name: str, value: object, rule: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe(**{"pre_norm": "whiten", name: value})
    assert str(caught.value) == f"{name} must be {rule}, got {value!r}"


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    try:
        recipe = Recipe.parse(text)
    except ParameterError:
        return
    assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "l2 " * 10**5, "l2 mean l2 l2 max:" + "y" * 10**6, ":" * 10**5]
)
def test_a_huge_text_gives_a_short_message(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.parse(text)
    assert str(caught.value) == NO_LINE.format(text[:200])


@pytest.mark.parametrize("seed", [-1, None, 0.5, True, "1"])
def test_a_seed_that_is_none(seed: object) -> None:
    with pytest.raises(ParameterError) as caught:
        check_seed(seed)
    assert str(caught.value) == f"random_state must be an integer >= 0, got {seed!r}"
    check_seed(np.int64(0))


@pytest.mark.parametrize("shots", [0, -1, 1.5, True, "5"])
def test_shots_that_are_none(shots: object) -> None:
    with pytest.raises(ParameterError) as caught:
        check_shots(shots)
    assert str(caught.value) == f"shots must be None or an integer >= 1, got {shots!r}"
    check_shots(None)
    check_shots(np.int64(5))
