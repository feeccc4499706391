# SPDX-License-Identifier: Apache-2.0
"""The same operator in the form of an older opset, or in one that no target misreads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from edge_imprint_export.targets.limits import REMEDIES
from edge_imprint_export.targets.lower_nodes import Place, refusal
from edge_imprint_export.targets.rules import NODE_RULES, attribute

__all__ = ["FORMS", "fit"]

_NEW_FORMS = 18  # the opset of Reduce* with axes, Split, Pad and Resize in their new form
_END = 2**31 - 1  # TensorRT 8 reads int64 as int32
_IDENTITIES = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_CONSTANT = "export the model with fixed sizes, or fold its constants"


def fit(place: Place, node: onnx.NodeProto) -> onnx.NodeProto:
    """Give a node the form of the opset to write, where the two differ by defaults only.

    Returns:
        The node itself, or a copy without what the older opset lacks and what says nothing.

    Raises:
        BackboneExportError: It is not in that opset, or says what can't be said there.
    """
    opset = place.nodes.opset
    if opset == place.facts.opset:
        return node
    if not defs.has(node.op_type, opset):
        remedy = REMEDIES.get(node.op_type, "replace it, or use a newer target")
        raise refusal(node, place.target.name, f"opset {opset} has no such operator; {remedy}")
    schema = defs.get_schema(node.op_type, opset, "")
    newer = defs.get_schema(node.op_type, place.facts.opset, "")
    surplus = [entry for entry in node.attribute if entry.name not in schema.attributes]
    for entry in surplus:
        if not _says_nothing(entry, newer):
            raise refusal(
                node,
                place.target.name,
                f"opset {opset} can't say its {entry.name}; export without it, or use a newer "
                "target",
            )
    if any(node.input[schema.max_input :]):
        raise refusal(
            node, place.target.name, f"opset {opset} takes {schema.max_input} inputs of it"
        )
    if not surplus and len(node.input) <= schema.max_input:
        return node
    fitted = onnx.NodeProto()
    fitted.CopyFrom(node)
    del fitted.attribute[:], fitted.input[schema.max_input :]
    names = {entry.name for entry in surplus}
    fitted.attribute.extend(entry for entry in node.attribute if entry.name not in names)
    return fitted


def _says_nothing(entry: onnx.AttributeProto, schema: defs.OpSchema) -> bool:
    """Tell whether an attribute has the value that it has where it is left out."""
    if entry.name == "dilations":
        return all(step == 1 for step in entry.ints)
    default = schema.attributes[entry.name].default_value
    return bool(default.name) and helper.get_attribute_value(
        entry
    ) == helper.get_attribute_value(default)


def _crosses(place: Place, opset: int) -> bool:
    """Tell whether a graph of this opset or newer becomes one of an older."""
    return place.nodes.opset < opset <= place.facts.opset


def _named(node: onnx.NodeProto, position: int) -> str:
    return node.input[position] if position < len(node.input) else ""


def _numbers(place: Place, node: onnx.NodeProto, position: int, what: str) -> list[int]:
    """Return the whole numbers that an input holds."""
    values = place.facts.constant(_named(node, position))
    if values is None:
        raise refusal(node, place.target.name, f"its {what} are computed; {_CONSTANT}")
    return [int(value) for value in values.astype(np.int64).ravel()]


def _rank(place: Place, node: onnx.NodeProto) -> int:
    shape = place.facts.shape(node.input[0])
    if shape is None:
        why = f"the rank of its input is not known; {_CONSTANT}"
        raise refusal(node, place.target.name, why)
    return len(shape)


def _others(node: onnx.NodeProto, *names: str) -> dict[str, Any]:
    """Return all attributes but these."""
    return {
        entry.name: helper.get_attribute_value(entry)
        for entry in node.attribute
        if entry.name not in names
    }


def _reduce(place: Place, node: onnx.NodeProto) -> bool:
    if not _crosses(place, _NEW_FORMS) or node.op_type == "ReduceSum":
        return False  # ReduceSum has had axes as an input since opset 13
    axes = _numbers(place, node, 1, "axes") if _named(node, 1) else []
    kept = _others(node, "noop_with_empty_axes")
    if not axes and attribute(node, "noop_with_empty_axes", 0) == 1:
        if node.op_type not in _IDENTITIES:
            why = "it reduces over no axis; replace it by its formula for one number"
            raise refusal(node, place.target.name, why)
        place.nodes.add("Identity", [node.input[0]], node.output[0])
        return True
    if axes:
        kept["axes"] = axes
    place.nodes.add(node.op_type, [node.input[0]], node.output[0], **kept)
    return True


def _shape(place: Place, node: onnx.NodeProto) -> bool:
    if place.target.limit("shape_range") is None:
        return False
    if not NODE_RULES["shape_range"](place.facts, node):
        return False
    nodes, output = place.nodes, node.output[0]
    starts = nodes.constant(f"{output}/start", [attribute(node, "start", 0)], np.int64)
    ends = nodes.constant(f"{output}/end", [attribute(node, "end", _END)], np.int64)
    whole = nodes.add("Shape", [node.input[0]], f"{output}/whole")
    nodes.add("Slice", [whole, starts, ends], output)
    return True


def _split(place: Place, node: onnx.NodeProto) -> bool:
    if not _crosses(place, _NEW_FORMS) or attribute(node, "num_outputs", None) is None:
        return False
    shape, axis = place.facts.shape(node.input[0]), attribute(node, "axis", 0)
    if shape is None or not shape[axis]:
        why = f"the size that it splits is not known; {_CONSTANT}"
        raise refusal(node, place.target.name, why)
    parts = len(node.output)
    part = -(-shape[axis] // parts)
    sizes = [part] * (parts - 1) + [shape[axis] - part * (parts - 1)]
    split = place.nodes.constant(f"{node.output[0]}/sizes", sizes, np.int64)
    kept = _others(node, "num_outputs")
    place.nodes.add("Split", [node.input[0], split], list(node.output), **kept)
    return True


def _pad(place: Place, node: onnx.NodeProto) -> bool:
    if _crosses(place, 19) and attribute(node, "mode", "constant") == "wrap":
        why = "mode wrap came with opset 19; pad by a Concat"
        raise refusal(node, place.target.name, why)
    if not _crosses(place, _NEW_FORMS) or not _named(node, 3):
        return False
    rank, axes = _rank(place, node), _numbers(place, node, 3, "axes")
    pads = _numbers(place, node, 1, "pads")
    whole = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        whole[axis % rank] = pads[position]
        whole[axis % rank + rank] = pads[position + len(axes)]
    name = place.nodes.constant(f"{node.output[0]}/pads", whole, np.int64)
    inputs = [node.input[0], name, *filter(None, [node.input[2]])]
    place.nodes.add("Pad", inputs, node.output[0], **_others(node))
    return True


def _resize(place: Place, node: onnx.NodeProto) -> bool:
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if _crosses(place, 19) and mode == "half_pixel_symmetric":
        why = "half_pixel_symmetric came with opset 19; use half_pixel"
        raise refusal(node, place.target.name, why)
    axes = attribute(node, "axes", None)
    if not _crosses(place, _NEW_FORMS) or axes is None:
        return False
    rank = _rank(place, node)
    scales = place.facts.constant(_named(node, 2))
    if scales is None or _named(node, 1) or _named(node, 3):
        why = f"its axes are given, and its scales are not constant; {_CONSTANT}"
        raise refusal(node, place.target.name, why)
    whole = np.ones(rank, np.float32)
    whole[[axis % rank for axis in axes]] = scales
    name = place.nodes.constant(f"{node.output[0]}/scales", whole, np.float32)
    kept = _others(node, "axes")
    resized = helper.make_node(
        "Resize", [node.input[0], "", name], node.output, node.name, **kept
    )
    place.nodes.nodes.append(fit(place, resized))
    return True


def _grid_sample(place: Place, node: onnx.NodeProto) -> bool:
    if not _crosses(place, 20):
        return False
    older = {"linear": "bilinear", "cubic": "bicubic"}
    mode = attribute(node, "mode", "linear")
    kept = _others(node, "mode")
    place.nodes.add(
        "GridSample", node.input, node.output[0], mode=older.get(mode, mode), **kept
    )
    return True


def _quantize(place: Place, node: onnx.NodeProto) -> bool:
    kind = attribute(node, "output_dtype", 0)
    if not _crosses(place, 21) or not kind:
        return False
    inputs = list(node.input)
    if not _named(node, 2):  # without one the type is uint8
        shape = place.facts.shape(inputs[1])
        if shape is None:
            why = f"the shape of its scale is not known; {_CONSTANT}"
            raise refusal(node, place.target.name, why)
        zeros = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind))
        inputs[2:] = [place.nodes.constant(f"{node.output[0]}/zero", zeros, zeros.dtype)]
    plain = helper.make_node(
        node.op_type, inputs, node.output, node.name, **_others(node, "output_dtype")
    )
    place.nodes.nodes.append(fit(place, plain))
    return True


# Adds the other form of a node of this operator, where it needs one; tells whether it did.
FORMS: dict[str, Callable[[Place, onnx.NodeProto], bool]] = {
    "GridSample": _grid_sample,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Resize": _resize,
    "Shape": _shape,
    "Split": _split,
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        _reduce,
    ),
}
