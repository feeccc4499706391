# SPDX-License-Identifier: Apache-2.0
"""NC1 and VCI: closed forms, an oracle of D x D loops, what must not change them, memory."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from edge_imprint.collapse import nc1, vci
from edge_imprint_runtime.errors import EmbeddingError, InputError, TooFewClassesError

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Measure = Callable[[npt.ArrayLike, npt.ArrayLike], float]

both = pytest.mark.parametrize("measure", [nc1, vci])


def blobs(
    classes: int = 5, samples: int = 40, dim: int = 16, seed: int = 0
) -> tuple[Float64, Labels]:
    """Gaussian classes of unequal size and a common anisotropic spread."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(samples // 2, samples + 1, classes)
    y = np.repeat(np.arange(classes), counts)
    spread = rng.uniform(0.3, 2.0, dim)
    centres = 2 * rng.standard_normal((classes, dim))
    return centres[y] + spread * rng.standard_normal((len(y), dim)), y


def scatters(z: Float64, y: Labels) -> tuple[Float64, Float64]:
    """Within- and between-class covariance, sample by sample and by the definition."""
    mean = z.mean(axis=0)
    within = np.zeros((z.shape[1], z.shape[1]))
    between = np.zeros_like(within)
    for row, label in zip(z, y, strict=True):
        own = z[y == label].mean(axis=0)
        within += np.outer(row - own, row - own) / len(z)
        between += np.outer(own - mean, own - mean) / len(z)
    return within, between


def oracle(z: Float64, y: Labels) -> tuple[float, float]:
    within, between = scatters(z, y)
    inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    total = np.linalg.pinv(within + between, rcond=1e-10, hermitian=True)
    rank = np.linalg.matrix_rank(between, tol=1e-10, hermitian=True)
    classes = len(np.unique(y))
    return (
        float(np.trace(within @ inverse)) / classes,
        1 - float(np.trace(total @ between)) / float(rank),
    )


# Closed forms ------------------------------------------------------------------------------


def test_two_classes_on_a_line() -> None:
    # Means -3 and 3, each class one unit to either side: S_W = 1, S_B = 9, S_T = 10.
    z, y = np.array([[-4.0], [-2.0], [2.0], [4.0]]), np.array([0, 0, 1, 1])
    assert nc1(z, y) == pytest.approx(1 / 9 / 2, rel=1e-12)
    assert vci(z, y) == pytest.approx(1 - 9 / 10, rel=1e-12)


def test_a_simplex_with_round_noise() -> None:
    # C unit vectors less their mean: S_B has C - 1 eigenvalues 1 / C. Noise +-s along each
    # of C axes: S_W = s^2 I. So NC1 = (C - 1) s^2 C / C, VCI = 1 - (1/C) / (1/C + s^2 / C).
    c, s = 6, 0.5
    steps = s * np.concatenate([np.eye(c), -np.eye(c)])
    z = np.concatenate([np.eye(c)[label] + steps for label in range(c)])
    y = np.repeat(np.arange(c), len(steps))
    variance = s * s * 2 / len(steps)
    assert nc1(z, y) == pytest.approx((c - 1) * variance * c / c, rel=1e-12)
    assert vci(z, y) == pytest.approx(1 - (1 / c) / (1 / c + variance), rel=1e-12)


def test_spread_where_the_means_do_not_differ_is_not_seen() -> None:
    z = np.array([[-1.0, 50.0], [-1.0, -50.0], [1.0, 50.0], [1.0, -50.0]])
    y = np.array([0, 0, 1, 1])
    assert nc1(z, y) == pytest.approx(0, abs=1e-12)
    assert vci(z, y) == pytest.approx(0, abs=1e-12)


def test_each_sample_counts_once() -> None:
    # Class a: three samples of mean 0; class b: one at 4. Mean 1; S_B = 3/4 1 + 1/4 9 = 3.
    z, y = np.array([[-1.0], [0.0], [1.0], [4.0]]), np.array(["a", "a", "a", "b"])
    assert nc1(z, y) == pytest.approx(0.5 / 3 / 2, rel=1e-12)
    assert vci(z, y) == pytest.approx(1 - 3 / 3.5, rel=1e-12)


