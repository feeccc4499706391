# SPDX-License-Identifier: Apache-2.0
"""Each name of TensorRT's that runs engines is one that it has, in every version."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.backends import trt
from edge_imprint_runtime.backends.trt_lane import Loaded
from edge_imprint_runtime.engine.tensorrt_api import load
from tests.standins import World, tensorrt_standin

HOME = Path(trt.__file__).parent
SOURCES = sorted(HOME.glob("trt*.py"))
REAL: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "standins" / "tensorrt_8_5_3.json").read_text()
)["names"]

# How our code calls an object of TensorRT's -> its class there.
OBJECTS = {
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
}
# What came later: looked up by name, with the first version that has it.
LATER = {"device_memory_size_v2": (10, 1)}
# What went: looked up by name too, with the first version that has it no more.
GONE = {"device_memory_size": (11, 0)}
# Names that stood here in 8.x and stand in no later version.
REMOVED = {"num_bindings", "get_binding_shape", "execute_async_v2", "max_batch_size"}


def used() -> set[tuple[str, str]]:
    """Name each attribute that we read or call, with its class."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                who = ast.unparse(node.value).rpartition(".")[2]
                if who in OBJECTS and node.attr != "engine":
                    found.add((OBJECTS[who], node.attr))
    return found


def test_the_reader_sees_what_is_used() -> None:
    assert {
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "enqueue_emits_profile"),
        ("EngineInspector", "get_engine_information"),
    } <= used()


@pytest.mark.parametrize(("kind", "name"), sorted(used()), ids=str)
def test_tensorrt_and_the_stand_in_have_it(world: World, kind: str, name: str) -> None:
    assert name not in REMOVED
    real = REAL[kind]["members"][name]
    found = getattr(load().find(kind), name, "an attribute")
    if real == "property":
        assert not callable(found)
        return
    taken = list(inspect.signature(found).parameters)[1:]
    assert taken in [[given.rstrip("?") for given in overload] for overload in real]


def test_the_profiler_and_the_enums(world: World) -> None:
    assert REAL["IProfiler"]["members"]["report_layer_time"] == [["layer_name", "ms"]]
    assert "JSON" in REAL["LayerInformationFormat"]["values"]
    assert "INPUT" in REAL["TensorIOMode"]["values"]
    assert {"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"} == set(
        REAL["DataType"]["values"]
    )
    assert load().find("LayerInformationFormat", "JSON") is not None


def test_what_differs_is_looked_up_by_name() -> None:
    text = (HOME / "trt_lane.py").read_text()
    for name in (*LATER, *GONE):
        assert f'"{name}"' in text
        assert not any(attribute == name for _, attribute in used())
    assert LATER.keys().isdisjoint(REAL["ICudaEngine"]["members"])
    assert GONE.keys() <= REAL["ICudaEngine"]["members"].keys()


def test_the_scratch_memory_is_found_in_every_version(world: World) -> None:
    engine = load().find("ICudaEngine")
    for name, since in LATER.items():
        assert hasattr(engine, name) == (world.numbers >= since)
    made = engine.__new__(engine)
    for name, until in GONE.items():
        assert hasattr(made, name) == (world.numbers < until)
    assert Loaded(None, None, made, None).scratch_bytes() == 4096  # type: ignore[arg-type]


def test_each_version_can_be_stood_in_for() -> None:
    with tensorrt_standin("8.5.3.1"):
        assert load().version == (8, 5, 3, 1)
