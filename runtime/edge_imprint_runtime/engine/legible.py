# SPDX-License-Identifier: Apache-2.0
"""What a TensorRT can't read of a model, or would compute wrongly without a word.

Only what exporters write and TensorRT's own errors tell badly or not at all; `edge-imprint
check` knows more. Each ends with the target to export for.
"""

from __future__ import annotations

from edge_imprint_runtime.contract import Contract
from edge_imprint_runtime.engine.onnx_facts import Node, OnnxFacts
from edge_imprint_runtime.errors import TargetError

__all__ = ["check_legible"]

# From this version on -> what `edge-imprint export --target` calls it.
_TARGETS = (
    ((11,), "tensorrt-11"),
    ((10, 16), "jetpack-7.2"),
    ((10, 12), "jetpack-7.0"),
    ((10,), "jetpack-6.2"),
    ((8, 6), "jetpack-6.0"),
    ((8,), "jetpack-5.1"),
)
_NEVER = (
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)
# Their axes became an input with opset 18; of ReduceSum TensorRT 8 reads it.
_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
_INT8 = 3
# The first version that reads the start and the end of a Shape, as far as is known.
_SHAPE_RANGE = (10, 6)


def check_legible(
    facts: OnnxFacts, contract: Contract | None, version: tuple[int, ...], where: str
) -> None:
    """Refuse a model that this TensorRT can't read.

    Args:
        facts: What the file says of itself.
        contract: The model's; None of a backbone alone.
        version: Of the TensorRT here.
        where: The file's name, for messages.

    Raises:
        TargetError: It can't, or would compute other numbers.
    """
    graph = None if contract is None else contract.graph
    teachable = None if graph is None else graph.teachable
    target = next(name for since, name in _TARGETS if version[: len(since)] >= since)
    reason = ""
    if teachable is not None and teachable.form == "default":
        reason = (
            "is teachable in the form that ONNX Runtime takes, and TensorRT takes what has a "
            "default for a constant"
        )
    else:
        for node in facts.nodes:
            if reason := _reason(node, facts, version):
                break
    if reason:
        exported = "" if graph is None else f" (exported for {graph.target!r})"
        raise TargetError(
            f"{where}{exported} {reason}; export it again "
            f"with: edge-imprint export --target {target}"
        )


def _reason(node: Node, facts: OnnxFacts, version: tuple[int, ...]) -> str:
    short = ".".join(map(str, version[:2]))
    if node.kind in _NEVER:
        return f"has the operator {node.kind}, which no TensorRT reads"
    if node.kind == "Resize" and (
        node.attributes.get("mode") == "cubic" or node.attributes.get("antialias") == 1
    ):
        return "has a cubic or antialiased Resize, which no TensorRT reads"
    if version < _SHAPE_RANGE and node.kind == "Shape" and node.attributes:
        return f"asks for a part of a shape, and TensorRT {short} gives the whole"
    if version >= (10,):
        return ""
    if node.kind in _REDUCTIONS and len(node.inputs) > 1 and node.inputs[1]:
        return (
            f"gives the axes of {node.kind} as an input, which TensorRT {short} ignores, so "
            "that it would compute other numbers"
        )
    weights = facts.tensors.get(node.inputs[0]) if node.inputs else None
    if node.kind == "DequantizeLinear" and weights is not None and weights.kind == _INT8:
        return f"keeps weights as int8, which TensorRT {short} does not read"
    return ""
