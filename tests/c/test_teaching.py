# SPDX-License-Identifier: Apache-2.0
"""Teaching in C: the heads that Python makes, byte for byte where no sum rounds otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.errors import EdgeImprintError, HeadValueError, ParameterError
from edge_imprint_runtime.teaching import MAX_SAMPLES, forget, teach
from tests.c.heads import DISTANCES, STATUS, Heads, random_heads, random_rows

MakeHead = Callable[..., Head]


@pytest.fixture(scope="module")
def heads(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heads]:
    """One head_check for all tests of this file: it must survive them all."""
    program = Heads(c_build / "tests" / "head_check", tmp_path_factory.mktemp("teaching"))
    yield program
    program.close()


def read(heads: Heads, slot: int, folder: Path) -> Head:
    """Return C's head as Python reads it."""
    path = folder / "of-c"
    path.write_bytes(heads.written(slot))
    return Head.load(path)


def near(found: Head, wanted: Head) -> None:
    """Hold two heads against each other: proxies within 1e-5, thresholds within float32."""
    assert found.contract == wanted.contract
    assert np.array_equal(found.class_index, wanted.class_index)
    for name in ("samples", "sample_class", "host_proxies", "center", "transform", "metric"):
        a, b = getattr(found, name), getattr(wanted, name)
        assert a is b is None or np.array_equal(a, b), name
    np.testing.assert_allclose(found.proxies, wanted.proxies, rtol=1e-5, atol=1e-5)
    if wanted.threshold is None:
        assert found.threshold is None
    else:
        np.testing.assert_allclose(found.threshold, wanted.threshold, rtol=2e-5, atol=2e-5)


@given(random_heads(), st.data())
def test_what_is_taught_is_pythons(
    heads: Heads, tmp_path_factory: pytest.TempPathFactory, head: Head, data: st.DataObject
) -> None:
    count, k = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 6))
    label = data.draw(
        st.sampled_from([head.labels[0], head.labels[-1], "n\u00e9w \U0001f600"])
    )
    rows = random_rows(head, count, data.draw(st.integers(0, 99)))
    try:
        wanted = teach(head, label, rows, proxies=k)
    except EdgeImprintError as error:
        assert heads.load(head).status == "EI_OK"
        assert heads.teach(label, rows, k).status == STATUS[type(error)]
        return
    assert heads.load(head).status == "EI_OK"
    assert heads.teach(label, rows, k).status == "EI_OK"
    near(read(heads, 1, tmp_path_factory.mktemp("t")), wanted)
    # And once more, from what C itself wrote.
    more = random_rows(head, 3, 1234)
    assert heads.teach(label, more, k, slot=1, to=2).status == "EI_OK"
    near(read(heads, 2, tmp_path_factory.mktemp("t")), teach(wanted, label, more, proxies=k))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("norm", ["none", "l2"])
@pytest.mark.parametrize("count", [2, 19, 45])
def test_large_embeddings_and_thresholds(
    heads: Heads, make_head: MakeHead, tmp_path: Path, distance: str, norm: str, count: int
) -> None:
    head = make_head(
        5, 4, 200, center=True, transform=True, norm=norm, distance=distance, calibrated=True
    )
    rows = random_rows(head, count)
    assert heads.load(head).status == "EI_OK"
    for k in (1, 5):
        assert heads.teach("new", rows, k).status == "EI_OK"
        near(read(heads, 1, tmp_path), teach(head, "new", rows, proxies=k))


@given(st.data())
def test_in_parts_in_any_order_and_repeated_is_pythons_to_the_byte(
    heads: Heads, data: st.DataObject
) -> None:
    """Small whole numbers: many ties, many repeated rows, zeros of both signs, exact sums."""
    size, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    threshold, temperature = data.draw(st.sampled_from([(None, None), ([0.5, 0.1], 0.1)]))
    distance = data.draw(st.sampled_from(["inner_product", "euclidean", "manhattan"]))
    head = Head(
        rng.integers(-3, 4, (3, size)),
        [0, 0, 1],
        ["a", "b"],
        Rule("none", distance=distance),
        threshold=threshold,
        temperature=temperature,
    )
    numbers = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 3.0])
    row = st.lists(numbers, min_size=size, max_size=size)
    rows = data.draw(st.lists(row, min_size=1, max_size=10))
    label = data.draw(st.sampled_from(["b", "new"]))
    assert heads.load(head).status == "EI_OK"
    assert heads.teach(label, rows, k).status == "EI_OK"
    whole = heads.written(1)
    rest = data.draw(st.permutations(rows))
    slot = 0
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        others = data.draw(st.integers(1, 4))
        assert heads.teach(label, rest[:count], others, slot, 2).status == "EI_OK"
        slot, rest = 2, rest[count:]
    repeated = data.draw(st.lists(st.sampled_from(rows), max_size=3))
    assert heads.teach(label, [*repeated, rows[0]], k, 2, 2).status == "EI_OK"
    assert heads.written(2) == whole
    if threshold is None:  # else similarities to the middle of three rows may round otherwise
        assert whole == teach(head, label, rows, proxies=k).to_bytes()


