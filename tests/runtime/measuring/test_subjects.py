# SPDX-License-Identifier: Apache-2.0
"""Subjects: their images, and what can't be measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_imprint_runtime import open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import ModelFileError, ParameterError
from edge_imprint_runtime.headless import headless
from edge_imprint_runtime.measuring import (
    Plan,
    Subject,
    model_subject,
    run_bench,
    runner_subject,
)

QUICK = Plan(iterations=3, warm_up_s=0.05)


@pytest.fixture
def tiny(tiny_model: Path) -> Iterator[Subject]:
    with open_model(tiny_model, "cpu", threads=1) as model:
        yield model_subject(model)


def bare(name: str) -> Subject:
    return Subject(name, len, (16, 16, 3), np.dtype(np.uint8))


def test_a_model_and_what_it_is_asked(tiny: Subject) -> None:
    assert tiny.name == "fused"
    assert tiny.outputs == ("scores", "label")
    assert (tiny.shape, tiny.dtype) == ((16, 16, 3), np.uint8)
    images = tiny.images(2)
    assert tiny.images(2).tobytes() == images.tobytes() != tiny.images(2, seed=1).tobytes()
    assert len(tiny.bound(images)()) == 2  # type: ignore[arg-type]
    assert set(tiny.stages(images)()) == {"compute"}


def test_frames_of_any_size() -> None:
    subject = Subject("a", len, (0, 0, 3), np.dtype(np.uint8))
    assert subject.images(2, (9, 12)).shape == (2, 9, 12, 3)
    for size, said in (
        (None, "the model takes frames of any size; say of which it is measured, such as "),
        ((0, 5), "a frame's sides are 1 to 8192, got (0, 5)"),
    ):
        with pytest.raises(ParameterError) as caught:
            subject.images(1, size)
        assert str(caught.value).startswith(said)


def test_images_are_of_the_models_type() -> None:
    floats = Subject("a", len, (3, 4, 4), np.dtype(np.float16)).images(5)
    assert (floats.dtype, floats.shape) == (np.float16, (5, 3, 4, 4))
    assert abs(float(floats.astype(float).mean())) < 0.5


def test_a_size_for_a_model_of_one(tiny: Subject, tiny_model: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        run_bench(tiny, Plan(frame_size=(9, 9)), path=tiny_model)
    assert str(caught.value) == (
        "the model takes images of one size; leave out the frame's size"
    )


def test_what_can_not_be_measured(tiny: Subject, tiny_model: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        run_bench(tiny, QUICK, path=tiny_model, beside=[bare("fused")])
    assert str(caught.value) == "two things are measured under one name: fused, fused"
    with pytest.raises(ParameterError, match="'call' has no stages: nothing is known"):
        bare("call").stages(np.zeros((1, 16, 16, 3), np.uint8))
    runner = OrtRunner(headless(tiny_model.read_bytes(), "m"), "cpu", 1)
    with pytest.raises(ParameterError) as caught:
        run_bench(runner_subject(runner), Plan(cold=2), path=tiny_model)
    assert str(caught.value) == (
        f"a cold start ends with a label, and {tiny_model} has none; leave out --cold"
    )
    runner.batch_limits = (1, 4)
    with pytest.raises(ParameterError) as caught:
        runner_subject(runner).stages(np.zeros((8, 16, 16, 3), np.uint8))
    assert str(caught.value) == (
        "stages are those of one run, which takes 1 to 4 images here, got a batch of 8; give "
        "another --batch"
    )
    with pytest.raises(
        ParameterError, match="layers are those of one run, which takes 1 to 4"
    ):
        run_bench(runner_subject(runner), Plan(layers=True, batches=(8,)), path=tiny_model)
    runner.inputs = {"x": (("N", 3), "tensor(int64)")}
    with pytest.raises(ModelFileError, match=r"takes tensor\(int64\) \['N', 3\]; only uint8"):
        runner_subject(runner)
    runner.inputs = {}
    with pytest.raises(ModelFileError, match="must have one input, and has 0"):
        runner_subject(runner)
