# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the half of TensorRT that makes engines.

It refuses what TensorRT refuses, in its way: None or False, and a line for the logger. What
it builds is the graph itself, with what was asked for written down.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from tests.standins import Plan, World, enum
from tests.standins.tensorrt_network import ILogger, Logger, Network, Parser, say
from tests.standins.tensorrt_run import Engine

__all__ = ["build_names"]

_FLAGS_8 = [
    "FP16",
    "INT8",
    "DEBUG",
    "GPU_FALLBACK",
    "STRICT_TYPES",
    "REFIT",
    "DISABLE_TIMING_CACHE",
    "TF32",
    "SPARSE_WEIGHTS",
    "SAFETY_SCOPE",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
    "DIRECT_IO",
    "REJECT_EMPTY_ALGORITHMS",
    "ENABLE_TACTIC_HEURISTIC",
]
_FLAGS_8_6 = ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "FP8"]
_FLAGS_10 = [
    "ERROR_ON_TIMING_CACHE_MISS",
    "BF16",
    "DISABLE_COMPILATION_CACHE",
    "STRIP_PLAN",
    "REFIT_IDENTICAL",
    "WEIGHT_STREAMING",
    "INT4",
    "REFIT_INDIVIDUAL",
]
_GONE_10 = {"STRICT_TYPES", "ENABLE_TACTIC_HEURISTIC"}
_GONE_11 = {
    *("FP16", "BF16", "INT8", "FP8", "INT4"),
    *("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"),
}
_LAYER_TYPES = [
    "CONVOLUTION",
    "ELEMENTWISE",
    "SHUFFLE",
    "REDUCE",
    "MATRIX_MULTIPLY",
    "CONSTANT",
    "IDENTITY",
    "SHAPE",
    "QUANTIZE",
    "DEQUANTIZE",
    "ASSERTION",
]


def _flags(world: World) -> list[str]:
    names = list(_FLAGS_8)
    if world.numbers >= (8, 6):
        names += _FLAGS_8_6
    if world.numbers >= (10,):
        names = [name for name in names + _FLAGS_10 if name not in _GONE_10]
    if world.numbers >= (11,):
        names = [name for name in names if name not in _GONE_11]
    return names


