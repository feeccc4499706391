# SPDX-License-Identifier: Apache-2.0
"""Teaching: what it makes, that nothing is left to chance, and what it refuses."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.teaching import forget, teach

MakeHead = Callable[..., Head]
Rows = npt.NDArray[np.float32]

DISTANCES = ["inner_product", "euclidean", "manhattan"]


def rows(count: int, size: int = 8, seed: int = 0, modes: int = 3) -> Rows:
    """Embeddings that cluster: (count, size)."""
    rng = np.random.default_rng(seed)
    middle = 4 * rng.standard_normal((modes, size))
    found: Rows = (
        middle[np.arange(count) % modes] + rng.standard_normal((count, size))
    ).astype(np.float32)
    return found


def as_bytes(head: Head) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return head.save(Path(folder, "head")).read_bytes()


def taught_proxies(head: Head, label: str) -> npt.NDArray[np.float32]:
    """The taught proxies of a class."""
    assert head.host_proxies is not None
    c = head.labels.index(label)
    own: npt.NDArray[np.float32] = head.proxies[head.class_index == c][head.host_proxies[c] :]
    return own


# What it makes -----------------------------------------------------------------------------


def by_the_book(head: Head, given_rows: Rows, k: int) -> npt.NDArray[np.float64]:
    """What the page on teaching says, word for word, in loops: sorted proxies."""
    samples = sorted({tuple(float(x) for x in row) for row in given_rows})
    points = []
    for sample in samples:
        x = np.array(sample)
        if head.center is not None:
            x = x - head.center
        if head.transform is not None:
            x = head.transform.astype(np.float64).T @ x
        if head.rule.embedding_norm == "l2":
            x = x / np.sqrt((x * x).sum())
        points.append(x)
    mean = sum(points) / len(points)
    if k == 1:
        means = [mean]
    else:
        chosen = [min(range(len(points)), key=lambda i: (((points[i] - mean) ** 2).sum(), i))]
        while len(chosen) < min(k, len(points)):
            gaps = [min(((p - points[c]) ** 2).sum() for c in chosen) for p in points]
            if max(gaps) == 0:
                break
            chosen.append(gaps.index(max(gaps)))
        means, owner = [points[c] for c in chosen], [-1] * len(points)
        while True:
            new = []
            for p in points:
                gaps = [((p - m) ** 2).sum() for m in means]
                new.append(gaps.index(min(gaps)))
            if new == owner:
                break
            owner = new
            means = [
                sum(p for p, o in zip(points, owner, strict=True) if o == c) / owner.count(c)
                for c in range(len(means))
            ]
    if np.allclose(np.linalg.norm(head.proxies, axis=1), 1):
        means = [m / np.sqrt((m * m).sum()) for m in means]
    return np.array(means)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("norm", ["none", "l2"])
def test_the_proxies_are_those_of_the_page(
    make_head: MakeHead, k: int, mapped: bool, norm: str
) -> None:
    head = make_head(3, 2, center=mapped, transform=mapped, norm=norm)
    for count in (1, 3, 12):
        taught = teach(head, "new", rows(count), proxies=k)
        made = taught_proxies(taught, "new")
        assert len(made) == min(k, count)
        np.testing.assert_allclose(made, by_the_book(head, rows(count), k), atol=1e-6)


def test_proxies_are_unit_length_where_the_hosts_are(make_head: MakeHead) -> None:
    unit = make_head(3, 2)
    longer = Head(3 * unit.proxies, unit.class_index, unit.labels, unit.rule)
    for head, is_unit in ((unit, True), (longer, False)):
        norms = np.linalg.norm(taught_proxies(teach(head, "new", rows(9)), "new"), axis=1)
        assert np.allclose(norms, 1) == is_unit


def test_a_new_class_is_recognized_and_the_others_stay(make_head: MakeHead) -> None:
    head = make_head(4, 3)
    taught = teach(head, "new", rows(20), proxies=5)
    assert taught.labels == (*head.labels, "new")
    assert np.array_equal(taught.proxies[: len(head.proxies)], head.proxies)
    assert np.array_equal(
        taught.scores(rows(30, seed=1))[:, :4], head.scores(rows(30, seed=1))
    )
    assert (taught.predict(rows(20)) == 4).all()
    assert taught.host_proxies is not None
    assert taught.host_proxies.tolist() == [*np.bincount(head.class_index), 0]


def test_a_class_of_the_host_keeps_its_proxies_and_gets_more(make_head: MakeHead) -> None:
    head = make_head(3, 2, calibrated=True)
    taught = teach(head, "class 1", rows(10), proxies=2)
    assert taught.labels == head.labels
    count = np.bincount(head.class_index)[1]
    own = taught.proxies[taught.class_index == 1]
    assert np.array_equal(own[:count], head.proxies[head.class_index == 1])
    assert len(own) == count + 2
    assert np.array_equal(taught.threshold, head.threshold)  # type: ignore[arg-type]
    assert taught.temperature == head.temperature


def test_equal_directions_make_one_proxy(make_head: MakeHead) -> None:
    row = rows(1)
    taught = teach(make_head(), "new", np.concatenate([row, 2 * row, 4 * row]), proxies=3)
    assert len(taught_proxies(taught, "new")) == 1
    assert taught.samples is not None
    assert len(taught.samples) == 3


def test_two_photos_are_as_far_from_their_mean_and_the_lower_goes_first(
    make_head: MakeHead,
) -> None:
    """Rounding says otherwise, of half of them, and otherwise on another processor."""
    for seed in range(20):
        head, given_rows = make_head(3, 2, 64, transform=True), rows(2, 64, seed)
        made = taught_proxies(teach(head, "new", given_rows), "new")
        ordered = np.unique(given_rows, axis=0)
        points = ordered @ head.transform
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        np.testing.assert_allclose(made, points, atol=1e-5)


# Nothing is left to chance -----------------------------------------------------------------


@given(st.data())
def test_in_parts_in_any_order_and_repeated_is_the_same_to_the_byte(
    data: st.DataObject,
) -> None:
    size, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    threshold, temperature = data.draw(st.sampled_from([(None, None), ([0.5, 0.1], 0.1)]))
    rule = Rule("none", distance=data.draw(st.sampled_from(DISTANCES)))
    head = Head(
        rng.standard_normal((3, size)),
        [0, 0, 1],
        ["a", "b"],
        rule,
        threshold=threshold,
        temperature=temperature,
    )
    # Small whole numbers: many ties, many repeated rows, and zeros of both signs.
    numbers = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 3.0])
    row = st.lists(numbers, min_size=size, max_size=size)
    given_rows = data.draw(st.lists(row, min_size=1, max_size=10))
    label = data.draw(st.sampled_from(["b", "new"]))
    whole = teach(head, label, given_rows, proxies=k)
    parts, rest = head, data.draw(st.permutations(given_rows))
    repeated = data.draw(st.lists(st.sampled_from(given_rows), max_size=3))
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        others = data.draw(st.integers(1, 4))
        parts, rest = teach(parts, label, rest[:count], proxies=others), rest[count:]
    parts = teach(parts, label, [*repeated, given_rows[0]], proxies=k)
    assert as_bytes(parts) == as_bytes(whole)


def test_five_and_five_is_ten(make_head: MakeHead) -> None:
    head, given_rows = make_head(4, 3, dim=64, calibrated=True), rows(10, 64)
    ten = teach(head, "new", given_rows)
    for cut in (1, 5, 9):
        parts = teach(teach(head, "new", given_rows[:cut]), "new", given_rows[cut:])
        assert as_bytes(parts) == as_bytes(ten)
        other_way = teach(teach(head, "new", given_rows[cut:]), "new", given_rows[:cut])
        assert as_bytes(other_way) == as_bytes(ten)


@pytest.mark.parametrize("calibrated", [False, True])
def test_taught_and_forgotten_leaves_no_trace(make_head: MakeHead, calibrated: bool) -> None:
    head = make_head(3, 2, calibrated=calibrated)
    assert as_bytes(forget(teach(head, "new", rows(7)), "new")) == as_bytes(head)
    two = teach(teach(head, "x", rows(4)), "y", rows(5, seed=1))
    assert as_bytes(forget(two, "x")) == as_bytes(teach(head, "y", rows(5, seed=1)))


def test_what_is_taught_is_saved_and_goes_on_after_loading(
    make_head: MakeHead, tmp_path: Path
) -> None:
    head = make_head(3, 2, center=True, transform=True, calibrated=True)
    first = teach(head, "new", rows(6))
    loaded = Head.load(first.save(tmp_path / "head"))
    assert as_bytes(loaded) == as_bytes(first)
    more = rows(12)[6:]
    assert as_bytes(teach(loaded, "new", more)) == as_bytes(teach(first, "new", more))
    assert as_bytes(teach(loaded, "new", more)) == as_bytes(teach(head, "new", rows(12)))


def test_a_copy_remembers_too(make_head: MakeHead) -> None:
    taught = teach(make_head(calibrated=True), "new", rows(6))
    assert as_bytes(copy.deepcopy(taught)) == as_bytes(taught)
    assert taught.samples is not None
    assert not taught.samples.flags.writeable


# Forgetting --------------------------------------------------------------------------------


def test_forgetting_takes_away_what_host_and_teaching_made(make_head: MakeHead) -> None:
    head = make_head(3, 2)
    taught = teach(head, "class 0", rows(5))
    less = forget(taught, "class 0")
    assert less.labels == ("class 1", "class 2")
    assert np.array_equal(less.proxies, head.proxies[head.class_index > 0])
    assert less.samples is less.sample_class is less.host_proxies is None
    again = teach(less, "class 0", rows(5))
    assert again.labels == ("class 1", "class 2", "class 0")
    assert again.host_proxies is not None
    assert again.host_proxies[2] == 0


def test_what_cannot_be_forgotten(make_head: MakeHead) -> None:
    head = make_head(2, 1, aggregation="mnn", neighbors=2)
    with pytest.raises(ParameterError) as caught:
        forget(head, "pear")
    assert str(caught.value) == (
        "there is no class 'pear' to forget; there are 'class 0', 'class 1'"
    )
    with pytest.raises(ParameterError) as caught:
        forget(head, "class 0")
    assert str(caught.value) == (
        "2 proxies vote, and without 'class 0' 1 are left; "
        "teach another class before forgetting it"
    )
    with pytest.raises(ParameterError) as caught:
        forget(make_head(1, 1), "class 0")
    assert (
        str(caught.value) == "'class 0' is the only class; teach another before forgetting it"
    )
