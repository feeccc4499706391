# SPDX-License-Identifier: Apache-2.0
"""Embeddings to a head: every stage where it belongs, one class in memory at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits

from edge_imprint.imprinting.class_source import ClassSource
from edge_imprint.imprinting.imprint import imprint, is_local, make_all, resolved
from edge_imprint.imprinting.proxies import generate, make_proxies
from edge_imprint.imprinting.quantile import quantile_normalize
from edge_imprint.imprinting.recipe import GENERATIONS, PRESETS, Recipe
from edge_imprint.imprinting.shrinkage import choose_shrinkage
from edge_imprint.imprinting.sources import ByClass, Distinct, Mapped, normalized
from edge_imprint.imprinting.whitening import fit_whitening
from edge_imprint.judging.calibrate import Calibration
from edge_imprint_runtime import BackboneInfo, Preprocess
from tests.large_source import InBlocks

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def source() -> ByClass:
    rng = np.random.default_rng(0)
    index = np.arange(60) % 3
    rows = 2 * rng.standard_normal((3, 5))[index] + rng.standard_normal((60, 5))
    return ByClass(rows.astype(np.float32), index)


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g != "least_squares"])
@pytest.mark.parametrize(("pre", "post"), [("none", "l2"), ("l2", "none"), ("l2", "quantile")])
def test_the_stages_one_by_one(source: ByClass, generation: str, pre: str, post: str) -> None:
    recipe = Recipe(pre, generation, 3, post, "none", distance="cosine")
    head = imprint(source, NAMES, recipe, seed=4)
    parts = [
        make_proxies(
            normalized(source[c][0], "l2") if pre == "l2" else source[c][0], generation, 3, 4
        )
        for c in range(3)
    ]
    index = np.repeat(np.arange(3), [len(part) for part in parts])
    want = np.concatenate(parts)
    if post != "none":
        want = normalized(want, post) if post == "l2" else quantile_normalize(want, index)
    np.testing.assert_allclose(head.proxies, want, atol=1e-5)
    np.testing.assert_array_equal(head.class_index, index)
    assert (head.recipe, head.rule) == (str(recipe), recipe.rule)
    assert (head.center, head.transform, head.metric) == (None, None, None)
    assert head.labels == ("a", "b", "c")


@pytest.mark.parametrize("name", PRESETS)
def test_presets(source: ByClass, name: str) -> None:
    recipe = Recipe.parse(name)
    head = imprint(source, NAMES, recipe)
    rows = np.concatenate([source[c][0] for c in range(3)])
    assert (head.predict(rows) == np.repeat(np.arange(3), 20)).mean() > 0.8
    if name != "whitened":  # whose line says what was chosen
        assert head.recipe == PRESETS[name]


def test_whitening_becomes_center_and_transform(source: ByClass) -> None:
    head = imprint(source, NAMES, Recipe.parse("whiten:0.1 kmeans:4 l2 l2 max"))
    whitening = fit_whitening(Distinct(source), shrinkage=0.1)
    assert head.center is not None
    assert head.transform is not None
    np.testing.assert_array_equal(head.center, whitening.center)
    np.testing.assert_array_equal(head.transform, whitening.transform)
    for c in range(3):
        mapped, weights = Mapped(Distinct(source), whitening, "l2")[c]
        want = make_proxies(mapped, "kmeans", 4, 0, weights=weights)
        got = head.proxies[head.class_index == c]
        np.testing.assert_array_equal(got, normalized(want, "l2"))
    low = imprint(source, NAMES, Recipe.parse("whiten:size=2 mean l2 l2 max"))
    assert (low.transform is not None and low.transform.shape, low.proxies.shape) == (
        (5, 2),
        (3, 2),
    )
    assert low.embedding_size == 5


def test_a_shrinkage_of_1_leaves_no_map(source: ByClass) -> None:
    head = imprint(source, NAMES, Recipe.parse("whiten:1 kmeans:4 l2 l2 max"))
    plain = imprint(source, NAMES, Recipe.parse("l2 kmeans:4 l2 l2 max"))
    assert (head.center, head.transform) == (None, None)
    assert head.proxies.tobytes() == plain.proxies.tobytes()


def test_the_metric_is_of_the_embeddings_as_they_are_compared(source: ByClass) -> None:
    for line, whitening in (
        ("l2 mean l2 l2 max:mahalanobis", None),
        ("whiten:0.2 mean l2 l2 max:mahalanobis", fit_whitening(Distinct(source), None, 0.2)),
        ("none mean none none mnn:1:mahalanobis", None),
    ):
        head = imprint(source, NAMES, Recipe.parse(line))
        norm = head.rule.embedding_norm
        compared = Mapped(Distinct(source), whitening, norm)
        assert head.metric is not None
        np.testing.assert_array_equal(head.metric, fit_whitening(compared).transform)


def test_what_whitening_leaves_open_is_said_in_the_line(source: ByClass) -> None:
    recipe = Recipe.parse("whitened")
    share = choose_shrinkage(source, 0)
    chosen = resolved(source, recipe, 0)
    assert chosen.whiten_shrinkage == round(share, 4)
    assert imprint(source, NAMES, recipe).recipe == str(chosen)
    assert resolved(source, chosen, 0) is chosen


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("imprint", True),
        ("l2 mean l2 l2 max:mahalanobis", True),
        ("hosoda2024", True),
        ("whitened", False),
        ("least-squares", False),
    ],
)
def test_known_proxies_are_taken_as_they_are_where_that_is_right(
    source: ByClass, line: str, local: bool
) -> None:
    recipe = resolved(source, Recipe.parse(line), 0)
    assert is_local(recipe) == local
    if local:
        made = make_all(source, recipe)
        again = make_all(source, recipe, known={0: made.by_class[0], 2: made.by_class[2]})
        assert again.by_class[0] is made.by_class[0]
        assert again.by_class[1].tobytes() == made.by_class[1].tobytes()
        assert make_all(source, recipe, known=dict(enumerate(made.by_class))).by_class == (
            made.by_class
        )


def test_all_that_is_given_reaches_the_head(source: ByClass) -> None:
    info = BackboneInfo("tiny", "packaged", "0" * 64, Preprocess(8, 8))
    threshold = np.array([0.1, 0.2, 0.3], np.float32)
    calibration = Calibration(0.5, threshold, 0.05, None, None, 0.9, 0.9)
    told: list[tuple[int, int]] = []
    head = imprint(
        source,
        NAMES,
        Recipe(),
        ks=[1, 2, 5],
        backbone=info,
        calibration=calibration,
        progress=lambda *step: told.append(step),
    )
    assert np.bincount(head.class_index).tolist() == [1, 2, 5]
    assert (head.backbone, head.temperature) == (info, 0.5)
    np.testing.assert_array_equal(head.threshold, threshold)
    assert told[-1] == (3, 3)


@pytest.mark.parametrize(
    "line",
    [
        "whiten kmeans:5 l2 l2 max",
        "none least_squares:3 none none max",
        "l2 mean l2 l2 max:mahalanobis",
    ],
)
def test_the_order_of_rows_changes_no_byte(line: str) -> None:
    data = load_digits()  # enough of them that sums in another order have other last bits
    rows, index = data.data.astype(np.float32) + np.float32(0.1), data.target
    names = [str(c) for c in range(10)]
    want = imprint(ByClass(rows, index), names, Recipe.parse(line))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(rows))
        head = imprint(ByClass(rows[order], index[order]), names, Recipe.parse(line))
        assert head.proxies.tobytes() == want.proxies.tobytes()
        for name in ("center", "transform", "metric"):
            given, made = getattr(want, name), getattr(head, name)
            assert (given is None) == (made is None)
            assert given is None or given.tobytes() == made.tobytes()


@pytest.mark.parametrize(
    "line", ["qi2018", "whiten mean l2 l2 max", "l2 mean l2 l2 max:mahalanobis"]
)
def test_memory_is_that_of_a_few_classes(line: str) -> None:
    count, size = 2_000, 64

    class Drawn:
        def __len__(self) -> int:
            return 50

        def __getitem__(self, c: int) -> tuple[npt.NDArray[np.float32], None]:
            rng = np.random.default_rng(c)
            return rng.standard_normal((count, size), dtype=np.float32), None

    imprint(ByClass(np.eye(4, dtype=np.float32), np.arange(4)), list("abcd"), Recipe())
    tracemalloc.start()
    imprint(Drawn(), [str(c) for c in range(50)], Recipe.parse(line))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 25 * 4 * count * size + 2 * 2**23  # two threads' classes and blocks


@pytest.mark.parametrize("preset", ["imprint", "whitened"])
@pytest.mark.parametrize("distance", ["inner_product", "mahalanobis"])
def test_classes_larger_than_memory_make_as_good_a_head(preset: str, distance: str) -> None:
    data = load_digits()
    rows, digit = data.data.astype(np.float32), data.target
    train = np.arange(len(rows)) % 3 > 0
    classes = [rows[train & (digit == c)] for c in range(10)]
    recipe = replace(Recipe.parse(preset), proxies=10, distance=distance)
    accuracy = []
    for limit in (30, 10_000):
        source = InBlocks(classes, limit)
        head = imprint(source, [str(c) for c in range(10)], recipe, seed=1)
        accuracy.append(float((head.predict(rows[~train]) == digit[~train]).mean()))
        assert (source.passes > 0) == (limit == 30)
    assert min(accuracy) > 0.94
    assert abs(accuracy[0] - accuracy[1]) < 0.015


def test_another_place_may_generate(source: ByClass) -> None:
    asked: list[tuple[int, str, list[int], int, str]] = []

    def elsewhere(
        source: ClassSource,
        generation: str,
        ks: Sequence[int],
        seed: int,
        *,
        device: str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[npt.NDArray[np.float32]]:
        asked.append((len(source), generation, list(ks), seed, device))
        return generate(source, generation, ks, seed, device=device, progress=progress)

    recipe = Recipe.parse("imprint")
    head = imprint(source, NAMES, recipe, seed=4, ks=[2, 3, 4], generate=elsewhere)
    assert asked == [(3, "kmeans", [2, 3, 4], 4, "cpu")]
    here = imprint(source, NAMES, recipe, seed=4, ks=[2, 3, 4])
    np.testing.assert_array_equal(head.proxies, here.proxies)
    made = make_all(source, recipe, known={0: np.ones((1, 5), np.float32)}, generate=elsewhere)
    assert asked[-1][0] == 2
    np.testing.assert_array_equal(made.by_class[0], np.ones((1, 5)))
