# SPDX-License-Identifier: Apache-2.0
"""The search for a batch, against devices whose cost is a formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.embedding.batch_search import FIRST, GROWTH, LIMIT, REPEATS, BatchSearch


def settle(search: BatchSearch, cost_s: Callable[[int], float], batches: int = 100) -> int:
    """Feed batches of the size asked for; returns the images that the search has taken."""
    images = 0
    for _ in range(batches):
        if search.settled:
            break
        images += search.size
        search.took(search.size, cost_s(search.size))
    return images


def test_it_doubles_while_that_is_faster() -> None:
    # A launch costs 1 ms, an image 10 us: at 512, twice the batch gains 8 %, at 1024 4 %.
    search = BatchSearch(limit=4096)
    settle(search, lambda n: 1e-3 + 1e-5 * n)
    rates = {n: n / (1e-3 + 1e-5 * n) for n in (512, 1024, 2048)}
    assert rates[1024] / rates[512] > GROWTH > rates[2048] / rates[1024]
    assert search.size == 1024
    assert search.settled


def test_it_stays_where_twice_is_no_faster() -> None:
    search = BatchSearch()
    images = settle(search, lambda n: 1e-3 * n)
    assert (search.size, search.settled) == (FIRST, True)
    assert images == (REPEATS + 1) * 3 * FIRST  # at 32 and at 64


def test_it_ends_at_the_limit() -> None:
    search = BatchSearch()
    images = settle(search, lambda n: 1e-3)
    assert (search.size, search.settled) == (LIMIT, True)
    assert images == (REPEATS + 1) * (2 * LIMIT - FIRST)


def test_a_first_batch_that_is_slow_does_not_count() -> None:
    seen: set[int] = set()

    def cost_s(n: int) -> float:
        first = n not in seen
        seen.add(n)
        return 10.0 if first else 1e-3

    search = BatchSearch()
    settle(search, cost_s)
    assert search.size == LIMIT


def test_a_fixed_batch_is_not_searched() -> None:
    search = BatchSearch(7)
    search.took(7, 1e-9)
    assert (search.size, search.settled) == (7, True)
    search.too_large(7)
    assert search.size == 3


def test_batches_of_another_size_do_not_count() -> None:
    search = BatchSearch()
    for _ in range(50):
        search.took(FIRST - 1, 1e-9)
    assert (search.size, search.settled) == (FIRST, False)


@given(
    st.floats(0, 1e-2),
    st.floats(1e-7, 1e-3),
    st.integers(1, 2 * LIMIT),
    st.lists(st.floats(1.0, 1.5), min_size=1, max_size=200),
)
def test_whatever_the_device_it_settles_on_what_fits(
    launch_s: float, image_s: float, fits: int, noise: list[float]
) -> None:
    search, turn = BatchSearch(), 0
    while not search.settled:
        turn += 1
        assert turn < 200
        if search.size > fits:
            search.too_large(search.size)
            continue
        search.took(search.size, (launch_s + image_s * search.size) * noise[turn % len(noise)])
    while search.size > fits:
        search.too_large(search.size)
    assert 1 <= search.size <= min(fits, LIMIT)


def test_one_image_is_the_least() -> None:
    search = BatchSearch(1)
    search.too_large(1)
    assert search.size == 1


@pytest.mark.parametrize("limit", [1, 8, FIRST])
def test_a_limit_below_the_first(limit: int) -> None:
    assert (BatchSearch(limit=limit).size, BatchSearch(limit=limit).settled) == (limit, True)
