# SPDX-License-Identifier: Apache-2.0
"""A warm-up ends when it is over, for short and for long runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.measuring.steady import WarmUp

Floats = npt.NDArray[np.float64]
SHORT_NS, MIDDLE_NS, LONG_NS = 20_000, 2_000_000, 500_000_000


def feed(
    warm_up: WarmUp,
    level: Callable[[Floats], Floats],
    each_ns: int,
    noise: float = 0.03,
    seed: int = 0,
) -> WarmUp:
    """Feed runs whose level depends on the time, in s, until it is over."""
    rng, now_s = np.random.default_rng(seed), 0.0
    while not warm_up.over:
        nominal = now_s + np.arange(1_000) * each_ns / 1e9
        samples = each_ns * level(nominal) * np.exp(noise * rng.standard_normal(1_000))
        for sample in samples.astype(np.int64).tolist():
            warm_up.add(sample)
            if warm_up.over:
                break
        now_s = float(nominal[-1]) + each_ns / 1e9
    return warm_up


def flat(time_s: Floats) -> Floats:
    return np.ones_like(time_s)


@pytest.mark.parametrize("each_ns", [SHORT_NS, MIDDLE_NS, LONG_NS])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2])
def test_what_is_steady_is_soon_over(each_ns: int, noise: float) -> None:
    for seed in range(3):
        done = feed(WarmUp(max_s=40), flat, each_ns, noise, seed)
        assert done.steady
        time_s = done.samples_ns.sum() / 1e9
        assert 0.5 <= time_s <= (30 if each_ns == LONG_NS else 2.5)
        assert len(done.samples_ns) >= 24


@pytest.mark.parametrize("each_ns", [SHORT_NS, MIDDLE_NS])
def test_a_decay_is_waited_for(each_ns: int) -> None:
    """Twice as slow at first, with a time of 0.3 s: what is left of it at the end is small."""
    for seed in range(3):
        done = feed(WarmUp(max_s=15), lambda t: 1 + np.exp(-t / 0.3), each_ns, seed=seed)
        assert done.steady
        later = done.samples_ns[len(done.samples_ns) // 2 :]
        assert np.median(later) / each_ns < 1.04


def test_a_decay_of_long_runs_is_waited_for() -> None:
    done = feed(WarmUp(max_s=120), lambda t: 1 + np.exp(-t / 5), LONG_NS)
    assert done.steady
    assert np.median(done.samples_ns[len(done.samples_ns) // 2 :]) / LONG_NS < 1.05


@pytest.mark.parametrize(
    ("each_ns", "at_s"), [(SHORT_NS, 0.3), (MIDDLE_NS, 0.3), (LONG_NS, 8)]
)
def test_a_step_is_left_behind(each_ns: int, at_s: float) -> None:
    """What compiles, or a clock that rises: the later half holds nothing of before."""
    for seed in range(3):
        limit = WarmUp(max_s=90)
        done = feed(limit, lambda t: np.where(t < at_s, 1.6, 1.0), each_ns, seed=seed)
        assert done.steady
        count = len(done.samples_ns)
        # Of 28 long runs, three in the later half prove nothing.
        least = 0.75 if each_ns == LONG_NS else 0.95
        assert (done.samples_ns[count // 2 :] < 1.3 * each_ns).mean() > least


@pytest.mark.parametrize("each_ns", [SHORT_NS, MIDDLE_NS, LONG_NS])
def test_what_drifts_never_is_steady(each_ns: int) -> None:
    limit_s = 60 if each_ns == LONG_NS else 5
    done = feed(WarmUp(max_s=limit_s), lambda t: 1 + 0.3 * t, each_ns, noise=0.01)
    assert not done.steady
    # It was over with the first sample beyond the limit.
    assert done.samples_ns.sum() >= limit_s * 1e9 > done.samples_ns[:-1].sum()


def test_one_slow_first_run_is_no_reason_to_wait() -> None:
    warm_up = WarmUp(min_s=0.0)
    warm_up.add(900_000_000)
    feed(warm_up, flat, MIDDLE_NS)
    assert warm_up.steady
    assert len(warm_up.samples_ns) < 60


def test_nothing_is_decided_before_the_least() -> None:
    warm_up = WarmUp(min_samples=100, min_s=0.0)
    for _ in range(100):
        assert not warm_up.over
        warm_up.add(1_000)
    feed(warm_up, flat, 1_000)
    assert warm_up.steady


def test_what_takes_no_time_ends_by_its_count() -> None:
    done = feed(WarmUp(), flat, 100, noise=0.0)
    assert done.steady
    assert 50_000 <= len(done.samples_ns) <= 100_000


def test_a_limit_of_samples() -> None:
    done = feed(WarmUp(max_samples=5_000), lambda t: 1 + 1_000 * t, SHORT_NS)
    assert (done.steady, len(done.samples_ns)) == (False, 5_000)


def test_fewer_than_the_least_are_never_steady() -> None:
    done = feed(WarmUp(max_s=2.0), flat, LONG_NS)
    assert not done.steady
    assert len(done.samples_ns) < 6


def test_callers_share_the_time() -> None:
    """Eight callers use eight seconds of samples in one."""
    alone, eight = (feed(WarmUp(callers=n), flat, MIDDLE_NS) for n in (1, 8))
    assert eight.samples_ns.sum() > 4 * alone.samples_ns.sum()


@pytest.mark.parametrize(
    "limits",
    [{"min_samples": 0}, {"min_s": 40.0}, {"max_s": float("inf")}, {"max_samples": 9}],
)
def test_limits_without_room(limits: dict[str, float]) -> None:
    with pytest.raises(
        ParameterError, match=r"has no room; give a least of at least 1 sample"
    ):
        WarmUp(**limits)  # type: ignore[arg-type]
