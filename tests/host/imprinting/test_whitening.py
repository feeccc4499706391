# SPDX-License-Identifier: Apache-2.0
"""Whitening against dense numpy and scikit-learn, and where there is little to whiten by."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage

from edge_imprint.imprinting.sources import ByClass, Distinct
from edge_imprint.imprinting.whitening import MIN_SHRINKAGE, Scatter, fit_whitening
from edge_imprint_runtime import Head
from tests.large_source import InBlocks

Float32 = npt.NDArray[np.float32]
SEEDS = st.integers(0, 2**32 - 1)


@dataclass
class Listed:
    """A source of given classes."""

    classes: list[tuple[Float32, npt.NDArray[np.float64] | None]]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, c: int) -> tuple[Float32, npt.NDArray[np.float64] | None]:
        return self.classes[c]


def source_of(
    seed: int, counts: list[int], size: int = 6, offset: float = 3.0, spread: float = 1.0
) -> Listed:
    """Classes with one covariance that is far from round, each about a mean of its own."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((size, size)) * np.geomspace(1, 0.1, size)
    return Listed(
        [
            (
                (
                    offset
                    + spread * rng.standard_normal(size)
                    + rng.standard_normal((count, size)) @ mix
                ).astype(np.float32),
                None,
            )
            for count in counts
        ]
    )