def test_one_sample_a_class_is_collapsed() -> None:
    z = np.random.default_rng(0).standard_normal((7, 20))
    assert nc1(z, np.arange(7)) == 0
    assert vci(z, np.arange(7)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_classes_about_one_point_are_not_collapsed_at_all(scale: float) -> None:
    z = scale * np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    assert nc1(z, [0, 0, 1, 1]) == math.inf
    assert vci(z, [0, 0, 1, 1]) == 1.0


# The oracle --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "dim"),
    [(2, 30), (5, 16), (8, 16), (9, 16), (16, 16), (40, 7), (3, 1)],
    ids=lambda value: str(value),
)
def test_agrees_with_the_definition(classes: int, dim: int) -> None:
    z, y = blobs(classes, 12, dim, seed=classes)
    expected = oracle(z, y)
    assert nc1(z, y) == pytest.approx(expected[0], rel=1e-9)
    assert vci(z, y) == pytest.approx(expected[1], rel=1e-9, abs=1e-9)


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_agrees_with_the_definition_anywhere(classes: int, dim: int, seed: int) -> None:
    z, y = blobs(classes, 30, dim, seed)
    expected = oracle(z, y)
    assert nc1(z, y) == pytest.approx(expected[0], rel=1e-6)
    assert vci(z, y) == pytest.approx(expected[1], rel=1e-6, abs=1e-9)


@both
def test_class_means_on_a_line_have_rank_one(measure: Measure) -> None:
    # Three means on a line in the plane, the third direction of S_B being rounding alone.
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 4)
    noise = rng.standard_normal((3, 2, 5))
    z = 0.1 * np.concatenate([noise, -noise], axis=1).reshape(12, 5)
    z += np.outer(y, [1.0, 2.0, 0.0, 0.0, 0.5]) / 3
    value = measure(z, y)
    assert value == pytest.approx(oracle(z, y)[measure is vci], rel=1e-9)
    for offset in (1, 1_000):
        moved = (z + offset).astype(np.float32)
        assert measure(moved, y) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16])
@both
def test_any_real_type(measure: Measure, dtype: npt.DTypeLike) -> None:
    z, y = blobs()
    typed = np.round(100 * z).astype(dtype)
    assert measure(typed, y) == pytest.approx(measure(typed.astype(np.float64), y), rel=1e-9)


# What must not change them -----------------------------------------------------------------


