# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a linter does not know."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import edge_imprint

ROOT = Path(__file__).parents[1]
HOMES = ("edge_imprint", "export", "runtime", "benchmarks", "tests")
PYTHON = [
    file
    for home in HOMES
    for file in sorted((ROOT / home).rglob("*.py"))
    if "__pycache__" not in file.parts
]
C = [
    file
    for home in ("runtime/c", "tests", "benchmarks")
    for suffix in ("*.c", "*.h")
    for file in sorted((ROOT / home).rglob(suffix))
]
TEXTS = [
    *(file for file in PYTHON if file.relative_to(ROOT).parts[0] != "tests"),
    *C,
    *sorted((ROOT / "runtime/c").rglob("CMakeLists.txt")),
    *sorted((ROOT / "runtime/c").rglob("*.cmake")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*.md")),
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
]
MAX_LINES = 450
MAX_C_COLUMNS = 100


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", PYTHON, ids=name_of)
def test_a_python_file_opens_with_its_licence_and_stays_readable(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert len(lines) <= MAX_LINES
    assert "from __future__ import annotations" in lines


@pytest.mark.parametrize("file", C, ids=name_of)
def test_a_c_file_opens_with_its_licence_and_stays_readable(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0] == "/* SPDX-License-Identifier: Apache-2.0 */"
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_C_COLUMNS


@pytest.mark.parametrize("file", TEXTS, ids=name_of)
def test_no_path_of_one_machine(file: Path) -> None:
    found = re.findall(r"(?<![\w.$~])/(?:root|home|Users|work|tmp)/\S*", file.read_text())
    assert not found


@pytest.mark.parametrize("file", TEXTS, ids=name_of)
def test_no_open_end(file: Path) -> None:
    assert not re.findall(r"\b(?:FIXME|XXX|HACK)\b", file.read_text())


def test_versions_agree() -> None:
    version = edge_imprint.__version__
    assert metadata.version("edge-imprint") == version
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top is not None
    assert top[1] == version
    header = (ROOT / "runtime/c/include/edge_imprint.h").read_text()
    assert f'#define EI_VERSION_TEXT "{version}"' in header
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert 'path = "edge_imprint/__init__.py"' in project
