# SPDX-License-Identifier: Apache-2.0
"""One build of the C runtime opens and runs models with each ONNX Runtime from 1.16 on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_imprint_runtime.backends.ort import OrtRunner
from tests.c.building import SOURCE, run, tool
from tests.c.ort_tools import (
    FROM_NPM,
    FROM_WHEELS,
    SessionProgram,
    debian_header,
    other_release,
)
from tests.conformance.manifest import VECTORS

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
OUTPUTS = {"scores": (np.float32, (3, 3)), "label": (np.int32, (3,))}
NEWEST = "the newest"


@pytest.fixture(params=[*FROM_NPM, *FROM_WHEELS, NEWEST])
def release(request: pytest.FixtureRequest, ort_library: Path) -> Path:
    """Another release's shared library, or the one that is installed."""
    return ort_library if request.param == NEWEST else other_release(request.param)


def test_a_model_runs(release: Path, c_build: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Scores as the newest one has them; nothing is printed on stderr."""
    wanted = OrtRunner(tiny_model, "cpu").run(list(OUTPUTS), PIXELS)
    with SessionProgram(
        c_build / "tests" / "session_check", EI_TEST_LIBRARY=str(release)
    ) as program:
        for how in ("open", "memory"):
            status, about = program.ask(how, tiny_model)
            assert status == "EI_OK: "
            assert about.split()[1:3] == ["onnxruntime", version_of(release)]
            found = program.run(tmp_path, {"images": PIXELS}, OUTPUTS)
            assert isinstance(found, dict)
            np.testing.assert_allclose(
                found["scores"], np.asarray(wanted[0], np.float32), atol=1e-5
            )
            np.testing.assert_array_equal(found["label"], wanted[1])
            program.ask("close")
    print(f"ran with onnxruntime {version_of(release)}")


def test_it_answers_as_the_vectors_say(release: Path, c_build: Path, tmp_path: Path) -> None:
    """Models of all forms, through the public functions: not one answer is another."""
    done = run(c_build / "tests" / "conform", VECTORS, release, tmp_path)
    assert done.stdout.endswith(" lines, 0 otherwise than expected\n")
    assert done.stderr == ""


def test_a_run_that_fails_says_so(
    release: Path, c_build: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """What ONNX Runtime logs of it does not reach stderr."""
    with SessionProgram(
        c_build / "tests" / "session_check", EI_TEST_LIBRARY=str(release)
    ) as program:
        program.ask("open", tiny_model)
        wrong = np.zeros((3, 8, 16, 3), np.uint8)
        found = program.run(tmp_path, {"images": wrong}, OUTPUTS)
        assert isinstance(found, str)
        assert found.startswith("EI_RUN_FAILED: ONNX Runtime could not run the model: ")
        assert ".cc:" not in found


def test_a_gpu_provider_that_is_not_there(
    release: Path, c_build: Path, tiny_model: Path
) -> None:
    with SessionProgram(
        c_build / "tests" / "session_check", EI_TEST_LIBRARY=str(release), EI_TEST_PROVIDER="1"
    ) as program:
        (status,) = program.ask("open", tiny_model)
    assert status.startswith("EI_PROVIDER: ")


def test_the_trace_of_a_run_tells_its_provider(
    release: Path, c_build: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The proof of a GPU provider reads each release's trace, which here is the CPU's."""
    for took, wanted in [
        ("CUDAExecutionProvider", "EI_OK: "),
        (
            "NoExecutionProvider",
            "EI_PROVIDER: CUDAExecutionProvider took none of the model's ",
        ),
    ]:
        with SessionProgram(
            c_build / "tests" / "session_check",
            EI_TEST_LIBRARY=str(c_build / "tests" / "libfailing_ort.so"),
            EI_REAL_ORT=str(release),
            EI_TEST_PROVIDER="1",
            EI_FAKE_TOOK=took,
            TMPDIR=str(tmp_path),
        ) as program:
            (status, *_) = program.ask("open", tiny_model)
            assert status.startswith(wanted)
        assert not list(tmp_path.iterdir())


def test_two_releases_in_one_process(
    c_build: Path, ort_library: Path, tiny_model: Path
) -> None:
    """Their symbols carry versions, and each has an environment of its own."""
    other = other_release(FROM_WHEELS[0])
    with SessionProgram(
        c_build / "tests" / "session_check", EI_TEST_LIBRARY=str(ort_library)
    ) as program:
        for library in (ort_library, other, ort_library):
            program.ask("library", library)
            status, about = program.ask("open", tiny_model)
            assert status == "EI_OK: "
            assert about.split()[2] == version_of(library)
            program.ask("close")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_places_in_the_table_are_those_of_onnx_runtime_s_header(
    compiler: str, tmp_path: Path
) -> None:
    """The oracle is the header itself: places and types of all functions that are used."""
    header = debian_header()
    program = tmp_path / "places.c"
    program.write_text(
        """
        #include "onnxruntime_c_api.h"
        #include "ort.h"
        #define HOLD(place, name, result, arguments)  \\
            _Static_assert(offsetof(OrtApi, name) == place * sizeof(void *), #name);  \\
            _Static_assert(__builtin_types_compatible_p(__typeof__(((OrtApi *)0)->name),  \\
                                                        result(*) arguments), #name);
        EIP_ORT_FUNCTIONS(HOLD)
        _Static_assert(offsetof(OrtApiBase, GetApi) == offsetof(eip_ort_base, GetApi), "");
        _Static_assert(offsetof(OrtApiBase, GetVersionString) ==
                       offsetof(eip_ort_base, GetVersionString), "");
        _Static_assert(ORT_ENABLE_ALL == 99 && ORT_LOGGING_LEVEL_ERROR == 3, "");
        _Static_assert(OrtArenaAllocator == 1 && OrtMemTypeDefault == 0, "");
        _Static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT == 1 &&
                       ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 == 2 &&
                       ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 == 6, "");
        """
    )
    folders = [f"-I{folder}" for folder in (header.parent, SOURCE / "include", SOURCE / "src")]
    command = [tool(compiler), "-std=gnu11", "-fsyntax-only", *folders, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong = program.read_text().replace("place * sizeof", "(place + 1) * sizeof")
    program.write_text(wrong)
    assert subprocess.run(command, capture_output=True, check=False).returncode


def version_of(library: Path) -> str:
    """Return the release that a shared library is of, by its name."""
    return library.name.removeprefix("libonnxruntime.so.")
