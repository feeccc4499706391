# SPDX-License-Identifier: Apache-2.0
"""Every rule of the oracle against a plainer way: number by number, in Python's floats."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from edge_imprint_runtime import Head, Rule, rules
from edge_imprint_runtime.errors import InputError

MakeHead = Callable[..., Head]
Row = list[float]

DISTANCES = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
VOTES = [(d, "uniform") for d in DISTANCES] + [(d, "distance") for d in DISTANCES[1:]]


def norm(x: Row) -> float:
    return math.sqrt(math.fsum(a * a for a in x))


def scaled(x: Row) -> Row:
    length = max(norm(x), 1e-12)
    return [a / length for a in x]


def times(x: Row, matrix: npt.NDArray[np.float32]) -> Row:
    return [math.fsum(a * b for a, b in zip(x, c, strict=True)) for c in matrix.T.tolist()]


def minus(x: Row, y: Row) -> Row:
    return [a - b for a, b in zip(x, y, strict=True)]


def mapped(head: Head, embedding: npt.NDArray[np.float32]) -> Row:
    z = [float(value) for value in embedding]
    if head.center is not None:
        z = minus(z, head.center.tolist())
    if head.transform is not None:
        z = times(z, head.transform)
    return scaled(z) if head.rule.embedding_norm == "l2" else z


def similarity(head: Head, n: Row, p: Row) -> float:
    distance = head.rule.distance
    if distance == "inner_product":
        return math.fsum(a * b for a, b in zip(n, p, strict=True))
    if distance == "cosine":
        return math.fsum(a * b for a, b in zip(scaled(n), scaled(p), strict=True))
    gap = minus(n, p)
    if distance == "manhattan":
        return -math.fsum(abs(a) for a in gap)
    if head.metric is not None:
        gap = times(gap, head.metric)
    return -math.fsum(a * a for a in gap)


def floor(head: Head) -> float:
    if head.rule.distance == "cosine":
        return 1e-6
    points = head.proxies.tolist()
    mean = [math.fsum(column) / len(points) for column in zip(*points, strict=True)]
    spread = math.fsum(_distance(head, similarity(head, mean, p)) for p in points) / len(
        points
    )
    return 1e-6 * spread if spread > 0 else 1e-12


def _distance(head: Head, s: float) -> float:
    return {"cosine": 1 - s, "manhattan": s * s}.get(head.rule.distance, -s)


class BruteForce:
    """The answers to one embedding, and how far the vote is from turning out otherwise."""

    def __init__(self, head: Head, embedding: npt.NDArray[np.float32]) -> None:
        n, classes = mapped(head, embedding), head.class_index.tolist()
        found = [similarity(head, n, p) for p in head.proxies.tolist()]
        self.nearest = [
            max(s for s, index in zip(found, classes, strict=True) if index == c)
            for c in range(len(head.labels))
        ]
        self.scores, self.gap = self.nearest, math.inf
        if head.rule.aggregation == "mnn":
            ordered, m = sorted(found, reverse=True), head.rule.neighbors
            self.gap = ordered[m - 1] - ordered[m] if m < len(ordered) else math.inf
            votes = [0.0] * len(head.labels)
            for s, c in zip(found, classes, strict=True):
                if s >= ordered[m - 1]:
                    uniform = head.rule.weighting == "uniform"
                    votes[c] += 1 if uniform else 1 / max(_distance(head, s), floor(head))
            self.scores = [vote / math.fsum(votes) for vote in votes]
        most = max(self.scores)
        if head.rule.aggregation == "mnn":
            first = [c for c, s in enumerate(self.scores) if s >= most - 1e-6]
            self.label = max(first, key=lambda c: (self.nearest[c], -c))
        else:
            self.label = self.scores.index(most)


@given(
    classes=st.integers(1, 5),
    proxies=st.integers(1, 5),
    dim=st.integers(1, 8),
    center=st.booleans(),
    transform=st.booleans(),
    norm=st.sampled_from(["none", "l2"]),
    distance=st.sampled_from(DISTANCES),
    aggregation=st.sampled_from(["max", "mnn"]),
    weighting=st.sampled_from(["uniform", "distance"]),
    neighbors=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_rule_is_that_of_brute_force(
    make_head: MakeHead,
    distance: str,
    aggregation: str,
    weighting: str,
    neighbors: int,
    seed: int,
    **options: int,
) -> None:
    assume(aggregation == "mnn" or weighting == "uniform")
    assume(distance != "inner_product" or weighting == "uniform")
    head = make_head(
        distance=distance,
        aggregation=aggregation,
        weighting=weighting,
        neighbors=neighbors if aggregation == "mnn" else 1,
        seed=seed,
        calibrated=True,
        **options,
    )
    rows = np.random.default_rng(seed).standard_normal((4, options["dim"])).astype(np.float32)
    want = [BruteForce(head, row) for row in rows]
    scores, nearest = head.scores(rows), head.nearest(rows)
    assert (scores.dtype, nearest.dtype) == (np.float32, np.float32)
    assert scores.shape == nearest.shape == (4, options["classes"])
    np.testing.assert_allclose(nearest, [w.nearest for w in want], rtol=1e-5, atol=1e-5)
    clear = [w.gap > 1e-4 for w in want]
    expected = np.array([w.scores for w in want])
    # A weight is 1 / distance: exact to a share of the shares, but near zero.
    np.testing.assert_allclose(scores[clear], expected[clear], rtol=1e-4, atol=1e-4)
    labels = head.predict(rows)
    assert labels.dtype == np.int32
    assert labels[clear].tolist() == [w.label for w, c in zip(want, clear, strict=True) if c]
    assert head.threshold is not None
    near = nearest[np.arange(4), labels]
    assert head.known(rows).tolist() == (near >= head.threshold[labels]).tolist()
    for row, probability in zip(scores.tolist(), head.probability(rows), strict=True):
        powers = [math.exp((s - max(row)) / 0.25) for s in row]
        want_probability = [power / math.fsum(powers) for power in powers]
        np.testing.assert_allclose(probability, want_probability, rtol=1e-5)


POINTS = [[0, 0], [3, 4], [0, 2], [6, 8]]
INDEX = [0, 0, 1, 2]


def hand(distance: str, m: int = 1, weighting: str = "uniform", **arrays: object) -> Head:
    rule = Rule("none", "mnn" if m > 1 else "max", distance, m, weighting)
    return Head(POINTS, INDEX, list("abc"), rule, **arrays)


@pytest.mark.parametrize(
    ("distance", "want"),
    [
        ("inner_product", [11, 4, 22]),  # of (1, 2) with (0,0) (3,4) | (0,2) | (6,8)
        ("cosine", [11 / 5 / 5**0.5, 2 / 5**0.5, 11 / 5 / 5**0.5]),
        ("euclidean", [-5, -1, -61]),
        ("manhattan", [-3, -1, -11]),
        ("mahalanobis", [-8, -4, -136]),
    ],
)
def test_each_distance_by_hand(distance: str, want: list[float]) -> None:
    # The metric takes (a, b) to (2 a, b), so (1, 2) - (0, 0) to (2, 2): 8.
    metric = [[2, 0], [0, 1]] if distance == "mahalanobis" else None
    head = hand(distance, metric=metric)
    np.testing.assert_allclose(head.scores([[1, 2]]), [want], rtol=1e-6)
    np.testing.assert_allclose(head.nearest([[1, 2]]), [want], rtol=1e-6)


@pytest.mark.parametrize(
    ("distance", "weighting", "want", "label"),
    [
        # Three votes of squared distances 5 (a), 8 (a), 1 (b): two against one.
        ("euclidean", "uniform", [2 / 3, 1 / 3, 0], 0),
        ("euclidean", "distance", [(1 / 5 + 1 / 8) / 1.325, 1 / 1.325, 0], 1),
        # Of distances 3 (a), 4 (a), 1 (b), squared in a vote.
        ("manhattan", "uniform", [2 / 3, 1 / 3, 0], 0),
        ("manhattan", "distance", [25 / 169, 144 / 169, 0], 1),
        ("inner_product", "uniform", [1 / 3, 1 / 3, 1 / 3], 2),
    ],
)
def test_each_vote_by_hand(
    distance: str, weighting: str, want: list[float], label: int
) -> None:
    head = hand(distance, 3, weighting)
    np.testing.assert_allclose(head.scores([[1, 2]]), [want], rtol=1e-6, atol=1e-7)
    assert head.predict([[1, 2]]).tolist() == [label]


def test_a_cosine_vote_by_hand() -> None:
    rule = Rule("l2", "mnn", "cosine", 2, "distance")
    head = Head([[5, 0], [3, 4], [-1, 0]], [0, 1, 1], ["a", "b"], rule)
    # Cosines 0.8 and 0.96: votes of 5 and 25.
    np.testing.assert_allclose(head.scores([[8, 6]]), [[1 / 6, 5 / 6]], rtol=1e-5)


def test_an_embedding_that_is_a_proxy_has_almost_all_votes() -> None:
    for distance in DISTANCES[1:4]:
        head = hand(distance, 2, "distance")
        scores = head.scores([[6, 8]])
        assert np.isfinite(scores).all()
        if distance != "cosine":  # (3, 4) has the same direction
            assert scores[0, 2] > 0.99999


def test_equal_proxies_have_a_floor_too() -> None:
    for distance in DISTANCES[1:4]:
        rule = Rule("none", "mnn", distance, 3, "distance")
        head = Head(np.ones((4, 2)), [0, 0, 0, 1], ["a", "b"], rule)
        assert head.scores([[1, 1], [5, 2]]).tolist() == [[0.75, 0.25]] * 2
        assert head.predict([[1, 1], [5, 2]]).tolist() == [0, 0]


def test_votes_that_tie_go_to_the_nearest_class() -> None:
    head = Head(
        [[0.0], [3], [10]], [2, 0, 1], list("abc"), Rule("none", "mnn", "euclidean", 3)
    )
    for z, label in ((1, 2), (2, 0), (9, 1), (-5, 2)):
        assert head.scores([[z]]) == pytest.approx(1 / 3)
        assert head.predict([[z]]).tolist() == [label]
    assert head.predict([[1.5]]).tolist() == [0]  # as near to a as to c: the lowest index


def test_what_ties_with_the_last_voter_votes() -> None:
    points = [[1.0, 0], [-1, 0], [0, 1], [0, -1], [5, 5]]
    for m in (1, 2, 3, 4):
        head = Head(points, [0, 1, 1, 2, 0], list("abc"), Rule("none", "mnn", "manhattan", m))
        assert head.scores([[0, 0]]).tolist() == [[0.25, 0.5, 0.25]]
    head = Head(points, [0, 1, 1, 2, 0], list("abc"), Rule("none", "mnn", "manhattan", 5))
    np.testing.assert_allclose(head.scores([[0, 0]]), [[0.4, 0.4, 0.2]])


@given(st.sampled_from(VOTES), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_numbering_of_classes_never_matters(
    vote: tuple[str, str], m: int, seed: int
) -> None:
    """Small whole numbers: ties of distances and of votes abound, and all are exact."""
    rng = np.random.default_rng(seed)
    points, index = rng.integers(-2, 3, (12, 3)), np.arange(12) % 4
    metric = rng.integers(-1, 2, (3, 2)) if vote[0] == "mahalanobis" else None
    rule = Rule("none", "mnn", vote[0], m, vote[1])
    rows, order = rng.integers(-2, 3, (20, 3)), rng.permutation(4)
    shuffle = rng.permutation(12)
    head = Head(points, index, list("abcd"), rule, metric=metric)
    other = Head(points[shuffle], order[index][shuffle], list("abcd"), rule, metric=metric)
    tied = exact_ties(head, rows)
    np.testing.assert_allclose(other.scores(rows)[:, order], head.scores(rows), atol=1e-6)
    moved = order[head.predict(rows)] != other.predict(rows)
    assert not (moved & ~tied).any()


def exact_ties(head: Head, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Where two classes are equal in votes and nearest: only then the index may decide."""
    scores, nearest = head.scores(rows), head.nearest(rows)
    pair = np.where(scores >= scores.max(axis=1, keepdims=True) - 1e-6, nearest, -np.inf)
    top = np.sort(pair, axis=1)
    return np.asarray(np.isclose(top[:, -1], top[:, -2], rtol=0, atol=1e-6))