@both
@given(
    st.sampled_from([0.1, 1, 10, 1_000]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_translation(measure: Measure, offset: float, single: bool, seed: int) -> None:
    z, y = blobs(seed=seed)
    shift = offset * np.random.default_rng(seed).choice([-1.0, 1.0], z.shape[1])
    moved = (z + shift).astype(np.float32 if single else np.float64)
    assert measure(moved, y) == pytest.approx(measure(z, y), rel=1e-4)


@both
@given(st.integers(0, 2**16))
def test_rotation(measure: Measure, seed: int) -> None:
    z, y = blobs(seed=seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
    assert measure(z @ rotation, y) == pytest.approx(measure(z, y), rel=1e-9)


@both
@given(st.sampled_from([1e-12, 1e-3, 1e12]))
def test_scale(measure: Measure, factor: float) -> None:
    z, y = blobs()
    assert measure(factor * z, y) == pytest.approx(measure(z, y), rel=1e-9)


def test_vci_under_any_invertible_map() -> None:
    z, y = blobs(classes=4, dim=6)
    mixed = z @ np.random.default_rng(1).standard_normal((6, 6))
    assert vci(mixed, y) == pytest.approx(vci(z, y), rel=1e-6)
    assert nc1(mixed, y) != pytest.approx(nc1(z, y), rel=1e-2)


@both
@given(st.randoms(use_true_random=False))
def test_order_and_numbers_of_samples_and_classes(measure: Measure, random: object) -> None:
    z, y = blobs()
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    order, names = rng.permutation(len(y)), rng.permutation(5)
    assert measure(z[order], names[y[order]]) == pytest.approx(measure(z, y), rel=1e-9)


@both
def test_the_input_is_left_alone_and_may_be_read_only(measure: Measure) -> None:
    z, y = blobs()
    before = z.copy()
    z.setflags(write=False)
    y.setflags(write=False)
    measure(z, y)
    np.testing.assert_array_equal(z, before)


# The reference code's fault ----------------------------------------------------------------


def nc1_about_the_centred_mean(z: Float64, y: Labels) -> float:
    """NC1 as the reference code has it: S_W about (class mean - mean of all)."""
    _, between = scatters(z, y)
    within = np.zeros_like(between)
    for row, label in zip(z, y, strict=True):
        off = row - (z[y == label].mean(axis=0) - z.mean(axis=0))
        within += np.outer(off, off) / len(z)
    inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    return float(np.trace(within @ inverse)) / len(np.unique(y))


def test_the_reference_is_wrong_by_the_mean_and_only_by_it() -> None:
    z, y = blobs()
    z += 10 - z.mean(axis=0)
    mean = z.mean(axis=0)
    inverse = np.linalg.pinv(scatters(z, y)[1], rcond=1e-10, hermitian=True)
    surplus = float(mean @ inverse @ mean) / 5
    assert surplus > 100 * nc1(z, y)
    assert nc1_about_the_centred_mean(z, y) == pytest.approx(nc1(z, y) + surplus, rel=1e-6)
    assert nc1_about_the_centred_mean(z - mean, y) == pytest.approx(nc1(z, y), rel=1e-6)


def test_the_figures_measured_on_digits() -> None:
    """Raw pixels, L2: 0.907, by the reference code's formula 2.24, on 1,100 of the rows."""
    z, y = load_digits(return_X_y=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert nc1(z, y) == pytest.approx(0.907, rel=0.1)
    assert nc1_about_the_centred_mean(z, y) == pytest.approx(2.24, rel=0.1)


# Memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [4, 300])
@both
def test_memory_is_three_matrices_and_a_class(measure: Measure, classes: int) -> None:
    dim, samples = 256, 6_000
    z = np.random.default_rng(0).standard_normal((samples, dim), dtype=np.float32)
    y = np.arange(samples) % classes
    one_class = samples // classes * dim * (8 + 8 + 4)  # float64, a result, as given
    integers = 6 * 8 * samples
    measure(z, y)
    tracemalloc.start()
    try:
        measure(z, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * dim * dim * 8 + one_class + integers


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e101])
@both
def test_a_bad_row_is_named(measure: Measure, value: float) -> None:
    z, y = blobs()
    z[101, 3] = value
    with pytest.raises(EmbeddingError) as caught:
        measure(z, y)
    assert str(caught.value) == (
        "row 101 of the embeddings holds NaN, infinity or a value above 1e+100; take it out"
    )


@both
def test_one_class(measure: Measure) -> None:
    with pytest.raises(TooFewClassesError) as caught:
        measure(np.eye(3), ["cat"] * 3)
    assert str(caught.value) == (
        "neural collapse is a matter between classes: at least two are needed, "
        "got one class: 'cat'"
    )


@pytest.mark.parametrize(
    ("z", "got"),
    [
        (np.zeros(3), "float64 (3,)"),
        (np.zeros((0, 4)), "float64 (0, 4)"),
        (np.zeros((3, 0)), "float64 (3, 0)"),
        (np.zeros((3, 4), complex), "complex128 (3, 4)"),
        (np.zeros((3, 4), bool), "bool (3, 4)"),
        (np.full((3, 4), "x"), "<U1 (3, 4)"),
    ],
)
@both
def test_embeddings_of_another_kind(
    measure: Measure, z: npt.NDArray[np.generic], got: str
) -> None:
    with pytest.raises(InputError) as caught:
        measure(z, [0, 1, 1])
    assert str(caught.value) == (
        f"embeddings must be (N, D) real numbers, N and D at least 1, got {got}"
    )


@both
def test_labels_of_another_shape(measure: Measure) -> None:
    with pytest.raises(InputError) as caught:
        measure(np.eye(3), [[0], [1], [1]])
    assert str(caught.value) == "labels must be (3,), one for each embedding, got (3, 1)"


@both
def test_labels_of_mixed_kinds(measure: Measure) -> None:
    with pytest.raises(InputError) as caught:
        measure(np.eye(3), np.array([0, "one", 1], object))
    assert str(caught.value) == (
        "labels must be all of one kind, such as numbers or text, so that they can be sorted "
        "('<' not supported between instances of 'str' and 'int')"
    )
