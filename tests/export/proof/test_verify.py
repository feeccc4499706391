# SPDX-License-Identifier: Apache-2.0
"""Verification passes the true model, and no model that decides otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_imprint_export import Verification, fuse, save, verify
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.proof.verify import TOLERANCE, compare
from edge_imprint_runtime import Head, Model, Predictions, Preprocess, Rule, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneMismatchError, VerificationError
from edge_imprint_runtime.images import normalize

MakeHead = Callable[..., Head]
Array = npt.NDArray[np.float32]

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)


@pytest.fixture
def head(make_head: MakeHead) -> Head:
    return make_head(5, 3)


@pytest.mark.parametrize("input_form", ["uint8", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"center": True, "transform": True},
        {"norm": "none"},
        {"aggregation": "mnn", "neighbors": 4, "calibrated": True},
    ],
)
def test_the_true_model_passes(
    tmp_path: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    input_form: str,
    options: dict[str, object],
) -> None:
    head = make_head(5, 3, **options)
    model = open_model(save(fuse(tiny_backbone, head, input=input_form), tmp_path / "m.onnx"))
    found = verify(model, head, tiny_backbone, PIXELS)
    assert found.passed
    assert found.require() is found
    assert (found.images, found.agreement, found.tolerance) == (70, 1.0, TOLERANCE)
    assert 0 <= found.mean_difference <= found.max_difference <= TOLERANCE
    assert verify(model, head, parse(tiny_backbone, "tiny"), PIXELS) == found


def test_one_image(tiny_backbone: bytes, tiny_model: Path, make_head: MakeHead) -> None:
    assert verify(open_model(tiny_model), make_head(), tiny_backbone, PIXELS[:1]).images == 1


@pytest.fixture(scope="module")
def embeddings(tiny_backbone: bytes, tiny_preprocess: Preprocess) -> Array:
    bare_graph = OrtRunner(tiny_backbone, "cpu")
    found = bare_graph.run(["embedding"], normalize(PIXELS, tiny_preprocess))[0]
    return found.astype(np.float32)


def tampered(
    model: onnx.ModelProto, path: Path, name: str, change: float, count: int = 1
) -> Model:
    """Write a model in which the first numbers of one tensor are others, and open it."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[:count] += change
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    path.write_bytes(to_bytes(model))
    return open_model(path)


@pytest.mark.parametrize(
    "name", ["proxies", "preprocess/mean", "backbone/conv1.weight", "center"]
)
def test_one_number_changed_fails(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead, name: str
) -> None:
    head = make_head(5, 3, center=True)
    model = tampered(fuse(tiny_backbone, head), tmp_path / "m.onnx", name, 1.0)
    found = verify(model, head, tiny_backbone, PIXELS)
    assert not found.passed
    assert found.max_difference > TOLERANCE
    with pytest.raises(VerificationError, match="the model does not decide as its head"):
        found.require()


def test_a_wrong_normalization_rule_fails(
    tmp_path: Path, tiny_backbone: bytes, head: Head, embeddings: Array
) -> None:
    model = open_model(save(fuse(tiny_backbone, head), tmp_path / "m.onnx"))
    other = head.replaced(rule=Rule(embedding_norm="none"))
    assert not compare(model.predict(PIXELS), other, embeddings).passed


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("rule", {"rule": Rule(embedding_norm="none")}),
        ("recipe", {"recipe": "l2 mean l2 l2 max"}),
        ("build", {"notes": [("build", "photos=1")]}),
    ],
)
def test_another_head_is_refused_by_what_both_files_say(
    tmp_path: Path, tiny_backbone: bytes, head: Head, what: str, changes: dict[str, object]
) -> None:
    noted = head.replaced(notes=[("build", "photos=2")])
    model = open_model(save(fuse(tiny_backbone, noted), tmp_path / "m.onnx"))
    assert verify(model, noted, tiny_backbone, PIXELS).passed
    with pytest.raises(BackboneMismatchError) as caught:
        verify(model, noted.replaced(**changes), tiny_backbone, PIXELS)
    assert str(caught.value) == (
        f"the model was made of another head, whose {what} is not this one's; verify a model "
        "with the head it came from"
    )


def test_a_tolerance_of_ones_own(tmp_path: Path, tiny_backbone: bytes, head: Head) -> None:
    model = tampered(fuse(tiny_backbone, head), tmp_path / "m.onnx", "proxies", 1e-3)
    assert not verify(model, head, tiny_backbone, PIXELS).passed
    assert verify(model, head, tiny_backbone, PIXELS, tolerance=1e-2).passed


def test_a_head_of_other_classes(
    tiny_backbone: bytes, tiny_model: Path, make_head: MakeHead
) -> None:
    model, head = open_model(tiny_model), make_head()
    renamed = Head(head.proxies, head.class_index, ["a", "b", "c"], backbone=head.backbone)
    for other in (renamed, make_head(4), make_head(backbone=None)):
        with pytest.raises(BackboneMismatchError, match="verify a model with the head"):
            verify(model, other, tiny_backbone, PIXELS)


