# SPDX-License-Identifier: Apache-2.0
"""Optimisation profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime import Head
from edge_imprint_runtime.class_tensors import class_profile, class_tensors, profile_note
from edge_imprint_runtime.contract import Contract, Frame, GraphInfo
from edge_imprint_runtime.engine.shapes import make_profile
from edge_imprint_runtime.errors import ModelFileError, ParameterError

IMAGES = {"images": (("N", 16, 16, 3), "tensor(uint8)")}
BATCH = st.tuples(*[st.integers(1, 4096)] * 3).map(lambda three: tuple(sorted(three)))


def contract_of(head: Head, graph: GraphInfo, profile: str | None = None) -> Contract:
    notes = () if profile is None else (("profile", profile),)
    return replace(head.contract, graph=graph, notes=notes)


def of(
    head: Head, inputs: dict[str, Any], profile: str | None = None, **options: Any
) -> dict[str, Any]:
    graph = GraphInfo("uint8", 2)
    return make_profile(
        inputs, contract_of(head, graph, profile), where="shop.onnx", **options
    )


@given(BATCH)
def test_images_come_in_batches(
    make_head: Callable[..., Head], batch: tuple[int, int, int]
) -> None:
    made = of(make_head(), IMAGES, batch=batch)
    assert made == {"images": tuple((n, 16, 16, 3) for n in batch)}


@given(
    classes=st.integers(1, 6),
    slots=st.integers(2, 5),
    more=st.integers(0, 20),
    distance=st.sampled_from(["cosine", "euclidean", "manhattan", "mahalanobis"]),
    votes=st.booleans(),
    calibrated=st.booleans(),
)
def test_a_teachable_model_takes_what_its_head_may_become(
    make_head: Callable[..., Head],
    classes: int,
    slots: int,
    more: int,
    distance: str,
    votes: bool,
    calibrated: bool,
) -> None:
    """The note that export writes is what `class_profile` says of every input."""
    rule = {"aggregation": "mnn", "neighbors": 2} if votes else {}
    head = make_head(classes, 2, distance=distance, calibrated=calibrated, **rule)
    inputs = dict(IMAGES) | {
        name: (tensor.shape, "tensor(float)")
        for name, tensor in class_tensors(head, slots).items()
    }
    limit = classes + more
    made = of(head, inputs, profile_note(head, slots, limit), batch=(1, 2, 3))
    assert list(made) == list(inputs)
    assert {n: s for n, s in made.items() if n != "images"} == class_profile(
        head, slots, limit
    )


@pytest.mark.parametrize(
    "batch", [(0, 1, 1), (2, 1, 3), (1, 3, 2), (1, 1, 4097), (1, 1), (1.0, 1, 1), (True, 1, 1)]
)
def test_a_batch_out_of_order(make_head: Callable[..., Head], batch: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        of(make_head(), IMAGES, batch=batch)
    assert str(caught.value) == (
        "batch must be the fewest, usual and most images, such as 1,1,8, in this order and "
        f"from 1 to 4096, got {','.join(map(str, batch))}"
    )


GROWS = dict(IMAGES) | {"proxies": ((8, "columns"), "tensor(float)")}
FORM = "'profile' must read 'NAME:MIN,OPT,MAX'"
LACKS = (
    "shop.onnx does not say which shapes its input 'proxies' may have (its note 'profile'); "
    "export it again"
)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, LACKS),
        ("other:8x1,8x2,8x3", LACKS),
        ("proxies:9x1,9x2,9x3", LACKS),
        ("proxies:8,8,8", LACKS),
        *(
            (
                text,
                f"shop.onnx: the note {FORM}, got {text!r}; export it again",
            )
            for text in (
                "proxies",
                "proxies:8x1,8x2",
                "proxies:8x0,8x2,8x3",
                "proxies:8x3,8x2,8x4",
                "proxies:8x1,8x2,8x3x1",
                "proxies:8x-1,8x2,8x3",
                "proxies:8x1,8x2,8x99999999999",
            )
        ),
    ],
)
def test_a_note_that_says_nothing_of_use(
    make_head: Callable[..., Head], profile: str | None, message: str
) -> None:
    with pytest.raises(ModelFileError) as caught:
        of(make_head(), GROWS, profile)
    assert str(caught.value) == message


def test_a_frame_size_is_for_frames_of_any_size(make_head: Callable[..., Head]) -> None:
    with pytest.raises(ParameterError) as caught:
        of(make_head(), IMAGES, frame_size=(480, 640))
    assert str(caught.value) == (
        "shop.onnx takes images of one size, so that a frame size says nothing; leave it out"
    )
    graph = GraphInfo("frame", 2, frame=Frame("rgb"))
    contract, inputs = (
        contract_of(make_head(), graph),
        {"images": (("N", "H", "W", 3), "tensor(uint8)")},
    )
    made = make_profile(inputs, contract, where="m", frame_size=(480, 640), batch=(1, 1, 1))
    assert made == {"images": ((1, 480, 640, 3),) * 3}
    for wrong in ((0, 640), (480, 8193), (480,), (480.0, 640)):
        with pytest.raises(ParameterError, match="a frame's sides must be whole numbers"):
            make_profile(inputs, contract, where="m", frame_size=wrong)  # type: ignore[arg-type]


def test_images_of_an_unknown_size(make_head: Callable[..., Head]) -> None:
    with pytest.raises(ModelFileError) as caught:
        of(make_head(), {"images": (("N", "H", 16, 3), "tensor(uint8)")})
    assert str(caught.value) == "shop.onnx has images of an unknown size; export it again"
    with pytest.raises(ModelFileError) as caught:
        of(make_head(), {})
    assert str(caught.value) == "shop.onnx has no input of images; export it again"
