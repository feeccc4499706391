# SPDX-License-Identifier: Apache-2.0
"""k-means, held against scikit-learn; and its torch twin, held against the numpy code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from edge_imprint.imprinting import kmeans as module
from edge_imprint.imprinting import kmeans_cuda
from edge_imprint.imprinting.kmeans import draws, kmeans, nearest
from edge_imprint.imprinting.proxies import (
    GENERATORS,
    Float32,
    canonical,
    generate,
    make_proxies,
)
from edge_imprint_runtime.errors import ProviderError


def rows_of(n: int, d: int = 16, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def with_modes(n: int, d: int, modes: int, seed: int = 0) -> Float32:
    """A class of several modes, noise 1.5; L2-normalised, as recipes have it."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((modes, d))
    rows = centres[rng.integers(0, modes, n)] + 1.5 * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def digits() -> list[Float32]:
    data = load_digits()
    pixels = data.data / np.linalg.norm(data.data, axis=1, keepdims=True)
    return [pixels[data.target == c].astype(np.float32) for c in range(10)]


def inertia(rows: Float32, centres: Float32) -> float:
    x, c = rows.astype(np.float64), centres.astype(np.float64)
    square = (x**2).sum(axis=1)[:, np.newaxis] - 2 * x @ c.T + (c**2).sum(axis=1)
    return float(square.min(axis=1).sum())


def scikit(rows: Float32, k: int, seed: int) -> float:
    return float(KMeans(k, random_state=seed).fit(rows).inertia_)


# Against scikit-learn ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes",
    [
        pytest.param([with_modes(1000, 512, 8)], id="8 modes, n 1000"),
        pytest.param([with_modes(500, 512, 8, s) for s in range(2)], id="8 modes, n 500"),
        pytest.param([with_modes(100, 512, 8, s) for s in range(10)], id="8 modes, n 100"),
        pytest.param([rows_of(1000, 512)], id="unstructured, n 1000"),
        pytest.param([rows_of(500, 512, s) for s in range(2)], id="unstructured, n 500"),
        pytest.param([rows_of(100, 512, s) for s in range(10)], id="unstructured, n 100"),
        pytest.param(digits(), id="handwritten digits"),
    ],
)
def test_inertia_is_that_of_scikit_learn(classes: list[Float32]) -> None:
    ours = theirs = 0.0
    for seed, rows in itertools.product(range(5), classes):
        ours += inertia(rows, make_proxies(rows, "kmeans", 20, seed))
        theirs += scikit(rows, 20, seed)
    assert ours <= 1.01 * theirs


def test_finds_the_modes_of_a_class() -> None:
    modes = rows_of(8, seed=3) * 10
    rows = (np.repeat(modes, 40, axis=0) + rows_of(320)).astype(np.float32)
    best = KMeans(8, n_init=10, random_state=1).fit(rows).inertia_
    assert inertia(rows, make_proxies(rows, "kmeans", 8, 0)) <= best * 1.0001


def test_weights_pull_the_centres() -> None:
    rows, weights = rows_of(300, 8), np.random.default_rng(1).random(300) * 5
    reference = KMeans(5, n_init=10, random_state=0).fit(rows, sample_weight=weights)
    centres = make_proxies(rows, "kmeans", 5, 0, weights=weights)
    apart = ((rows[:, np.newaxis] - centres) ** 2).sum(axis=2).min(axis=1)
    assert weights @ apart <= reference.inertia_ * 1.05


def test_weights_beyond_float32_apart() -> None:
    rows, weights = rows_of(2000, 8), np.full(2000, 1e-60)
    weights[7] = 1
    centres = make_proxies(rows, "kmeans", 5, 0, weights=weights)
    assert np.abs(centres - rows[7]).sum(axis=1).min() < 1e-5