def rows(*values: list[float]) -> Array:
    return np.array(values, np.float32)


def said(scores: Array, *label: int, **more: object) -> Predictions:
    return Predictions(scores, np.array(label, np.int32), ("a", "b"), **more)


def bare(classes: int = 2, **options: object) -> Head:
    """A head whose similarities are the embedding itself."""
    rule = Rule("none", **options.pop("rule", {}))
    return Head(np.eye(classes), range(classes), list("abcdef")[:classes], rule, **options)


def test_compare_by_hand() -> None:
    oracle = rows([0.1, 0.9], [0.5, 0.25], [1.0, 1.0])
    assert compare(said(oracle, 1, 0, 0), bare(), oracle) == Verification(
        3, 1.0, 0, 0.0, 0.0, TOLERANCE
    )
    shifted = oracle + np.float32(0.25)
    found = compare(said(shifted, 1, 0, 0), bare(), oracle)
    assert found.agreement == 1.0
    assert found.max_difference == pytest.approx(0.25)
    assert not found.passed
    found = compare(said(oracle, 1, 1, 0), bare(), oracle)
    assert (found.agreement, found.ties) == (pytest.approx(2 / 3), 0)
    assert not found.passed


def test_a_tie_may_go_either_way() -> None:
    oracle = rows([0.5, 0.5 + 1e-5], [0.5, 0.6])
    found = compare(said(oracle, 0, 1), bare(), oracle)
    assert found.passed
    assert (found.agreement, found.ties) == (1.0, 1)
    assert not compare(said(oracle, 0, 0), bare(), oracle).passed


def test_not_a_number_never_passes() -> None:
    oracle = rows([0.1, 0.9])
    assert not compare(said(rows([np.nan, 0.9]), 1), bare(), oracle).passed
    head = bare(threshold=[0, 0], temperature=1.0)
    known, probability = np.array([True]), rows([np.nan, 0.7])
    answer = said(oracle, 1, known=known, probability=probability)
    assert not compare(answer, head, oracle).passed


VOTE = {"aggregation": "mnn", "neighbors": 2}


@pytest.mark.parametrize(
    ("scores", "label", "passes", "ties"),
    [
        ([0.5, 0.5, 0], 0, True, 1),  # the oracle's own answer
        ([0.5, 0, 0.5], 0, True, 1),  # the third instead of the second
        ([1 / 3, 1 / 3, 1 / 3], 0, True, 1),  # both
        ([0.5, 0.5, 0], 1, False, 0),  # the tie of votes by index
        ([0, 0.5, 0.5], 1, False, 0),  # without the nearest
        ([1, 0, 0], 0, False, 1),  # one voter
        ([0.6, 0.4, 0], 0, False, 1),  # no vote gives these
        ([0.2, 0.4, 0.4], 0, False, 1),
    ],
)
def test_either_of_two_near_the_edge_may_vote(
    scores: list[float], label: int, passes: bool, ties: int
) -> None:
    embedding = rows([0.9, 0.5 + 1e-6, 0.5])
    answer = Predictions(rows(scores), np.array([label], np.int32), ("a", "b", "c"))
    found = compare(answer, bare(3, rule=VOTE), embedding)
    assert found.passed is passes
    assert found.ties == ties


def test_away_from_the_edge_votes_are_exact() -> None:
    embedding = rows([0.9, 0.6, 0.5])
    head = bare(3, rule=VOTE)
    for scores, passes in (([0.5, 0.5, 0], True), ([0.5, 0, 0.5], False)):
        answer = Predictions(rows(scores), np.array([0], np.int32), ("a", "b", "c"))
        assert compare(answer, head, embedding).passed is passes


@pytest.mark.parametrize(
    ("known", "share", "threshold", "passes", "ties"),
    [
        (True, 0.9, 0.8, True, 0),
        (False, 0.9, 0.8, False, 0),
        (False, 0.9, 0.9, True, 1),
        (True, 0.9, 0.9 + 1e-5, True, 1),
        (True, 0.9, 0.91, False, 0),
        (True, 0.89, 0.8, False, 0),
    ],
)
def test_known_and_probability_are_compared(
    known: bool, share: float, threshold: float, passes: bool, ties: int
) -> None:
    head = bare(threshold=[0, threshold], temperature=0.8 / np.log(9))  # 0.9 and 0.1: 9 to 1
    answer = said(
        rows([0.1, 0.9]), 1, known=np.array([known]), probability=rows([1 - share, share])
    )
    found = compare(answer, head, rows([0.1, 0.9]))
    assert found.passed is passes
    assert found.ties == ties


RULES: list[dict[str, object]] = [
    {"distance": distance, "aggregation": "mnn", "neighbors": 5, "weighting": weighting}
    for distance in ("cosine", "euclidean", "manhattan", "mahalanobis")
    for weighting in ("uniform", "distance")
]
RULES += [{"distance": "euclidean"}, {"distance": "mahalanobis"}, {"distance": "manhattan"}]
every_rule = pytest.mark.parametrize(
    "options", RULES, ids=lambda o: "-".join(map(str, o.values()))
)


