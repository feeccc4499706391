# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for a network and the parser that fills it, and for loggers."""

from __future__ import annotations

from typing import Any

import onnx

from tests.standins import World, enum
from tests.standins.tensorrt_run import Dims

__all__ = ["ILogger", "Logger", "Network", "Parser", "say"]

_UNREAD = {"MatMulInteger", "DynamicQuantizeLinear", "ConvInteger", "QLinearConv"}
_LAYERS = {
    "Conv": "CONVOLUTION",
    "Cast": "CAST",
    "MatMul": "MATRIX_MULTIPLY",
    "Reshape": "SHUFFLE",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Shape": "SHAPE",
}
_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}


class ILogger:
    """What TensorRT tells what it does; to be derived from."""

    Severity = enum("Severity", INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Any, msg: str) -> None:
        """Be told a line."""
        raise NotImplementedError


class Logger(ILogger):
    """TensorRT's own logger, which prints."""

    def log(self, severity: Any, msg: str) -> None:
        """Be told a line."""


def say(logger: Any, severity: str, text: str) -> None:
    assert logger.made  # pybind11 refuses a class whose base was not made
    logger.log(getattr(ILogger.Severity, severity), text)


class Tensor:
    """A tensor of a network."""

    def __init__(self, name: str, kind: Any, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, kind, Dims(shape)
        self.is_shape_tensor = False


class Layer:
    """A layer; from 11 on its precision can't be set."""

    def __init__(self, kind: Any, name: str, outputs: list[Tensor]) -> None:
        self.type, self.name, self.outputs = kind, name, outputs
        self.held: list[str] = []

    @property
    def num_outputs(self) -> int:
        """How many."""
        return len(self.outputs)

    def get_output(self, index: int) -> Tensor:
        """Return one."""
        return self.outputs[index]

    def set_output_type(self, index: int, dtype: Any) -> None:
        """Hold an output to a type."""
        self.held.append(f"output {index} {dtype.name}")

    @property
    def precision(self) -> Any:
        """The type that it computes in."""
        raise RuntimeError("not set")

    @precision.setter
    def precision(self, value: Any) -> None:
        self.held.append(f"precision {value.name}")


class Network:
    """What the parser fills."""

    def __init__(self, names: dict[str, Any], version: tuple[int, ...], flags: int) -> None:
        known = {
            1 << int(f) for f in names["NetworkDefinitionCreationFlag"].__members__.values()
        }
        assert not flags & ~sum(known), f"unknown flags {flags:#b}"

        def has(name: str) -> bool:
            flag = getattr(names["NetworkDefinitionCreationFlag"], name, None)
            return flag is not None and bool(flags >> int(flag) & 1)

        self.explicit = has("EXPLICIT_BATCH") or version >= (10,)
        self.strong = has("STRONGLY_TYPED") or version >= (11,)
        self.names, self.version = names, version
        self.layers: list[Layer] = []
        self.inputs: list[Tensor] = []
        self.onnx = onnx.ModelProto()
        self.refittable: list[str] = []
        if version < (10,):
            self.mark_weights_refittable = None  # type: ignore[assignment,method-assign]

    @property
    def num_inputs(self) -> int:
        """How many."""
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        """How many."""
        return len(self.layers)

    def get_input(self, index: int) -> Tensor:
        """Return one."""
        return self.inputs[index]

    def get_layer(self, index: int) -> Layer:
        """Return one."""
        return self.layers[index]

    def mark_weights_refittable(self, name: str) -> bool:
        """Let one constant be replaced later."""
        there = name in {tensor.name for tensor in self.onnx.graph.initializer}
        self.refittable += [name] if there else []
        return there

    def add(self, kind: str, name: str, outputs: list[Tensor]) -> None:
        """Add a layer."""
        types = self.names["LayerType"]
        found = getattr(types, kind, None) or types.IDENTITY  # Cast of 8.5
        self.layers.append(Layer(found, name, outputs))


class ParserError:
    """Why a file can't be read."""

    def __init__(self, world: World, number: int, node: Any, text: str) -> None:
        self._facts = number, node, text
        if world.numbers >= (10,):
            self.node_name = lambda: node.name
            self.node_operator = lambda: node.op_type

    def node(self) -> int:
        """Return the node's place."""
        return int(self._facts[0])

    def desc(self) -> str:
        """Return what is wrong."""
        return str(self._facts[2])


class Parser:
    """What reads ONNX files."""

    def __init__(self, world: World, network: Network, logger: Any) -> None:
        self._world, self._network, self._logger = world, network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        """How many."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """Return one."""
        return self._errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Fill the network."""
        self._world.calls.append(("parse", len(model)))
        network, made = self._network, onnx.load_from_string(model)
        if (fault := self._world.faults.get("parse")) is not None:
            node = made.graph.node[0]
            self._errors.append(ParserError(self._world, 0, node, fault))
            return False
        unread = set(_UNREAD)
        unread |= {"LayerNormalization"} if self._world.numbers < (8, 6) else set()
        unread |= {"Gelu"} if self._world.numbers < (10,) else set()
        for i, node in enumerate(made.graph.node):
            if not network.explicit or node.op_type in unread:
                text = f"No importer registered for op: {node.op_type}"
                self._errors.append(ParserError(self._world, i, node, text))
                return False
        network.onnx = made
        self._fill(onnx.shape_inference.infer_shapes(made))
        return True

    def _fill(self, made: onnx.ModelProto) -> None:
        network, graph = self._network, made.graph
        constants = {tensor.name for tensor in graph.initializer}
        for value in graph.input:
            if value.name not in constants:
                network.inputs.append(self._tensor(value))
        found = {value.name: value for value in (*graph.value_info, *graph.output)}
        for tensor in graph.initializer:
            kind = self._kind(tensor.data_type)
            named = Tensor(tensor.name, kind, tuple(tensor.dims))
            network.add("CONSTANT", tensor.name, [named])
        for number, node in enumerate(graph.node):
            outputs = [
                self._tensor(found[name]) if name in found else Tensor(name, self._kind(1), ())
                for name in node.output
            ]
            kind = _LAYERS.get(node.op_type)
            kind = kind or ("REDUCE" if node.op_type.startswith("Reduce") else "ELEMENTWISE")
            if node.op_type in ("Sub", "Div", "Max"):  # what broadcasts becomes two layers
                helper = Tensor(
                    f"(Unnamed Layer* {number}) [Shuffle]_output", outputs[0].dtype, ()
                )
                network.add("SHUFFLE", f"(Unnamed Layer* {number}) [Shuffle]", [helper])
            network.add(kind, node.name, outputs)

    def _tensor(self, value: Any) -> Tensor:
        form = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in form.shape.dim)
        return Tensor(value.name, self._kind(form.elem_type), shape)

    def _kind(self, number: int) -> Any:
        name = _TYPES.get(number, "FLOAT")
        types = self._network.names["DataType"]
        return getattr(types, name, None) or types.INT32  # INT64 of 8.x
