# SPDX-License-Identifier: Apache-2.0
"""Every rule in the graph answers as the oracle does, in the dialect of every target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.proof.verify import compare
from edge_imprint_runtime import BackboneInfo, Head, Predictions, Rule
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.images import normalize

MakeHead = Callable[..., Head]
FlatBackbone = Callable[..., bytes]
Rows = npt.NDArray[np.float32]

DISTANCES = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
VOTES = [(d, "uniform") for d in DISTANCES] + [(d, "distance") for d in DISTANCES[1:]]
RULES = [{"distance": distance} for distance in DISTANCES] + [
    {"distance": distance, "aggregation": "mnn", "neighbors": 4, "weighting": weighting}
    for distance, weighting in VOTES
]
every_rule = pytest.mark.parametrize(
    "options", RULES, ids=lambda o: "-".join(map(str, o.values()))
)


def answers(
    model: onnx.ModelProto, head: Head, images: npt.NDArray[np.generic]
) -> Predictions:
    runner = OrtRunner(to_bytes(model), "cpu", threads=1)
    names = ["scores", "label", *(["known", "probability"] if head.temperature else [])]
    assert list(runner.outputs) == names
    found = dict(zip(names, runner.run(names, images), strict=True))
    kinds = {"scores": "f4", "label": "i4", "known": "i4", "probability": "f4"}
    for name, array in found.items():
        assert array.dtype == kinds[name]
    if "known" in found:
        assert np.isin(found["known"], (0, 1)).all()
        found["known"] = found["known"].astype(bool)
    return Predictions(labels=head.labels, **found)


def on_rows(backbone: bytes, head: Head, rows: Rows) -> Predictions:
    """Run the head alone: the backbone hands its pixels on."""
    model = fuse(backbone, head, input="float32")
    return answers(model, head, rows.reshape(len(rows), 3, 1, -1))


@given(
    options=st.sampled_from(RULES),
    classes=st.integers(1, 7),
    proxies=st.integers(1, 5),
    center=st.booleans(),
    transform=st.booleans(),
    norm=st.sampled_from(["none", "l2"]),
    calibrated=st.booleans(),
    opset=st.sampled_from([11, 12, 13, 17, 18, 21]),
    neighbors=st.integers(1, 35),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_rule_is_the_oracles(
    flat_backbone: FlatBackbone,
    flat_info: BackboneInfo,
    make_head: MakeHead,
    options: dict[str, object],
    classes: int,
    proxies: int,
    opset: int,
    neighbors: int,
    seed: int,
    **more: object,
) -> None:
    if options.get("aggregation") == "mnn":
        options = options | {"neighbors": neighbors}
    head = make_head(classes, proxies, 12, seed=seed, backbone=flat_info, **options, **more)
    rows = np.random.default_rng(seed).standard_normal((30, 12)).astype(np.float32)
    answer = on_rows(flat_backbone(opset=opset), head, rows)
    found = compare(answer, head, rows, 1e-5)
    assert found.require() is found
    # Away from what hangs on the last digit it is the same to the last but one.
    assume(not found.ties)
    np.testing.assert_allclose(answer.scores, head.scores(rows), rtol=1e-4, atol=2e-4)
    assert np.array_equal(answer.label, head.predict(rows))
    if answer.known is not None and answer.probability is not None:
        assert np.array_equal(answer.known, head.known(rows))
        np.testing.assert_allclose(answer.probability, head.probability(rows), atol=1e-3)


@every_rule
@pytest.mark.parametrize("input_form", ["uint8", "float32"])
def test_behind_a_backbone(
    tiny_backbone: bytes, make_head: MakeHead, options: dict[str, object], input_form: str
) -> None:
    head = make_head(5, 4, center=True, transform=True, calibrated=True, **options)
    assert head.backbone is not None
    pixels = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)
    floats = normalize(pixels, head.backbone.preprocess)
    embeddings = OrtRunner(tiny_backbone, "cpu", threads=1).run(["embedding"], floats)[0]
    model = fuse(tiny_backbone, head, input=input_form)
    answer = answers(model, head, pixels if input_form == "uint8" else floats)
    compare(answer, head, embeddings.astype(np.float32)).require()
    contract = decode({p.key: p.value for p in model.metadata_props}, model=True)
    assert contract.rule == head.rule
    assert contract.temperature == 0.25


@given(st.sampled_from(VOTES), st.integers(1, 13), st.integers(0, 2**32 - 1))
def test_ties_are_the_oracles_too(
    flat_backbone: FlatBackbone,
    flat_info: BackboneInfo,
    vote: tuple[str, str],
    m: int,
    seed: int,
) -> None:
    """Small whole numbers are exact in float32: equal distances, equal votes."""
    assume(vote[0] != "cosine")  # which divides
    rng = np.random.default_rng(seed)
    # Each coordinate sums to zero over the proxies, so that their mean is a whole number too.
    half = rng.integers(-2, 3, (6, 12))
    points = np.concatenate([half, -half, np.zeros((1, 12), int)])
    index = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 0, 1, 2])
    metric = rng.integers(-1, 2, (12, 3)) if vote[0] == "mahalanobis" else None
    rule = Rule("none", "mnn", vote[0], m, vote[1])
    head = Head(points, index, list("abcd"), rule, metric=metric, backbone=flat_info)
    rows = rng.integers(-2, 3, (40, 12)).astype(np.float32)
    answer = on_rows(flat_backbone(), head, rows)
    np.testing.assert_allclose(answer.scores, head.scores(rows), rtol=0, atol=1e-6)
    if vote[1] == "uniform":
        assert np.array_equal(answer.label, head.predict(rows))


@pytest.mark.parametrize("distance", DISTANCES[1:])
def test_the_floor_of_a_vote(
    flat_backbone: FlatBackbone, flat_info: BackboneInfo, distance: str
) -> None:
    """Embeddings that are proxies: what the others' votes are worth is the floor's doing."""
    half = np.random.default_rng(0).integers(-3, 4, (3, 12))
    points = np.concatenate([half, -half]).astype(np.float32)  # their mean is zero
    rule = Rule("none", "mnn", distance, 6, "distance")
    metric = np.diag(np.arange(1, 13)) if distance == "mahalanobis" else None
    head = Head(points, range(6), list("abcdef"), rule, metric=metric, backbone=flat_info)
    answer = on_rows(flat_backbone(), head, points)
    np.testing.assert_allclose(answer.scores, head.scores(points), rtol=1e-3)


@every_rule
def test_padding_has_no_vote(
    flat_backbone: FlatBackbone,
    flat_info: BackboneInfo,
    options: dict[str, object],
) -> None:
    """One class of nine proxies, and one of one that is nearest by far, eight times padded."""
    rng = np.random.default_rng(0)
    far, near = rng.standard_normal((9, 12)), np.full((1, 12), 3.0)
    rule = Rule("none", **options)  # type: ignore[arg-type]
    metric = np.eye(12) if rule.distance == "mahalanobis" else None
    points, index = np.concatenate([far, near]), [0] * 9 + [1]
    head = Head(points, index, ["a", "b"], rule, metric=metric, backbone=flat_info)
    rows = (3 + rng.standard_normal((20, 12)) / 4).astype(np.float32)
    answer = on_rows(flat_backbone(), head, rows)
    np.testing.assert_allclose(answer.scores, head.scores(rows), rtol=1e-4, atol=1e-4)
    if options.get("weighting") == "uniform":
        assert np.allclose(answer.scores, [[0.75, 0.25]])


@every_rule
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_the_dialect_of_every_rule(
    flat_backbone: FlatBackbone,
    flat_info: BackboneInfo,
    make_head: MakeHead,
    options: dict[str, object],
    calibrated: bool,
    opset: int,
) -> None:
    head = make_head(
        4,
        3,
        12,
        center=True,
        transform=True,
        backbone=flat_info,
        calibrated=calibrated,
        **options,
    )
    model = fuse(flat_backbone(opset=opset), head)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert model.opset_import[0].version == opset
    kinds = {node.op_type for node in graph.node}
    allowed = {"ArgMax", "Cast", "Div", "Flatten", "Gather", "Gemm", "GreaterOrEqual", "Less"}
    allowed |= {
        "MatMul",
        "Max",
        "Mul",
        "Not",
        "ReduceL1",
        "ReduceL2",
        "ReduceMax",
        "ReduceMin",
    }
    allowed |= {"ReduceSumSquare", "Reshape", "Softmax", "Sub", "TopK", "Transpose", "Where"}
    allowed |= {"Concat", "Slice"}  # ragged classes
    assert kinds <= allowed
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type.startswith("Reduce"):
            attributes = [a.name for a in node.attribute]
            assert ("axes" in attributes) == (opset < 18)
            assert len(node.input) == (1 if opset < 18 else 2)
    assert constants["proxies"].dtype == np.float32
    # Every name is made once and used, but for TopK's second output, which is no option.
    made = [name for node in graph.node for name in node.output]
    made += [*constants, *(i.name for i in graph.input)]
    used = {name for node in graph.node for name in node.input} | {
        o.name for o in graph.output
    }
    assert len(made) == len(set(made))
    assert set(made) - used <= {"head/top_slots"}
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_outputs_of_a_calibrated_model(tiny_backbone: bytes, make_head: MakeHead) -> None:
    outputs = ("scores", "label", "embedding")
    model = fuse(tiny_backbone, make_head(calibrated=True), outputs=outputs)
    found = {
        output.name: (
            helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type).name,
            [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim],
        )
        for output in model.graph.output
    }
    assert found == {
        "scores": ("float32", ["N", 3]),
        "label": ("int32", ["N"]),
        "known": ("int32", ["N"]),
        "probability": ("float32", ["N", 3]),
        "embedding": ("float32", ["N", 8]),
    }
    assert list(found) == ["scores", "label", "known", "probability", "embedding"]


@pytest.mark.parametrize("target", ["portable", "jetpack-5.1", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp16", "int8", "exact"])
@pytest.mark.parametrize("distance", ["inner_product", "cosine", "euclidean", "mahalanobis"])
def test_a_head_in_fewer_bits(
    tiny_backbone: bytes, make_head: MakeHead, target: str, precision: str, distance: str
) -> None:
    head = make_head(20, 5, center=True, transform=True, calibrated=True, distance=distance)
    assert head.backbone is not None
    pixels = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)
    floats = normalize(pixels, head.backbone.preprocess)
    rows = OrtRunner(tiny_backbone, "cpu", threads=1).run(["embedding"], floats)[0]
    model = fuse(tiny_backbone, head, target=target, head_precision=precision)
    answer, want = answers(model, head, pixels), head.scores(rows)
    scale = max(1, np.abs(want).max())
    assert (
        np.abs(answer.scores - want).max() <= (1e-3 if precision == "fp16" else 0.02) * scale
    )
    agreement = (answer.label == head.predict(rows)).mean()
    assert agreement >= (1 if precision == "exact" else 0.95)
    contract = decode({p.key: p.value for p in model.metadata_props}, model=True)
    assert contract.graph is not None
    assert contract.graph.head_precision == precision


@every_rule
def test_a_thousand_classes(
    flat_backbone: FlatBackbone,
    flat_info: BackboneInfo,
    make_head: MakeHead,
    options: dict[str, object],
) -> None:
    head = make_head(1_000, 20, 12, backbone=flat_info, calibrated=True, **options)
    rows = np.random.default_rng(1).standard_normal((20, 12)).astype(np.float32)
    compare(on_rows(flat_backbone(), head, rows), head, rows).require()


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e-9, 1.0])
def test_cosines_of_short_embeddings(
    flat_backbone: FlatBackbone, flat_info: BackboneInfo, make_head: MakeHead, scale: float
) -> None:
    """Two floors of a norm, one after the other, are one in the graph."""
    rows = (scale * np.random.default_rng(0).standard_normal((5, 12))).astype(np.float32)
    for norm in ("none", "l2"):
        head = make_head(4, 3, 12, norm=norm, distance="cosine", backbone=flat_info)
        answer = on_rows(flat_backbone(), head, rows)
        np.testing.assert_allclose(answer.scores, head.scores(rows), atol=1e-6)


def test_equal_arguments_give_equal_bytes(tiny_backbone: bytes, make_head: MakeHead) -> None:
    made = [
        to_bytes(fuse(parse(tiny_backbone, "tiny"), make_head(4, 3, **options, **more)))
        for options in RULES
        for more in ({}, {"calibrated": True})
        for _ in range(2)
    ]
    assert made[::2] == made[1::2]
    assert len(set(made)) == len(made) // 2
