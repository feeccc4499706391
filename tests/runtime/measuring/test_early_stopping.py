# SPDX-License-Identifier: Apache-2.0
"""MLPerf's early stopping against what its load generator printed, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.early_stopping import (
    EarlyStopping,
    estimate,
    most_over_latency,
    needed_queries,
    suggested_queries,
)

# "Processed at least 64 queries (q). Would discard n highest latency queries.", as read in
# the summaries of public submissions to MLPerf Inference.
PUBLISHED = {
    201: 9,
    659: 47,
    708: 51,
    2_048: 172,
    2_116: 178,
    2_145: 181,
    7_469: 685,
    79_944: 7_796,
    4_776_846: 476_158,
}


@pytest.mark.parametrize(("queries", "discarded"), PUBLISHED.items())
def test_what_the_load_generator_discards(queries: int, discarded: int) -> None:
    assert most_over_latency(queries) - 1 == discarded


def test_the_load_generators_least_and_suggested_queries() -> None:
    assert [needed_queries(percent) for percent in (90, 99)] == [64, 662]
    suggested = [suggested_queries(percent) for percent in (90, 95, 97, 99)]
    assert suggested == [24_576, 57_344, 90_112, 270_336]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 300_000),
    st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9]),
    st.sampled_from([0.9, 0.99, 0.9999]),
)
def test_the_bound_holds_and_is_the_largest(
    queries: int, percent: float, confidence: float
) -> None:
    over = most_over_latency(queries, percent, confidence)
    above, left = (100 - percent) / 100, 1 - confidence
    assert over < 0 or stats.binom.cdf(over, queries, above) <= left * (1 + 1e-6)
    assert stats.binom.cdf(over + 1, queries, above) > left * (1 - 1e-6)


@given(st.sampled_from([50.0, 90.0, 97.0, 99.9]), st.sampled_from([0.8, 0.99, 0.9999]))
def test_the_fewest_queries_leave_one_over(percent: float, confidence: float) -> None:
    needed = needed_queries(percent, confidence)
    assert most_over_latency(needed, percent, confidence) == 1
    assert most_over_latency(needed - 1, percent, confidence) < 1


def test_the_estimate_is_the_highest_of_the_rest() -> None:
    samples = np.random.default_rng(0).permutation(2_048).astype(np.int64)
    found = estimate(samples)
    # 172 discarded of 0 to 2047: the highest left is 2047 - 172.
    assert found == EarlyStopping(2_048, 173, 172, 1_875, 64, 24_576)
    least = estimate(np.arange(64, dtype=np.int64))
    assert (least.over_latency, least.discarded, least.estimate_ns) == (1, 0, 63)


@pytest.mark.parametrize("queries", [0, 1, 63])
def test_too_few_queries_give_no_estimate(queries: int) -> None:
    found = estimate(np.arange(queries, dtype=np.int64))
    assert found == EarlyStopping(queries, 0, 0, None, 64, 24_576)


def test_the_estimate_lies_above_the_percentile_as_often_as_it_says() -> None:
    """99 of 100 runs; here at least 975 of 1,000, at the truth of an exponential."""
    rng, truth = np.random.default_rng(1), 1e6 * np.log(10)
    runs = rng.exponential(1e6, (1_000, 500)).astype(np.int64)
    above = [found is not None and found >= truth for found in map(_estimate_ns, runs)]
    assert 975 <= sum(above) < 1_000


def _estimate_ns(run: np.ndarray) -> int | None:
    return estimate(run).estimate_ns


@pytest.mark.parametrize("percent", [0, 100, -1, float("nan")])
def test_an_impossible_percentile(percent: float) -> None:
    with pytest.raises(ParameterError, match=f"^percent must be .*below 100, got {percent}$"):
        estimate(np.arange(100, dtype=np.int64), percent)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_an_impossible_confidence(confidence: float) -> None:
    with pytest.raises(ParameterError, match=f"^confidence .*below 1, got {confidence}$"):
        needed_queries(90, confidence)