def _numbered(names: list[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def build_names(world: World, run: dict[str, Any]) -> dict[str, Any]:
    """Return what of this half a module ``tensorrt`` of the world's version has, by name."""
    version = world.numbers
    creation = {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1}
    if version >= (10,):
        creation = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    if version >= (11,):
        creation = {"STRONGLY_TYPED": 0, "PREFER_JIT_PYTHON_PLUGINS": 1}
    layers = [*_LAYER_TYPES, *(["CAST"] if version >= (8, 6) else [])]
    sources = ["CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
    names: dict[str, Any] = {
        "BuilderFlag": enum("BuilderFlag", **_numbered(_flags(world))),
        "LayerType": enum("LayerType", **_numbered(layers)),
        "MemoryPoolType": enum("MemoryPoolType", WORKSPACE=0, DLA_MANAGED_SRAM=1),
        "NetworkDefinitionCreationFlag": enum("NetworkDefinitionCreationFlag", **creation),
        "ProfilingVerbosity": enum(
            "ProfilingVerbosity", LAYER_NAMES_ONLY=0, NONE=1, DETAILED=2
        ),
        "TacticSource": enum(
            "TacticSource", **_numbered(sources[3:] if version >= (11,) else sources)
        ),
        "PreviewFeature": enum(
            "PreviewFeature",
            **_numbered(
                ["FASTER_DYNAMIC_SHAPES_0805"]
                + (["PROFILE_SHARING_0806"] if version >= (8, 6) else [])
            ),
        ),
        "DataType": run["DataType"],
        "ILogger": ILogger,
        "Logger": Logger,
        "Weights": Weights,
    }
    if version >= (8, 6):
        levels = ["NONE", "AMPERE_PLUS"]
        levels += ["SAME_COMPUTE_CAPABILITY"] if version >= (10, 13) else []
        names["HardwareCompatibilityLevel"] = enum(
            "HardwareCompatibilityLevel", **_numbered(levels)
        )
    if version >= (10,):
        names["IProgressMonitor"] = IProgressMonitor

    class _Builder(Builder):
        def __init__(self, logger: Any) -> None:
            super().__init__(world, names, logger)

    class _Parser(Parser):
        def __init__(self, network: Network, logger: Any) -> None:
            super().__init__(world, network, logger)

    class _Refitter(Refitter):
        def __init__(self, engine: Engine, logger: Any) -> None:
            super().__init__(world, engine, logger)

    names |= {"Builder": _Builder, "OnnxParser": _Parser, "Refitter": _Refitter}
    return names | {"INetworkDefinition": Network, "IBuilderConfig": Config}


class IProgressMonitor:
    """What TensorRT tells how far a build is; to be derived from."""

    def __init__(self) -> None:
        self.made = True


class HostMemory(bytes):
    """Bytes that TensorRT made."""

    @property
    def nbytes(self) -> int:
        """How many."""
        return len(self)


class Weights:
    """Numbers given to TensorRT, which does not copy them."""

    def __init__(self, a: np.ndarray[Any, Any]) -> None:
        assert a.flags.c_contiguous
        self.numpy_, self.size = a, a.size


class Profile:
    """Ranges of shapes."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        """Say one input's range."""
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class TimingCache:
    """How long kernels took."""

    def __init__(self, origin: list[Any], times: dict[str, float]) -> None:
        self.origin, self.times = origin, times

    def serialize(self) -> HostMemory:
        """Return it as bytes."""
        return HostMemory(b"cache" + json.dumps([self.origin, self.times]).encode())

    def combine(self, input_cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Take what another has."""
        assert ignore_mismatch is False
        if input_cache.origin != self.origin:
            return False
        self.times = input_cache.times | self.times
        return True


class Config:
    """What is asked of a build. Attributes that this version has not can't be set."""

    def __init__(self, world: World, names: dict[str, Any], logger: Any) -> None:
        allowed = {"profiling_verbosity"}
        if world.numbers >= (8, 6):
            allowed |= {"builder_optimization_level", "hardware_compatibility_level"}
        allowed |= {"progress_monitor"} if world.numbers >= (10,) else set()
        made = dict.fromkeys(allowed)
        made["profiling_verbosity"] = names["ProfilingVerbosity"].LAYER_NAMES_ONLY
        self.__dict__.update(
            world=world,
            names=names,
            logger=logger,
            flags={"TF32"},
            limits={},
            profiles=[],
            features=set(),
            sources=None,
            cache=None,
            **made,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"'IBuilderConfig' object has no attribute {name!r}")
        self.__dict__[name] = value

    def set_flag(self, flag: Any) -> None:
        """Set a flag."""
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        """Clear a flag."""
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """Limit a pool."""
        self.limits[pool.name] = pool_size

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        """Switch a feature."""
        self.features.add(feature.name)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        """Choose whose kernels are tried."""
        self.sources = tactic_sources
        return True

    def add_optimization_profile(self, profile: Profile) -> int:
        """Add a profile; -1 if it is none."""
        for least, usual, most in profile.shapes.values():
            if not all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
                say(self.logger, "ERROR", "profile: min <= opt <= max does not hold")
                return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        """Make a cache; None if the bytes are none."""
        world = self.world
        origin = [world.version, world.gpu_name]
        if not serialized_timing_cache:
            return TimingCache(origin, {})
        if not serialized_timing_cache.startswith(b"cache"):
            say(self.logger, "ERROR", "Timing cache: magic tag does not match")
            return None
        return TimingCache(*json.loads(serialized_timing_cache[5:]))

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache; False if it is another machine's."""
        assert ignore_mismatch is False
        if cache.origin != [self.world.version, self.world.gpu_name]:
            say(self.logger, "ERROR", "Timing cache: verification header does not match")
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        """Return the cache in use."""
        return self.cache


class Builder:
    """What makes engines."""

    def __init__(self, world: World, names: dict[str, Any], logger: Any) -> None:
        self._world, self._names, self._logger = world, names, logger
        if not world.devices:
            text = "CUDA initialization failure with error: 35. Please check your CUDA "
            say(logger, "WARNING", text + "installation: http://docs.nvidia.com/cuda")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> Network:
        """Make an empty network."""
        self._world.calls.append(("create_network", flags))
        return Network(self._names, self._world.numbers, flags)

    def create_builder_config(self) -> Config:
        """Make a configuration."""
        return Config(self._world, self._names, self._logger)

    def create_optimization_profile(self) -> Profile:
        """Make an empty profile."""
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> HostMemory | None:
        """Build; None if it can't."""
        world = self._world
        world.calls.append(("build_serialized_network", network, config))
        wrong = world.faults.get("build_serialized_network") or self._wrong(network, config)
        if wrong:
            say(self._logger, "ERROR", wrong)
            return None
        if not self._work(network, config):
            say(self._logger, "ERROR", "Build was cancelled by the progress monitor")
            return None
        level = config.__dict__.get("hardware_compatibility_level")
        facts = {
            "profile": config.profiles[0].shapes if config.profiles else {},
            "profiles": max(1, len(config.profiles)),
            "flags": sorted(config.flags | config.features),
            "gpu": world.gpu_name,
            "cc": "{}.{}".format(*world.compute_capability),
            "refittable": self._refittable(network, config),
            "strong": network.strong,
            "workspace": config.limits.get("WORKSPACE"),
            "level": config.__dict__.get("builder_optimization_level"),
            "hardware": None if level is None else level.name,
            "sources": config.sources,
            "verbosity": config.profiling_verbosity.name,
            "held": {layer.name: layer.held for layer in network.layers if layer.held},
        }
        onnx_bytes = network.onnx.SerializeToString()
        return HostMemory(Plan(world.numbers, facts, onnx_bytes).pack())

    def _wrong(self, network: Network, config: Config) -> str:
        given = config.profiles[0].shapes if config.profiles else {}
        for tensor in network.inputs:
            if -1 in tensor.shape and tensor.name not in given:
                return (
                    "Error Code 4: Internal Error (Network has dynamic or shape inputs, but "
                    "no optimization profile has been defined.)"
                )
        kinds = {tensor.dtype.name for layer in network.layers for tensor in layer.outputs}
        typed = {"FP16", "INT8"} & config.flags
        if network.strong and typed:
            return f"{min(typed)} is set on a strongly typed network"
        if not network.strong and "HALF" in kinds and "FP16" not in config.flags:
            return "Half precision has been set for a layer, but fp16 is not configured"
        quantizes = {"QuantizeLinear", "DequantizeLinear"} & {
            node.op_type for node in network.onnx.graph.node
        }
        if not network.strong and quantizes and "INT8" not in config.flags:
            return "Int8 precision has been set for a layer, but int8 is not configured"
        return ""

    def _work(self, network: Network, config: Config) -> bool:
        monitor = config.__dict__.get("progress_monitor")
        layers = [layer for layer in network.layers if layer.type.name != "CONSTANT"]
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Timing", "Building Engine", len(layers))
        for number, layer in enumerate(layers):
            time.sleep(self._world.build_s / len(layers))
            if config.cache is not None:
                config.cache.times.setdefault(layer.name, 0.5)
            if monitor is not None and not monitor.step_complete("Timing", number):
                return False
        if monitor is not None:
            monitor.phase_finish("Timing")
            going = monitor.step_complete("Building Engine", 0)
            going = going and monitor.step_complete("Building Engine", 1)
            monitor.phase_finish("Building Engine")
            return bool(going)
        return True

    def _refittable(self, network: Network, config: Config) -> list[str]:
        if "REFIT_INDIVIDUAL" in config.flags:
            return network.refittable
        real = (TensorProto.FLOAT, TensorProto.FLOAT16)
        found = [t.name for t in network.onnx.graph.initializer if t.data_type in real]
        return found if "REFIT" in config.flags else []


class Refitter:
    """What replaces an engine's numbers."""

    def __init__(self, world: World, engine: Engine, logger: Any) -> None:
        self._world, self._engine, self._logger = world, engine, logger
        self._given: dict[str, Weights] = {}
        self._names = list(engine._plan.facts["refittable"])

    def get_all_weights(self) -> list[str]:
        """Return the names of what can be replaced."""
        return list(self._names)

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        """Give one; False if it does not fit."""
        made = onnx.load_from_string(self._engine._plan.onnx)
        sizes = {t.name: int(np.prod(t.dims)) for t in made.graph.initializer}
        if name not in self._names or sizes[name] != weights.size:
            say(self._logger, "ERROR", f"{name} has {sizes.get(name)} numbers")
            return False
        self._given[name] = weights
        return True

    def get_missing_weights(self) -> list[str]:
        """Return what else is wanted."""
        wanted = {other for name in self._given for other in self._world.fused.get(name, ())}
        return sorted(wanted - self._given.keys())

    def refit_cuda_engine(self) -> bool:
        """Replace them."""
        if (fault := self._world.faults.get("refit_cuda_engine")) is not None:
            say(self._logger, "ERROR", fault)
            return False
        assert not self.get_missing_weights()
        plan = self._engine._plan
        made = onnx.load_from_string(plan.onnx)
        for tensor in made.graph.initializer:
            if tensor.name in self._given:
                values = self._given[tensor.name].numpy_
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        plan.onnx = made.SerializeToString()
        self._engine.session = onnxruntime.InferenceSession(
            plan.onnx, providers=["CPUExecutionProvider"]
        )
        return True


def _serialize(engine: Engine) -> HostMemory | None:
    return HostMemory(engine._plan.pack())


if not hasattr(Engine, "serialize"):
    Engine.serialize = _serialize  # type: ignore[attr-defined]
