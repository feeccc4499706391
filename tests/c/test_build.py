# SPDX-License-Identifier: Apache-2.0
"""What is built: how small, which symbols, which dependencies, and by which compilers."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.c.building import BUILDS, ROOT, SOURCE, Builds, run, tool

HEADER = SOURCE / "include" / "edge_imprint.h"
SOURCES = sorted(
    file
    for folder in (SOURCE, ROOT / "tests" / "c" / "programs")
    for file in folder.rglob("*.[ch]")
)
MAX_STRIPPED_BYTES = 120_000
# JetPack 6 has glibc 2.35. JetPack 5 (2.31) builds natively.
NEWEST_GLIBC = (2, 34)
LIBRARIES = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"}
LIBRARIES |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
PROGRAMS = ("ei-classify", "ei-teach", "ei-bench")


def declared() -> set[str]:
    """The functions of the public header."""
    return set(re.findall(r"^EI_API [\w ]+?\*?(ei_\w+)\(", HEADER.read_text(), re.MULTILINE))


def needed(file: Path) -> set[str]:
    """The shared libraries that a file asks the loader for."""
    out = run(tool("readelf", "binutils"), "--dynamic", "--wide", file).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", out))


def glibc(file: Path) -> tuple[int, int]:
    """The newest version of glibc's symbols that a file asks for."""
    out = run(tool("objdump", "binutils"), "-T", file).stdout
    return max((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", out))


def test_just_the_headers_functions_are_exported(c_build: Path) -> None:
    library = c_build / "libedge_imprint.so"
    out = run(tool("nm", "binutils"), "-D", "--defined-only", "--format=posix", library).stdout
    exported = {line.split()[0] for line in out.splitlines()}
    gcov = {name for name in exported if name.startswith(("__gcov", "gcov", "mangle_path"))}
    assert exported - gcov == declared()
    assert len(declared()) > 20


def test_no_function_of_ours_has_a_name_that_is_another_programs(c_build: Path) -> None:
    """The static library goes into programs whose names are not ours to take."""
    library = c_build / "libedge_imprint_static.a"
    out = run(tool("nm", "binutils"), "-g", "--defined-only", "--format=posix", library).stdout
    names = {line.split()[0] for line in out.splitlines() if len(line.split()) > 2}
    assert not {name for name in names if not re.match(r"eip?_", name)}


def test_the_stripped_library_is_small(c_builds: Builds, tmp_path: Path) -> None:
    library = c_builds.get("release") / "libedge_imprint.so"
    run(tool("strip", "binutils"), "-o", tmp_path / "stripped", library)
    size = (tmp_path / "stripped").stat().st_size
    print(f"stripped: {size:,} bytes")
    assert size <= MAX_STRIPPED_BYTES


def test_nothing_but_libc_is_needed(c_builds: Builds) -> None:
    build = c_builds.get("release")
    for name in ("libedge_imprint.so", *PROGRAMS):
        assert needed(build / name) <= LIBRARIES, name


def test_an_older_glibc_will_do(c_builds: Builds) -> None:
    build = c_builds.get("release")
    here = platform.libc_ver()[1]
    if tuple(int(part) for part in here.split(".")) > (2, 36):
        pytest.skip(f"glibc is {here} here, and packages are built on Debian 12, with 2.36")
    for name in ("libedge_imprint.so", *PROGRAMS):
        newest = glibc(build / name)
        print(f"{name}: glibc {newest[0]}.{newest[1]}")
        assert newest <= NEWEST_GLIBC, name


def test_the_loader_finds_it_by_its_soname(c_build: Path) -> None:
    out = run(tool("readelf", "binutils"), "-d", c_build / "libedge_imprint.so").stdout
    assert "Library soname: [libedge_imprint.so.0]" in out
    assert (c_build / "libedge_imprint.so.0").exists()


def test_hardened(c_builds: Builds) -> None:
    """No stack can be run, no table written after loading, no code changed by the loader."""
    readelf, build = tool("readelf", "binutils"), c_builds.get("release")
    for name in ("libedge_imprint.so", "ei-classify"):
        out = run(readelf, "-ldW", build / name).stdout
        assert re.search(r"GNU_STACK .* RW ", out), name
        assert "GNU_RELRO" in out, name
        assert "BIND_NOW" in out or "NOW" in out, name
        assert "TEXTREL" not in out, name


@pytest.mark.parametrize(("compiler", "kind"), [("gcc", "Debug"), ("clang", "Release")])
def test_no_warning(c_builds: Builds, compiler: str, kind: str) -> None:
    """Neither compiler has anything to say (-Wall -Wextra -Wpedantic): it would not build.

    All other builds of the tests are held to the same: gcc's Release, and the sanitizers'.
    """
    tool(compiler)
    build = c_builds.get(
        f"{compiler}-{kind.lower()}", CMAKE_C_COMPILER=compiler, CMAKE_BUILD_TYPE=kind
    )
    assert "EI_WERROR:BOOL=ON" in (build / "CMakeCache.txt").read_text()
    assert {file.name for file in build.glob("ei-*")} == set(PROGRAMS)


@pytest.mark.parametrize(
    "language",
    [
        ("c", "-std=c99"),
        ("c", "-std=c11"),
        ("c", "-std=c17"),
        ("c++", "-std=c++11"),
        ("c++", "-std=c++20"),
    ],
    ids=lambda language: language[1],
)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_header_alone(compiler: str, language: tuple[str, str], tmp_path: Path) -> None:
    """It compiles in each language as the first and only include, twice."""
    if language[0] == "c++":
        tool("g++")  # clang takes its headers
    source = tmp_path / "it"
    source.write_text("#include <edge_imprint.h>\n#include <edge_imprint.h>\n")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-fsyntax-only"]
    run(
        *(tool(compiler), "-x", language[0], language[1], *strict),
        *("-I", SOURCE / "include", source),
    )


def test_no_fast_arithmetic() -> None:
    """The same numbers everywhere: nothing lets a compiler reorder sums."""
    for file in (SOURCE / "CMakeLists.txt", *(SOURCE / "cmake").iterdir()):
        assert "-ffast-math" not in file.read_text()
        assert "-Ofast" not in file.read_text()


def test_an_unknown_sanitizer_is_refused(tmp_path: Path) -> None:
    command = [tool("cmake"), "-S", SOURCE, "-B", tmp_path, "-DEI_SANITIZE=adress"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "EI_SANITIZE=adress: adress is none of address" in " ".join(done.stderr.split())


def test_lines_fit_into_a_hundred_columns() -> None:
    """What else holds of C files is in tests/test_house_rules.py."""
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in SOURCES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 100 or "\t" in line
    ]
    assert not long


def test_the_library_neither_prints_nor_ends_nor_catches_signals(c_builds: Builds) -> None:
    library = c_builds.get("release") / "libedge_imprint.so"
    out = run(tool("nm", "binutils"), "-D", "--undefined-only", library).stdout
    used = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    forbidden = {"printf", "puts", "putchar", "fprintf", "perror", "exit", "_exit", "abort"}
    forbidden |= {"signal", "sigaction", "system", "popen", "fork", "setlocale", "dlclose"}
    forbidden |= {f"__{name}_chk" for name in ("printf", "fprintf")}
    assert not used & forbidden


def test_builds_are_kept_where_git_does_not_look() -> None:
    assert BUILDS.relative_to(ROOT).parts[0] == "build"
    assert "/build/" in (ROOT / ".gitignore").read_text().splitlines()
