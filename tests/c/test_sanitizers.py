# SPDX-License-Identifier: Apache-2.0
"""The C runtime's own tests once more, under what finds wrong memory, races and leaks."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.c.building import ROOT, Builds, run, tool
from tests.conformance.manifest import VECTORS

HERE = Path(__file__).parent
SUPPRESSED = HERE / "suppressions"
# These make builds or measurements of their own, or compare with Python at length.
NOT_AGAIN = ("build", "packages", "sanitizers", "fuzz", "coverage")
# These can't be: their programs are linked without the sanitizer, or preload a library.
CANNOT = (
    "tests/c/test_examples.py",
    "tests/c/test_photo.py::test_a_missing_library_is_named",
)
# Whose programs have threads, of ours or of ONNX Runtime's.
WITH_THREADS = ("allocations", "bench_modes", "bench_parts", "classify", "classify_frames")
WITH_THREADS += ("concurrency", "conformance", "teach_program")
# What takes bearable time with each instruction looked at.
WITH_VALGRIND = ("allocations", "class_tensors", "head_failures", "json", "rules")
FOUND = 99  # the exit status of a sanitizer that found something; no program of ours has it

ADDRESS = {
    "ASAN_OPTIONS": f"exitcode={FOUND}:allocator_may_return_null=1:"
    # The last: a stand-in for a camera is preloaded, before the sanitizer's own library.
    "detect_stack_use_after_return=1:verify_asan_link_order=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "LSAN_OPTIONS": f"suppressions={SUPPRESSED / 'leaks.txt'}:print_suppressions=0",
}
THREADS = {
    "TSAN_OPTIONS": f"exitcode={FOUND}:allocator_may_return_null=1:"
    f"ignore_noninstrumented_modules=1:suppressions={SUPPRESSED / 'threads.txt'}"
}


@pytest.fixture(scope="session")
def address(c_builds: Builds) -> Path:
    """A build with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer."""
    return c_builds.get("address", EI_SANITIZE="address,undefined")


@pytest.fixture(scope="session")
def threads(c_builds: Builds) -> Path:
    """A build with ThreadSanitizer."""
    return c_builds.get("thread", EI_SANITIZE="thread")


def suites(*left_out: str) -> list[Path]:
    """The test files of the C runtime, but some."""
    return [
        file
        for file in sorted(HERE.glob("test_*.py"))
        if file.stem.removeprefix("test_") not in (*NOT_AGAIN, *left_out)
    ]


def again(build: Path, of: str, files: list[Path], **environment: str) -> int:
    """Run tests once more, with another build; return how many passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--deselect={name}" for name in CANNOT]
    environment |= {"EI_C_BUILD": str(build), "EI_C_TESTS_OF": of}
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=7_200,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-4_000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None, done.stdout[-2_000:]
    print(done.stdout.splitlines()[-1])
    return int(found[1])


def test_memory_over_all_programs_tests(address: Path) -> None:
    """Every test that runs a C program: no wrong access, no undefined behaviour, no leak."""
    assert again(address, "programs", suites(), **ADDRESS) > 50


def test_memory_over_all_tests_of_the_library(address: Path) -> None:
    """Every test that calls the shared library out of Python; leaks are Python's own here."""
    runtime = run(tool("gcc"), "-print-file-name=libasan.so").stdout.strip()
    options = ADDRESS["ASAN_OPTIONS"] + ":detect_leaks=0"
    preloaded = ADDRESS | {"ASAN_OPTIONS": options, "LD_PRELOAD": str(Path(runtime).resolve())}
    assert again(address, "library", suites(), **preloaded) > 50


def test_races(threads: Path) -> None:
    """Threads that predict, teach, save, measure, read frames: no race in code of ours."""
    files = [HERE / f"test_{suite}.py" for suite in WITH_THREADS]
    assert again(threads, "programs", files, **THREADS) > 50


@pytest.fixture(scope="session")
def memcheck() -> list[str]:
    """Valgrind's command, a program's name to follow."""
    return [
        *(tool("valgrind"), "-q", f"--error-exitcode={FOUND}", "--leak-check=full"),
        *("--errors-for-leak-kinds=definite,indirect", "--num-callers=40"),
        f"--suppressions={SUPPRESSED / 'valgrind.txt'}",
    ]


@pytest.fixture(scope="session")
def unwinding(c_builds: Builds) -> Path:
    """A build with the unwind tables that a Release goes without: stacks must be right."""
    options = {"CMAKE_C_COMPILER": "gcc", "CMAKE_BUILD_TYPE": "Debug"}
    return c_builds.get("gcc-debug", **options)


def test_valgrind_over_the_vectors(
    unwinding: Path, memcheck: list[str], ort_library: Path, tmp_path: Path
) -> None:
    """Opening, predicting, teaching: memcheck sees uninitialised numbers too."""
    done = run(*memcheck, unwinding / "tests/conform", VECTORS, ort_library, tmp_path)
    assert ", 0 otherwise than expected" in done.stdout
    assert done.stderr == ""


def test_valgrind_over_other_tests(
    unwinding: Path, memcheck: list[str], tmp_path: Path
) -> None:
    """Heads, JSON, rules, and allocations that fail."""
    (tmp_path / "tests").mkdir()
    for program in (unwinding / "tests").iterdir():
        started = tmp_path / "tests" / program.name
        if program.suffix:
            started.symlink_to(program)
            continue
        started.write_text(f'#!/bin/sh\nexec {shlex.join([*memcheck, str(program)])} "$@"\n')
        started.chmod(0o755)
    files = [HERE / f"test_{suite}.py" for suite in WITH_VALGRIND]
    assert again(tmp_path, "programs", files) > 50


# Each sanitizer can fail ---------------------------------------------------------------------

WRONG = {
    "memory": "volatile char *p = malloc(8); return p[8];",
    "undefined": "volatile int n = INT_MAX; n++; return n != 0;",
    "leak": "volatile char *p = malloc(8); p = NULL; return p != NULL;",
    "race": "pthread_t t; pthread_create(&t, 0, add, 0); add(0); return pthread_join(t, 0);",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_found(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text(
        "#include <limits.h>\n#include <pthread.h>\n#include <stdlib.h>\n"
        "static int sum;\n"
        "void *add(void *n) { for (int i = 0; i < 100000; i++) sum++; return n; }\n"
        f"int main(void) {{ {WRONG[kind]} }}\n"
    )
    program, which = tmp_path / "wrong", "thread" if kind == "race" else "address,undefined"
    run(
        *(tool("gcc"), "-O0", "-g", f"-fsanitize={which}", "-fno-sanitize-recover=all"),
        *(source, "-o", program, "-lpthread"),
    )
    environment = os.environ | ADDRESS | THREADS
    done = subprocess.run([program], env=environment, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"runtime error" in done.stderr or b"Sanitizer" in done.stderr
