# SPDX-License-Identifier: Apache-2.0
"""Similarities in C, which thresholds are made of: those of Python's oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.rules import Comparison
from tests.c.heads import DISTANCES, Float32, Heads, random_heads, random_rows


@pytest.fixture(scope="module")
def heads(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heads]:
    """One head_check for all tests of this file: it must survive them all."""
    program = Heads(c_build / "tests" / "head_check", tmp_path_factory.mktemp("rules"))
    yield program
    program.close()


def nearest(head: Head, proxies: Float32, rows: Float32) -> Float32:
    """Each row's similarity to the nearest of some proxies, as Python's teaching takes it."""
    comparison = Comparison(
        head.rule,
        proxies,
        np.zeros(len(proxies), np.int64),
        center=head.center,
        transform=head.transform,
        metric=head.metric,
    )
    found: Float32 = comparison.nearest(comparison.similarity(rows))[:, 0].astype(np.float32)
    return found


def scale(head: Head, proxies: Float32, rows: Float32) -> float:
    """How large the terms are whose sum a similarity is: rounding is relative to that."""
    points = rows.astype(np.float64) - (0 if head.center is None else head.center)
    if head.transform is not None:
        points = np.abs(points) @ np.abs(head.transform)
    if head.rule.embedding_norm == "l2" or head.rule.distance == "cosine":
        points = np.ones((1, points.shape[1]))
    size = float(np.abs(points).sum(axis=1).max())
    largest = float(np.abs(proxies).sum(axis=1).max())
    return max(size * largest, size + largest)


@given(random_heads(), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_similarities_are_pythons(
    heads: Heads, head: Head, count: int, rows: int, seed: int
) -> None:
    assert heads.load(head).status == "EI_OK"
    rng = np.random.default_rng(seed)
    proxies = rng.standard_normal((count, head.proxies.shape[1])).astype(np.float32)
    given_rows = random_rows(head, rows, seed)
    found, wanted = heads.nearest(proxies, given_rows), nearest(head, proxies, given_rows)
    squares = head.rule.distance in ("euclidean", "mahalanobis")
    near = 1e-6 * abs(wanted) if squares else 1e-6 * scale(head, proxies, given_rows)
    assert (abs(found - wanted) <= np.maximum(near, 1e-6)).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("norm", ["none", "l2"])
def test_by_hand(heads: Heads, distance: str, norm: str) -> None:
    metric = [[2, 0, 1], [0, 1, 0]] if distance == "mahalanobis" else None
    rule = Rule(norm, distance=distance)
    head = Head(np.eye(2), [0, 1], "ab", rule, center=[1, 1], metric=metric)
    heads.load(head)
    proxies = np.array([[0, 2], [3, 0]], np.float32)
    # (4, 5) - (1, 1) = (3, 4): a 3-4-5 triangle
    row = np.array([3, 4]) / (5 if norm == "l2" else 1)
    gaps = row - proxies
    wanted = {
        "inner_product": (proxies @ row).max(),
        "cosine": 4 / 5,
        "euclidean": -(gaps**2).sum(axis=1).min(),
        "manhattan": -np.abs(gaps).sum(axis=1).min(),
        "mahalanobis": -((gaps @ np.array(metric or np.eye(2))) ** 2).sum(axis=1).min(),
    }[distance]
    found = heads.nearest(proxies, np.array([[4, 5]], np.float32))
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)


def test_what_is_beyond_float32_is_infinite_and_not_hidden(heads: Heads) -> None:
    heads.load(Head(np.eye(2), [0, 1], "ab", Rule("none")))
    large = np.full((1, 2), 3e38, np.float32)
    assert heads.nearest(large, large).tolist() == [np.inf]
    assert heads.nearest(-large, large).tolist() == [-np.inf]
