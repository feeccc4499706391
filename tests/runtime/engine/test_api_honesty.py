# SPDX-License-Identifier: Apache-2.0
"""Each name of TensorRT's that our code uses is in the real module, or is known to be newer.

The record of the real 8.5.3.1 was made by `tests/standins/record_api.py`; the versions of what
is newer are those of NVIDIA's sources (python/src/infer of each release).
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standins import (
    VERSIONS,
    tensorrt_build,
    tensorrt_network,
    tensorrt_run,
    tensorrt_standin,
)
from tests.standins.record_api import record

ROOT = Path(__file__).parents[3]
RUNTIME = ROOT / "runtime" / "edge_imprint_runtime"
RECORD = json.loads((ROOT / "tests" / "standins" / "tensorrt_8_5_3.json").read_text())
NAMES: dict[str, Any] = RECORD["names"]
ENGINE = [
    RUNTIME / "engine" / f"{name}.py"
    for name in ("tensorrt_api", "answers", "planning", "precision", "timing", "refit")
]
RUN = [
    RUNTIME / "backends" / f"{name}.py"
    for name in ("trt", "trt_lane", "trt_layers", "trt_tensors")
]

# What a variable of our code is, in TensorRT's words; also as `self._name` and `x.name`.
VARIABLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "layer": "ILayer",
    "each": "ILayer",
}
IN_FILE = {
    "answers.py": {"engine": ""},
    "refit.py": {"loaded": "ICudaEngine", "engine": ""},
    "timing.py": {"cache": "ITimingCache", "mine": "ITimingCache", "config": "IBuilderConfig"},
    "planning.py": {"made": "IOptimizationProfile", "cache": ""},
    "precision.py": {"tensor": "ITensor"},
    "tensorrt_api.py": {"error": "ParserError", "runtime": "Runtime"},
    "trt_layers.py": {"layer": "", "each": ""},
    "trt.py": {"engine": ""},  # there a path; TensorRT's is `loaded.engine`
}
# Newer than 8.5, and the first version that has it; the code asks whether it is there.
LATER = {
    ("BuilderFlag", "REFIT_INDIVIDUAL"): "10.0",
    ("BuilderFlag", "VERSION_COMPATIBLE"): "8.6",
    ("HardwareCompatibilityLevel",): "8.6",
    ("IBuilderConfig", "builder_optimization_level"): "8.6",
    ("IBuilderConfig", "hardware_compatibility_level"): "8.6",
    ("IBuilderConfig", "progress_monitor"): "10.0",
    ("ICudaEngine", "device_memory_size_v2"): "10.1",
    ("INetworkDefinition", "mark_weights_refittable"): "10.0",
    ("IProgressMonitor",): "10.0",
    ("LayerType", "CAST"): "8.6",
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"): "10.0",
    ("ParserError", "node_name"): "10.0",
    ("ParserError", "node_operator"): "10.0",
    ("PreviewFeature", "PROFILE_SHARING_0806"): "8.6",
    ("Runtime", "engine_host_code_allowed"): "8.6",
}
# Which of our words ask for a name, and in what.
_FLAGS = {"set_flag": "BuilderFlag", "clear_flag": "BuilderFlag"}


def uses(file: Path) -> Iterator[tuple[str, ...]]:
    """Name what a file uses of TensorRT: a name, or a class and a member."""
    variables = VARIABLES | IN_FILE.get(file.name, {})
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from of_attribute(node, variables)
        elif isinstance(node, ast.Call):
            yield from of_call(node, variables)


def of_attribute(node: ast.Attribute, variables: dict[str, str]) -> Iterator[tuple[str, ...]]:
    owner = node.value
    if isinstance(owner, ast.Attribute) and owner.attr in ("engine", "_context"):
        yield {"engine": "ICudaEngine"}.get(owner.attr, "IExecutionContext"), node.attr
    elif ast.unparse(owner).rpartition(".")[2] == "module":
        yield (node.attr,)
    elif isinstance(owner, ast.Name) and variables.get(owner.id):
        yield variables[owner.id], node.attr


def of_call(node: ast.Call, variables: dict[str, str]) -> Iterator[tuple[str, ...]]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    plain = node.func.id if isinstance(node.func, ast.Name) else ""
    texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
    if called in ("find", "has") and len(texts) == len(node.args):
        yield tuple(texts)
    elif called in _FLAGS and len(node.args) == 2 and len(texts) == 1:
        yield _FLAGS[called], texts[0]
    elif called == "_made" and texts:
        yield (texts[0],)
    elif plain in ("hasattr", "getattr") and variables.get(ast.unparse(node.args[0])):
        yield variables[ast.unparse(node.args[0])], texts[0]


ALL = sorted({use for file in (*ENGINE, *RUN) for use in uses(file)})


def known(use: tuple[str, ...]) -> bool:
    """Tell whether the real 8.5.3.1 has it."""
    if use[0] not in NAMES:
        return False
    entry = NAMES[use[0]]
    return len(use) == 1 or use[1] in entry.get("members", entry.get("values", ()))


def test_the_reader_of_uses_sees_them() -> None:
    found = set(ALL)
    assert len(found) > 50
    assert {
        ("Builder", "build_serialized_network"),
        ("BuilderFlag", "TF32"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("ILayer", "set_output_type"),
        ("IOptimizationProfile", "set_shape"),
        ("ITensor", "is_shape_tensor"),
        ("MemoryPoolType", "WORKSPACE"),
        ("Refitter", "get_missing_weights"),
        ("Runtime", "deserialize_cuda_engine"),
        ("Runtime",),
    } <= found


@pytest.mark.parametrize("use", ALL, ids=".".join)
def test_a_name_is_in_the_real_module_or_known_to_be_newer(use: tuple[str, ...]) -> None:
    assert known(use) != (use in LATER), use


def test_what_is_said_to_be_newer_is_used_and_is_not_in_8_5() -> None:
    # Names that are put together from parts are not seen by the reader.
    built = {("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), ("LayerType", "CAST")}
    built |= {("ICudaEngine", "device_memory_size_v2"), ("HardwareCompatibilityLevel",)}
    assert LATER.keys() - built <= set(ALL)
    assert not [use for use in LATER if known(use)]
    for file in (*ENGINE, *RUN):
        text = file.read_text()
        for use in built:
            assert use[-1] not in text or f'"{use[-1]}"' in text  # looked up, never assumed


@pytest.mark.parametrize("file", [*ENGINE, *RUN], ids=lambda file: file.name)
def test_no_enum_is_written_as_a_number(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        assert not writes_a_number(node), ast.unparse(node)


# What takes a value of an enum, and where; setters of the same kind are attributes.
_TAKES = {
    "set_flag": -1, "clear_flag": -1, "get_flag": -1, "set_memory_pool_limit": 0,
    "set_preview_feature": 0, "set_output_type": 1, "get_engine_information": 0,
    "set_tactic_sources": 0, "create_network": 0,
}  # fmt: skip
_SET = ("precision", "profiling_verbosity", "hardware_compatibility_level", "dtype")


def writes_a_number(node: ast.AST) -> bool:
    """Tell whether a value of an enum is given as a number."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return is_number(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        place = _TAKES.get(node.func.attr)
        return place is not None and bool(node.args) and is_number(node.args[place])
    if isinstance(node, ast.Assign):
        names = [one.attr for one in node.targets if isinstance(one, ast.Attribute)]
        return bool(set(names) & set(_SET)) and is_number(node.value)
    return False


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("config.set_flag(5)", True),
        ("api.set_flag(config, 5)", True),
        ("flags = 1 << 3", True),
        ("config.set_memory_pool_limit(0, 2**20)", True),
        ("each.precision = 0", True),
        ("each.set_output_type(0, 1)", True),
        ("each.set_output_type(0, float32)", False),
        ("api.set_flag(config, 'FP16')", False),
        ("flags |= 1 << int(flag)", False),
    ],
)
def test_the_reader_of_numbers_sees_them(code: str, wrong: bool) -> None:
    assert any(map(writes_a_number, ast.walk(ast.parse(code)))) == wrong


