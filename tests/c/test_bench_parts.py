# SPDX-License-Identifier: Apache-2.0
"""Parts of ei-bench held against Python's: JSON, images, arrivals, energy, differences."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.measuring.difference import compare
from edge_imprint_runtime.measuring.energy import energy_of
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.sensors.trace import Trace

Ask = Callable[..., str]


@pytest.fixture(scope="session")
def ask(c_build: Path) -> Ask:
    """Return ``ask(*arguments, said=stdin)``: what bench_check prints."""

    def ask(*arguments: object, said: str = "") -> str:
        done = subprocess.run(
            [c_build / "tests/bench_check", *map(str, arguments)],
            input=said,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def counted(values: Sequence[float]) -> str:
    return f"{len(values)} " + " ".join(f"{value!r}" for value in values) + "\n"


# JSON --------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_the_very_ones(ask: Ask, numbers: list[float]) -> None:
    said = ask("numbers", said=" ".join(map(repr, numbers)))
    found = json.loads(said)
    assert [float(one).hex() for one in found] == [float(one).hex() for one in numbers]
    assert all(isinstance(one, float) for one in found)


def test_what_is_no_number_is_null(ask: Ask) -> None:
    assert json.loads(ask("numbers", said="nan inf -inf 0.1")) == [None, None, None, 0.1]
    assert ask("numbers", said="0.1 5 1e300 1e-7") == "[0.1, 5.0, 1e+300, 1e-07]\n"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_texts_are_as_json_dumps_writes_them(ask: Ask, text: str) -> None:
    assert ask("text", text)[:-1] == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    "wrong",
    [b"\xff", b"a\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"],
)
def test_bytes_that_are_no_text_are_shown(c_build: Path, wrong: bytes) -> None:
    done = subprocess.run(
        [c_build / "tests/bench_check", "text", b"x" + wrong + b"y"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == (b"x" + wrong + b"y").decode(errors="backslashreplace")


# Images and arrivals -----------------------------------------------------------------------


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (13, 0), (768, 3), (4097, 12345)])
def test_images_are_those_that_python_makes(ask: Ask, count: int, seed: int) -> None:
    wanted = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    assert ask("images", count, seed).strip() == wanted.tobytes().hex()


def test_arrivals_follow_the_exponential_law(ask: Ask) -> None:
    found = np.array(json.loads(ask("arrivals", 200, 20_000, 0, 7))["arrivals"])
    gaps = np.diff(found, prepend=0)
    assert len(found) == 20_000
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(5e6, rel=0.03)
    # Kolmogorov and Smirnov: 1.63 / sqrt(n) at 1 %.
    shares = np.arange(1, len(gaps) + 1) / len(gaps)
    assert np.abs(1 - np.exp(-np.sort(gaps) / 5e6) - shares).max() < 1.63 / math.sqrt(
        len(gaps)
    )
    assert ask("arrivals", 200, 20_000, 0, 7) == ask("arrivals", 200, 20_000, 0, 7)
    assert ask("arrivals", 200, 10, 0, 8) != ask("arrivals", 200, 10, 0, 7)


def test_arrivals_end_with_their_duration(ask: Ask) -> None:
    found = json.loads(ask("arrivals", 1000, 2_000_000, 2.0, 1))["arrivals"]
    assert 1700 < len(found) < 2300
    assert found[-1] < 2e9
    assert len(json.loads(ask("arrivals", 0.001, 100, 0.1, 1))["arrivals"]) == 1
    assert len(json.loads(ask("arrivals", 1e6, 50, 1.0, 1))["arrivals"]) == 50


def test_arrivals_stay_in_range_however_rare(ask: Ask) -> None:
    found = json.loads(ask("arrivals", 1e-6, 20_000, 0, 1))["arrivals"]
    assert found == sorted(found)
    assert found[-1] == 10**18


def test_threads_end_together_when_one_fails(ask: Ask) -> None:
    assert ask("crew", 4, 0).split() == ["EI_OK", "4"]
    assert ask("crew", 4, 1).strip() == "EI_DEVICE 4 thread 3 failed"
    status, ended, *why = ask("crew", 8, 3).split()
    assert (status, ended, why[0], why[2]) == ("EI_DEVICE", "8", "thread", "failed")
    assert why[1] in {"5", "6", "7"}


# Energy and differences --------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("missing", [(), (3, 4), (0,), (19,), tuple(range(20))])
def test_energy_is_that_of_python(
    ask: Ask, concurrency: int, missing: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    starts = np.sort(rng.integers(300_000_000, 4_200_000_000, 200))
    samples = rng.integers(1_000_000, 200_000_000, 200)
    times = np.arange(20, dtype=np.float64) * 0.25
    watts = np.asarray(5 + rng.standard_normal(20), np.float64)
    watts[list(missing)] = np.nan
    series = Series("x", 2, samples, starts, concurrency=concurrency)
    wanted = energy_of(series, Trace(times, {"power_w.package-0": watts}))
    lists = "".join(counted(part.tolist()) for part in (samples, starts, times, watts))
    said = ask("energy", said=f"{concurrency}\n{lists}").split()
    if wanted is None:
        assert said == ["none"]
        return
    assert float(said[0]) == pytest.approx(wanted["joules_per_image"], rel=1e-9)
    assert float(said[1]) == pytest.approx(wanted["mean_power_w"], rel=1e-9)
    assert said[2] == wanted["source"]


@pytest.mark.parametrize(
    ("a", "b"),
    [(1000, 1000), (400, 2000), (5, 1000), (3, 3)],
)
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.5])
def test_a_ratio_and_its_interval_are_those_of_python(
    ask: Ask, a: int, b: int, spread: float
) -> None:
    rng = np.random.default_rng(2)
    first = (1e6 * np.exp(spread * rng.standard_normal(a))).astype(np.int64)
    second = (1.02e6 * np.exp(spread * rng.standard_normal(b))).astype(np.int64)
    wanted = compare(first, second)
    said = ask("difference", said=counted(first.tolist()) + counted(second.tolist()))
    ratio, low, high = map(float, said.split())
    assert ratio == pytest.approx(wanted.ratio, rel=1e-12)
    assert (low, high) == pytest.approx(wanted.interval, rel=1e-9)