@given(random_heads(), st.data())
def test_taught_and_forgotten_leaves_no_trace(
    heads: Heads, head: Head, data: st.DataObject
) -> None:
    rows = random_rows(head, data.draw(st.integers(1, 7)))
    assert heads.load(head).status == "EI_OK"
    assert heads.teach("new", rows).status == "EI_OK"
    assert heads.forget("new", 1, 2).status == "EI_OK"
    assert heads.written(2) == head.to_bytes()
    # Of two the first: what is left is as if the second had been taught alone.
    if head.threshold is None:
        assert heads.teach("other", rows[:1], 5, 1, 3).status == "EI_OK"
        assert heads.forget("new", 3, 4).status == "EI_OK"
        assert heads.teach("other", rows[:1], 5, 0, 5).status == "EI_OK"
        assert heads.written(4) == heads.written(5)


@given(random_heads(), st.data())
def test_forgetting_is_pythons_to_the_byte(
    heads: Heads, head: Head, data: st.DataObject
) -> None:
    taught = teach(head, "new", random_rows(head, 4))
    taught = teach(taught, head.labels[0], random_rows(head, 2))
    label = data.draw(st.sampled_from([*taught.labels, "nobody"]))
    assert heads.load(taught).status == "EI_OK"
    answer = heads.forget(label)
    try:
        wanted = forget(taught, label)
    except ParameterError:
        assert answer.status == "EI_NO_SUCH_CLASS"
    else:
        assert answer.status == "EI_OK"
        assert heads.written(1) == wanted.to_bytes()


def test_what_cannot_be_forgotten(heads: Heads, make_head: MakeHead) -> None:
    head = make_head(2, 1, aggregation="mnn", neighbors=2)
    heads.load(head)
    answer = heads.forget("pear")
    assert (answer.status, answer.rest) == (
        "EI_NO_SUCH_CLASS",
        "there is no class 'pear' to forget",
    )
    answer = heads.forget("class 0")
    assert (answer.status, answer.rest) == (
        "EI_NO_SUCH_CLASS",
        (
            "2 proxies vote, and without 'class 0' 1 are left; teach another class before "
            "forgetting it"
        ),
    )
    heads.load(make_head(1, 1))
    answer = heads.forget("class 0")
    assert (answer.status, answer.rest) == (
        "EI_NO_SUCH_CLASS",
        "'class 0' is the only class; teach another before forgetting it",
    )


# Thresholds --------------------------------------------------------------------------------


def test_the_median_is_that_of_the_classes_of_the_host(heads: Heads, tmp_path: Path) -> None:
    proxies = np.random.default_rng(4).standard_normal((6, 8))
    head = Head(proxies, [0, 0, 1, 1, 2, 2], "abc", threshold=[0.1, 0.9, 0.4], temperature=0.1)
    alike = np.tile(random_rows(head, 1), (3, 1)) * np.array([[1], [2], [3]])
    heads.load(head)
    wanted, slot = head, 0
    steps: list[tuple[str, npt.NDArray[np.float32] | None]] = [
        ("x", random_rows(head, 2)),
        ("y", alike),
        ("z", random_rows(head, 1)),
        ("a", None),  # an even number of the host's classes is left
        ("v", alike[:1]),
        ("b", None),
        ("c", None),
        ("y", alike),  # none of the host's: the median of all others
        ("x", None),
        ("y", None),
        ("z", None),
        ("v", alike[:1]),  # the only class, of one photo: it keeps what it had
    ]
    for label, rows in steps:
        if rows is None:
            wanted = forget(wanted, label)
            assert heads.forget(label, slot, 1).status == "EI_OK"
        else:
            wanted = teach(wanted, label, rows)
            assert heads.teach(label, rows, 5, slot, 1).status == "EI_OK"
        slot = 1
        near(read(heads, 1, tmp_path), wanted)
    assert wanted.labels == ("v",)


# Refusals ----------------------------------------------------------------------------------

CALIBRATED = Head(np.eye(3, 8), [0, 1, 2], "abc", threshold=[0.1, 0.9, 0.4], temperature=0.1)
ONES = np.ones((2, 8))
# label, rows, proxies, status, message
REFUSED: list[tuple[str | bytes, npt.ArrayLike, int, str, str]] = [
    ("new", ONES, 0, "EI_INVALID_ARGUMENT", "proxies must be an integer >= 1, got 0"),
    ("new", ONES, -1, "EI_INVALID_ARGUMENT", "proxies must be an integer >= 1, got -1"),
    (
        "new",
        np.empty((0, 8)),
        1,
        "EI_INVALID_ARGUMENT",
        "there is nothing to teach; give at least one photo",
    ),
    (
        "new",
        [[1.0] * 8, [1.0] * 7 + [np.nan]],
        1,
        "EI_INPUT_VALUE",
        "embedding 1 holds NaN or infinity",
    ),
    ("new", [[np.inf] + [1.0] * 7], 1, "EI_INPUT_VALUE", "embedding 0 holds NaN or infinity"),
    (
        "new",
        [[1.0] * 8, [0.0] * 8],
        1,
        "EI_ZERO_EMBEDDING",
        "embedding 1 is zero, so that it points nowhere; leave that photo out",
    ),
    (
        "unknown",
        ONES,
        1,
        "EI_CONTRACT_VALUE",
        (
            "no class of a calibrated head may be named 'unknown', its answer where it knows "
            "none; rename the class"
        ),
    ),
    ("", ONES, 1, "EI_CONTRACT_VALUE", ""),
    ("x" * 1025, ONES, 1, "EI_CONTRACT_VALUE", ""),
    (b"\xff\xfe", ONES, 1, "EI_CONTRACT_VALUE", ""),
    (b"\xed\xa0\x80", ONES, 1, "EI_CONTRACT_VALUE", ""),
    (
        "new",
        np.arange(8 * (MAX_SAMPLES + 1)).reshape(-1, 8) + 1,
        1,
        "EI_NO_ROOM",
        (
            f"the head would remember {MAX_SAMPLES + 1} taught photos, the limit is "
            f"{MAX_SAMPLES}; teach fewer, or forget a class"
        ),
    ),
]


