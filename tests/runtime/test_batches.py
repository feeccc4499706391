# SPDX-License-Identifier: Apache-2.0
"""Batches that a runner does not take as they are: split, padded, and joined in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.batches import run_in_parts

Array = npt.NDArray[np.generic]


class Doubling(Runner):
    """Answers two rows an image, and refuses what an engine's profile would refuse."""

    def __init__(self, least: int, most: int | None) -> None:
        self.batch_limits = (least, most)
        self.sizes: list[int] = []

    def hold(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        return dict(arrays)

    def run(
        self, names: list[str], images: Array, held: Mapping[str, Any] | None = None
    ) -> list[Array]:
        least, most = self.batch_limits
        assert least <= len(images) and (most is None or len(images) <= most)
        assert held == {"shift": 1}
        self.sizes.append(len(images))
        found = {"double": images * np.int32(2) + np.int32(1), "first": images[:, 0]}
        return [found[name] for name in names]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 9) | st.none())
def test_any_batch_gets_its_own_answers_in_order(
    count: int, least: int, above: int | None
) -> None:
    runner = Doubling(least, None if above is None else least + above)
    images = np.arange(3 * count, dtype=np.int32).reshape(count, 3)
    double, first = run_in_parts(runner, ["double", "first"], images, {"shift": 1})
    np.testing.assert_array_equal(double, 2 * images + 1)
    np.testing.assert_array_equal(first, images[:, 0])


@pytest.mark.parametrize(
    ("count", "least", "most", "sizes"),
    [
        (8, 1, None, [8]),
        (8, 1, 8, [8]),
        (9, 1, 8, [5, 4]),  # not 8 and 1: a run of one image is as dear as of several
        (17, 1, 8, [6, 6, 5]),
        (1, 4, 4, [4]),
        (9, 4, 4, [4, 4, 4]),
    ],
)
def test_the_runs_that_a_batch_makes(
    count: int, least: int, most: int | None, sizes: list[int]
) -> None:
    runner = Doubling(least, most)
    run_in_parts(runner, ["first"], np.zeros((count, 2), np.int32), {"shift": 1})
    assert runner.sizes == sizes
