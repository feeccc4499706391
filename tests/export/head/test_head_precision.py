# SPDX-License-Identifier: Apache-2.0
"""Heads in fewer bits: within their bound of the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.head.nodes import add_head
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.errors import ParameterError, UnsupportedOptionError

MakeHead = Callable[..., Head]
HeadModel = Callable[..., onnx.ModelProto]
Rows = npt.NDArray[np.float32]
Cone = Callable[..., tuple[Head, Rows]]
Run = Callable[[onnx.ModelProto, Rows], dict[str, npt.NDArray[Any]]]
Bound = Callable[[Head, Rows], npt.NDArray[np.float64]]

PRODUCTS = ("inner_product", "cosine", "euclidean", "mahalanobis")
FORMS = [("fp16", "portable"), *(("int8", d) for d in ("portable", "tensorrt", "onnxruntime"))]
EXACT = [("exact", d) for d in ("portable", "tensorrt", "onnxruntime")]
every_form = pytest.mark.parametrize(("precision", "dialect"), FORMS)


@every_form
@pytest.mark.parametrize("distance", ["inner_product", "cosine"])
@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_scores_lie_within_the_steps(
    int8_bound: Bound,
    cone: Cone,
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    distance: str,
    opset: int,
) -> None:
    head, rows = cone(12, 5, 64, distance=distance)
    model = head_model(head, opset=opset, precision=precision, dialect=dialect)
    error = np.abs(run(model, rows)["scores"] - head.scores(rows))
    assert (error <= int8_bound(head, rows)).all()
    assert error.max() < (3e-4 if precision == "fp16" else 4e-3)
    if precision == "int8":
        assert error.max() > 1e-5  # it is int8, after all


@every_form
@pytest.mark.parametrize("distance", ["euclidean", "mahalanobis"])
@pytest.mark.parametrize("norm", ["none", "l2"])
def test_squared_distances(
    cone: Cone,
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    distance: str,
    norm: str,
) -> None:
    head, rows = cone(12, 5, 64, distance=distance, embedding_norm=norm)
    rows = rows / 8
    want = head.scores(rows)
    found = run(head_model(head, precision=precision, dialect=dialect), rows)["scores"]
    allowed = 1e-3 if precision == "fp16" else 1e-2
    assert np.abs(found - want).max() <= allowed * max(1, np.abs(want).max())


@every_form
@pytest.mark.parametrize("distance", PRODUCTS)
@pytest.mark.parametrize("weighting", ["uniform", "distance"])
def test_votes(
    cone: Cone,
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    distance: str,
    weighting: str,
) -> None:
    if (distance, weighting) == ("inner_product", "distance"):
        weighting = "uniform"  # an inner product is no distance
    options = {"aggregation": "mnn", "neighbors": 5, "weighting": weighting}
    head, rows = cone(12, 5, 64, distance=distance, **options)
    found = run(head_model(head, precision=precision, dialect=dialect), rows)
    assert (found["label"] == head.predict(rows)).mean() >= 0.98
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, rtol=1e-5)
    assert np.abs(found["scores"] - head.scores(rows)).mean() < 0.01


def test_padding_has_no_vote_in_int8(
    run: Run, head_model: HeadModel, make_head: MakeHead
) -> None:
    """One class of nine far proxies, one of one that is nearest, eight times padded."""
    points = np.concatenate(
        [np.random.default_rng(0).standard_normal((9, 12)), np.ones((1, 12))]
    )
    rule = Rule("l2", "mnn", "cosine", 4)
    head = Head(points, [0] * 9 + [1], ["a", "b"], rule)
    model = head_model(head, precision="int8", slots=9)
    found = run(model, np.ones((3, 12), np.float32))
    assert np.allclose(found["scores"], [[0.75, 0.25]])


@pytest.mark.parametrize("distance", PRODUCTS)
def test_all_dialects_are_one_arithmetic(
    cone: Cone, run: Run, head_model: HeadModel, distance: str
) -> None:
    head, rows = cone(12, 5, 64, distance=distance)
    one, same, other = (
        run(head_model(head, precision="int8", dialect=d), rows)["scores"]
        for d in ("portable", "tensorrt", "onnxruntime")
    )
    np.testing.assert_array_equal(one, same)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "dialect"), FORMS + EXACT)
def test_onnxs_own_evaluator_agrees(
    cone: Cone, run: Run, head_model: HeadModel, precision: str, dialect: str
) -> None:
    """What the graph says, and not what one library makes of it."""
    opset = 19  # the first whose QuantizeLinear it knows
    head, rows = cone(8, 5, 32, queries=20)
    model = head_model(
        head, opset=opset, precision=precision, dialect=dialect, outputs=["proxy"]
    )
    want = ReferenceEvaluator(model).run(None, {"embedding": rows})
    found = run(model, rows)
    for name, array in zip(found, want, strict=True):
        # ONNX Runtime's CPU multiplies float16 in float32.
        allowed = 1e-3 if precision == "fp16" else 1e-5
        np.testing.assert_allclose(found[name], array, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize(("precision", "dialect"), FORMS + EXACT)
def test_an_answer_does_not_depend_on_the_batch(
    cone: Cone, run: Run, head_model: HeadModel, precision: str, dialect: str
) -> None:
    head, rows = cone(12, 5, 64, queries=9, embedding_norm="none")
    model = head_model(head, precision=precision, dialect=dialect)
    crowd = rows.copy()
    crowd[1:] *= np.float32([1e-6, 1e4, 0, 3, 1e6, -1, 7, 1e-3])[:, np.newaxis]
    for found, alone in zip(
        run(model, crowd).values(), run(model, rows[:1]).values(), strict=True
    ):
        np.testing.assert_allclose(found[:1], alone, rtol=1e-6)


@pytest.mark.parametrize(("precision", "dialect"), FORMS)
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e6, 1e15])
@pytest.mark.parametrize("norm", ["none", "l2"])
def test_any_magnitude(
    cone: Cone,
    run: Run,
    head_model: HeadModel,
    precision: str,
    dialect: str,
    scale: float,
    norm: str,
) -> None:
    """Nothing overflows float16, and nothing small is lost."""
    head, rows = cone(12, 5, 64, embedding_norm=norm)
    large = Head(
        head.proxies * (scale * np.geomspace(1, 1e4, 60)[:, np.newaxis]),
        head.class_index,
        head.labels,
        head.rule,
    )
    rows = (rows * min(scale, 1e15)).astype(np.float32)
    want = large.scores(rows)
    found = run(head_model(large, precision=precision, dialect=dialect), rows)["scores"]
    assert np.isfinite(found).all()
    assert (np.abs(found - want) <= 0.02 * np.abs(want)).all()


@pytest.mark.parametrize(("precision", "dialect"), FORMS + EXACT)
@pytest.mark.parametrize("norm", ["none", "l2"])
def test_an_embedding_of_zeros(
    cone: Cone, run: Run, head_model: HeadModel, precision: str, dialect: str, norm: str
) -> None:
    head, _ = cone(12, 5, 64, embedding_norm=norm)
    found = run(
        head_model(head, precision=precision, dialect=dialect), np.zeros((2, 64), np.float32)
    )
    assert not found["scores"].any()
    assert found["label"].tolist() == [0, 0]


def test_one_proxy_and_proxies_that_are_one(run: Run, head_model: HeadModel) -> None:
    """Across what they share nothing is left of them."""
    rows = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    for points in (np.ones((1, 6)), np.ones((3, 6)), np.zeros((2, 6)), [[1] * 6, [-1] * 6]):
        labels = [str(i) for i in range(len(points))]
        head = Head(points, range(len(points)), labels)
        for precision, dialect in FORMS:
            found = run(head_model(head, precision=precision, dialect=dialect), rows)["scores"]
            np.testing.assert_allclose(found, head.scores(rows), rtol=0, atol=1e-2)


@every_form
def test_what_all_proxies_share_is_not_rounded(
    run: Run, head_model: HeadModel, precision: str, dialect: str
) -> None:
    """In a narrow cone the scores differ in the third digit, and their order is kept."""
    rng = np.random.default_rng(0)
    points, rows = 20 + rng.standard_normal((60, 64)), 20 + rng.standard_normal((200, 64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    head = Head(points, np.repeat(range(12), 5), [str(c) for c in range(12)])
    want = head.scores(rows)
    assert want.min() > 0.995
    found = run(
        head_model(head, precision=precision, dialect=dialect), rows.astype(np.float32)
    )
    assert np.abs(found["scores"] - want).max() < 2e-5
    assert (found["label"] == head.predict(rows)).mean() >= 0.98


def test_how_large_it_is(cone: Cone, head_model: HeadModel) -> None:
    head, _ = cone(100, 20, 128)
    size = {
        p: len(to_bytes(head_model(head, precision=p, dialect="tensorrt")))
        for p in ("fp32", "fp16", "int8")
    }
    assert size["fp16"] <= 0.52 * size["fp32"]
    assert size["int8"] <= 0.28 * size["fp32"]


@every_form
def test_the_form(cone: Cone, head_model: HeadModel, precision: str, dialect: str) -> None:
    """Norm, sums and maximum are float32; TensorRT takes no MatMulInteger."""
    head, _ = cone(4, 3, 16)
    graph = head_model(head, precision=precision, dialect=dialect).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kinds = {node.op_type for node in graph.node}
    if precision == "fp16":
        assert constants["proxies"].dtype == np.float16
    elif dialect != "onnxruntime":
        # TensorRT 8 takes no int8 weights.
        want = np.float32 if dialect == "portable" else np.int8
        assert constants["proxies"].dtype == want
        assert constants["head/zero_point"].dtype == np.int8
        assert constants["head/zero_point"] == 0
        assert constants["head/step"].shape == constants["head/one_step"].shape == ()
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    else:
        assert constants["proxies"].dtype == np.uint8
    assert ("MatMulInteger" in kinds) == ((precision, dialect) == ("int8", "onnxruntime"))
    assert constants["proxies"].shape == (16, 12)
    typed = onnx.shape_inference.infer_shapes(head_model(head, precision=precision)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    for name in ("head/norm", "head/largest", "head/product", "head/similarity"):
        assert types[name] == onnx.TensorProto.FLOAT


def test_what_is_refused(make_head: MakeHead) -> None:
    manhattan = make_head(3, 2, distance="manhattan")
    votes = make_head(3, 2, aggregation="mnn", neighbors=3)
    refusals: list[tuple[Head, dict[str, str], type[Exception], str]] = [
        (
            manhattan,
            {"precision": precision},
            UnsupportedOptionError,
            (
                f"head precision '{precision}' rounds the factors of a product, and manhattan "
                "has none; use 'fp32'"
            ),
        )
        for precision in ("fp16", "int8", "exact")
    ]
    refusals += [
        (
            votes,
            {"precision": "exact"},
            UnsupportedOptionError,
            (
                "head precision 'exact' looks again at what is nearest, and under mnn others "
                "vote, too; use 'int8' or 'fp32'"
            ),
        ),
        (
            votes,
            {"precision": "bf16"},
            ParameterError,
            "head precision must be 'fp32' or 'fp16' or 'int8' or 'exact', got 'bf16'",
        ),
        (
            votes,
            {"dialect": "tensorflow"},
            ParameterError,
            "dialect must be 'portable' or 'tensorrt' or 'onnxruntime', got 'tensorflow'",
        ),
    ]
    for head, options, error, message in refusals:
        with pytest.raises(error) as raised:
            add_head(Nodes(17), "embedding", head, **options)  # type: ignore[arg-type]
        assert str(raised.value) == message


@pytest.mark.parametrize(("precision", "dialect"), FORMS + EXACT)
def test_equal_arguments_give_equal_bytes(
    cone: Cone, head_model: HeadModel, precision: str, dialect: str
) -> None:
    made = [
        to_bytes(head_model(cone(12, 5, 64)[0], precision=precision, dialect=dialect))
        for _ in range(2)
    ]
    assert made[0] == made[1]
