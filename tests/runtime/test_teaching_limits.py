# SPDX-License-Identifier: Apache-2.0
"""What a taught class's threshold is, and what can't be taught."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.errors import (
    ContractValueError,
    EdgeImprintError,
    EmbeddingError,
    HeadValueError,
    InputError,
    NotTeachableError,
    ParameterError,
)
from edge_imprint_runtime.teaching import MAX_SAMPLES, forget, teach

Rows = npt.NDArray[np.float32]


def rows(count: int, size: int = 8, seed: int = 0, modes: int = 3) -> Rows:
    """Embeddings that cluster: (count, size)."""
    rng = np.random.default_rng(seed)
    middle = 4 * rng.standard_normal((modes, size))
    noise = rng.standard_normal((count, size))
    found: Rows = (middle[np.arange(count) % modes] + noise).astype(np.float32)
    return found


# Thresholds --------------------------------------------------------------------------------


def held_out(head: Head, given_rows: Rows, k: int) -> npt.NDArray[np.float64]:
    """Each row's similarity to proxies made without its fold, by the heads themselves."""
    ordered = np.unique(given_rows, axis=0)
    found = np.empty(len(ordered))
    for i, row in enumerate(ordered):
        folds = np.arange(len(ordered)) % min(len(ordered), 20)
        others = ordered[folds != folds[i]]
        alone = teach(head, "x", others, proxies=k)
        found[i] = alone.nearest(row[np.newaxis])[0, -1]
    return found


def calibrated_head(rule: Rule | None = None, size: int = 8) -> Head:
    rng = np.random.default_rng(4)
    proxies = rng.standard_normal((6, size))
    proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    index = [0, 0, 1, 1, 2, 2]
    threshold = [0.1, 0.9, 0.4]
    return Head(proxies, index, list("abc"), rule, threshold=threshold, temperature=0.1)


