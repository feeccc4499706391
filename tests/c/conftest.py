# SPDX-License-Identifier: Apache-2.0
"""What tests of the C runtime share: builds of it, and the ONNX Runtime they run with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from tests.c.benching import Bench
from tests.c.building import Builds, installed_ort
from tests.c.shop import MakeModel, Program

if TYPE_CHECKING:
    from tests.c.binding import Library

MakeHead = Callable[..., Head]


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


@pytest.fixture(scope="session")
def classify(c_build: Path, ort_library: Path) -> Program:
    """The program `ei-classify`."""
    return Program(c_build / "ei-classify", ort_library)


@pytest.fixture(scope="session")
def bench(c_build: Path, ort_library: Path) -> Bench:
    """The program `ei-bench`, run as a user runs it."""
    return Bench(c_build, ort_library)


@pytest.fixture(scope="session")
def make_model(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path_factory: pytest.TempPathFactory
) -> MakeModel:
    """Return ``make(calibrated=False, **fuse's options)``: a model's path."""

    def make(calibrated: bool = False, **options: object) -> Path:
        head = make_head(calibrated=calibrated)
        path = tmp_path_factory.mktemp("model") / "m.onnx"
        path.write_bytes(to_bytes(fuse(tiny_backbone, head, **options)))  # type: ignore[arg-type]
        return path

    return make
