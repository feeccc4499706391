# SPDX-License-Identifier: Apache-2.0
"""Exact heads: int8 finds the candidates, float32 decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.head.exact import CANDIDATES
from edge_imprint_runtime import Head, Rule

MakeHead = Callable[..., Head]
HeadModel = Callable[..., onnx.ModelProto]
Rows = npt.NDArray[np.float32]
Cone = Callable[..., tuple[Head, Rows]]
Run = Callable[[onnx.ModelProto, Rows], dict[str, npt.NDArray[Any]]]
Bound = Callable[[Head, Rows], npt.NDArray[np.float64]]

PRODUCTS = ("inner_product", "cosine", "euclidean", "mahalanobis")
EXACT = [("exact", "portable"), ("exact", "onnxruntime")]
both_exact = pytest.mark.parametrize(("precision", "dialect"), EXACT)


@both_exact
@pytest.mark.parametrize("distance", PRODUCTS)
@pytest.mark.parametrize("opset", [11, 17, 18])
def test_exact_decides_as_the_oracle(
    int8_bound: Bound,
    cone: Cone,
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    distance: str,
    opset: int,
) -> None:
    head, rows = cone(40, 5, 64, queries=500, distance=distance)
    model = head_model(
        head, opset=opset, precision=precision, dialect=dialect, outputs=["proxy"]
    )
    found, want = run(model, rows), head.scores(rows)
    label, at = head.predict(rows), np.arange(len(rows))
    assert np.array_equal(found["label"], label)
    top = found["scores"][at, label]
    np.testing.assert_allclose(top, want[at, label], rtol=1e-5, atol=2e-6)
    assert (found["scores"] <= top[:, np.newaxis]).all()
    if distance in ("inner_product", "cosine"):
        assert (np.abs(found["scores"] - want) <= 2 * int8_bound(head, rows)).all()
        best = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ head.proxies.T
        assert np.array_equal(found["proxy"], best.argmax(axis=1))


def test_int8_alone_does_not(cone: Cone, run: Run, head_model: HeadModel) -> None:
    """What exact is for: without it some of these labels are others."""
    head, rows = cone(40, 5, 64, queries=500)
    found = run(head_model(head, precision="int8"), rows)
    assert 0.9 < (found["label"] == head.predict(rows)).mean() < 1


@both_exact
@pytest.mark.parametrize("distance", PRODUCTS)
@given(
    counts=st.lists(st.integers(1, 12) | st.just(90), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_exact_with_ragged_classes(
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    distance: str,
    counts: list[int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    head = Head(
        rng.standard_normal((sum(counts), 8)),
        np.repeat(np.arange(len(counts)), counts),
        [str(c) for c in range(len(counts))],
        Rule(distance=distance),
        metric=rng.standard_normal((8, 8)) if distance == "mahalanobis" else None,
    )
    rows = rng.standard_normal((20, 8)).astype(np.float32)
    found = run(head_model(head, precision=precision, dialect=dialect), rows)
    want, at = head.scores(rows), np.arange(20)
    # Two scores that float32 can't tell apart may change places.
    reached = want[at, found["label"]]
    np.testing.assert_allclose(reached, want.max(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["scores"].max(axis=1), reached, rtol=1e-5, atol=1e-5)


@both_exact
def test_exact_ties_go_to_the_lowest_class(
    run: Run, head_model: HeadModel, precision: str, dialect: str
) -> None:
    """Whole numbers; each class has the same 3 proxies, in another order."""
    points = np.concatenate([np.roll(np.eye(3), i, axis=0) for i in range(20)])
    head = Head(points, np.repeat(range(20), 3), [str(c) for c in range(20)], Rule("none"))
    rows = np.float32([[3, 1, 2], [1, 2, 3], [2, 2, 1]])
    found = run(
        head_model(head, precision=precision, dialect=dialect, outputs=["proxy"]), rows
    )
    assert found["label"].tolist() == [0, 0, 0]
    assert found["proxy"].tolist() == [0, 2, 0]
    assert np.array_equal(found["scores"].max(axis=1), [3, 3, 2])


def test_padding_takes_no_place_of_a_candidate(run: Run, head_model: HeadModel) -> None:
    """Forced slots: the nearest class is one proxy, far more often there than candidates."""
    points = np.random.default_rng(0).standard_normal((101, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    head = Head(points, [0] * 100 + [1], ["a", "b"])
    rows = points[100:].astype(np.float32)
    found = run(head_model(head, precision="exact", slots=100), rows)
    assert found["label"] == [1]
    np.testing.assert_allclose(found["scores"], head.scores(rows), rtol=0, atol=1e-6)


def test_exact_of_few_proxies_is_float32(cone: Cone, head_model: HeadModel) -> None:
    few, _ = cone(4, CANDIDATES // 4, 16)
    more, _ = cone(4, CANDIDATES // 4 + 1, 16)
    for head, same in ((few, True), (more, False)):
        exact, full = (to_bytes(head_model(head, precision=p)) for p in ("exact", "fp32"))
        assert (exact == full) == same


@both_exact
@pytest.mark.parametrize("distance", PRODUCTS)
def test_exact_and_calibrated(
    run: Run,
    head_model: HeadModel,
    make_head: MakeHead,
    precision: str,
    dialect: str,
    distance: str,
) -> None:
    head = make_head(30, 5, calibrated=True, center=True, transform=True, distance=distance)
    rows = np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)
    found = run(head_model(head, precision=precision, dialect=dialect), rows)
    assert np.array_equal(found["label"], head.predict(rows))
    assert np.array_equal(found["known"].astype(bool), head.known(rows))
    np.testing.assert_allclose(found["probability"], head.probability(rows), atol=0.02)