@pytest.mark.parametrize("count", [19, 26, 45])
def test_with_many_photos_one_in_twenty_lies_below_the_threshold(count: int) -> None:
    head, given_rows = calibrated_head(), rows(count)
    taught = teach(head, "new", given_rows, proxies=2)
    assert taught.threshold is not None
    wanted = np.sort(held_out(head, given_rows, 2))[(count + 1) // 20 - 1]
    np.testing.assert_allclose(taught.threshold[3], wanted, atol=1e-6)
    assert np.array_equal(taught.threshold[:3], head.threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", ["inner_product", "euclidean", "manhattan"])
def test_with_few_photos_the_lower_of_theirs_and_the_median(distance: str) -> None:
    head = calibrated_head(Rule(distance=distance))
    for count in (2, 6):
        taught = teach(head, "new", rows(count, modes=1), proxies=2)
        assert taught.threshold is not None
        lowest = held_out(head, rows(count, modes=1), 2).min()
        np.testing.assert_allclose(taught.threshold[3], min(lowest, 0.4), atol=1e-5)
    single = teach(head, "new", rows(1))
    assert single.threshold is not None
    assert single.threshold[3] == np.float32(0.4)


def test_the_median_is_that_of_the_classes_of_the_host() -> None:
    head = calibrated_head()
    alike = np.tile(rows(1), (3, 1)) * np.array([[1], [2], [3]])
    taught = teach(teach(head, "x", rows(2, modes=1)), "y", alike)
    assert taught.threshold is not None
    assert taught.threshold[4] == np.float32(0.4)
    # Where none is left of the host's, of all others; and alone a class keeps what it had.
    for label in "abc":
        taught = forget(taught, label)
    assert taught.threshold is not None
    before = taught.threshold[0]
    again = teach(taught, "y", alike)
    assert again.threshold is not None
    assert again.threshold.tolist() == [before, min(before, 1)]
    alone = forget(teach(taught, "z", rows(1, seed=3)), "x")
    alone = forget(alone, "y")
    kept = teach(alone, "z", rows(1, seed=3)).threshold
    assert np.array_equal(kept, alone.threshold)  # type: ignore[arg-type]


def test_a_calibrated_head_knows_the_new_class_and_still_has_unknowns() -> None:
    head = calibrated_head(size=32)
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(32)
    photos = direction + 0.1 * rng.standard_normal((25, 32))
    taught = teach(head, "new", photos)
    fresh = direction + 0.1 * rng.standard_normal((200, 32))
    assert (taught.predict(fresh) == 3).all()
    assert taught.known(fresh).mean() > 0.8
    away = rng.standard_normal((200, 32))
    assert not (taught.known(away) & (taught.predict(away) == 3)).any()
    assert taught.probability(fresh).shape == (200, 4)


# Refusals ----------------------------------------------------------------------------------

ZERO = np.zeros((1, 8))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"proxies": 0}, ParameterError, "proxies must be an integer >= 1, got 0"),
        ({"proxies": True}, ParameterError, "proxies must be an integer >= 1, got True"),
        (
            {"embeddings": np.empty((0, 8))},
            InputError,
            "there is nothing to teach; give at least one photo",
        ),
        (
            {"embeddings": np.ones((2, 7))},
            InputError,
            "embeddings must be numbers of shape (N, 8), got (2, 7) of float64",
        ),
        (
            {"embeddings": np.full((1, 8), np.nan)},
            InputError,
            "embedding 0 holds NaN or infinity",
        ),
        (
            {"embeddings": np.concatenate([rows(2), ZERO])},
            EmbeddingError,
            "embedding 2 is zero, so that it points nowhere; leave that photo out",
        ),
        (
            {"label": "unknown"},
            ContractValueError,
            (
                "no class of a calibrated head may be named 'unknown', "
                "its answer where it knows none; rename the class"
            ),
        ),
        (
            {"label": ""},
            ContractValueError,
            "label '' must be 1 to 1024 bytes of text without NUL, got 0 bytes",
        ),
        (
            {"embeddings": np.arange(8 * (MAX_SAMPLES + 1)).reshape(-1, 8) + 1},
            ParameterError,
            (
                "the head would remember 10,001 taught photos, the limit is 10,000; "
                "teach fewer, or forget a class"
            ),
        ),
    ],
)
def test_what_cannot_be_taught(
    change: dict[str, Any], error: type[EdgeImprintError], message: str
) -> None:
    arguments: dict[str, Any] = {"label": "new", "embeddings": rows(3)} | change
    with pytest.raises(error) as caught:
        teach(calibrated_head(), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "recipe", ["none least_squares:1 none none max", "none mean quantile none max"]
)
def test_recipes_that_make_all_classes_from_one_another(recipe: str) -> None:
    head = Head(np.eye(3), range(3), list("abc"), recipe=recipe)
    with pytest.raises(NotTeachableError) as caught:
        teach(head, "new", np.ones((1, 3)))
    assert str(caught.value) == (
        f"the head's recipe '{recipe}' makes the proxies of all classes from one another, so "
        "that none can be taught alone; build the head with another recipe"
    )


def test_a_head_that_remembers_wrongly() -> None:
    proxies, index, samples = np.eye(3), [0, 0, 1], np.ones((1, 3))
    whole = {"samples": samples, "sample_class": [0], "host_proxies": [1, 1]}
    assert Head(proxies, index, "ab", **whole).samples is not None
    for change, message in (
        (
            {"samples": None},
            "samples, sample_class and host_proxies belong together: all or none",
        ),
        ({"samples": np.ones((1, 2))}, "samples must have 3 columns, got 2"),
        (
            {"sample_class": [2]},
            "sample_class must be 1 integers from 0 to 1, one a sample, ascending",
        ),
        (
            {"samples": np.ones((2, 3)), "sample_class": [1, 0]},
            "sample_class must be 2 integers from 0 to 1, one a sample, ascending",
        ),
        (
            {"sample_class": [0.0]},
            "sample_class must be integers in one dimension, got shape (1,) of float64",
        ),
        ({"host_proxies": [1]}, "host_proxies must be 2 integers >= 0, one a class"),
        ({"host_proxies": [-1, 1]}, "host_proxies must be 2 integers >= 0, one a class"),
        (
            {"host_proxies": [3, 1]},
            "class 0 has -1 taught proxies and 1 samples; both or neither",
        ),
        (
            {"host_proxies": [2, 1]},
            "class 0 has 0 taught proxies and 1 samples; both or neither",
        ),
        (
            {"host_proxies": [1, 0]},
            "class 1 has 1 taught proxies and 0 samples; both or neither",
        ),
    ):
        with pytest.raises(HeadValueError) as caught:
            Head(proxies, index, "ab", **(whole | change))
        assert str(caught.value) == message
