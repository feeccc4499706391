# SPDX-License-Identifier: Apache-2.0
"""Modules that stand in for TensorRT and CUDA where there is no GPU.

They take the calls that the real ones take, have the names that the real ones have in each
version, and compute with ONNX Runtime on host memory. What they can't show is whether
TensorRT itself does what is asked.

`tensorrt_build` holds what makes an engine, `tensorrt_run` what runs one, `cuda_runtime` the
device. All read one `World`, which a test may change while they are in use.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import struct
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["VERSIONS", "Plan", "World", "enum", "tensorrt_standin"]

VERSIONS = ("8.5.3.1", "8.6.2.3", "10.3.0.30", "10.13.3.9", "11.1.0.0")

_VERSIONED = (8, 6)  # from here on a plan says which TensorRT made it
_HEADER_BYTES = 32


@dataclass
class World:
    """A machine with one GPU, and what is to go wrong there.

    Attributes:
        version: TensorRT's.
        gpu_name: As CUDA has it.
        compute_capability: Major and minor.
        driver: What CUDA the driver takes, as CUDA writes it: 12060 is 12.6.
        cuda: The runtime's version, likewise.
        memory_bytes: Of the device.
        devices: How many GPUs there are; 0: CUDA answers cudaErrorNoDevice.
        build_s: How long a build takes, seconds.
        fused: Weights that a refit of others asks for, too.
        faults: What goes wrong: the name of a call, such as ``build_serialized_network``, and
            what the logger is told before the call fails as the real one does.
        calls: What was called, in order: the name, then what it was given.
    """

    version: str = VERSIONS[2]
    gpu_name: str = "Orin"
    compute_capability: tuple[int, int] = (8, 7)
    driver: int = 12060
    cuda: int = 12060
    memory_bytes: int = 8 * 2**30
    devices: int = 1
    build_s: float = 0.0
    fused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """The version, as numbers."""
        major, minor, patch, build = (int(part) for part in self.version.split("."))
        return major, minor, patch, build

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """Return what each call of this name was given."""
        return [call[1:] for call in self.calls if call[0] == name]


@dataclass
class Plan:
    """What the bytes of a stand-in engine hold.

    Attributes:
        version: TensorRT's, four numbers.
        facts: ``profile`` {input: [min, opt, max]}, ``flags`` [builder flags by name],
            ``gpu``, ``cc`` "8.7", ``refittable`` [names of weights].
        onnx: The graph; a refit changes it, and what is created afterwards runs the new one.
    """

    version: tuple[int, int, int, int]
    facts: dict[str, Any]
    onnx: bytes

    def pack(self) -> bytes:
        """Return them as bytes: a header as that TensorRT's, then facts and graph."""
        facts = json.dumps({"version": self.version} | self.facts).encode()
        if self.version < _VERSIONED:
            size = len(facts) + len(self.onnx)
            header = struct.pack("<4sIIIQ8x", b"ptrt", 0, 232, 0, size)
        else:
            header = struct.pack("<4sI16x4B4x", b"ftrt", 0, *self.version)
        return header + struct.pack("<Q", len(facts)) + facts + self.onnx

    @classmethod
    def unpack(cls, data: bytes) -> Plan:
        """Read them; ValueError where they are no engine of ours."""
        if len(data) < _HEADER_BYTES + 8:
            raise ValueError("truncated")
        if data[:8] not in (b"ftrt\0\0\0\0", b"ptrt\0\0\0\0"):
            raise ValueError("magic tag does not match")
        (size,) = struct.unpack_from("<Q", data, _HEADER_BYTES)
        start = _HEADER_BYTES + 8
        facts = json.loads(data[start : start + size])
        major, minor, patch, build = facts.pop("version")
        return cls((major, minor, patch, build), facts, bytes(data[start + size :]))


def enum(name: str, **members: int) -> type[Any]:
    """Make an enum as pybind11 does: members by name, int() of one, no arithmetic.

    Args:
        name: The enum's.
        members: Name and number.

    Returns:
        The class; its members have ``name`` and ``value``, are equal to themselves only, and
        can be keys.
    """

    def text(self: Any) -> str:
        return f"<{name}.{self.name}: {self.value}>"

    kind: type[Any] = type(
        name, (), {"__int__": lambda self: self.value, "__repr__": text, "__str__": text}
    )
    kind.__members__ = {}
    for member, value in members.items():
        made = kind()
        made.name, made.value = member, value
        setattr(kind, member, made)
        kind.__members__[member] = made
    return kind


@contextlib.contextmanager
def tensorrt_standin(version: str = VERSIONS[2], **facts: Any) -> Iterator[World]:
    """Put stand-ins into ``sys.modules`` for the time of a block.

    Args:
        version: TensorRT's, one of `VERSIONS`.
        facts: Other fields of `World`.

    Yields:
        The world that they read.
    """
    world = World(version, **facts)
    run = importlib.import_module("tests.standins.tensorrt_run").run_names(world)
    build = importlib.import_module("tests.standins.tensorrt_build").build_names(world, run)
    runtime = importlib.import_module("tests.standins.cuda_runtime").make_runtime(world)
    made = {"tensorrt": types.ModuleType("tensorrt")}
    made["tensorrt"].__dict__.update({"__version__": version, **build, **run})
    made |= {name: types.ModuleType(name) for name in ("cuda", "cuda.bindings")}
    made["cuda.bindings.runtime"] = runtime
    made["cuda"].__path__ = []
    made["cuda.bindings"].__path__ = []
    made["cuda"].bindings = made["cuda.bindings"]  # type: ignore[attr-defined]
    made["cuda.bindings"].runtime = runtime  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield world
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
