# SPDX-License-Identifier: Apache-2.0
"""What tests of backends share: machines that stand in for a GPU's, models of each form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.class_tensors import class_tensors
from edge_imprint_runtime.contract import Frame, Teachable
from tests.standins import VERSIONS, World, tensorrt_standin
from tests.standins.cuda_runtime import device_of
from tests.standins.engines import make_engine

MakeHead = Callable[..., Head]
Arrays = dict[str, npt.NDArray[np.generic]]

FORMS = ("plain", "calibrated", "frames", "input")
NEWEST = VERSIONS[-1]


@dataclass
class Form:
    """A model, what it takes, and its engine.

    Attributes:
        path: The ONNX file.
        shape: Of one image.
        dtype: Of its numbers.
        tensors: What goes in beside images.
        options: What `make_engine` needs for it.
    """

    path: Path
    shape: tuple[int, ...] = (16, 16, 3)
    dtype: Any = np.uint8
    tensors: Arrays = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def engine(self, world: World, **options: Any) -> Path:
        """Write its engine."""
        return make_engine(self.path, world, **self.options | options)

    def images(self, count: int, seed: int = 0) -> npt.NDArray[np.generic]:
        """Return noise that it takes."""
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (count, *self.shape)).astype(self.dtype)

    def expected(
        self, images: npt.NDArray[np.generic], tensors: Arrays | None = None
    ) -> list[npt.NDArray[np.generic]]:
        """Return what ONNX Runtime answers on the CPU, all outputs."""
        runner = OrtRunner(self.path, "cpu", 1)
        given = self.tensors if tensors is None else tensors
        return runner.run(list(runner.outputs), images, runner.hold(given))


@pytest.fixture(params=VERSIONS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine with each TensorRT; what is made there must be given back."""
    with tensorrt_standin(request.param) as made:
        yield made
        device = device_of(made)
        assert device.violations == []


@pytest.fixture
def newest() -> Iterator[World]:
    """A machine with the newest TensorRT alone, for what does not depend on it."""
    with tensorrt_standin(NEWEST) as made:
        yield made
        assert device_of(made).violations == []


@pytest.fixture
def make_form(
    tmp_path: Path, tiny_backbone: bytes, tiny_info: BackboneInfo, make_head: MakeHead
) -> Callable[[str], Form]:
    """Return a function of a form's name: a model of it."""

    def make(name: str) -> Form:
        path = tmp_path / f"{name}.onnx"
        if name == "plain":
            outputs = ("scores", "label", "embedding")
            path.write_bytes(to_bytes(fuse(tiny_backbone, make_head(), outputs=outputs)))
            return Form(path)
        if name == "calibrated":
            head = make_head(4, 3, calibrated=True)
            path.write_bytes(to_bytes(fuse(tiny_backbone, head)))
            return Form(path)
        if name == "frames":
            p = tiny_info.preprocess
            sides = (p.height, p.width, "crop", p.resize_height, p.resize_width)
            preprocess = Preprocess(*sides, "linear", p.mean, p.std)
            info = BackboneInfo("tiny", "packaged", tiny_info.digest, preprocess)
            made = fuse(
                tiny_backbone, make_head(backbone=info), input="frame", frame=Frame("rgb")
            )
            path.write_bytes(to_bytes(made))
            return Form(path, (24, 40, 3), options={"frame_size": (24, 40)})
        assert name == "input"
        head = make_head(3, 2)
        made = fuse(tiny_backbone, head, teachable=Teachable("input", 6, 3))
        path.write_bytes(to_bytes(made))
        slots = int(made.metadata_props and dict(_metadata(made))["edge_imprint.slots"])
        return Form(path, tensors=values_of(head, slots))

    return make


def values_of(head: Head, slots: int) -> Arrays:
    """Lay a head out as a teachable model takes it."""
    return {name: tensor.values for name, tensor in class_tensors(head, slots).items()}


def _metadata(model: Any) -> Iterator[tuple[str, str]]:
    for entry in model.metadata_props:
        yield entry.key, entry.value
