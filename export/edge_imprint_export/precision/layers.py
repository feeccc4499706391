# SPDX-License-Identifier: Apache-2.0
"""Two graphs of one backbone, layer by layer: where the reduced one leaves the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.targets.rules import Facts
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneMismatchError

__all__ = ["LayerError", "layer_errors", "layer_name"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class LayerError:
    """How far one layer of a reduced graph is from the same layer in float32.

    Attributes:
        name: The layer, as ``keep_float32`` takes it.
        op: Its operator.
        error: |a - b| / |a| over all images and numbers of its output: a is the reference's,
            b what the layers after it read in the reduced graph. Infinite where b is not
            finite.
        added: What of the error is this layer's own: how much it is above the largest error
            among the layer's inputs, at least 0.
    """

    name: str
    op: str
    error: float
    added: float


def layer_errors(
    reference: onnx.ModelProto, reduced: onnx.ModelProto, pixels: npt.NDArray[np.float32]
) -> tuple[LayerError, ...]:
    """Compare two graphs of one backbone at each tensor that both have by name.

    A layer that only one of them has (such as an activation that int8 does by saturation)
    counts to the next that both have. Where the reduced graph quantizes a tensor, its
    dequantized values are compared, for those are what is read.

    Args:
        reference: The backbone graph in float32.
        reduced: The same in fp16 or int8. Both graphs are left as they are.
        pixels: (N, 3, H, W) float32, N >= 1, as the backbone takes them.

    Returns:
        The layers, the one that adds most first; equal ones in the order of the graph.

    Raises:
        BackboneMismatchError: The graphs have no layer in common.
        ModelFileError, InputError: ONNX Runtime does not load or run one of them.
    """
    layers = [node for node in reference.graph.node if node.output[0]]
    read_as = _read_as(reduced)
    pairs = {
        node.output[0]: read_as[node.output[0]] for node in layers if node.output[0] in read_as
    }
    runners = _runner(reference, list(pairs)), _runner(reduced, list(pairs.values()))
    pairs = {a: b for a, b in pairs.items() if _comparable(runners, a, b)}
    if not pairs:
        raise BackboneMismatchError(
            "the two graphs have no layer in common; compare a backbone with what was made "
            "of it"
        )
    errors = _errors(runners, pairs, pixels)
    inherited = _inherited(reference.graph, errors)
    found = [
        LayerError(
            layer_name(node),
            node.op_type,
            errors[node.output[0]],
            _above(errors[node.output[0]], inherited[node.output[0]]),
        )
        for node in layers
        if node.output[0] in errors
    ]
    return tuple(sorted(found, key=lambda layer: -layer.added))


def layer_name(node: onnx.NodeProto) -> str:
    """Return what a layer is called: its name, or its output's where it has none."""
    return str(node.name or node.output[0])


def _read_as(reduced: onnx.ModelProto) -> dict[str, str]:
    """Map each tensor to what its readers get: itself, or what is dequantized of it."""
    made = {name for node in reduced.graph.node for name in node.output if name}
    read_as = {name: name for name in made}
    quantized = {
        node.output[0]: node.input[0]
        for node in reduced.graph.node
        if node.op_type == "QuantizeLinear"
    }
    for node in reduced.graph.node:
        tensor = quantized.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor in made:
            read_as[tensor] = node.output[0]
    return read_as


def _runner(model: onnx.ModelProto, names: list[str]) -> OrtRunner:
    """Open a graph with all these tensors as outputs."""
    facts = Facts(model)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in dict.fromkeys(names):
        if facts.kind(name) in _FLOATS:
            value = helper.make_tensor_value_info(name, facts.kind(name), None)
            probe.graph.output.append(value)
    return OrtRunner(to_bytes(probe), "cpu")


def _comparable(runners: tuple[OrtRunner, OrtRunner], a: str, b: str) -> bool:
    return a in runners[0].outputs and b in runners[1].outputs


def _errors(
    runners: tuple[OrtRunner, OrtRunner],
    pairs: dict[str, str],
    pixels: npt.NDArray[np.float32],
) -> dict[str, float]:
    """Return |a - b| / |a| of each pair over all pixels, by the reference's name."""
    off: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, a, b in _values(runners, pairs, pixels):
        size[name] = size.get(name, 0.0) + float(np.vdot(a, a))
        off[name] = off.get(name, 0.0) + float(np.vdot(a - b, a - b))
    return {name: _ratio(off[name], size[name]) for name in off}


def _values(
    runners: tuple[OrtRunner, OrtRunner],
    pairs: dict[str, str],
    pixels: npt.NDArray[np.float32],
) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    # One image at a time: all that both graphs compute is held at once, up to 600 MB.
    for image in range(len(pixels)):
        ours = runners[0].run(list(pairs), pixels[image : image + 1])
        theirs = runners[1].run(list(pairs.values()), pixels[image : image + 1])
        for name, a, b in zip(pairs, ours, theirs, strict=True):
            if a.shape == b.shape:
                yield name, a.astype(np.float32), b.astype(np.float32)


def _ratio(off: float, size: float) -> float:
    if not np.isfinite(off):
        return float("inf")
    return float(np.sqrt(off / size)) if size else float("inf" if off else 0.0)


def _inherited(graph: onnx.GraphProto, errors: dict[str, float]) -> dict[str, float]:
    """Return the largest error among what each tensor was made of, by its name."""
    carried = dict(errors)  # what is not compared hands on what it was given
    inherited = {}
    for node in graph.node:  # in topological order
        given = max((carried.get(name, 0.0) for name in node.input), default=0.0)
        for name in node.output:
            inherited[name] = given
            carried.setdefault(name, given)
    return inherited


def _above(error: float, inherited: float) -> float:
    return 0.0 if inherited == float("inf") else max(0.0, error - inherited)
