# SPDX-License-Identifier: Apache-2.0
"""ONNX's own evaluator as a runner: slow, in plain numpy, and what the operators mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from edge_imprint_export.graph import default_opset
from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.errors import InputError, ModelFileError

__all__ = ["ReferenceRunner"]

# In ONNX Runtime's words, which are those of `Runner`.
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.UINT8: "tensor(uint8)",
    TensorProto.INT32: "tensor(int32)",
}


class DequantizeLinear(OpRun):
    """That of opsets 10 to 18, which the evaluator lacks (onnx 1.23)."""

    op_domain = ""

    def _run(
        self,
        x: npt.NDArray[Any],
        scale: npt.NDArray[Any],
        zero_point: npt.NDArray[Any] | None = None,
        axis: int = 1,
        block_size: int = 0,  # this and the next are of newer opsets: at their default
        output_dtype: int = 0,
    ) -> tuple[npt.NDArray[Any]]:
        sides = [1] * x.ndim
        if scale.ndim:
            sides[axis] = len(scale)
        zero = np.zeros_like(scale, np.int32) if zero_point is None else zero_point
        whole = x.astype(np.int32) - zero.astype(np.int32).reshape(sides)
        return (whole.astype(scale.dtype) * scale.reshape(sides),)


class ReferenceRunner(Runner):
    """One model in ``onnx.reference.ReferenceEvaluator``; a `Runner`.

    Args:
        model: The model; it is not changed.

    Raises:
        ModelFileError: The evaluator lacks an operator of it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        lacking: list[type[OpRun]] = [DequantizeLinear] if default_opset(model) < 19 else []
        try:
            self._evaluator = ReferenceEvaluator(model, new_ops=lacking)
        except Exception as error:  # it raises whatever its many parts raise
            raise ModelFileError(
                f"ONNX's reference evaluator can't load the model: {_short(error)}"
            ) from error
        graph = model.graph
        defaults = {tensor.name for tensor in graph.initializer}
        inputs = {value.name: _form(value) for value in graph.input}
        self.provider, self.threads = "ReferenceEvaluator", 0
        self.library = f"onnx {onnx.__version__}"
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.inputs = {name: form for name, form in inputs.items() if name not in defaults}
        self.defaults = {name: form for name, form in inputs.items() if name in defaults}
        self.outputs = {value.name: _form(value) for value in graph.output}

    def hold(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
        """Return the arrays: they are read where they lie."""
        return dict(arrays)

    def run(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> list[npt.NDArray[np.generic]]:
        """Run the model; see `Runner.run`."""
        feeds = {next(iter(self.inputs)): images, **(held or {})}
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # an overflow shows in the answer
                found: Any = self._evaluator.run(names, feeds)
        except Exception as error:
            raise InputError(
                f"ONNX's reference evaluator could not run the model: {_short(error)}"
            ) from error
        return list(found)


def _form(value: onnx.ValueInfoProto) -> tuple[tuple[int | str | None, ...], str]:
    tensor = value.type.tensor_type
    sides = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    return sides, _TYPES.get(tensor.elem_type, f"type {tensor.elem_type}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