@pytest.mark.parametrize(("distance", "weighting"), VOTES[1:])
@pytest.mark.parametrize("m", [1, 5, 20])
def test_votes_are_those_of_scikit_learn(distance: str, weighting: str, m: int) -> None:
    rng = np.random.default_rng(m)
    points, index = rng.standard_normal((60, 6)).astype(np.float32), np.arange(60) % 7
    rows = rng.standard_normal((40, 6)).astype(np.float32)
    metric = rng.standard_normal((6, 4)).astype(np.float32)
    rule = Rule("none", "mnn", distance, m, weighting)
    mahalanobis = distance == "mahalanobis"
    head = Head(points, index, list("abcdefg"), rule, metric=metric if mahalanobis else None)

    def votes(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # Shepard's power 2; 1 - cosine is half a squared distance already.
        return 1 / (distances if distance == "cosine" else distances**2)

    if mahalanobis:  # |x metric|: their form wants the inverse of a regular matrix
        points, rows_there = points @ metric, rows @ metric
    else:
        rows_there = rows
    peer = KNeighborsClassifier(
        m,
        weights="uniform" if weighting == "uniform" else votes,
        algorithm="brute",
        metric="euclidean" if mahalanobis else distance,
    ).fit(points, index)
    np.testing.assert_allclose(
        head.scores(rows), peer.predict_proba(rows_there), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("distance", ["euclidean", "mahalanobis"])
def test_far_from_zero_nothing_cancels(distance: str) -> None:
    """Proxies a thousandth apart, a thousand away from zero: their squares are 1e6."""
    rng = np.random.default_rng(0)
    points = (1000 + rng.integers(0, 64, (9, 4)) / 2**10).astype(np.float32)
    metric = np.eye(4) if distance == "mahalanobis" else None
    rule = Rule("none", "max", distance)
    head = Head(points, range(9), [str(i) for i in range(9)], rule, metric=metric)
    rows = points[[3, 5]] + np.float32(2**-10)
    gap = rows[:, np.newaxis].astype(np.float64) - points
    np.testing.assert_allclose(head.scores(rows), -(gap**2).sum(axis=2), rtol=1e-5)


RULES = [{"distance": distance} for distance in DISTANCES] + [
    {"distance": distance, "aggregation": "mnn", "neighbors": 4, "weighting": weighting}
    for distance, weighting in VOTES
]
every_rule = pytest.mark.parametrize(
    "options", RULES, ids=lambda o: "-".join(map(str, o.values()))
)


def test_near_a_proxy_nothing_cancels_either() -> None:
    """Proxies far apart, embeddings a hair's breadth from one: 2.4e-7 of some 100."""
    rng = np.random.default_rng(0)
    points = (rng.integers(-4096, 4096, (9, 4)) / 2**10).astype(np.float32)
    head = Head(points, range(9), [str(i) for i in range(9)], Rule("none", "max", "euclidean"))
    rows = points + np.float32(2**-12)
    np.testing.assert_allclose(np.diag(head.scores(rows)), -4 * 2.0**-24, rtol=1e-5)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    rule = Rule("l2", "mnn", "cosine", 9, "distance")
    head = Head(points, range(9), [str(i) for i in range(9)], rule)
    near = points + 0.003 * rng.standard_normal((9, 4)).astype(np.float32)
    want = [BruteForce(head, row).scores for row in near.astype(np.float32)]
    np.testing.assert_allclose(head.scores(near), want, rtol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES[1:])
def test_the_floor_of_a_vote(distance: str) -> None:
    """Embeddings that are proxies, far from zero: the others' shares are floor / distance."""
    points = np.array([[100, 100], [101, 100], [100, 103], [104, 96]], np.float32)
    metric = [[1, 2], [0, 1]] if distance == "mahalanobis" else None
    head = Head(
        points,
        range(4),
        list("abcd"),
        Rule("none", "mnn", distance, 4, "distance"),
        metric=metric,
    )
    want = [BruteForce(head, row).scores for row in points]
    np.testing.assert_allclose(head.scores(points), want, rtol=1e-4)


@every_rule
@pytest.mark.parametrize("block_bytes", [1, 100, 1_000])
def test_blocks_and_tiles_change_nothing(
    make_head: MakeHead,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    block_bytes: int,
) -> None:
    head = make_head(5, 4, 8, center=True, transform=True, **options)
    embeddings = np.random.default_rng(1).standard_normal((37, 8))
    whole = head.scores(embeddings)
    monkeypatch.setattr(rules, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(rules, "_TILE_NUMBERS", block_bytes)
    np.testing.assert_allclose(head.scores(embeddings), whole, rtol=1e-5, atol=1e-5)


@every_rule
def test_zero_and_no_embeddings(make_head: MakeHead, options: dict[str, object]) -> None:
    head = make_head(3, 4, 8, calibrated=True, **options)
    assert np.isfinite(head.scores(np.zeros((2, 8)))).all()
    none = np.empty((0, 8))
    assert head.scores(none).shape == head.probability(none).shape == (0, 3)
    assert head.predict(none).shape == head.known(none).shape == (0,)


@every_rule
def test_scores_beyond_float32_are_refused(
    make_head: MakeHead, options: dict[str, object]
) -> None:
    rows = np.ones((3, 8), np.float32)
    rows[1] = 3e38
    if options["distance"] == "cosine":  # whose length does not matter
        head = make_head(3, 4, 8, norm="none", **options)
        one = head.scores(rows / rows[:, :1])
        np.testing.assert_allclose(head.scores(rows), one, rtol=1e-5)
        return
    head = make_head(3, 4, 8, norm="none", **options)
    big = Head(
        1e3 * head.proxies, head.class_index, head.labels, head.rule, metric=head.metric
    )
    with pytest.raises(InputError) as caught:
        big.scores(rows)
    assert str(caught.value) == (
        "embedding 1 is too large for this head: its scores are beyond float32; normalise it"
    )


def test_a_large_embedding_keeps_its_direction_under_l2(make_head: MakeHead) -> None:
    head = make_head(3, 4, 8)
    row = np.random.default_rng(0).standard_normal((1, 8))
    np.testing.assert_allclose(head.scores(1e30 * row), head.scores(row), rtol=1e-5)


@given(st.sampled_from(VOTES), st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_vote_bounds_hold_whatever_is_off_within_the_margin(
    vote: tuple[str, str], m: int, seed: int
) -> None:
    rng, margin = np.random.default_rng(seed), 0.05
    points, index = rng.standard_normal((15, 3)), np.sort(np.arange(15) % 4)
    metric = np.eye(3) if vote[0] == "mahalanobis" else None
    rule = Rule("l2", "mnn", vote[0], m, vote[1])
    comparison = Head(points, index, list("abcd"), rule, metric=metric).comparison()
    found = comparison.similarity(rng.standard_normal((20, 3)).astype(np.float32))
    least, most, is_open = comparison.vote_bounds(found, margin)
    assert (least <= most).all()
    if vote[1] == "uniform":
        assert (least[~is_open] == most[~is_open]).all()
        assert (least.sum(axis=1) <= m).all()
        assert (most.sum(axis=1) >= m).all()
    off = rng.uniform(-margin / 2, margin / 2, found.shape)
    for moved in (found, np.minimum(found + off, 1 if vote[0] == "cosine" else 0)):
        if vote[0] == "inner_product":
            moved = found + off
        votes = comparison.vote_bounds(moved, 0)[1]
        assert (least <= votes * (1 + 1e-6)).all()
        assert (votes <= most * (1 + 1e-6)).all()
        np.testing.assert_allclose(
            votes / votes.sum(axis=1, keepdims=True), comparison.shares(moved), rtol=1e-6
        )
