# SPDX-License-Identifier: Apache-2.0
"""Classes read block by block: as good as in memory, on real and on hostile rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_imprint.imprinting import streamed
from edge_imprint.imprinting.class_source import Float32, Float64
from edge_imprint.imprinting.proxies import GENERATORS, generate, make_proxies
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.streamed import MAX_PASSES, STREAMED, drawn_notes
from edge_imprint_runtime.errors import EmbeddingError, ParameterError
from tests.large_source import InBlocks

N, D, K = 4_000, 16, 10
Rng = np.random.Generator


def inertia(rows: Float32, centres: Float32, weights: Float64 | None = None) -> float:
    apart = np.full(len(rows), np.inf)
    for centre in centres.astype(np.float64):
        apart = np.minimum(apart, ((rows.astype(np.float64) - centre) ** 2).sum(axis=1))
    return float(apart.sum() if weights is None else weights @ apart)


def clustered(rows: Float32, k: int = K, *, seed: int = 0, **options: object) -> Float32:
    source = InBlocks([rows], max(2 * k, len(rows) // 10), block=501, **options)  # type: ignore[arg-type]
    return generate(source, "kmeans", [k], seed)[0]


def noise(rng: Rng) -> Float32:
    return rng.standard_normal((N, D)).astype(np.float32)


def modes(rng: Rng) -> Float32:
    return (4 * rng.standard_normal((8, D))[rng.integers(0, 8, N)] + noise(rng)).astype("f4")


def heavy_far_away(rng: Rng) -> Float32:
    rows = noise(rng)
    rows[: N // 2] += 1000
    return rows


def few_outliers(rng: Rng) -> Float32:
    rows = noise(rng)
    rows[rng.permutation(N)[:4]] += (1000 * rng.standard_normal((4, D))).astype(np.float32)
    return rows


def one_outlier(rng: Rng) -> Float32:
    rows = noise(rng)
    rows[N // 3] += 1e6
    return rows


def sorted_input(rng: Rng) -> Float32:
    rows = noise(rng)
    rows[:, 0] *= 30
    return rows[np.argsort(rows[:, 0])]


def duplicates(rng: Rng) -> Float32:
    return noise(rng)[rng.integers(0, 200, N)]


def nearly_all_one(rng: Rng) -> Float32:
    rows = noise(rng)
    rows[: N * 9 // 10] = rows[0]
    return rows


def far_from_zero(rng: Rng) -> Float32:
    return (noise(rng) / 100 + 1000).astype(np.float32)


def huge(rng: Rng) -> Float32:
    return noise(rng) * np.float32(1e37)


def tiny(rng: Rng) -> Float32:
    return noise(rng) * np.float32(1e-30)


def skewed(rng: Rng) -> Float32:
    label = np.minimum(rng.geometric(0.3, N) - 1, 19)
    return (10 * rng.standard_normal((20, D))[label] + noise(rng) / 10).astype(np.float32)


HOSTILE = [
    noise,
    modes,
    heavy_far_away,
    few_outliers,
    one_outlier,
    sorted_input,
    duplicates,
    nearly_all_one,
    far_from_zero,
    huge,
    tiny,
    skewed,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_inertia_within_5_percent_of_the_whole(
    make: Callable[[Rng], Float32], seed: int
) -> None:
    rows = make(np.random.default_rng(seed))
    whole = inertia(rows, make_proxies(rows, "kmeans", K, seed))
    assert inertia(rows, clustered(rows, seed=seed)) <= 1.05 * whole


def test_outliers_that_no_draw_has_get_centres() -> None:
    # What is left without them is noise; with one missed it would be hundreds of times that.
    rows = few_outliers(np.random.default_rng(0))
    assert inertia(rows, clustered(rows)) < 1.05 * N * D


@settings(max_examples=25)
@given(
    n=st.integers(12, 200),
    size=st.integers(1, 9),
    k=st.integers(1, 12),
    block=st.integers(1, 50),
    values=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_centres_are_means_of_the_rows_nearest_to_them(
    n: int, size: int, k: int, block: int, values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, values, (n, size)).astype(np.float32)
    source = InBlocks([rows], 6, block=block)
    made = generate(source, "kmeans", [k], seed)[0]
    different = len(np.unique(rows, axis=0))
    assert 1 <= len(made) <= min(k, different)
    if different <= k:  # every row is a centre
        assert inertia(rows, made) == 0
        return
    assert len(made) == k
    # One more update by numpy, in float64, hardly lowers the inertia.
    near = ((rows[:, np.newaxis].astype(np.float64) - made) ** 2).sum(axis=2).argmin(axis=1)
    means = np.stack([rows[near == i].mean(axis=0) for i in np.unique(near)])
    before = inertia(rows, made)
    assert inertia(rows, means.astype(np.float32)) >= before * (1 - 2 * 3e-4) - 1e-9


@pytest.mark.parametrize("generation", sorted(STREAMED))
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_threads_and_runs_give_the_same_bytes(generation: str, workers: int) -> None:
    rows = modes(np.random.default_rng(3))
    first = generate(InBlocks([rows], 300, block=501), generation, [K], 5, workers=1)[0]
    again = generate(
        InBlocks([rows.copy()], 300, block=501), generation, [K], 5, workers=workers
    )
    assert again[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("generation", sorted(STREAMED))
def test_the_order_and_the_blocks_change_the_last_bits_only(generation: str) -> None:
    rng = np.random.default_rng(4)
    rows = modes(rng)
    mixed = rows[rng.permutation(N)]
    one = generate(InBlocks([rows], 300, block=501), generation, [K], 0)[0]
    other = generate(InBlocks([mixed], 300, block=77), generation, [K], 0)[0]
    order = [np.lexsort(np.round(made, 3).T) for made in (one, other)]
    np.testing.assert_allclose(one[order[0]], other[order[1]], atol=1e-5)


def test_the_mean_is_that_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1_000, 5)) + 1e4).astype(np.float32)
    weights = rng.random(1_000)
    weights[:7] = 0
    made = generate(InBlocks([rows], 10, weights=[weights]), "mean", [1], 0)[0]
    expected = np.average(rows.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_array_equal(made, expected[np.newaxis].astype(np.float32))


def test_a_weight_of_two_is_the_row_given_twice() -> None:
    rows = modes(np.random.default_rng(1))
    counts = np.random.default_rng(2).integers(0, 3, N)
    weighted = clustered(rows, weights=[counts.astype(np.float64)])
    repeated = clustered(np.repeat(rows, counts, axis=0))
    of = [inertia(rows, made, counts.astype(np.float64)) for made in (weighted, repeated)]
    assert of[0] == pytest.approx(of[1], rel=0.02)
    assert of[0] <= 1.05 * inertia(
        rows, make_proxies(rows, "kmeans", K, 0, weights=counts.astype(float)), counts * 1.0
    )


def test_rows_of_weight_zero_decide_nothing() -> None:
    rows = modes(np.random.default_rng(1))
    weights = np.ones(N)
    weights[::7] = 0
    far = rows.copy()
    far[::7] += 1e5
    one, other = (InBlocks([r], N, weights=[weights]) for r in (rows, far))
    for source in (one, other):
        source.large = lambda c: True  # type: ignore[method-assign]
    made = [generate(source, "kmeans", [K], 0)[0] for source in (one, other)]
    np.testing.assert_array_equal(*made)


def test_large_and_small_classes_side_by_side() -> None:
    rng = np.random.default_rng(0)
    classes = [rng.standard_normal((n, 4)).astype(np.float32) for n in (30, 900, 5, 400)]
    told: list[tuple[int, int]] = []
    source = InBlocks(classes, 100)
    made = generate(
        source, "kmeans", [3] * 4, 0, progress=lambda done, total: told.append((done, total))
    )
    for c in (0, 2):  # as ever
        expected = make_proxies(classes[c], "kmeans", 3, 0)
        np.testing.assert_array_equal(made[c], expected)
    for c in (1, 3):
        alone = generate(InBlocks([classes[c]], 100), "kmeans", [3], 0)[0]
        np.testing.assert_array_equal(made[c], alone)
    assert told[-1] == (4, 4)


@pytest.mark.parametrize("generation", sorted(GENERATORS.keys() - STREAMED.keys()))
def test_the_other_generations_take_the_draw(generation: str) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    source = InBlocks([rows], 50)
    made = generate(source, generation, [3], 0)[0]
    np.testing.assert_array_equal(made, make_proxies(source[0][0], generation, 3, 0))
    assert source.passes == 0


@pytest.mark.parametrize("generation", sorted(STREAMED))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(generation: str, bad: float) -> None:
    rows = np.ones((100, 3), np.float32) * np.arange(100, dtype=np.float32)[:, np.newaxis]
    draw = InBlocks([rows], 20)[0][0]
    missing = next(i for i in range(99, -1, -1) if i not in draw[:, 0])
    rows = rows.copy()
    source = InBlocks([rows], 20)
    drawn = source[0]
    rows[missing, 1] = bad
    source.__class__ = type("Drawn", (InBlocks,), {"__getitem__": lambda self, c: drawn})
    with pytest.raises(
        EmbeddingError, match=f"row {missing} of class 0 holds NaN or infinity"
    ):
        generate(source, generation, [2], 0)


@pytest.mark.parametrize("generation", sorted(STREAMED))
def test_weights_that_are_none(generation: str) -> None:
    rows = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    negative = np.where(np.arange(100) == 60, -1.0, 1.0)
    with pytest.raises(ParameterError, match="must be finite and >= 0"):
        generate(InBlocks([rows], 99, weights=[negative]), generation, [2], 0)
    with pytest.raises(ParameterError, match="no row with a weight above 0"):
        generate(InBlocks([rows], 20, weights=[np.zeros(100)]), generation, [2], 0)


def test_passes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed.in_memory, "TOLERANCE", 0.0)
    monkeypatch.setattr(streamed, "MAX_PASSES", 7)
    source = InBlocks([noise(np.random.default_rng(0))], 300, block=501)
    generate(source, "kmeans", [K], 0)
    assert source.passes == 7
    assert MAX_PASSES == 100


def test_the_note_names_what_was_drawn_from() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    source = InBlocks([rows, rows[:5], rows], 10)
    labels = ["pear", "fig", "plum"]
    assert drawn_notes(source, labels, Recipe.parse("imprint")) == []
    medoids = Recipe(generation="kmedoids")
    (note,) = drawn_notes(source, labels, medoids)
    assert note == (
        "'pear', 'plum': too large to be in memory whole, so that kmedoids used photos drawn "
        "by the seed; kmeans and mean use all"
    )
    many = InBlocks([rows] * 7, 10)
    (note,) = drawn_notes(many, list("abcdefg"), medoids)
    assert note.startswith("'a', 'b', 'c', 'd', 'e' and 2 more: ")
    assert drawn_notes(InBlocks([rows], 99), ["pear"], medoids) == []
