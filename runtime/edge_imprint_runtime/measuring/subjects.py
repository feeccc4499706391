# SPDX-License-Identifier: Apache-2.0
"""What is measured: a model as a user calls it, or a bare runner, on random images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends import LayerTime, Runner
from edge_imprint_runtime.batches import run_in_parts
from edge_imprint_runtime.contract.spec import MAX_SIDE_PIXELS
from edge_imprint_runtime.errors import ModelFileError, ParameterError
from edge_imprint_runtime.model import Model

__all__ = ["Subject", "model_subject", "runner_subject"]

_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Attributes:
        name: Its series' name.
        call: What is timed; takes images.
        shape: Of one image; 0 for a side of any length.
        dtype: Of its numbers.
        runner: What runs it; None for a bare callable, which has no stages and no layers.
        outputs: What is asked of the runner.
        held: What goes into its other inputs.
        model: The model, where it is one.
    """

    name: str
    call: Callable[[Array], object]
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    runner: Runner | None = None
    outputs: tuple[str, ...] = ()
    held: Mapping[str, Any] | None = None
    model: Model | None = None

    def images(
        self, batch: int, frame_size: tuple[int, int] | None = None, *, seed: int = 0
    ) -> Array:
        """Make random images, always the same.

        Args:
            batch: How many.
            frame_size: Height and width in pixels, where the model takes any size.
            seed: Of the generator.

        Returns:
            (batch, ...) of `dtype`.

        Raises:
            ParameterError: A size is missing, impossible, or given where there is but one.
        """
        shape = (batch, *self._image_shape(frame_size))
        rng = np.random.default_rng(seed)
        if self.dtype == np.uint8:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape).astype(self.dtype)

    def bound(self, images: Array) -> Callable[[], object]:
        """Return the call on these images, without arguments and at next to no cost."""
        return partial(self.call, images)

    def stages(self, images: Array) -> Callable[[], dict[str, int]]:
        """Return a call that gives nanoseconds by stage.

        Raises:
            ParameterError: There is no runner, or it takes no batch of this size in one run.
        """
        runner = self.in_one_run(len(images), "stages")
        names, held = list(self.outputs), self.held
        return lambda: runner.run_stages(names, images, held)[1]

    def layers(self, images: Array, *, runs: int = 20) -> list[LayerTime]:
        """Return the time by layer, the dearest first.

        Args:
            images: What the runner is given.
            runs: Each time is the mean of so many.

        Raises:
            ParameterError: As in `stages`.
        """
        return self.in_one_run(len(images), "layers").layers(images, self.held, runs=runs)

    def in_one_run(self, batch: int, what: str) -> Runner:
        """Return the runner, if it takes a batch in one run.

        Args:
            batch: Images.
            what: What is asked of that run, for the message.

        Raises:
            ParameterError: There is no runner, or it takes no batch of this size in one run.
        """
        if self.runner is None:
            raise ParameterError(
                f"{self.name!r} has no {what}: nothing is known of its inside"
            )
        least, most = self.runner.batch_limits
        if batch < least or (most is not None and batch > most):
            raise ParameterError(
                f"{what} are those of one run, which takes {least} to {most} images here, got "
                f"a batch of {batch}; give another --batch"
            )
        return self.runner

    def _image_shape(self, frame_size: tuple[int, int] | None) -> tuple[int, ...]:
        any_size = 0 in self.shape
        if any_size != (frame_size is not None):
            raise ParameterError(
                "the model takes frames of any size; say of which it is measured, such as "
                "--frame-size 1280x720"
                if any_size
                else "the model takes images of one size; leave out the frame's size"
            )
        if frame_size is None:
            return self.shape
        if not all(1 <= side <= MAX_SIDE_PIXELS for side in frame_size):
            raise ParameterError(
                f"a frame's sides are 1 to {MAX_SIDE_PIXELS}, got {frame_size}"
            )
        return (*frame_size, self.shape[2])


def model_subject(model: Model, name: str | None = None) -> Subject:
    """Measure a model as a user calls it: `Model.predict` on an array.

    Args:
        model: The model.
        name: Of the series; None: ``fused``, or ``head`` where it takes embeddings.
    """
    graph = model.contract.graph
    assert graph is not None  # an open model has one
    if name is None:
        name = "head" if graph.input == "embedding" else "fused"
    answers = ("scores", "label", "known", "probability", "proxy")
    return Subject(
        name,
        model.predict,
        model.input_shape,
        model.input_dtype,
        model.runner,
        tuple(answer for answer in answers if answer in model.runner.outputs),
        model.held,
        model,
    )


def runner_subject(runner: Runner, name: str = "backbone only") -> Subject:
    """Measure what has no contract, such as a backbone alone: the runner itself.

    Args:
        runner: A loaded file with one input.
        name: Of the series.

    Raises:
        ModelFileError: It has another number of inputs, or one that is no array of pixels.
    """
    if len(runner.inputs) != 1:
        raise ModelFileError(
            f"what is measured as {name!r} must have one input, and has {len(runner.inputs)}"
        )
    ((shape, kind),) = runner.inputs.values()
    if kind not in _TYPES or len(shape) < 2:
        raise ModelFileError(
            f"what is measured as {name!r} takes {kind} {list(shape)}; only uint8, float16 "
            "and float32 can be measured, with the batch first"
        )
    sides = tuple(side if isinstance(side, int) and side > 0 else 0 for side in shape[1:])
    outputs = ["embedding"] if "embedding" in runner.outputs else list(runner.outputs)
    return Subject(
        name,
        partial(run_in_parts, runner, outputs),
        sides,
        np.dtype(_TYPES[kind]),
        runner,
        tuple(outputs),
    )
