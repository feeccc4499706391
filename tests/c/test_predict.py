# SPDX-License-Identifier: Apache-2.0
"""Batches, predictions used again, what answers and descriptions hold."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c import binding
from tests.c.answers import both, noise, same
from tests.c.binding import CallError, Library, Predictions, images_of

MakeHead = Callable[..., Head]
Fused = Callable[..., Path]
Array = npt.NDArray[Any]


@pytest.fixture
def fused(tiny_backbone: bytes, tmp_path: Path) -> Fused:
    """Return ``make(head, **options of fuse)``: the file of a fused model."""

    def make(head: Head, **options: Any) -> Path:
        path = tmp_path / "m.onnx"
        options = {"outputs": ("scores", "label", "embedding")} | options
        path.write_bytes(to_bytes(fuse(tiny_backbone, head, **options)))
        return path

    return make


# Batches -----------------------------------------------------------------------------------


@pytest.fixture
def of_four(fused: Fused, make_head: MakeHead) -> Path:
    """A model that takes four images at a time, no more and no fewer."""
    path = fused(make_head(calibrated=True))
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("padding", [0, 3])
def test_a_fixed_batch_is_padded(ei: Library, of_four: Path, padding: int) -> None:
    ours, python = both(ei, of_four)
    assert ours.describe()["max_batch"] == 4
    found = Predictions(ei)
    for count in (1, 4, 3, 9, 8, 9, 1):
        images = noise(count, 16, 16, 3, seed=count)
        given = images_of(images, padding=padding)
        same(ours.predict(given, again=found), python.predict(images))
        same(ours.predict(given, again=found), python.predict(images))
        assert np.array_equal(ours.embed(given), python.embed(images))


def test_predictions_used_again(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    """With other images, another number of them, another model, more classes."""
    first = both(ei, fused(make_head(), teachable=Teachable()))
    make_head().save(head_beside(fused(make_head(), teachable=Teachable())))
    first = both(ei, fused(make_head(), teachable=Teachable()))
    second = both(ei, fused(make_head(4, calibrated=True)))
    third = both(ei, fused(make_head(2), input="float32"))
    found = Predictions(ei)
    for turn, count in enumerate((2, 2, 1, 5, 5, 3, 2)):
        images = noise(count, 16, 16, 3, seed=turn)
        for ours, python in (first, second):
            same(ours.predict(images, again=found), python.predict(images))
        ours, python = third
        floats = noise(count, 3, 16, 16, seed=turn).astype(np.float32)
        answer = python.predict(floats)
        same(ours.predict(floats, binding.FLOAT32, again=found), answer)
        ours, python = first
        for model in first:
            model.teach(f"new {turn}", noise(2, 16, 16, 3, seed=90 + turn))
        same(ours.predict(images, again=found), python.predict(images), exact=False)
        same(ours.predict(images, again=found), python.predict(images), exact=False)


def test_images_in_the_same_memory_are_read_anew(
    ei: Library, fused: Fused, make_head: MakeHead
) -> None:
    ours, python = both(ei, fused(make_head()))
    frame, found = noise(1, 16, 16, 3), Predictions(ei)
    given = images_of(frame)
    for turn in range(4):
        frame[:] = noise(1, 16, 16, 3, seed=turn)
        same(ours.predict(given, again=found), python.predict(frame))


def test_numbers_at_odd_addresses(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    ours, python = both(ei, fused(make_head(), input="float32"))
    floats = noise(1, 3, 16, 16).astype(np.float32)
    room = np.zeros(floats.nbytes + 1, np.uint8)
    room[1:] = np.frombuffer(floats.tobytes(), np.uint8)
    given = images_of(floats, binding.FLOAT32)
    given[0].data = room.ctypes.data + 1
    same(ours.predict(given), python.predict(floats))


# Answers -----------------------------------------------------------------------------------


def test_ranked(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    found = ei.open(fused(make_head(40, calibrated=True))).predict(noise(3, 16, 16, 3))
    for item in range(3):
        scores, probability = found.scores[item], found.probability
        assert probability is not None
        order = np.argsort(-scores, kind="stable")
        for k in (1, 2, 3, 7, 39, 40, 41, 1000):
            want = [(found.labels[i], i, scores[i], probability[item][i]) for i in order[:k]]
            assert found.top(item, k) == want


def test_ranked_where_scores_tie(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    head = make_head(30, 3, aggregation="mnn", neighbors=9)
    found = ei.open(fused(head)).predict(noise(2, 16, 16, 3))
    assert len(set(found.scores[0])) < 12  # most have no vote
    for k in (1, 5, 30):
        want = np.argsort(-found.scores[0], kind="stable")[:k]
        assert [index for _, index, _, _ in found.top(0, k)] == list(want)
        assert {probability for *_, probability in found.top(0, k)} == {-1}


def test_answers_outlive_the_model(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    path = fused(make_head(), teachable=Teachable())
    make_head(5, seed=1).save(head_beside(path))
    model = ei.open(path)
    images = noise(2, 16, 16, 3)
    found, labels = model.predict(images), model.labels
    before = (found[1], found.scores)
    for label in labels[1:]:
        model.forget(label)
    assert found.labels == labels
    model.close()
    assert found.labels == labels
    assert found[1] == before[0]
    assert np.array_equal(found.scores, before[1])


def test_there_is_no_answer_after_a_failure(
    ei: Library, fused: Fused, make_head: MakeHead
) -> None:
    model = ei.open(fused(make_head()))
    found = model.predict(noise(2, 16, 16, 3))
    with pytest.raises(CallError):
        model.predict(noise(2, 17, 16, 3), again=found)
    assert len(found) == 0
    assert found.labels == ()
    with pytest.raises(IndexError):
        found[0]
    assert not ei.c.ei_scores_at(found.handle, 0)
    assert not ei.c.ei_probabilities_at(found.handle, 0)
    assert ei.c.ei_predicted_label(found.handle, 0) is None
    assert len(model.predict(noise(3, 16, 16, 3), again=found)) == 3
    fresh = Predictions(ei)
    with pytest.raises(CallError):
        model.predict(noise(2, 17, 16, 3), again=fresh)
    assert not fresh.handle


# Descriptions ------------------------------------------------------------------------------


def test_what_a_model_is(ei: Library, fused: Fused, make_head: MakeHead) -> None:
    import onnxruntime

    path = fused(make_head(calibrated=True), teachable=Teachable("default", 6, 3))
    about = ei.open(path).describe()
    assert about == {
        "size": ctypes.sizeof(binding.Description),
        "format": binding.RGB8,
        "width": 16,
        "height": 16,
        "embedding_size": 8,
        "max_batch": 0,
        "can_embed": 1,
        "calibrated": 1,
        "teachable": 1,
        "max_classes": 6,
        "taught_proxies": 3,
        "recipe": "random",
        "backbone": "tiny",
        "precision": "fp32",
        "target": "portable",
        "provider": "CPUExecutionProvider",
        "library": f"onnxruntime {onnxruntime.__version__}",
    }
    plain = ei.open(fused(make_head(), outputs=("scores", "label"))).describe()
    for name in ("can_embed", "calibrated", "teachable", "max_classes", "taught_proxies"):
        assert plain[name] == 0


def test_a_description_of_an_older_release(
    ei: Library, fused: Fused, make_head: MakeHead
) -> None:
    model = ei.open(fused(make_head()))
    found = binding.Description(size=binding.Description.height.offset, height=77)
    ei.check(ei.c.ei_describe(model.handle, ctypes.byref(found)))
    assert (found.size, found.width, found.height) == (
        binding.Description.height.offset,
        16,
        77,
    )


def test_class_names_are_cut_between_characters(
    ei: Library, fused: Fused, make_head: MakeHead
) -> None:
    head = make_head()
    named = Head(
        head.proxies,
        head.class_index,
        ["Maß", "größe €", "x" * 1024],
        head.rule,
        recipe="random",
        backbone=head.backbone,
    )
    model = ei.open(fused(named))
    assert model.labels == named.labels
    cuts = {1: "", 2: "M", 3: "Ma", 4: "Ma", 5: "Maß", 6: "Maß"}
    assert {room: model.class_name(0, room) for room in cuts} == cuts
    assert [model.class_name(1, room) for room in (9, 10, 11, 12)] == [
        "größe ",
        "größe ",
        "größe ",
        "größe €",
    ]
    with pytest.raises(CallError) as caught:
        model.class_name(3)
    assert caught.value.status == "EI_NO_SUCH_CLASS"
