# SPDX-License-Identifier: Apache-2.0
"""How far to whiten: not at all, all the way, and what decides nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.imprinting.shrinkage import choose_shrinkage
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.imprinting.whitening import Scatter

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def tight_modes(seed: int) -> Rows:
    """Ten classes, each of five tight clusters: the large directions tell the classes."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(10), 40)
    modes = rng.standard_normal((10, 5, 4)) @ rng.standard_normal((4, 32))
    rows = modes[index, rng.integers(0, 5, 400)] + 0.4 * rng.standard_normal((400, 32))
    return rows.astype(np.float32), index


def shared_nuisance(seed: int) -> Rows:
    """Ten classes a little apart, and a few strong directions that say nothing of them."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(10), 40)
    rows = rng.standard_normal((10, 32))[index] + 0.3 * rng.standard_normal((400, 32))
    rows += 8 * rng.standard_normal((400, 3)) @ rng.standard_normal((3, 32))
    return rows.astype(np.float32), index


@pytest.mark.parametrize("seed", range(3))
def test_none_where_the_backbones_own_metric_is_right(seed: int) -> None:
    assert choose_shrinkage(ByClass(*tight_modes(seed)), 0) == 1


@pytest.mark.parametrize("seed", range(3))
def test_all_the_way_where_classes_share_a_nuisance(seed: int) -> None:
    source = ByClass(*shared_nuisance(seed))
    share = choose_shrinkage(source, 0)
    assert share == pytest.approx(Scatter.of(source).ledoit_wolf(), rel=1e-9)
    assert share < 0.1


def test_it_is_deterministic_and_the_order_of_rows_decides_nothing() -> None:
    for rows, index in (tight_modes(7), shared_nuisance(7)):
        order = np.random.default_rng(1).permutation(len(rows))
        want = choose_shrinkage(ByClass(rows, index), 3)
        assert choose_shrinkage(ByClass(rows, index), 3) == want
        assert choose_shrinkage(ByClass(rows[order], index[order]), 3) == want


def test_the_numbers_of_classes_decide_nothing() -> None:
    rows, index = shared_nuisance(5)
    names = np.random.default_rng(2).permutation(10)
    want = choose_shrinkage(ByClass(rows, index), 0)
    assert choose_shrinkage(ByClass(rows, names[index]), 0) == pytest.approx(want, rel=1e-9)


def test_a_row_of_weight_2_is_a_row_given_twice() -> None:
    rows, index = shared_nuisance(6)
    twice = np.arange(0, 400, 3)
    weights = np.ones(400)
    weights[twice] = 2
    again = np.concatenate([rows, rows[twice]]), np.concatenate([index, index[twice]])
    assert choose_shrinkage(ByClass(rows, index, weights), 0) == choose_shrinkage(
        ByClass(*again), 0
    )


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_to_choose_by(count: int) -> None:
    rows = np.repeat(np.random.default_rng(0).standard_normal((5, 8)), count, axis=0)
    source = ByClass(rows.astype(np.float32), np.repeat(np.arange(5), count))
    assert choose_shrinkage(source, 0) == 1


def test_a_class_of_one_row_beside_others() -> None:
    rows, index = shared_nuisance(8)
    keep = np.r_[0, 40:400]
    assert choose_shrinkage(ByClass(rows[keep], index[keep]), 0) < 0.1


def test_large_classes_are_drawn_from() -> None:
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1], 3_000)
    rows = np.where(index, 1, -1)[:, np.newaxis] * [0, 0.5] + rng.standard_normal((6000, 2))
    assert 0 < choose_shrinkage(ByClass(rows.astype(np.float32), index), 0) <= 1