def unit(rows: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wide = np.asarray(rows, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def cosines(source: Listed, queries: Float32, **options: float) -> npt.NDArray[np.float64]:
    mapped = unit(fit_whitening(source, **options).apply(queries))  # type: ignore[arg-type]
    return mapped @ mapped.T


# The sums ----------------------------------------------------------------------------------


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_scatter_against_dense_numpy(seed: int, counts: list[int], weighted: bool) -> None:
    source = source_of(seed, counts)
    if weighted:
        rng = np.random.default_rng(seed)
        source.classes = [(rows, rng.uniform(0.1, 3, len(rows))) for rows, _ in source.classes]
    scatter = Scatter.of(source)
    within, means = np.zeros((6, 6)), []
    for rows, weights in source.classes:
        w = np.ones(len(rows)) if weights is None else weights
        mean = np.average(rows.astype(np.float64), axis=0, weights=w)
        for row, one in zip(rows.astype(np.float64), w, strict=True):
            within += one * np.outer(row - mean, row - mean)
        means.append(mean)
    np.testing.assert_allclose(scatter.within, within, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scatter.means, means, rtol=1e-12)
    np.testing.assert_allclose(scatter.center, np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(scatter.counts, [w.sum() for w in map(_weights, source)])


def _weights(one: tuple[Float32, npt.NDArray[np.float64] | None]) -> npt.NDArray[np.float64]:
    return np.ones(len(one[0])) if one[1] is None else one[1]


@pytest.mark.parametrize("size", [5, 40])
def test_the_share_of_one_large_class_is_scikit_learns(size: int) -> None:
    source = source_of(0, [800], size)
    rows = source[0][0].astype(np.float64)
    # It counts N samples about their own mean where N - 1 are free: 1/800 apart.
    assert Scatter.of(source).ledoit_wolf() == pytest.approx(
        max(ledoit_wolf_shrinkage(rows), MIN_SHRINKAGE), rel=0.02
    )


@given(SEEDS, st.integers(3, 40), st.integers(2, 12))
def test_pairs_tell_what_their_differences_tell(seed: int, pairs: int, size: int) -> None:
    """Two a class: (a - b) / sqrt 2 are independent samples about a mean that is known.

    This is what counting N - C samples is for: N would halve the covariance, and the
    residuals, which come in pairs of opposite sign, would count twice.
    """
    source = source_of(seed, [2] * pairs, size)
    differences = [(a - b) / np.sqrt(2) for a, b in (rows for rows, _ in source.classes)]
    want = ledoit_wolf_shrinkage(np.array(differences, np.float64), assume_centered=True)
    got = Scatter.of(source).ledoit_wolf()
    assert got == pytest.approx(max(want, MIN_SHRINKAGE), rel=1e-4)


def test_the_share_falls_as_samples_come() -> None:
    shares = [Scatter.of(source_of(1, [n] * 10, 30)).ledoit_wolf() for n in (1, 2, 5, 50, 999)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == MIN_SHRINKAGE


def test_memory_is_that_of_one_class() -> None:
    size, count = 64, 2_000

    class Drawn:
        def __len__(self) -> int:
            return 60

        def __getitem__(self, c: int) -> tuple[Float32, None]:
            rng = np.random.default_rng(c)
            return rng.standard_normal((count, size), dtype=np.float32), None

    tracemalloc.start()
    fit_whitening(Drawn())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    class_bytes = 4 * count * size
    assert peak_bytes < 8 * class_bytes  # all classes: 60


# The map -----------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.01, 0.9))
def test_the_map_is_the_one_that_the_docstring_says(seed: int, share: float) -> None:
    source = source_of(seed, [9, 12, 15])
    made = fit_whitening(source, shrinkage=share)
    scatter = Scatter.of(source)
    covariance = scatter.within / np.trace(scatter.within) * 6
    shrunk = (1 - share) * covariance + share * np.eye(6)
    transform = made.transform.astype(np.float64)
    np.testing.assert_allclose(transform @ shrunk @ transform.T, np.eye(6), atol=1e-4)
    np.testing.assert_allclose(transform, transform.T, atol=1e-5)
    np.testing.assert_allclose(made.center, (1 - share) * scatter.center, rtol=1e-5)
    assert made.shrinkage == share


def test_what_is_mapped_scatters_alike_in_all_directions() -> None:
    source = source_of(2, [400, 300], 8)
    made = fit_whitening(source, shrinkage=1e-9)
    mapped = Listed([(made.apply(rows), None) for rows, _ in source.classes])
    covariance = Scatter.of(mapped).within
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(8), atol=2e-3)


ALONE = {
    "one a class": source_of(0, [1, 1, 1]),
    "pairs of the same": Listed(
        [(np.repeat(r, 2, axis=0), None) for r, _ in source_of(0, [1] * 4)]
    ),
    "all rows are one": Listed([(np.ones((5, 6), np.float32), None)] * 3),
    "zeros": Listed([(np.zeros((5, 6), np.float32), None)] * 3),
    "a row of weight below 1": Listed(
        [(np.eye(6, dtype=np.float32)[:1], np.array([0.25]))] * 2
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_without_scatter_nothing_is_changed(name: str) -> None:
    made = fit_whitening(ALONE[name])
    assert made.shrinkage == 1
    np.testing.assert_array_equal(made.transform, np.eye(6))
    np.testing.assert_array_equal(made.center, np.zeros(6))


def test_fewer_samples_than_numbers() -> None:
    source = source_of(0, [3, 2, 4], 50)
    made = fit_whitening(source)
    assert made.transform.shape == (50, 50)
    assert np.isfinite(made.transform).all()
    # No direction is blown up beyond what the shrinkage allows.
    assert np.linalg.norm(made.transform, 2) <= 1 / np.sqrt(made.shrinkage) + 1e-4


def test_constant_features_are_not_blown_up() -> None:
    rows = np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32)
    rows[:, [2, 5]] = 4
    made = fit_whitening(ByClass(rows, np.arange(90) % 3))
    assert np.isfinite(made.transform).all()
    limit = 1 / np.sqrt(made.shrinkage)
    np.testing.assert_allclose(np.diag(made.transform)[[2, 5]], limit, rtol=1e-4)


@given(SEEDS)
def test_the_order_of_classes_decides_nothing(seed: int) -> None:
    source = source_of(seed, [3, 8, 1, 5])
    order = np.random.default_rng(seed).permutation(4)
    one = fit_whitening(source)
    other = fit_whitening(Listed([source.classes[c] for c in order]))
    assert one.shrinkage == pytest.approx(other.shrinkage, rel=1e-9)
    np.testing.assert_allclose(one.transform, other.transform, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.center, other.center, rtol=1e-5, atol=1e-6)


@given(SEEDS)
def test_weight_2_is_given_twice_and_the_order_of_rows_is_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = source_of(seed, [5, 7])
    weights = [rng.integers(1, 4, len(rows)).astype(float) for rows, _ in source.classes]
    weighted = Listed(
        [(rows, w) for (rows, _), w in zip(source.classes, weights, strict=True)]
    )
    repeated = Listed(
        [
            (rng.permutation(np.repeat(rows, w.astype(int), axis=0)), None)
            for rows, w in weighted.classes
        ]
    )
    one, other = fit_whitening(weighted), fit_whitening(repeated)
    np.testing.assert_allclose(one.transform, other.transform, rtol=1e-4, atol=1e-5)
    one, other = fit_whitening(Distinct(weighted)), fit_whitening(Distinct(repeated))
    assert one.transform.tobytes() == other.transform.tobytes()
    assert one.center.tobytes() == other.center.tobytes()


@given(SEEDS, st.floats(0.01, 1))
def test_a_shift_of_all_goes_as_far_as_the_mean_is_not_trusted(
    seed: int, share: float
) -> None:
    source, shift = source_of(seed, [9, 12, 15]), np.float32([1, -2, 3, 0, 0.5, 4])
    shifted = Listed([(rows + shift, None) for rows, _ in source.classes])
    one, other = (fit_whitening(given, shrinkage=share) for given in (source, shifted))
    queries = source[0][0]
    want = one.apply(queries) + share * shift @ one.transform
    np.testing.assert_allclose(other.apply(queries + shift), want, rtol=1e-3, atol=2e-3)


def test_cosines_do_not_depend_on_shift_scale_and_rotation() -> None:
    source = source_of(3, [40, 50, 60], offset=0)
    queries = source[1][0]
    want = cosines(source, queries, shrinkage=1e-5)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    for change in (
        lambda rows: rows + np.float32(5),
        lambda rows: rows * np.float32(1e-6),
        lambda rows: rows * np.float32(1e6),
        lambda rows: (rows @ turn).astype(np.float32),
    ):
        changed = Listed([(change(rows), None) for rows, _ in source.classes])
        got = cosines(changed, change(queries), shrinkage=1e-5)
        np.testing.assert_allclose(got, want, atol=2e-3)


# Low rank ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 3, 6, 9])
def test_the_directions_kept_are_those_of_most_variance(kept: int) -> None:
    source = source_of(4, [30, 20, 10])
    made, whole = fit_whitening(source, kept), fit_whitening(source)
    assert made.transform.shape == (6, min(kept, 6))
    rows = np.concatenate([rows for rows, _ in source.classes]).astype(np.float64)
    rows -= Scatter.of(source).center
    total = rows.T @ rows
    root = whole.transform.astype(np.float64)
    spread = np.linalg.eigvalsh(root @ total @ root)[::-1][:kept].sum()
    low = made.transform.astype(np.float64)
    assert np.trace(low.T @ total @ low) == pytest.approx(spread, rel=1e-4)


def test_at_most_512_directions_unless_told() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 520)).astype(np.float32)
    source = ByClass(rows, np.arange(20) % 4)
    assert fit_whitening(source).transform.shape == (520, 512)
    assert fit_whitening(source, 516).transform.shape == (520, 516)


def test_it_is_the_heads_center_and_transform() -> None:
    made = fit_whitening(source_of(5, [30, 20]))
    queries = source_of(6, [50])[0][0]
    proxies = np.random.default_rng(0).standard_normal((4, 6))
    head = Head(
        proxies, [0, 0, 1, 1], ["a", "b"], center=made.center, transform=made.transform
    )
    plain = Head(proxies, [0, 0, 1, 1], ["a", "b"])
    np.testing.assert_allclose(
        head.scores(queries), plain.scores(made.apply(queries)), atol=1e-5
    )


def test_a_large_class_scatters_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    classes = [rng.standard_normal((n, 6)).astype(np.float32) + 3 for n in (200, 40)]
    weights = [rng.random(len(rows)) for rows in classes]
    by_blocks = Scatter.of(InBlocks(classes, 50, block=13, weights=weights))
    whole = Scatter.of(InBlocks(classes, 999, weights=weights))
    np.testing.assert_allclose(by_blocks.within, whole.within, rtol=1e-12)
    np.testing.assert_allclose(by_blocks.means, whole.means, rtol=1e-12)
    assert by_blocks.counts == pytest.approx(whole.counts, rel=1e-12)
    assert by_blocks.ledoit_wolf() == pytest.approx(whole.ledoit_wolf(), rel=1e-12)
