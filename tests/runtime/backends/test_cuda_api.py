# SPDX-License-Identifier: Apache-2.0
"""Each call of CUDA's is one that the real cuda-python takes, and the stand-in with it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import runtime as real

from edge_imprint_runtime.backends import cuda as module
from tests.standins import World
from tests.standins.cuda_runtime import make_runtime

HOME = Path(module.__file__).parent
SOURCES = sorted(HOME.glob("cuda*.py")) + sorted(HOME.glob("trt*.py"))


def calls_in(sources: list[Path]) -> dict[str, int]:
    """Name each function of CUDA's that we call, and with how many arguments."""
    found: dict[str, int] = {}
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call):
                continue
            for argument in node.args[:1]:
                if (
                    isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                    and re.fullmatch("cuda[A-Z][A-Za-z]+", argument.value)
                    and ast.unparse(node.func).endswith(("call", "allocate"))
                ):
                    starred = [a for a in node.args if isinstance(a, ast.Starred)]
                    widths = {"*where": 3}
                    count = len(node.args) - 1
                    count += sum(widths[ast.unparse(a)] - 1 for a in starred)
                    assert found.setdefault(argument.value, count) == count
    return found


def constants_in(sources: list[Path]) -> set[tuple[str, ...]]:
    """Name each constant of CUDA's that we read."""
    return {
        tuple(ast.literal_eval(argument) for argument in node.args)
        for source in sources
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".constant")
    }


def told(function: Callable[..., Any]) -> tuple[int, int]:
    """Read off a real function's own words how many arguments it takes and what it gives."""
    text = inspect.getdoc(function)
    assert text is not None
    given = re.match(r"\w+\((.*)\)", text)
    assert given is not None
    results = re.search(r"^Returns\n-+\n(.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert results is not None
    made = re.findall(r"^\w+ : ", results[1], re.MULTILINE)
    return len([part for part in given[1].split(",") if part]), len(made)


CALLS = calls_in(SOURCES)


def test_the_reader_of_calls_sees_them() -> None:
    assert len(CALLS) >= 20
    assert CALLS["cudaMemcpyAsync"] == 5
    assert CALLS["cudaHostAlloc"] == 2
    assert ("cudaMemcpyKind", "cudaMemcpyHostToDevice") in constants_in(SOURCES)
    assert told(real.cudaMemGetInfo) == (0, 2)
    assert told(real.cudaGraphLaunch) == (2, 0)


@pytest.mark.parametrize("name", CALLS)
def test_each_call_is_one_that_cuda_python_and_the_stand_in_take(name: str) -> None:
    takes, gives = told(getattr(real, name))
    assert CALLS[name] == takes
    stand_in = getattr(make_runtime(World()), name)
    if hasattr(stand_in, "stands_in"):
        function, results = stand_in.stands_in
        assert (function.__code__.co_argcount, results) == (takes, gives)
    else:
        assert (takes, len(stand_in())) == (0, 1 + gives)


@pytest.mark.parametrize("names", sorted(constants_in(SOURCES)), ids=".".join)
def test_each_constant_is_cuda_pythons_and_the_stand_ins(names: tuple[str, ...]) -> None:
    there, here = real, make_runtime(World())
    for name in names:
        there, here = getattr(there, name), getattr(here, name)
    assert int(there) == int(here)


def test_the_stand_ins_statuses_are_the_real_ones() -> None:
    made = make_runtime(World())
    for status in made.cudaError_t:
        theirs = getattr(real.cudaError_t, status.name)
        assert int(theirs) == int(status)
        assert real.cudaGetErrorString(theirs) == made.cudaGetErrorString(status)
    text = (HOME / "cuda_calls.py").read_text()
    for name in re.findall(r'"(cudaError[A-Z]\w+)"', text):
        assert hasattr(real.cudaError_t, name), name


def test_handles_of_the_real_module_are_numbers_too() -> None:
    assert int(real.cudaStream_t(7)) == 7
    properties = real.cudaDeviceProp()
    assert isinstance(properties.name, bytes)
    assert {type(properties.major), type(properties.totalGlobalMem)} == {int}
