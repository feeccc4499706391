# SPDX-License-Identifier: Apache-2.0
"""Teachable graphs: each head that fits is answered as its oracle does; and baked again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head, save
from edge_imprint_export.graph import check_graph, parse, to_bytes
from edge_imprint_export.head.layout import slots_of
from edge_imprint_export.head.nodes import add_head
from edge_imprint_export.head.teachable import bake, make_teachable
from edge_imprint_export.nodes import Nodes
from edge_imprint_export.proof.verify import compare
from edge_imprint_export.targets.records import TARGETS
from edge_imprint_runtime import BackboneInfo, Head, Predictions, Rule, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.class_tensors import class_profile, class_tensors
from edge_imprint_runtime.contract import Teachable, decode
from edge_imprint_runtime.errors import (
    HeadMismatchError,
    NotTeachableError,
    UnsupportedOptionError,
)
from edge_imprint_runtime.teaching import forget, teach

MakeHead = Callable[..., Head]

DISTANCES = ["inner_product", "cosine", "euclidean", "manhattan", "mahalanobis"]
VOTES = [
    {"aggregation": "max"},
    {"aggregation": "mnn", "neighbors": 4},
    {"aggregation": "mnn", "neighbors": 3, "weighting": "distance"},
]
RULES: list[dict[str, Any]] = [
    {"distance": distance, **votes}
    for distance in DISTANCES
    for votes in VOTES
    if (distance, votes.get("weighting")) != ("inner_product", "distance")
]
ROWS = np.random.default_rng(8).standard_normal((60, 8)).astype(np.float32)


def teachable_head(head: Head, form: str, taught: int, opset: int = 17) -> bytes:
    """A teachable model of the head alone, in any opset."""
    nodes, values = Nodes(opset), helper.make_tensor_value_info
    add_head(nodes, "embedding", head, slots=slots_of(head) + taught)
    outputs: dict[str, tuple[int, list[str | int | None]]] = {
        "scores": (TensorProto.FLOAT, ["N", len(head.labels)]),
        "label": (TensorProto.INT32, ["N"]),
    }
    if head.temperature is not None:
        outputs["known"] = outputs["label"]
        outputs["probability"] = outputs["scores"]
    graph = helper.make_graph(
        nodes.nodes,
        "head",
        [values("embedding", TensorProto.FLOAT, ["N", head.embedding_size])],
        [values(name, kind, shape) for name, (kind, shape) in outputs.items()],
        nodes.constants,
    )
    ids = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=ids, ir_version=8)
    make_teachable(model, head, Teachable(form, 256, taught))
    check_graph(model, "the head")
    return to_bytes(model)


def answers(runner: OrtRunner, head: Head, slots: int, *, fed: bool = True) -> Predictions:
    names = ["scores", "label"]
    names += [] if head.temperature is None else ["known", "probability"]
    held = {name: tensor.values for name, tensor in class_tensors(head, slots).items()}
    values = runner.run(names, ROWS, runner.hold(held) if fed else None)
    found: dict[str, Any] = dict(zip(names, values, strict=True))
    return Predictions(labels=head.labels, **found)


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
def test_each_head_that_is_fed_is_answered_as_its_oracle_does(
    make_head: MakeHead, rule: dict[str, Any], opset: int
) -> None:
    head = make_head(4, 5, center=True, transform=True, calibrated=True, **rule)
    more = teach(teach(head, "new", ROWS[:9], proxies=3), "class 2", ROWS[9:15], proxies=2)
    heads = [head, more, forget(more, "class 0")]
    for form in ("default", "input"):
        runner = OrtRunner(teachable_head(head, form, 3, opset), "cpu", 1)
        for fed in heads:
            answer = answers(runner, fed, slots_of(head) + 3)
            compare(answer, fed, ROWS).require()
        assert len(runner.inputs) == (
            1 if form == "default" else 1 + len(class_tensors(head, 8))
        )
        if form == "default":
            compare(answers(runner, head, 8, fed=False), head, ROWS).require()


@given(st.data())
def test_ragged_heads_of_any_size(data: st.DataObject) -> None:
    """However many proxies and classes come and go: the graph does not change."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    votes = data.draw(st.booleans())
    rule = Rule(
        data.draw(st.sampled_from(["none", "l2"])),
        "mnn" if votes else "max",
        data.draw(st.sampled_from(DISTANCES[:4])),
        data.draw(st.integers(1, min(4, sum(counts)))) if votes else 1,
    )

    def made(numbers: list[int]) -> Head:
        index = np.repeat(np.arange(len(numbers)), numbers)
        labels = [str(i) for i in range(len(numbers))]
        return Head(rng.standard_normal((len(index), 8)), index, labels, rule)

    head = made(counts)
    room = data.draw(st.integers(1, 3))
    runner = OrtRunner(teachable_head(head, "default", room), "cpu", 1)
    most = max(counts) + room
    other = data.draw(st.lists(st.integers(1, most), min_size=rule.neighbors, max_size=9))
    for fed in (head, made(other)):
        compare(answers(runner, fed, most), fed, ROWS).require()


