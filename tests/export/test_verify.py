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
from edge_imprint_export.verify import TOLERANCE, compare
from edge_imprint_runtime import Head, Model, Rule, open_model
from edge_imprint_runtime.errors import BackboneMismatchError, VerificationError

MakeHead = Callable[..., Head]
Array = npt.NDArray[np.float32]

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)


@pytest.fixture
def head(make_head: MakeHead) -> Head:
    return make_head(5, 3)


@pytest.mark.parametrize("input_form", ["uint8", "float32"])
@pytest.mark.parametrize(
    "options", [{}, {"center": True, "transform": True}, {"norm": "none"}]
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


def tampered(model: onnx.ModelProto, path: Path, name: str, change: float) -> Model:
    """Write a model in which one number of one tensor is another, and open it."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += change
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
    tmp_path: Path, tiny_backbone: bytes, head: Head
) -> None:
    model = open_model(save(fuse(tiny_backbone, head), tmp_path / "m.onnx"))
    other = Head(
        head.proxies,
        head.class_index,
        head.labels,
        Rule(embedding_norm="none"),
        backbone=head.backbone,
    )
    assert not verify(model, other, tiny_backbone, PIXELS).passed


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


def labels(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def test_compare_by_hand() -> None:
    oracle = rows([0.1, 0.9], [0.5, 0.25], [1.0, 1.0])
    assert compare(oracle, labels(1, 0, 0), oracle) == Verification(
        3, 1.0, 0, 0.0, 0.0, TOLERANCE
    )
    shifted = oracle + np.float32(0.25)
    found = compare(shifted, labels(1, 0, 0), oracle)
    assert found.agreement == 1.0
    assert found.max_difference == pytest.approx(0.25)
    assert not found.passed
    found = compare(oracle, labels(1, 1, 0), oracle)
    assert (found.agreement, found.ties) == (pytest.approx(2 / 3), 0)
    assert not found.passed


def test_a_tie_may_go_either_way() -> None:
    oracle = rows([0.5, 0.5 + 1e-5], [0.5, 0.6])
    found = compare(oracle, labels(0, 1), oracle)
    assert found.passed
    assert (found.agreement, found.ties) == (1.0, 1)
    assert not compare(oracle, labels(0, 0), oracle).passed


def test_not_a_number_never_passes() -> None:
    oracle = rows([0.1, 0.9])
    assert not compare(rows([np.nan, 0.9]), labels(1), oracle).passed


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
    found = compare(off + np.float32([[0.0, 1.0]]), np.array([1], np.int32), off)
    assert found.max_difference == pytest.approx(1 / 2000)
    assert not found.passed
