# SPDX-License-Identifier: Apache-2.0
"""What an engine takes and gives, read off the engine and held against its sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import EngineFileError

if TYPE_CHECKING:
    from edge_imprint_runtime.engine.sidecar import Sidecar

__all__ = ["Tensor", "read_tensors"]

# TensorRT's name of a type -> ONNX Runtime's, and numpy's. It has others, which we never emit.
_TYPES: dict[str, tuple[str, npt.DTypeLike]] = {
    "FLOAT": ("tensor(float)", np.float32),
    "HALF": ("tensor(float16)", np.float16),
    "INT8": ("tensor(int8)", np.int8),
    "UINT8": ("tensor(uint8)", np.uint8),
    "INT32": ("tensor(int32)", np.int32),
    "INT64": ("tensor(int64)", np.int64),
    "BOOL": ("tensor(bool)", np.bool_),
}


@dataclass(frozen=True)
class Tensor:
    """One input or output of an engine.

    Attributes:
        name: Its name.
        dtype: Of its numbers.
        least: Of an input, the smallest shape that it may have; of an output, ().
        most: Likewise the largest.
    """

    name: str
    dtype: np.dtype[np.generic]
    least: tuple[int, ...] = ()
    most: tuple[int, ...] = ()

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an input may have a shape."""
        return len(shape) == len(self.most) and all(
            low <= side <= high
            for low, side, high in zip(self.least, shape, self.most, strict=True)
        )


def read_tensors(
    engine: Any, sidecar: Sidecar, where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ask an engine for its inputs and outputs.

    Args:
        engine: TensorRT's.
        sidecar: What lies beside it.
        where: The engine's file, for messages.

    Returns:
        Inputs, the images first, and outputs, in the sidecar's order.

    Raises:
        EngineFileError: Engine and sidecar contradict each other, in a name, a type, a shape
            or the profile; or the engine has a type that numpy has not.
    """
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name).name for name in names}
    found = []
    for mode, told in (("INPUT", sidecar.inputs), ("OUTPUT", sidecar.outputs)):
        there = {name for name in names if modes[name] == mode}
        if there != told.keys():
            name = sorted(there ^ told.keys())[0]
            has, lacks = ("engine", "sidecar") if name in there else ("sidecar", "engine")
            raise _contradiction(
                where, f"the {has} has the {mode.lower()} {name}, the {lacks} does not"
            )
        found.append({name: _tensor(engine, name, told[name], where) for name in told})
    inputs = {name: _with_limits(engine, t, sidecar, where) for name, t in found[0].items()}
    return inputs, found[1]


def _tensor(engine: Any, name: str, told: Sequence[Any], where: str) -> Tensor:
    shape, kind = told
    type_name = engine.get_tensor_dtype(name).name
    if type_name not in _TYPES:
        raise EngineFileError(
            f"{where}: {name} is of TensorRT's type {type_name}, which this release does not "
            "read; compile the model again"
        )
    text, dtype = _TYPES[type_name]
    if text != kind:
        raise _contradiction(
            where, f"the engine has {name} as {text}, the sidecar has it as {kind}"
        )
    sides = tuple(engine.get_tensor_shape(name))
    if len(sides) != len(shape) or any(
        isinstance(side, int) and there >= 0 and there != side
        for there, side in zip(sides, shape, strict=True)
    ):
        raise _contradiction(
            where,
            f"the engine has {name} of shape {list(sides)}, the sidecar has {list(shape)}",
        )
    return Tensor(name, np.dtype(dtype))


def _with_limits(engine: Any, tensor: Tensor, sidecar: Sidecar, where: str) -> Tensor:
    sides = tuple(engine.get_tensor_shape(tensor.name))
    if -1 in sides:
        limits = engine.get_tensor_profile_shape(tensor.name, 0)
        least, _, most = (tuple(int(side) for side in shape) for shape in limits)
    else:
        least = most = tuple(int(side) for side in sides)
    told = sidecar.profile.get(tensor.name)
    if told is not None and (tuple(told[0]), tuple(told[2])) != (least, most):
        raise _contradiction(
            where,
            f"the engine takes {tensor.name} from {list(least)} to {list(most)}, the sidecar "
            f"has {list(told[0])} to {list(told[2])}",
        )
    return Tensor(tensor.name, tensor.dtype, least, most)


def _contradiction(where: str, how: str) -> EngineFileError:
    """Make the error; of the two, who can tell which is wrong."""
    return EngineFileError(
        f"{where} and the sidecar beside it contradict each other: {how}; compile the model "
        "again"
    )
