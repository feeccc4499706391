# SPDX-License-Identifier: Apache-2.0
"""What tests of the C runtime share: builds of it, and the ONNX Runtime they run with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.c.building import Builds, installed_ort

if TYPE_CHECKING:
    from tests.c.binding import Library


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what a sanitizer's run can't hold: see test_sanitizers.py."""
    wanted = os.environ.get("EI_C_TESTS_OF")
    if wanted is not None:
        items[:] = [
            item
            for item in items
            if "c_build" in (names := getattr(item, "fixturenames", ()))
            and ("ei" in names) == (wanted == "library")
        ]


@pytest.fixture(scope="session")
def c_builds() -> Builds:
    """Builds of the C runtime, each made once; see `Builds.get`."""
    return Builds()


@pytest.fixture(scope="session")
def c_build(c_builds: Builds) -> Path:
    """The folder of a Release build: libraries, programs, and tests/NAME of each C program.

    $EI_C_BUILD names another build instead, which is there. With $EI_COVERAGE_DIR it is built
    in that folder, and counts which lines run; see coverage.py.
    """
    if folder := os.environ.get("EI_C_BUILD"):
        return Path(folder)
    if folder := os.environ.get("EI_COVERAGE_DIR"):
        return c_builds.at(Path(folder), EI_COVERAGE="ON", CMAKE_BUILD_TYPE="Debug")
    return c_builds.get("release")


@pytest.fixture(scope="session")
def ort_library() -> Path:
    """ONNX Runtime's shared library, as the installed wheel has it."""
    return installed_ort()


@pytest.fixture(scope="session")
def ei(c_build: Path, ort_library: Path) -> Library:
    """The public functions of libedge_imprint.so, typed."""
    from tests.c.binding import Library

    return Library(c_build / "libedge_imprint.so", ort_library)