# The stand-ins against the record ----------------------------------------------------------

STANDINS = {
    "Builder": tensorrt_build.Builder,
    "IBuilderConfig": tensorrt_build.Config,
    "INetworkDefinition": tensorrt_network.Network,
    "IOptimizationProfile": tensorrt_build.Profile,
    "ITimingCache": tensorrt_build.TimingCache,
    "ILayer": tensorrt_network.Layer,
    "ILogger": tensorrt_network.ILogger,
    "OnnxParser": tensorrt_network.Parser,
    "ParserError": tensorrt_network.ParserError,
    "Refitter": tensorrt_build.Refitter,
    "Runtime": tensorrt_run.Runtime,
    "ICudaEngine": tensorrt_run.Engine,
    "EngineInspector": tensorrt_run.Inspector,
}
CALLS = [
    (name, member, overloads)
    for name in STANDINS
    for member, overloads in NAMES[name]["members"].items()
    if isinstance(overloads, list) and overloads and member != "__init__"
]


@pytest.mark.parametrize(
    ("name", "member", "overloads"), CALLS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_stand_in_takes_what_the_real_one_takes(
    name: str, member: str, overloads: list[list[str]]
) -> None:
    method = getattr(STANDINS[name], member, None)
    if method is None:
        assert (name, member) not in ALL, "our code uses it"
        return
    taken = list(inspect.signature(method).parameters.values())[1:]
    names = [
        parameter.name + ("" if parameter.default is inspect.Parameter.empty else "?")
        for parameter in taken
    ]
    assert names in overloads


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stand_in_has_what_its_version_has(version: str) -> None:
    """Of what is newer, no more than the version it stands for."""
    numbers = tuple(int(part) for part in version.split("."))
    with tensorrt_standin(version):
        import tensorrt

        for (name, *member), since in LATER.items():
            there = hasattr(tensorrt, name)
            if there and member and name in NAMES and "values" in NAMES[name]:
                there = hasattr(getattr(tensorrt, name), member[0])
            elif member:
                continue  # attributes of objects: the builds of every version try them
            assert there == (numbers >= tuple(map(int, since.split(".")))), (name, member)
        if version == VERSIONS[0]:
            made = {name for name in vars(tensorrt) if not name.startswith("_")}
            assert made <= NAMES.keys()
            for name in made:
                kind = getattr(tensorrt, name)
                values = getattr(kind, "__members__", {})
                if values and isinstance(kind, type):
                    assert set(values) <= set(NAMES[name]["values"]), name


def test_the_record_is_that_of_the_real_module() -> None:
    tensorrt = pytest.importorskip("tensorrt", reason="TensorRT is not installed here")
    if tensorrt.__version__ != RECORD["version"]:
        pytest.skip(f"the record is of {RECORD['version']}, here is {tensorrt.__version__}")
    assert record(tensorrt) == RECORD
