# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the half of TensorRT that runs engines: it computes with ONNX Runtime.

It takes named tensors only, as every version does, and each version has the names that it
has. It refuses what TensorRT refuses, in the way that it does: a False or None, and a line
for the logger.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.standins import Plan, enum
from tests.standins.cuda_device import Device, Fault, device_of
from tests.standins.tensorrt_layers import Inspector, IProfiler

__all__ = ["run_names"]

# Type -> its number, numpy's, and the first version that has it.
_TYPES: dict[str, tuple[int, Any, tuple[int, int]]] = {
    "FLOAT": (0, np.float32, (8, 5)),
    "HALF": (1, np.float16, (8, 5)),
    "INT8": (2, np.int8, (8, 5)),
    "INT32": (3, np.int32, (8, 5)),
    "BOOL": (4, np.bool_, (8, 5)),
    "UINT8": (5, np.uint8, (8, 5)),
    "FP8": (6, None, (8, 6)),
    "BF16": (7, None, (10, 0)),
    "INT64": (8, np.int64, (10, 0)),
    "INT4": (9, None, (10, 0)),
}
_ALIASES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32"}
_ALIASES |= {"bool": "BOOL", "uint8": "UINT8", "int64": "INT64"}
_SCRATCH_BYTES = 4096  # what a context takes for itself
_LAYER_MS = 0.25


class Dims(tuple[int, ...]):
    """A shape."""


def run_names(world: Any) -> dict[str, Any]:
    """Return what of this half a module ``tensorrt`` of the world's version has, by name."""
    types = {n: number for n, (number, _, since) in _TYPES.items() if world.numbers >= since}
    data_type = enum("DataType", **types)
    mode = enum("TensorIOMode", NONE=0, INPUT=1, OUTPUT=2)
    form = enum("LayerInformationFormat", ONELINE=0, JSON=1)

    class _Runtime(Runtime):
        def __init__(self, logger: Any) -> None:
            super().__init__(world, logger, {"types": data_type, "modes": mode, "forms": form})

    engine = _Engine11 if world.numbers >= (11,) else _Engine10
    return {
        "DataType": data_type,
        "Dims": Dims,
        "EngineInspector": Inspector,
        "ICudaEngine": Engine if world.numbers < (10,) else engine,
        "IExecutionContext": Context,
        "IProfiler": IProfiler,
        "LayerInformationFormat": form,
        "Runtime": _Runtime,
        "TensorIOMode": mode,
    } | {alias: getattr(data_type, n) for alias, n in _ALIASES.items() if n in types}


class Runtime:
    """What loads engines."""

    def __init__(self, world: Any, logger: Any, enums: dict[str, Any]) -> None:
        self.world, self.logger, self.enums = world, logger, enums
        if not world.devices:
            self.say("ERROR", "CUDA initialization failure with error: 100")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def say(self, severity: str, text: str) -> None:
        """Tell the logger."""
        self.logger.log(getattr(type(self.logger).Severity, severity), text)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        """Load an engine; None if it is none, or not for this machine."""
        if (fault := self.world.faults.get("deserialize_cuda_engine")) is not None:
            self.say("ERROR", fault)
            return None
        try:
            plan = Plan.unpack(serialized_engine)
        except (ValueError, KeyError):
            self.say("ERROR", "Error Code 1: Serialization (Magic tag does not match)")
            return None
        world = self.world
        compatible = "VERSION_COMPATIBLE" in plan.facts["flags"]
        if plan.version != world.numbers and not compatible:
            made, here = (".".join(map(str, v)) for v in (plan.version, world.numbers))
            self.say(
                "ERROR",
                "Error Code 6: API Usage Error (The engine plan file is not compatible with "
                f"this version of TensorRT, expecting library version {here} got {made}",
            )
            return None
        here = "{}.{}".format(*world.compute_capability)
        if plan.facts["cc"] != here:
            self.say("ERROR", f"expecting compute {plan.facts['cc']} got compute {here}")
            return None
        kind = Engine if world.numbers < (10,) else _Engine10
        try:
            return (_Engine11 if world.numbers >= (11,) else kind)(self, plan)
        except Fault:
            self.say(
                "ERROR",
                f"Requested amount of GPU memory ({len(plan.onnx)} bytes) could not be "
                "allocated. There may not be enough free memory for allocation to succeed.",
            )
            return None