def test_dimensions_that_grow_have_names(make_head: MakeHead) -> None:
    head = make_head(3, 2, calibrated=True, aggregation="mnn", neighbors=2)
    for form in ("default", "input"):
        model = parse(teachable_head(head, form, 4), "the head")
        declared = {
            value.name: [
                dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim
            ]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert declared == {
            "embedding": ["N", 8],
            "proxies": [8, "columns"],
            "head/mask": ["columns"],
            "threshold": ["classes"],
            "temperature": [1],
            "scores": ["N", "classes"],
            "label": ["N"],
            "known": ["N"],
            "probability": ["N", "classes"],
        }
        inputs = {value.name for value in model.graph.input} - {"embedding"}
        constants = {tensor.name for tensor in model.graph.initializer}
        assert inputs & constants == (inputs if form == "default" else set())


def test_the_output_proxy_would_number_slots(make_head: MakeHead) -> None:
    head = make_head()
    with pytest.raises(UnsupportedOptionError) as caught:
        fuse_head(head, outputs=("scores", "label", "proxy"), teachable=True)
    assert str(caught.value) == (
        "a teachable model can't give the output 'proxy', whose numbers change with what is "
        "taught; leave one of both out"
    )


def test_a_default_is_refused_for_tensorrt(tiny_backbone: bytes, make_head: MakeHead) -> None:
    head, asked = make_head(), Teachable("default")
    for name in TARGETS:
        if name in ("portable", "onnxruntime"):
            fuse(tiny_backbone, head, teachable=asked, target=name)
            continue
        told = (
            "TensorRT takes what has a default for a constant, so that a teachable model for "
            f"{name} can't have the form 'default'; take the form 'input', or the target "
            "portable"
        )
        with pytest.raises(UnsupportedOptionError) as caught:
            fuse(tiny_backbone, head, teachable=asked, target=name)
        assert str(caught.value) == told
        with pytest.raises(UnsupportedOptionError) as caught:
            fuse_head(head, teachable=asked, target=name)
        assert str(caught.value) == told


# The profile -------------------------------------------------------------------------------


def test_the_profile_is_noted_where_a_compiler_wants_it(
    tiny_backbone: bytes, make_head: MakeHead
) -> None:
    head = make_head(3, 2, calibrated=True)
    for form in ("default", "input"):
        model = fuse(tiny_backbone, head, teachable=Teachable(form, 8, 4), notes=[("a", "b")])
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        slots = slots_of(head) + 4
        shapes = f"8x{slots},8x{3 * slots},8x{8 * slots}"
        note = ("profile", f"proxies:{shapes} threshold:1,3,8")
        wanted = (("a", "b"), *([note] if form == "input" else []))
        assert decode(metadata, model=True).notes == wanted
        baked = bake(model, head)
        metadata = {entry.key: entry.value for entry in baked.metadata_props}
        assert decode(metadata, model=True).notes == (("a", "b"),)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
def test_the_graph_runs_in_all_shapes_of_its_profile(
    make_head: MakeHead, rule: dict[str, Any]
) -> None:
    head = make_head(4, 2, center=True, transform=True, calibrated=True, **rule)
    slots = slots_of(head) + 1
    runner = OrtRunner(teachable_head(head, "input", 1), "cpu", 1)
    profile = class_profile(head, slots, 9)
    tensors = class_tensors(head, slots)
    assert list(profile) == list(tensors)
    assert {name: shapes[1] for name, shapes in profile.items()} == {
        name: tensor.values.shape for name, tensor in tensors.items()
    }
    growing = {name for name, shapes in profile.items() if len(set(shapes)) > 1}
    assert growing == {
        name
        for name, tensor in tensors.items()
        if any(isinstance(side, str) for side in tensor.shape)
    }
    least = -(-head.rule.neighbors // slots)
    for position, classes in enumerate((least, 4, 9)):
        held = {name: np.ones(shapes[position], "f4") for name, shapes in profile.items()}
        (scores,) = runner.run(["scores"], ROWS, runner.hold(held))
        assert scores.shape == (len(ROWS), classes)


def test_the_profile_of_more_classes_than_it_may_hold(make_head: MakeHead) -> None:
    with pytest.raises(HeadMismatchError) as caught:
        class_profile(make_head(), 3, 2)
    assert str(caught.value) == (
        "the head has 3 classes, the model would hold 2; export it with a higher --max-classes"
    )


# Baking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["default", "input"])
@pytest.mark.parametrize("rule", [VOTES[0], VOTES[1], {"distance": "manhattan"}], ids=str)
def test_a_baked_model_is_an_ordinary_one(
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    form: str,
    rule: dict[str, Any],
) -> None:
    head = make_head(3, 2, calibrated=ROWS, **rule)
    taught = teach(teach(head, "new", ROWS[:9], proxies=3), "class 0", ROWS[9:12], proxies=1)
    model = fuse(tiny_backbone, head, teachable=Teachable(form, 8, 4))
    path = save(bake(model, taught), tmp_path / "baked.onnx")
    opened = open_model(path, "cpu")
    assert opened.labels == taught.labels
    assert opened.head is None
    graph = opened.contract.graph
    assert graph is not None
    assert graph.teachable is None
    assert graph.slots == slots_of(taught) == 3
    proto = onnx.load(path)
    assert [value.name for value in proto.graph.input] == ["images"]
    (proxies,) = (t for t in proto.graph.initializer if t.name == "proxies")
    assert 4 * 3 in proxies.dims
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    compare(opened.predict(images), taught, opened.embed(images)).require()


def test_baking_what_was_never_taught_gives_the_head(
    tiny_backbone: bytes, make_head: MakeHead
) -> None:
    """Up to the order of its constants it is the model as it would be fused."""
    head = make_head(3, 2)
    outputs = ("scores", "label", "embedding")
    plain = fuse(tiny_backbone, head, outputs=outputs)
    baked = bake(fuse(tiny_backbone, head, teachable=Teachable(), outputs=outputs), head)
    for part in ("node", "input", "output", "metadata_props"):
        assert list(getattr(baked, part, getattr(baked.graph, part, []))) == list(
            getattr(plain, part, getattr(plain.graph, part, []))
        )
    constants = [
        sorted(model.graph.initializer, key=lambda t: t.name) for model in (plain, baked)
    ]
    assert constants[0] == constants[1]


def test_a_proof_does_not_outlive_its_classes(
    tiny_backbone: bytes, make_head: MakeHead
) -> None:
    head = make_head()
    model = fuse(tiny_backbone, head, teachable=Teachable())
    for name in ("proof", "exported_with"):
        entry = model.metadata_props.add()
        entry.key, entry.value = f"edge_imprint.note.{name}", "something"
    baked = bake(model, head)
    metadata = {entry.key: entry.value for entry in baked.metadata_props}
    assert decode(metadata, model=True).notes == (("exported_with", "something"),)


def test_what_cannot_be_baked(
    tiny_backbone: bytes, make_head: MakeHead, tiny_info: BackboneInfo
) -> None:
    head = make_head()
    with pytest.raises(NotTeachableError) as caught:
        bake(fuse(tiny_backbone, head), head)
    assert str(caught.value) == (
        "the model was exported without --teachable, so that its classes can't change; "
        "export it again with it"
    )
    other = BackboneInfo("tiny", "packaged", "1" * 64, tiny_info.preprocess)
    with pytest.raises(HeadMismatchError, match="the head was made with another backbone"):
        bake(fuse(tiny_backbone, head, teachable=Teachable()), make_head(backbone=other))


def test_int_inputs_there_are_none(make_head: MakeHead) -> None:
    """TensorRT 8 takes no int64 at the door."""
    for rule in RULES:
        model = parse(teachable_head(make_head(**rule), "input", 2), "the head")
        kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
        assert kinds == {TensorProto.FLOAT}
