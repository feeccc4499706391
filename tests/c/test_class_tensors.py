# SPDX-License-Identifier: Apache-2.0
"""Class tensors in C: the numbers that Python lays out, and the heads that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime.class_tensors import check_head, class_tensors
from edge_imprint_runtime.contract import Contract, GraphInfo, Teachable
from edge_imprint_runtime.errors import HeadMismatchError
from tests.c.heads import DISTANCES, Heads, random_heads

MakeHead = Callable[..., Head]


@pytest.fixture(scope="module")
def heads(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heads]:
    """One head_check for all tests of this file: it must survive them all."""
    program = Heads(c_build / "tests" / "head_check", tmp_path_factory.mktemp("tensors"))
    yield program
    program.close()


def same_tensors(heads: Heads, head: Head, slots: int) -> None:
    """Hold C's class tensors of a head against Python's."""
    assert heads.load(head).status == "EI_OK"
    found = heads.tensors(slots)
    wanted = {name: tensor.values for name, tensor in class_tensors(head, slots).items()}
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].shape == values.shape, name
        # Products and sums in float64, then rounded: a digit of float32 apart at most.
        np.testing.assert_allclose(found[name], values, 3e-7, 1e-37, err_msg=name)


@given(random_heads(), st.integers(0, 7))
def test_the_numbers_are_pythons(heads: Heads, head: Head, more: int) -> None:
    same_tensors(heads, head, int(np.bincount(head.class_index).max()) + more)


@pytest.mark.parametrize(
    ("distance", "votes"),
    [
        (distance, votes)
        for distance in DISTANCES
        for votes in ("", "uniform", "distance")
        if (distance, votes) != ("inner_product", "distance")  # which is no distance
    ],
)
def test_large_heads_too(heads: Heads, make_head: MakeHead, distance: str, votes: str) -> None:
    """Rows beyond a block of a sum, columns beyond a line of cache, ragged classes."""
    rule = {"aggregation": "mnn", "neighbors": 7, "weighting": votes} if votes else {}
    # The last makes a million numbers, which are written past the caches where that aligns.
    for size, classes, proxies in ((300, 23, 9), (129, 2, 1), (64, 16, 16), (515, 260, 8)):
        head = make_head(classes, proxies, size, distance=distance, calibrated=True, **rule)
        same_tensors(heads, head, proxies)
        same_tensors(heads, head, proxies + 5)


@pytest.mark.parametrize("distance", ["euclidean", "manhattan", "cosine"])
def test_proxies_that_coincide_have_a_floor_all_the_same(heads: Heads, distance: str) -> None:
    rule = Rule("none", "mnn", distance, 2, "distance")
    for scale in (0.0, 1.0, 1e-17):
        same_tensors(heads, Head(np.full((2, 3), scale), [0, 1], "ab", rule), 1)
    same_tensors(heads, Head(1e-14 * np.eye(2, 3), [0, 1], "ab", rule), 1)


def test_a_head_of_more_proxies_than_slots(heads: Heads, make_head: MakeHead) -> None:
    heads.load(make_head(3, 4))
    answer = heads.ask("tensors", 0, 3, heads.file(b"", "unused"))
    assert answer.status == "EI_HEAD_MISMATCH"
    with pytest.raises(HeadMismatchError) as caught:
        class_tensors(make_head(3, 4), 3)
    assert answer.rest == str(caught.value)
    for slots in (0, -1):
        assert heads.ask("tensors", 0, slots, "unused").status == "EI_HEAD_MISMATCH"


def test_slots_beyond_all_memory(heads: Heads, make_head: MakeHead) -> None:
    """Refused, and said: nothing is asked for before."""
    many = Head(np.eye(1024), np.arange(1024), [f"c{i}" for i in range(1024)])
    heads.load(many)
    answer = heads.ask("tensors", 0, 2**31 - 1, "unused")
    assert answer.status == "EI_HEAD_MISMATCH"


# Fitting -----------------------------------------------------------------------------------


def model_contract(head: Head, slots: int = 7, max_classes: int = 5) -> Contract:
    """The contract of a teachable model that was exported from a head."""
    graph = GraphInfo("uint8", slots, teachable=Teachable("default", max_classes, 5))
    return replace(head.contract, graph=graph)


def c_verdict(heads: Heads, head: Head, model: Contract, folder: Path) -> str:
    """What C says of a head and a model that is nothing but its contract."""
    from onnx import TensorProto, helper

    from edge_imprint_runtime.contract import encode

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    made = helper.make_model(graph)
    helper.set_model_props(made, encode(model))
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    assert heads.load(head).status == "EI_OK"
    answer = heads.ask("fits", 0, path)
    assert answer.status in ("EI_OK", "EI_HEAD_MISMATCH"), answer
    return answer.rest


def python_verdict(head: Head, model: Contract) -> str:
    """What Python says of them."""
    try:
        check_head(head, model, "the head")
    except HeadMismatchError as error:
        return str(error)
    return ""


def test_a_head_that_does_not_fit_is_refused_with_the_same_sentence(
    heads: Heads, make_head: MakeHead, tiny_info: BackboneInfo, tmp_path: Path
) -> None:
    head = make_head(3, 2, calibrated=True)
    model = model_contract(head)
    other = replace(tiny_info, digest="1" * 64)
    lighter = replace(tiny_info, preprocess=replace(tiny_info.preprocess, std=(1.0, 1.0, 2.0)))
    smaller = replace(tiny_info, preprocess=replace(tiny_info.preprocess, height=8))
    pad = replace(tiny_info, preprocess=replace(tiny_info.preprocess, resize="pad"))
    dark = replace(tiny_info, preprocess=replace(tiny_info.preprocess, mean=(0.0, 0.0, 0.0)))
    renamed = replace(tiny_info, name="another name", weights="own")
    plain = {"threshold": None, "temperature": None}
    votes = Rule(aggregation="mnn", neighbors=2)
    cases = [
        (head, ""),
        (head.replaced(backbone=renamed), ""),
        (head.replaced(temperature=3.0, recipe="another"), ""),
        (head.replaced(backbone=other), "another backbone"),
        (head.replaced(backbone=None), "another backbone"),
        *((head.replaced(backbone=b), "preprocessing") for b in (lighter, smaller, pad, dark)),
        (make_head(3, 2, 9, calibrated=True), "embedding size or rule"),
        (head.replaced(rule=Rule(distance="cosine")), "embedding size or rule"),
        (head.replaced(rule=Rule("none")), "embedding size or rule"),
        (head.replaced(rule=votes), "embedding size or rule"),
        (head.replaced(**plain), "calibrated"),
        (make_head(6, 2, calibrated=True), "classes"),
        (make_head(3, 8, calibrated=True), "proxies"),
    ]
    for changed, reason in cases:
        wanted = python_verdict(changed, model)
        assert reason in wanted
        assert bool(wanted) == bool(reason)
        assert c_verdict(heads, changed, model, tmp_path) == wanted
    bare = replace(model_contract(head.replaced(backbone=None)))
    bare = replace(bare, graph=replace(bare.graph, input="embedding"))
    for changed in (head, head.replaced(backbone=None)):
        assert c_verdict(heads, changed, bare, tmp_path) == python_verdict(changed, bare)


def test_preprocessing_is_compared_by_value(
    heads: Heads, make_head: MakeHead, tmp_path: Path, tiny_preprocess: Preprocess
) -> None:
    head = make_head(3, 2)
    data = head.to_bytes()
    size = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + size].replace(b"mean=0.485,", b"mean=485e-3,")
    assert text != data[8 : 8 + size]
    respelled = len(text).to_bytes(8, "little") + text + data[8 + size :]
    assert c_verdict(heads, head, model_contract(head), tmp_path) == ""
    assert heads.load(respelled).status == "EI_OK"
    assert heads.ask("fits", 0, tmp_path / "model.onnx").status == "EI_OK"