@every_rule
@pytest.mark.parametrize("name", ["proxies", "threshold", "temperature"])
def test_a_fault_in_any_rule_is_found(
    tmp_path: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    embeddings: Array,
    options: dict[str, object],
    name: str,
) -> None:
    head = make_head(5, 4, calibrated=embeddings, **options)
    assert 10 < head.known(embeddings).sum() < 60
    true = open_model(save(fuse(tiny_backbone, head), tmp_path / "true.onnx"))
    assert verify(true, head, tiny_backbone, PIXELS).require().ties <= 7
    model = tampered(fuse(tiny_backbone, head), tmp_path / "m.onnx", name, 3.0, count=5)
    with pytest.raises(VerificationError):
        verify(model, head, tiny_backbone, PIXELS).require()


FAULTS = {
    "one voter more": ("head/neighbors", 1),
    "one voter less": ("head/neighbors", -1),
    "votes by the nearest alone": ("head/share_tie", 2),
}


@pytest.mark.parametrize(("name", "change"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("distance", ["inner_product", "cosine", "manhattan"])
def test_faults_of_a_vote_are_found(
    tmp_path: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    distance: str,
    name: str,
    change: float,
) -> None:
    head = make_head(5, 4, seed=2, aggregation="mnn", neighbors=5, distance=distance)
    model = tampered(fuse(tiny_backbone, head), tmp_path / "m.onnx", name, change)
    assert not verify(model, head, tiny_backbone, PIXELS).passed


@pytest.mark.parametrize("options", RULES[:8], ids=lambda o: "-".join(map(str, o.values())))
def test_padding_that_votes_is_found(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead, options: dict[str, object]
) -> None:
    head = make_head(5, 4, **options)
    counts = np.bincount(head.class_index)
    assert counts.min() < counts.max()
    fused = fuse(tiny_backbone, head)
    squares = options["distance"] in ("euclidean", "mahalanobis")
    name = "head/squares" if squares else "head/mask"
    tensors = {tensor.name: tensor for tensor in fused.graph.initializer}
    tensor, columns = tensors[name], numpy_helper.to_array(tensors["proxies"])
    if options["distance"] == "manhattan":
        columns = columns.T
    values = numpy_helper.to_array(tensor).copy()
    masked = values.ravel() < -1e30
    assert masked.any()
    for column in np.flatnonzero(masked):
        # Each masked slot repeats a proxy of its class: so would its bias.
        same = (columns == columns[:, [column]]).all(axis=0) & ~masked
        values.flat[column] = values.flat[np.flatnonzero(same)[0]]
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    model = open_model(save(fused, tmp_path / "m.onnx"))
    assert not verify(model, head, tiny_backbone, PIXELS).passed


def test_a_tie_of_votes_decided_by_the_index_is_found(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead
) -> None:
    head = make_head(5, 4, aggregation="mnn", neighbors=2)
    fused = fuse(tiny_backbone, head)
    (best,) = (node for node in fused.graph.node if node.op_type == "ArgMax")
    best.input[0] = "scores"
    model = open_model(save(fused, tmp_path / "m.onnx"))
    found = verify(model, head, tiny_backbone, PIXELS)
    assert not found.passed
    assert found.max_difference <= TOLERANCE  # the shares are right


def test_model_and_head_are_both_calibrated_or_neither(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead
) -> None:
    plain, calibrated = make_head(), make_head(calibrated=True)
    for one, other in ((plain, calibrated), (calibrated, plain)):
        model = open_model(save(fuse(tiny_backbone, one), tmp_path / "m.onnx", force=True))
        with pytest.raises(BackboneMismatchError, match="only one is calibrated"):
            verify(model, other, tiny_backbone, PIXELS)


def test_passed_needs_both() -> None:
    good = Verification(10, 1.0, 0, 1e-5, 1e-6, 1e-4)
    assert good.passed
    assert not dataclasses.replace(good, agreement=0.9).passed
    assert not dataclasses.replace(good, max_difference=1e-3).passed
    with pytest.raises(VerificationError, match=r"90\.00% of 10 labels agree"):
        dataclasses.replace(good, agreement=0.9).require()


def test_large_scores_are_compared_by_their_share(
    tmp_path: Path, tiny_backbone: bytes, make_head: MakeHead
) -> None:
    """Unnormalised scores in the thousands are exact to a share, not to 1e-4."""
    small = make_head(5, 3, norm="none")
    proxies, index, info = small.proxies * 1e6, small.class_index, small.backbone
    head = Head(proxies, index, small.labels, small.rule, backbone=info)
    model = open_model(save(fuse(tiny_backbone, head), tmp_path / "m.onnx"))
    assert np.abs(model.predict(PIXELS).scores).max() > 1e4
    assert verify(model, head, tiny_backbone, PIXELS).passed
    off = np.full((1, 2), 2000.0, np.float32)
    found = compare(said(off + np.float32([[0.0, 1.0]]), 1), bare(), off)
    assert found.max_difference == pytest.approx(1 / 2000)
    assert not found.passed
