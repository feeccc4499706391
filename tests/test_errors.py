# SPDX-License-Identifier: Apache-2.0
"""One class a cause, and each cause provoked somewhere in the tests."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_imprint_runtime import errors
from edge_imprint_runtime.errors import EdgeImprintError

TESTS = Path(__file__).parent


def subclasses(base: type[EdgeImprintError]) -> Iterator[type[EdgeImprintError]]:
    for found in base.__subclasses__():
        yield found
        yield from subclasses(found)


CLASSES = sorted(set(subclasses(EdgeImprintError)), key=lambda found: found.__name__)


def provoked() -> set[str]:
    """Names that a test uses beyond importing them, in a file that expects errors."""
    used: set[str] = set()
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text()
        if file == Path(__file__) or "pytest.raises" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # Code for another interpreter.
                used |= set(re.findall(r"^except (\w+)", node.value, re.MULTILINE))
    return used


def test_all_are_listed_in_one_file() -> None:
    names = ["EdgeImprintError", *(found.__name__ for found in CLASSES)]
    assert sorted(errors.__all__) == sorted(names)
    assert {found.__module__ for found in CLASSES} == {errors.__name__}


def test_each_is_provoked_somewhere() -> None:
    never = {found.__name__ for found in CLASSES} - provoked()
    assert not never, f"no test provokes: {', '.join(sorted(never))}"


@pytest.mark.parametrize("found", CLASSES)
def test_each_has_a_status_and_a_sentence(found: type[EdgeImprintError]) -> None:
    assert found.exit_code in (1, 2)
    assert inspect.getdoc(found) != inspect.getdoc(EdgeImprintError)


def test_wrong_use_is_2_and_failure_is_1() -> None:
    wrong_use = {found.__name__ for found in CLASSES if found.exit_code == 2}
    assert wrong_use == {"ParameterError", "UnsupportedOptionError", "BackboneNotFoundError"}


def test_a_missing_package_says_what_to_install() -> None:
    error = errors.MissingPackageError("onnx", "exporting", "host")
    assert str(error) == (
        "exporting needs the package 'onnx', which is not installed here; "
        "run: pip install 'edge-imprint[host]'"
    )
    assert isinstance(error, ImportError)