class Engine:
    """A loaded engine."""

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self._runtime, self._plan = runtime, plan
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            plan.onnx, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = {o.name: o for o in self.session.get_outputs()}
        self.nodes = onnx.load_from_string(plan.onnx).graph.node
        self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        self._made: dict[Any, dict[str, tuple[int, ...]]] = {}
        device = device_of(runtime.world)
        self._weights = device.allocate("weights", len(plan.onnx))
        weakref.finalize(self, device.free, self._weights, "weights")

    @property
    def device_memory_size(self) -> int:
        """What each context takes for itself."""
        return _SCRATCH_BYTES

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs."""
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        """How many profiles."""
        return int(self._plan.facts.get("profiles", 1))

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts may use one profile."""
        newer = self._runtime.world.numbers >= (10,)
        dynamic = any(-1 in self.get_tensor_shape(name) for name in self.inputs)
        return newer or not dynamic or "PROFILE_SHARING_0806" in self._plan.facts["flags"]

    def get_tensor_name(self, index: int) -> str:
        """Return a tensor's name; outputs come first here, which TensorRT does not promise."""
        return [*self.outputs, *self.inputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        """Return whether it is an input."""
        modes = self._runtime.enums["modes"]
        if name in self.inputs:
            return modes.INPUT
        return modes.OUTPUT if name in self.outputs else modes.NONE

    def get_tensor_dtype(self, name: str) -> Any:
        """Return its type."""
        dtype = self.dtype(name)
        found = next(n for n, (_, kind, _) in _TYPES.items() if kind == dtype)
        return getattr(self._runtime.enums["types"], found)

    def get_tensor_shape(self, name: str) -> Dims:
        """Return its shape; -1 is a side of any length."""
        sides = (self.inputs | self.outputs)[name].shape
        return Dims(side if isinstance(side, int) else -1 for side in sides)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """Return the least, usual and greatest shape of a dynamic input."""
        if profile_index >= self.num_optimization_profiles or name not in self.inputs:
            raise IndexError("no such profile")
        return [Dims(shape) for shape in self._plan.facts["profile"][name]]

    def create_execution_context(self) -> Context | None:
        """Make what runs it; None if there is no memory for it."""
        world = self._runtime.world
        if (fault := world.faults.get("create_execution_context")) is not None:
            self.say("ERROR", fault)
            return None
        try:
            device_of(world).enter("create_execution_context")
            return Context(self)
        except Fault as fault:
            self.say(
                "ERROR",
                f"Requested amount of GPU memory ({_SCRATCH_BYTES} bytes) could not be "
                f"allocated: {fault.status.name}",
            )
            return None

    def create_engine_inspector(self) -> Inspector:
        """Make what describes it."""
        return Inspector(self)

    def serialize(self) -> bytes:
        """Return it as bytes."""
        return self._plan.pack()

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return a tensor's numpy type."""
        kind = (self.inputs | self.outputs)[name].type.removeprefix("tensor(").rstrip(")")
        return np.dtype({"float": "float32"}.get(kind, kind))

    def say(self, severity: str, text: str) -> None:
        """Tell the logger."""
        self._runtime.say(severity, text)

    def made(self, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the outputs' shapes for the inputs'."""
        key = tuple(sorted(given.items()))
        if key not in self._made:
            zeros = {name: np.zeros(shape, self.dtype(name)) for name, shape in given.items()}
            found = self.session.run(list(self.outputs), zeros)
            self._made[key] = dict(zip(self.outputs, (a.shape for a in found), strict=True))
        return self._made[key]

    def allows(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether an input may have a shape."""
        declared = self.get_tensor_shape(name)
        if len(shape) != len(declared):
            return False
        if -1 not in declared:
            return shape == declared
        low, _, high = self.get_tensor_profile_shape(name, 0)
        return all(a <= side <= b for a, side, b in zip(low, shape, high, strict=True))

    @property
    def device(self) -> Device:
        """The GPU."""
        return device_of(self._runtime.world)

    @property
    def facts(self) -> tuple[Any, dict[str, Any]]:
        """The world, and the enums."""
        return self._runtime.world, self._runtime.enums


class _Engine10(Engine):
    @property
    def device_memory_size_v2(self) -> int:
        return _SCRATCH_BYTES


class _Engine11(_Engine10):
    @property
    def device_memory_size(self) -> int:
        raise AttributeError("'ICudaEngine' object has no attribute 'device_memory_size'")


def _one_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method note it if two threads are in one context at once."""

    @functools.wraps(method)
    def checked(self: Context, *arguments: Any) -> Any:
        if not self._busy.acquire(blocking=False):
            self._engine.device.violations.append(
                f"{method.__name__}: two threads, one context"
            )
            raise RuntimeError("two threads use one context")
        try:
            self._engine.device.enter(method.__name__)
            return method(self, *arguments)
        except Fault as fault:
            self._engine.say("ERROR", f"Cuda failure: {fault.status.name}")
            return False
        finally:
            self._busy.release()

    return checked


class Context:
    """What runs an engine; for one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        device = engine.device
        address = device.allocate("scratch", _SCRATCH_BYTES)
        weakref.finalize(self, device.free, address, "scratch")
        self._busy = threading.Lock()
        self._shapes = {
            name: tuple(engine.get_tensor_shape(name))
            for name in engine.inputs
            if -1 not in engine.get_tensor_shape(name)
        }
        self._addresses: dict[str, int] = {}
        self._ran = self._pending = False
        self.profiler: Any = None
        self.enqueue_emits_profile = True
        self.active_optimization_profile = 0
        if not engine.shares_profiles and self._taken(0):
            self.active_optimization_profile = -1
            self._say_taken(0)
        engine.contexts.add(self)

    @_one_thread
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile."""
        engine = self._engine
        if profile_index >= engine.num_optimization_profiles:
            engine.say("ERROR", f"Profile index {profile_index} is out of range")
            return False
        if not engine.shares_profiles and self._taken(profile_index):
            self._say_taken(profile_index)
            return False
        engine.device.start(stream_handle, lambda: None)
        self.active_optimization_profile = profile_index
        return True

    @_one_thread
    def set_input_shape(self, name: str, shape: Any) -> bool:
        """Say an input's shape."""
        shape = tuple(shape)
        engine = self._engine
        if name not in engine.inputs:
            engine.say("ERROR", f"setInputShape: given invalid tensor name: {name}")
            return False
        if self.active_optimization_profile < 0:
            engine.say("ERROR", "setInputShape: no optimization profile has been selected")
            return False
        if not engine.allows(name, shape):
            engine.say(
                "ERROR",
                f"setInputShape: Static dimension mismatch or dimensions {list(shape)} of "
                f"{name} outside of the optimization profile",
            )
            return False
        self._shapes[name] = shape
        return True

    @_one_thread
    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where a tensor lies."""
        if type(memory) is not int:
            raise TypeError("set_tensor_address(): incompatible function arguments")
        if name not in self._engine.inputs and name not in self._engine.outputs:
            self._engine.say("ERROR", f"setTensorAddress: invalid tensor name: {name}")
            return False
        self._addresses[name] = memory
        return True

    @_one_thread
    def get_tensor_shape(self, name: str) -> Dims:
        """Return a tensor's shape; -1 where it is not known yet."""
        if name in self._shapes:
            return Dims(self._shapes[name])
        if self._shapes.keys() != self._engine.inputs.keys():
            return self._engine.get_tensor_shape(name)
        return Dims(self._engine.made(self._shapes)[name])

    @_one_thread
    def execute_async_v3(self, stream_handle: int) -> bool:
        """Put a run on a stream."""
        engine = self._engine
        unset = engine.inputs.keys() - self._shapes.keys()
        names = [*engine.inputs, *engine.outputs]
        lost = [name for name in names if not self._addresses.get(name)]
        if unset or lost or self.active_optimization_profile < 0:
            engine.say("ERROR", f"enqueueV3: no shape or address: {sorted({*unset, *lost})}")
            return False
        if self._pending and not engine.device.recording():
            engine.device.violations.append("a context was started before it was done")
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def work() -> None:
            self._pending = False
            device = engine.device
            device.enter("kernel")
            given = {n: device.read(addresses[n], shapes[n], engine.dtype(n)) for n in shapes}
            found = engine.session.run(list(engine.outputs), given)
            for name, array in zip(engine.outputs, found, strict=True):
                device.write(addresses[name], array)
            self._ran = True

        self._pending = not engine.device.recording()
        engine.device.start(stream_handle, work)
        if self.profiler is not None and self.enqueue_emits_profile:
            engine.device.wait(stream_handle)
            self._report()
        return True

    @_one_thread
    def report_to_profiler(self) -> bool:
        """Tell the profiler of the last run."""
        if self.profiler is None or not self._ran:
            self._engine.say("ERROR", "reportToProfiler: there is no profiler or no run")
            return False
        self._report()
        return True

    def _report(self) -> None:
        if not isinstance(self.profiler, IProfiler) or not self.profiler._made:
            raise TypeError("IProfiler.__init__() must be called when overriding __init__")
        self._ran = False
        if "report_layer_time" not in self._engine.facts[0].faults:
            for i, node in enumerate(self._engine.nodes):
                self.profiler.report_layer_time(node.name or f"layer {i}", (i + 1) * _LAYER_MS)

    def _taken(self, index: int) -> bool:
        others = [c for c in self._engine.contexts if c is not self]
        return any(other.active_optimization_profile == index for other in others)

    def _say_taken(self, index: int) -> None:
        self._engine.say(
            "ERROR",
            f"Error Code 3: API Usage Error (Profile {index} has been chosen by another "
            "IExecutionContext. Use another profileIndex or destroy the IExecutionContext "
            "that use this profile.)",
        )
