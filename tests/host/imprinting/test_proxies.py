# SPDX-License-Identifier: Apache-2.0
"""One checklist for every registered generator: a new one gets it by being registered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_imprint.imprinting.proxies import (
    GENERATORS,
    Float32,
    Float64,
    generate,
    make_proxies,
)
from edge_imprint_runtime.errors import EmbeddingError, ParameterError

K = 4
# How many proxies each gives for 30 distinct rows and k = 4.
COUNTS = {"mean": 1, "all": 30} | dict.fromkeys(
    ("kmeans", "kmedoids", "random", "fps", "cov_max"), K
)
CHOOSERS = ("kmedoids", "random", "fps", "cov_max")

every_generator = pytest.mark.parametrize("generation", sorted(GENERATORS))


class Classes:
    """A source in memory."""

    def __init__(self, *classes: Float32, weights: Float64 | None = None) -> None:
        self.classes, self.weights = classes, weights

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, c: int) -> tuple[Float32, Float64 | None]:
        return self.classes[c], self.weights


def rows_of(n: int, d: int = 6, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def sorted_rows(rows: Float32) -> list[list[float]]:
    return sorted(rows.tolist())


def test_a_count_is_stated_for_every_generator() -> None:
    assert set(COUNTS) == set(GENERATORS)


@every_generator
def test_shape_type_and_finite(generation: str) -> None:
    made = make_proxies(rows_of(30), generation, K, 0)
    assert made.shape == (COUNTS[generation], 6)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()


@every_generator
def test_same_seed_same_bytes(generation: str) -> None:
    rows = rows_of(30)
    assert (
        make_proxies(rows, generation, K, 7).tobytes()
        == make_proxies(rows.copy(), generation, K, 7).tobytes()
    )


@pytest.mark.parametrize("generation", ["random", "kmeans"])
def test_another_seed_draws_others(generation: str) -> None:
    rows = rows_of(100)
    assert not np.array_equal(
        make_proxies(rows, generation, K, 0), make_proxies(rows, generation, K, 1)
    )


@every_generator
@settings(max_examples=15, deadline=None)
@given(order_seed=st.integers(0, 2**16), data_seed=st.integers(0, 2**16))
def test_order_of_rows_decides_nothing(
    generation: str, order_seed: int, data_seed: int
) -> None:
    rows = rows_of(25, seed=data_seed)
    order = np.random.default_rng(order_seed).permutation(25)
    assert (
        make_proxies(rows, generation, K, 0).tobytes()
        == make_proxies(rows[order], generation, K, 0).tobytes()
    )


@every_generator
def test_one_row_is_its_own_proxy(generation: str) -> None:
    row = rows_of(1)
    np.testing.assert_array_equal(make_proxies(row, generation, K, 0), row)


@every_generator
def test_one_row_many_times(generation: str) -> None:
    rows = np.repeat(rows_of(1), 9, axis=0)
    made = make_proxies(rows, generation, K, 0)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made, rows[: len(made)], rtol=1e-6)


@every_generator
def test_fewer_distinct_rows_than_k(generation: str) -> None:
    rows = np.tile(rows_of(3), (5, 1))  # 15 rows, 3 of them distinct; k = 10
    made = make_proxies(rows, generation, 10, 0)
    assert np.isfinite(made).all()
    assert 1 <= len(made) <= len(rows)
    if generation != "mean":
        assert sorted_rows(made) == sorted_rows(rows[:3])


@every_generator
@pytest.mark.parametrize("k", [1, 5, 6, 1_000_000])
def test_k_up_to_far_above_n(generation: str, k: int) -> None:
    rows = rows_of(5)
    made = make_proxies(rows, generation, k, 0)
    assert len(made) == {"mean": 1, "all": 5}.get(generation, min(k, 5))
    if generation == "all" or (generation != "mean" and k >= 5):
        assert sorted_rows(made) == sorted_rows(rows)


@every_generator
def test_input_is_left_untouched(generation: str) -> None:
    rows = rows_of(30)
    before = rows.copy()
    make_proxies(rows, generation, K, 0)
    np.testing.assert_array_equal(rows, before)


@every_generator
def test_any_memory_layout_gives_the_same(generation: str) -> None:
    rows = rows_of(30)
    strided = np.asfortranarray(np.repeat(rows, 2, axis=0))[::2]
    assert (
        make_proxies(strided, generation, K, 0).tobytes()
        == make_proxies(rows, generation, K, 0).tobytes()
    )


@every_generator
def test_a_read_only_input_is_fine(generation: str) -> None:
    rows = rows_of(30)
    rows.flags.writeable = False
    assert len(make_proxies(rows, generation, K, 0)) == COUNTS[generation]


def test_kmeans_of_rows_a_last_bit_apart_is_quiet_and_without_doubles() -> None:
    # The same photo saved twice: distinct rows, yet fewer clusters than k.
    rows = np.tile(rows_of(3), (10, 1))
    for number, row in enumerate(rows):
        row[number % 6] = np.nextafter(row[number % 6], np.float32(9))
    for distinct in (rows, rows_of(30) * np.float32(1e-30)):
        made = make_proxies(distinct, "kmeans", 10, 0)
        assert 1 <= len(made) == len(np.unique(made, axis=0)) <= 10
        assert np.isfinite(made).all()


def test_mean_is_the_mean_in_double_precision() -> None:
    rows = rows_of(1000) + np.float32(1000)
    want = rows.astype(np.float64).mean(axis=0)
    np.testing.assert_array_equal(make_proxies(rows, "mean", 1, 0)[0], want.astype(np.float32))


@every_generator
def test_a_weight_is_a_repetition_and_zero_is_absence(generation: str) -> None:
    rows = rows_of(20)
    times = np.arange(20) % 4  # 0, 1, 2 and 3 times
    order = np.random.default_rng(1).permutation(20)
    want = make_proxies(np.repeat(rows, times, axis=0), generation, K, 0)
    got = make_proxies(rows[order], generation, K, 0, weights=times[order].astype(np.float64))
    assert got.tobytes() == want.tobytes()


@every_generator
def test_equal_rows_of_unlike_weights_in_any_order(generation: str) -> None:
    rows = np.tile(rows_of(8), (4, 1))
    weights = np.random.default_rng(0).random(32)  # whose sums depend on their order
    want = make_proxies(rows, generation, K, 0, weights=weights)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(32)
        got = make_proxies(rows[order], generation, K, 0, weights=weights[order])
        assert got.tobytes() == want.tobytes()


@every_generator
def test_the_scale_of_the_weights_means_nothing(generation: str) -> None:
    rows, weights = rows_of(30), 1 + np.arange(30.0)
    a, b = (make_proxies(rows, generation, K, 0, weights=w) for w in (weights, weights / 8))
    np.testing.assert_array_equal(a, b)


@every_generator
def test_classes_do_not_depend_on_one_another(generation: str) -> None:
    # Equal and unequal sizes, so that some are clustered together and some alone.
    sizes = (30, 30, 7, 30, 1, 31, 7, 4)
    classes = [rows_of(n, seed=i) for i, n in enumerate(sizes)]
    ks = [K, K, K, 2, K, K, K, K]
    made = generate(Classes(*classes), generation, ks, 3)
    order = np.random.default_rng(0).permutation(len(sizes))
    other = generate(
        Classes(*(classes[c] for c in order)), generation, [ks[c] for c in order], 3
    )
    alone = [make_proxies(rows, generation, k, 3) for rows, k in zip(classes, ks, strict=True)]
    for place, c in enumerate(order):
        assert made[c].tobytes() == other[place].tobytes() == alone[c].tobytes()


@every_generator
def test_the_number_of_workers_changes_nothing(generation: str) -> None:
    source = Classes(*(rows_of(20 + c % 3, seed=c) for c in range(12)))
    one, three = (generate(source, generation, [K] * 12, 0, workers=w) for w in (1, 3))
    assert [a.tobytes() for a in one] == [b.tobytes() for b in three]


@every_generator
def test_constant_features_and_zero_rows(generation: str) -> None:
    rows = rows_of(30)
    rows[:, 2:] = 7
    rows[5] = 0
    made = make_proxies(rows, generation, K, 0)
    assert made.shape == (COUNTS[generation], 6)
    assert np.isfinite(made).all()


@every_generator
def test_one_feature(generation: str) -> None:
    rows = np.arange(12, dtype=np.float32)[:, np.newaxis]
    made = make_proxies(rows, generation, 3, 0)
    assert made.shape == ({"mean": 1, "all": 12}.get(generation, 3), 1)
    assert made.min() >= 0
    assert made.max() <= 11


@every_generator
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_very_small_and_very_large_numbers(generation: str, scale: float) -> None:
    # By a power of two nothing but the exponent changes, so the proxies only scale.
    factor = np.float32(2.0 ** np.round(np.log2(scale)))
    rows = rows_of(30)
    want = make_proxies(rows, generation, K, 0) * factor
    got = make_proxies(rows * factor, generation, K, 0)
    if generation in ("mean", "all", "fps", "cov_max"):  # nothing drawn in the rows' order
        np.testing.assert_allclose(sorted_rows(got), sorted_rows(want), rtol=1e-6)
    assert got.shape == want.shape
    assert np.isfinite(got).all()


@every_generator
@pytest.mark.parametrize("scale", [1e-43, 1e37])
def test_at_the_ends_of_the_range(generation: str, scale: float) -> None:
    rows = (rows_of(30).astype(np.float64) * scale).astype(np.float32)
    assert np.isfinite(make_proxies(rows, generation, K, 0)).all()


@every_generator
@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
def test_other_number_types(generation: str, kind: type) -> None:
    rows = (rows_of(30) * 10).astype(kind)
    want = make_proxies(rows.astype(np.float32), generation, K, 0)
    got = make_proxies(rows, generation, K, 0)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_zeros_of_either_sign_are_one_row() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, -0.0], [2.0, 0.0]], np.float32)
    assert sorted_rows(make_proxies(rows, "all", 1, 0)) == [[0, 1], [2, 0]]


@pytest.mark.parametrize("generation", CHOOSERS)
def test_proxies_that_are_rows_of_the_class(generation: str) -> None:
    rows = rows_of(50)
    made = make_proxies(rows, generation, 20, 0)
    known = {row.tobytes() for row in rows}
    assert len({row.tobytes() for row in made} & known) == 20


# Progress and refusals ----------------------------------------------------------------------


def test_progress_ends_at_the_number_of_classes() -> None:
    told: list[tuple[int, int]] = []
    source = Classes(*(rows_of(9, seed=c) for c in range(5)))
    generate(source, "mean", [1] * 5, 0, workers=1, progress=lambda *now: told.append(now))
    assert told[-1] == (5, 5)
    assert told == sorted(told)


def test_no_class_at_all() -> None:
    assert generate(Classes(), "kmeans", [], 0) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be an integer >= 1, got 0"),
        ({"k": -3}, "k must be an integer >= 1, got -3"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        (
            {"generation": "median"},
            (
                "generation must be one of mean, kmeans, kmedoids, random, all, fps, cov_max, "
                "got 'median'"
            ),
        ),
        (
            {"weights": np.ones(3)},
            "the weights of class 0 must be 4, got shape (3,)",
        ),
        ({"weights": -np.ones(4)}, "the weights of class 0 must be finite and >= 0"),
        ({"weights": np.full(4, np.nan)}, "the weights of class 0 must be finite and >= 0"),
        ({"weights": np.zeros(4)}, "class 0 has no row with a weight above 0"),
        ({"rows": np.empty((0, 6), np.float32)}, "class 0 has no row with a weight above 0"),
    ],
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    given = {"rows": rows_of(4), "generation": "kmeans", "k": 2, "seed": 0} | change
    with pytest.raises(ParameterError) as caught:
        make_proxies(**given)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        generate(Classes(rows_of(4)), "mean", [1], 0, device="tpu")
    assert str(caught.value) == "device must be 'cpu' or 'cuda', got 'tpu'"


@every_generator
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_no_number_is_named(generation: str, value: float) -> None:
    rows = rows_of(9)
    rows[6, 2] = value
    with pytest.raises(EmbeddingError) as caught:
        generate(Classes(rows_of(9), rows), generation, [K, K], 0)
    assert str(caught.value) == (
        "row 6 of class 1 holds NaN or infinity; mend it or leave it out"
    )
