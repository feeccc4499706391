# SPDX-License-Identifier: Apache-2.0
"""What a teachable model knows at one time: a head, laid out for its graph."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.class_tensors import check_head, class_tensors
from edge_imprint_runtime.contract import Contract
from edge_imprint_runtime.errors import HeadMismatchError
from edge_imprint_runtime.head import Head

__all__ = ["Knowledge", "head_beside", "knowing"]


@dataclass(frozen=True)
class Knowledge:
    """What a model knows; swapped whole, so that no answer mixes two.

    Attributes:
        labels: The class names.
        head: The head that holds them; None where it is in the model alone.
        held: What goes into the model beside images, as `Runner.hold` gave it.
    """

    labels: tuple[str, ...]
    head: Head | None = None
    held: dict[str, Any] = field(default_factory=dict)


def head_beside(model: str | os.PathLike[str]) -> Path:
    """Return where a teachable model's head lies: ``MODEL.onnx.head``."""
    return Path(f"{os.fspath(model)}.head")


def knowing(head: Head, contract: Contract, runner: Runner, where: Path) -> Knowledge:
    """Lay a head out for a teachable model, once it is known to fit.

    Args:
        head: What the model is to know.
        contract: The model's.
        runner: The model.
        where: The head's file, for messages.

    Returns:
        What the model is to be run with.

    Raises:
        HeadMismatchError: The head does not fit.
    """
    check_head(head, contract, str(where))
    assert contract.graph is not None  # check_head saw to it
    tensors = class_tensors(head, contract.graph.slots)
    taken = runner.inputs | runner.defaults
    taken.pop(next(iter(runner.inputs)))  # the images
    if tensors.keys() != taken.keys():
        wrong = sorted(tensors.keys() ^ taken.keys())[0]
        has, takes = ("has", "does not take") if wrong in tensors else ("lacks", "takes")
        raise HeadMismatchError(
            f"{where} {has} {wrong}, which the model {takes}; "
            "put the head there that was exported with the model"
        )
    for name, tensor in tensors.items():
        shape = taken[name][0]
        fits = len(shape) == len(tensor.shape) and all(
            there == size or isinstance(size, str)
            for there, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise HeadMismatchError(
                f"{where} has {name} of shape {list(tensor.shape)}, the model takes "
                f"{list(shape)}; put the head there that was exported with the model"
            )
    held = runner.hold({name: tensor.values for name, tensor in tensors.items()})
    return Knowledge(head.labels, head, held)