@pytest.mark.parametrize(("label", "rows", "proxies", "status", "message"), REFUSED)
def test_what_cannot_be_taught(
    heads: Heads,
    label: str | bytes,
    rows: npt.ArrayLike,
    proxies: int,
    status: str,
    message: str,
) -> None:
    heads.load(CALIBRATED)
    answer = heads.teach(label, rows, proxies)
    assert answer.status == status
    assert message in answer.rest
    assert answer.rest
    assert heads.written() == CALIBRATED.to_bytes()


def test_the_longest_label_is_one(heads: Heads) -> None:
    heads.load(CALIBRATED)
    assert heads.teach("x" * 1024, ONES).status == "EI_OK"


@pytest.mark.parametrize(
    ("recipe", "status"),
    [
        ("none least_squares:1 none none max", "EI_NOT_TEACHABLE"),
        ("none  least_squares none none max ", "EI_NOT_TEACHABLE"),
        ("none mean quantile none max", "EI_NOT_TEACHABLE"),
        ("none mean quantiles none max", "EI_OK"),
        ("none mean quantile none", "EI_OK"),
        ("none mean quantile none max more", "EI_OK"),
        ("quantile", "EI_OK"),
    ],
)
def test_recipes_that_make_all_classes_from_one_another(
    heads: Heads, recipe: str, status: str
) -> None:
    head = Head(np.eye(3), range(3), list("abc"), recipe=recipe)
    try:
        teach(head, "new", np.ones((1, 3)))
        wanted = "EI_OK"
    except EdgeImprintError as error:
        wanted = STATUS[type(error)]
    assert wanted == status
    heads.load(head)
    assert heads.teach("new", np.ones((1, 3))).status == status


def test_a_zero_is_taught_where_no_direction_counts(heads: Heads, tmp_path: Path) -> None:
    head = Head(np.eye(2), [0, 1], "ab", Rule("none", distance="euclidean"))
    heads.load(head)
    rows = np.array([[0, 0], [0, 0], [1, 0]], np.float32)
    assert heads.teach("new", rows, 3).status == "EI_OK"
    near(read(heads, 1, tmp_path), teach(head, "new", rows, proxies=3))


def test_what_is_beyond_float32_is_refused(heads: Heads) -> None:
    """By the map a sum becomes infinite; by the rule a threshold does."""
    rows = np.array([[3e38, 3e38], [1e38, 2e38]], np.float32)
    mapped = Head(2 * np.eye(2), [0, 1], "ab", Rule("none"), transform=np.full((2, 2), 9.0))
    calibrated = {"threshold": [1e38, 1e38], "temperature": 1.0}
    squares = Head(
        2 * np.eye(2), [0, 1], "ab", Rule("none", distance="euclidean"), **calibrated
    )
    for head in (mapped, squares):
        with np.errstate(all="ignore"), pytest.raises(HeadValueError):
            teach(head, "new", rows, proxies=1)
        heads.load(head)
        assert heads.teach("new", rows, 1).status == "EI_HEAD_VALUE"


def test_fewer_proxies_than_vote_are_not_left(heads: Heads) -> None:
    head = Head(np.eye(2), [0, 1], "ab", Rule(aggregation="mnn", neighbors=2))
    heads.load(head)
    rows = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    assert heads.teach("new", rows, 3).status == "EI_OK"
    assert heads.forget("a", 1, 2).status == "EI_OK"
    assert heads.forget("b", 2, 3).status == "EI_OK"
    answer = heads.teach("new", rows, 1, 3, 4)
    assert answer.status == "EI_INVALID_ARGUMENT"
    assert "2 proxies vote" in answer.rest


def test_many_classes_and_photos(heads: Heads, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = Head(rng.standard_normal((500, 16)), np.arange(500), [f"c{i}" for i in range(500)])
    rows = random_rows(head, 2000)
    heads.load(head)
    assert heads.teach("new", rows, 20).status == "EI_OK"
    near(read(heads, 1, tmp_path), teach(head, "new", rows, proxies=20))