# What it is ----------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**16),
    n=st.integers(9, 40),
    d=st.integers(1, 200),
    k=st.integers(1, 8),
)
def test_centres_are_the_means_of_the_rows_nearest_to_them(
    seed: int, n: int, d: int, k: int
) -> None:
    rows = rows_of(n, d, seed)
    weights = np.random.default_rng(seed).random(n) + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TOLERANCE", 0.0)
        centres = make_proxies(rows, "kmeans", k, seed, weights=weights)
    labels = ((rows[:, np.newaxis] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert set(labels) == set(range(len(centres)))
    for c, centre in enumerate(centres):
        mean = np.average(
            rows[labels == c].astype(np.float64), axis=0, weights=weights[labels == c]
        )
        np.testing.assert_allclose(centre, mean, atol=1e-5)


def test_one_cluster_is_the_mean() -> None:
    rows = rows_of(100, 200)
    np.testing.assert_allclose(
        make_proxies(rows, "kmeans", 1, 0)[0], rows.mean(axis=0), atol=1e-6
    )


def test_far_from_zero() -> None:
    modes = rows_of(4, seed=3) * 10
    rows = (np.repeat(modes, 40, axis=0) + rows_of(160)).astype(np.float32) + 1000
    assert inertia(rows, make_proxies(rows, "kmeans", 4, 0)) <= scikit(rows, 4, 0) * 1.0001


def test_blocks_of_rows_change_nothing_but_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = with_modes(500, 64, 4)
    whole, labels = make_proxies(rows, "kmeans", 4, 0), nearest(rows, rows[:9])
    monkeypatch.setattr(module, "_BLOCK", 400)
    np.testing.assert_allclose(make_proxies(rows, "kmeans", 4, 0), whole, atol=1e-6)
    np.testing.assert_array_equal(nearest(rows, rows[:9]), labels)


def test_rows_of_any_length_are_sketched() -> None:
    for length in (1, 63, 64, 65, 128, 129, 200, 256, 700):
        rows = with_modes(60, length, 3, 1)
        assert make_proxies(rows, "kmeans", 5, 0).shape[1] == length


def test_the_sketch_keeps_distances() -> None:
    rows = rows_of(40, 500)
    sketch = module._sketch(rows, np.arange(40), draws(0, 1, 500).signs).astype(np.float64)
    ratios = [
        ((sketch[a] - sketch[b]) ** 2).sum() / ((rows[a] - rows[b]) ** 2).sum()
        for a, b in itertools.combinations(range(40), 2)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)
    assert np.std(ratios) == pytest.approx(np.sqrt(2 / 64), abs=0.03)


def test_rows_a_last_bit_apart_are_quiet_and_without_doubles() -> None:
    # The same photo saved twice: distinct rows, yet fewer clusters than k.
    rows = np.tile(rows_of(3, 6), (10, 1))
    for number, row in enumerate(rows):
        row[number % 6] = np.nextafter(row[number % 6], np.float32(9))
    for like in (rows, rows_of(30, 6) * np.float32(1e-30)):
        made = make_proxies(like, "kmeans", 10, 0)
        assert 1 <= len(made) == len(np.unique(made, axis=0)) <= 10
        assert np.isfinite(made).all()


def test_an_empty_cluster_moves_to_the_farthest_row() -> None:
    rows = np.array([[0.0], [1.0], [2.0], [30.0], [9.0]], np.float32)
    centres = np.array([[1.0], [100.0]], np.float32)
    assert module.refill(rows, centres, np.array([5, 0], np.float32))
    assert centres.tolist() == [[1.0], [30.0]]
    assert not module.refill(rows[:1] + 1, centres, np.array([1, 0], np.float32))


def test_an_emptied_cluster_is_filled_within_the_iteration() -> None:
    rows = np.array([[0.0], [0.1], [10.0], [10.1], [20.0]], np.float32)
    centres = np.array([[0.0], [10.0], [-500.0]], np.float32)
    share = np.full((1, 5), 0.2, np.float32)
    found, used = module._lloyd(rows[np.newaxis], share, centres[np.newaxis], np.zeros(1))
    assert used.all()
    assert sorted(found[0, :, 0].tolist()) == pytest.approx([0.05, 10.05, 20.0])


def test_nearest_takes_the_lowest_of_equally_near() -> None:
    centres = np.array([[1.0, 0], [-1, 0], [1, 0]], np.float32)
    assert nearest(np.array([[0.0, 5], [2, 0], [-3, 1]], np.float32), centres).tolist() == [
        0,
        0,
        1,
    ]


def test_draws_are_the_same_for_all_lengths() -> None:
    np.testing.assert_array_equal(draws(5, 20, 512).uniforms, draws(5, 20, 64).uniforms)
    signs = draws(5, 20, 512).signs
    assert signs is not None
    assert set(signs.ravel().tolist()) == {-1.0, 1.0}


# In torch, on the CPU ------------------------------------------------------------------------


def in_both(
    classes: list[Float32], k: int, weights: bool = False
) -> tuple[list[Float32], list[Float32]]:
    rng = np.random.default_rng(0)
    given = [canonical(c, rng.random(len(c)) + 0.5 if weights else None) for c in classes]
    torch_made, numpy_made = (
        make([rows.copy() for rows, _ in given], [w for _, w in given], k, 3)
        for make in (kmeans_cuda.generator("cpu"), GENERATORS["kmeans"])
    )
    return torch_made, numpy_made


@pytest.mark.parametrize("weights", [False, True])
def test_torch_finds_the_same_clusters(weights: bool) -> None:
    classes = [
        with_modes(n, d, 6, seed=n) for d in (300,) for n in (80, 90, 90, 170, 250, 400, 20, 3)
    ]
    for ours, theirs in zip(*in_both(classes, 20, weights), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("classes", [digits(), [rows_of(n, 64, n) for n in (100, 150)]])
def test_torch_inertia(classes: list[Float32]) -> None:
    ours, theirs = (
        sum(inertia(rows, c) for rows, c in zip(classes, made, strict=True))
        for made in in_both(classes, 20)
    )
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_torch_of_rows_that_coincide_and_scales_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    like = np.tile(rows_of(3, 6), (10, 1))
    for number, row in enumerate(like):
        row[number % 6] = np.nextafter(row[number % 6], np.float32(9))
    classes = [like, rows_of(30, 6) * np.float32(1e-30), rows_of(40, 6) * np.float32(1e30)]
    for rows, made in zip(classes, in_both(classes, 10)[0], strict=True):
        assert 1 <= len(made) == len(np.unique(made, axis=0)) <= 10
        assert np.isfinite(made).all()
        assert rows.min() <= made.min()
        assert made.max() <= rows.max()


def test_torch_in_small_batches_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [with_modes(n, 70, 4, seed=n) for n in (50, 60, 130, 140, 150)]
    want, _ = in_both(classes, 8)
    monkeypatch.setattr(kmeans_cuda, "BATCH", 20_000)
    monkeypatch.setattr(kmeans_cuda, "_BLOCK", 500)
    for ours, theirs in zip(in_both(classes, 8)[0], want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_padding_at_most_doubles_a_group() -> None:
    sizes = [5, 1000, 21, 30, 41, 43, 900, 90]
    groups = list(kmeans_cuda._alike(sizes, 8, 20))
    assert sorted(i for group in groups for i in group) == [1, 2, 3, 4, 5, 6, 7]
    assert all(max(sizes[i] for i in g) <= 2 * min(sizes[i] for i in g) for g in groups)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_that_there_is_not_is_refused() -> None:
    with pytest.raises(ProviderError) as caught:
        generate([(rows_of(9), None)], "kmeans", [2], 0, device="cuda")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "torch finds no CUDA device on this machine; use --device cpu"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_finds_the_same_clusters() -> None:
    classes = [(with_modes(n, 300, 6, seed=n), None) for n in (80, 90, 170, 400)]
    made = [
        generate(classes, "kmeans", [20] * 4, 3, device=device)  # type: ignore[arg-type]
        for device in ("cuda", "cpu")
    ]
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 2**16))
def test_classes_of_one_size_go_through_together_as_if_alone(seed: int) -> None:
    rows = np.stack([canonical(rows_of(50, 70, seed + i), None)[0] for i in range(5)])
    ones = np.ones((5, 50))
    together = kmeans(rows.copy(), ones, 6, seed)
    for b, centres in enumerate(together):
        alone = kmeans(rows[b : b + 1].copy(), ones[:1], 6, seed)[0]
        assert centres.tobytes() == alone.tobytes()
