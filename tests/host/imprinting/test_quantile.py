# SPDX-License-Identifier: Apache-2.0
"""Quantile normalisation against loops, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.imprinting.quantile import quantile_normalize

Array = npt.NDArray[np.float32]


def by_loops(proxies: Array, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The definition, in double precision; shares nothing with the source."""
    rows = [sorted(float(v) for v in row) for row in proxies]
    classes = sorted(set(index.tolist()))
    reference = []
    for rank in range(proxies.shape[1]):
        means = []
        for c in classes:
            members = [row[rank] for row, i in zip(rows, index, strict=True) if i == c]
            means.append(sum(members) / len(members))
        reference.append(sum(means) / len(means))
    out = np.empty(proxies.shape)
    for i, row in enumerate(proxies):
        for j, value in enumerate(row):
            ranks = [r for r, other in enumerate(rows[i]) if other == value]
            out[i, j] = sum(reference[r] for r in ranks) / len(ranks)
    return out


@st.composite
def heads(draw: st.DrawFn) -> tuple[Array, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    proxies = rng.standard_normal((sum(counts), draw(st.integers(1, 12))))
    proxies *= 10.0 ** draw(st.integers(-6, 6))
    if draw(st.booleans()):  # the zeros of a ReLU
        proxies = np.maximum(proxies, 0)
    return proxies.astype(np.float32), np.repeat(np.arange(len(counts)), counts)


@given(heads())
def test_against_loops(head: tuple[Array, npt.NDArray[np.int64]]) -> None:
    proxies, index = head
    before = proxies.tobytes()
    made = quantile_normalize(proxies, index)
    assert (made.dtype, made.shape) == (np.float32, proxies.shape)
    scale = np.abs(proxies).max()
    np.testing.assert_allclose(made, by_loops(proxies, index), rtol=1e-6, atol=1e-6 * scale)
    assert proxies.tobytes() == before  # not the caller's array


def test_by_hand() -> None:
    # Sorted: a (0, 2, 4), and of b's two (1, 3, 5), (3, 5, 7), on average (2, 4, 6).
    proxies = np.array([[4, 0, 2], [1, 3, 5], [7, 5, 3]], np.float32)
    made = quantile_normalize(proxies, np.array([0, 1, 1]))
    np.testing.assert_array_equal(made, [[5, 1, 3], [1, 3, 5], [5, 3, 1]])
    tied = quantile_normalize(np.array([[0, 0, 3], [1, 2, 3]], np.float32), np.array([0, 1]))
    np.testing.assert_array_equal(tied, [[0.75, 0.75, 3], [0.5, 1, 3]])


@given(heads(), st.integers(0, 2**32 - 1))
def test_the_order_of_classes_and_proxies_changes_no_byte(
    head: tuple[Array, npt.NDArray[np.int64]], seed: int
) -> None:
    proxies, index = head
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(index))
    names = rng.permutation(index.max() + 1)  # class c is now called names[c]
    made = quantile_normalize(proxies, index)
    other = quantile_normalize(proxies[order], names[index][order])
    assert other.tobytes() == made[order].tobytes()


@given(heads())
def test_order_and_ties_within_a_proxy_stay(head: tuple[Array, npt.NDArray[np.int64]]) -> None:
    proxies, index = head
    for given_row, row in zip(proxies, quantile_normalize(proxies, index), strict=True):
        order = np.argsort(given_row, kind="stable")
        assert (np.diff(row[order]) >= 0).all()
        for value in np.unique(given_row):
            assert len(np.unique(row[given_row == value])) == 1


# The peer's grid of quantiles has an entry too many for 49, 98, 103, 107, 196 and others.
@pytest.mark.parametrize("size", range(1, 301))
def test_any_length(size: int) -> None:
    rng = np.random.default_rng(size)
    proxies = rng.standard_normal((4, size)).astype(np.float32)
    made = quantile_normalize(proxies, np.array([0, 0, 1, 2]))
    ordered = np.sort(made, axis=1)
    assert (ordered == ordered[0]).all()  # one distribution for all
    weights = np.array([[1 / 6], [1 / 6], [1 / 3], [1 / 3]])
    want = (weights * np.sort(proxies, axis=1).astype(np.float64)).sum(axis=0)
    np.testing.assert_allclose(ordered[0], want, rtol=1e-5, atol=1e-6)


def test_a_class_with_many_proxies_weighs_no_more() -> None:
    row = np.arange(5, dtype=np.float32)
    few = quantile_normalize(np.stack([row, row + 10]), np.array([0, 1]))
    many = quantile_normalize(np.stack([row] * 9 + [row + 10]), np.array([0] * 9 + [1]))
    np.testing.assert_allclose(few[0], row + 5, rtol=1e-6)
    np.testing.assert_allclose(many[0], row + 5, rtol=1e-6)
