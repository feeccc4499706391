# SPDX-License-Identifier: Apache-2.0
"""Installing: Debian packages, pkg-config, find_package, and programs built with them."""

from __future__ import annotations

import os
import re
import subprocess
from email.parser import HeaderParser
from pathlib import Path

import pytest

import edge_imprint
from tests.c.building import SOURCE, Builds, run, tool
from tests.conformance.manifest import VECTORS

VERSION = edge_imprint.__version__
NAMES = ("libedge-imprint0", "libedge-imprint-dev", "edge-imprint-tools")
TRIPLES = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

PROGRAM = r"""
#include <edge_imprint.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    static const unsigned char pixels[16 * 16 * 3];
    ei_model *model = NULL;
    ei_predictions *found = NULL;
    ei_options options = {.size = sizeof options, .library = argv[2]};
    ei_image image = {.data = pixels, .width = 16, .height = 16, .format = EI_RGB8};
    if (argc != 3 || ei_open(argv[1], &options, &model) ||
        ei_predict(model, &image, 1, &found)) {
        fprintf(stderr, "%s\n", ei_last_error());
        return 1;
    }
    printf("%s: %s\n", ei_version(), ei_prediction_at(found, 0)->label);
    ei_free_predictions(found);
    ei_close(model);
    return 0;
}
"""

PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(it LANGUAGES C)
find_package(edge_imprint {version} REQUIRED)
add_executable(with_shared it.c)
target_link_libraries(with_shared PRIVATE edge_imprint::edge_imprint)
add_executable(with_static it.c)
target_link_libraries(with_static PRIVATE edge_imprint::edge_imprint_static)
"""


def packages(build: Path, out: Path) -> dict[str, Path]:
    """Make the packages of a build: name -> file."""
    tool("dpkg-deb", "dpkg")
    run(tool("cpack", "cmake"), "--config", build / "CPackConfig.cmake", "-B", out)
    return {file.name.split("_")[0]: file for file in out.glob("*.deb")}


@pytest.fixture(scope="module")
def native(
    c_builds: Builds, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Path], str]:
    """The packages of this machine's architecture, and its name."""
    architecture = run(tool("dpkg"), "--print-architecture").stdout.strip()
    if architecture not in TRIPLES:
        pytest.skip(f"packages are for {' and '.join(TRIPLES)}, this is {architecture}")
    return packages(c_builds.get("release"), tmp_path_factory.mktemp("deb")), architecture


@pytest.fixture(scope="module")
def arm64(c_builds: Builds, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages for a Jetson, built on another machine."""
    tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    chain = SOURCE / "cmake/aarch64.cmake"
    build = c_builds.get("aarch64", CMAKE_TOOLCHAIN_FILE=str(chain))
    return packages(build, tmp_path_factory.mktemp("deb-arm64"))


@pytest.fixture(scope="module")
def root(
    native: tuple[dict[str, Path], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """All packages unpacked: their root, and its folder of libraries."""
    files, architecture = native
    folder = tmp_path_factory.mktemp("root")
    for file in files.values():
        run("dpkg-deb", "-x", file, folder)
    return folder, folder / "usr/lib" / TRIPLES[architecture]


def fields(package: Path) -> dict[str, str]:
    """What a package says of itself."""
    return dict(HeaderParser().parsestr(run("dpkg-deb", "-f", package).stdout))


def contents(package: Path) -> dict[str, str]:
    """A package's files: path -> mode and owner."""
    lines = run("dpkg-deb", "-c", package).stdout.splitlines()
    found = [line.split(maxsplit=5) for line in lines]
    return {f[5].split(" -> ")[0].lstrip("."): f"{f[0]} {f[1]}" for f in found}


def check(files: dict[str, Path], architecture: str) -> None:
    """Hold packages against what they should be."""
    library = f"/usr/lib/{TRIPLES[architecture]}"
    assert set(files) == set(NAMES)
    for name, file in files.items():
        said, held = fields(file), contents(file)
        assert (said["Package"], said["Version"]) == (name, VERSION)
        assert said["Architecture"] == architecture
        assert file.name == f"{name}_{VERSION}_{architecture}.deb"
        assert said["Description"]
        assert f"/usr/share/doc/{name}/copyright" in held
        assert all(mode.endswith("root/root") for mode in held.values())
        assert not [path for path, mode in held.items() if re.match(r"-.......w", mode)]
        assert not [path for path in held if path.startswith(("/usr/local", "/opt", "/home"))]
    depends = {name: fields(file).get("Depends", "") for name, file in files.items()}
    for name in (NAMES[0], NAMES[2]):
        found = re.fullmatch(r"libc6 \(>= 2\.(\d+)\)", depends[name])
        assert found is not None, depends[name]
        assert int(found[1]) <= 34
    assert depends[NAMES[1]] == f"{NAMES[0]} (= {VERSION})"
    soname = f"{library}/libedge_imprint.so.0"
    assert soname in contents(files[NAMES[0]])
    development = contents(files[NAMES[1]])
    assert f"{library}/libedge_imprint.so" in development
    assert f"{library}/pkgconfig/edge_imprint.pc" in development
    assert "/usr/include/edge_imprint.h" in development
    for program in ("ei-classify", "ei-teach", "ei-bench"):
        assert contents(files[NAMES[2]])[f"/usr/bin/{program}"].startswith("-rwxr-xr-x")


def test_packages_of_this_machine(native: tuple[dict[str, Path], str]) -> None:
    check(*native)


def test_packages_for_a_jetson(arm64: dict[str, Path], tmp_path: Path) -> None:
    check(arm64, "arm64")
    run("dpkg-deb", "-x", arm64[NAMES[0]], tmp_path)
    library = tmp_path / "usr/lib/aarch64-linux-gnu/libedge_imprint.so.0"
    assert "AArch64" in run(tool("readelf", "binutils"), "-h", library).stdout


def test_the_loader_is_told(
    native: tuple[dict[str, Path], str], arm64: dict[str, Path], tmp_path: Path
) -> None:
    """Ldconfig runs when the library comes and goes: by a script or by dpkg's trigger."""
    for number, files in enumerate((native[0], arm64)):
        run("dpkg-deb", "-e", files[NAMES[0]], tmp_path / str(number))
        scripts = [file.read_text() for file in (tmp_path / str(number)).iterdir()]
        assert any("ldconfig" in text for text in scripts)


def test_installed_and_removed_by_dpkg(
    native: tuple[dict[str, Path], str], tmp_path: Path
) -> None:
    """In a root of its own, whose dpkg knows no libc: dependencies are the check above's."""
    if os.geteuid() != 0:
        pytest.skip("dpkg installs as root only")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    dpkg = ["dpkg", f"--root={tmp_path}", "--force-depends", "--force-script-chrootless"]
    run(*dpkg, "--install", *native[0].values())
    assert (tmp_path / "usr/bin/ei-classify").exists()
    run(*dpkg, "--purge", *NAMES)
    assert not [p for p in (tmp_path / "usr").rglob("*") if p.is_file() or p.is_symlink()]


def says(program: Path, ort: Path, **environment: str) -> str:
    return run(program, VECTORS / "uint8.onnx", ort, **environment).stdout


def test_a_program_built_with_pkg_config(
    root: tuple[Path, Path], ort_library: Path, tmp_path: Path
) -> None:
    _, libraries = root
    source = tmp_path / "it.c"
    source.write_text(PROGRAM)
    there = {"PKG_CONFIG_LIBDIR": str(libraries / "pkgconfig")}
    ask = [tool("pkg-config"), "edge_imprint"]
    assert run(*ask, "--modversion", **there).stdout.strip() == VERSION
    flags = run(*ask, "--cflags", "--libs", **there).stdout.split()
    run(tool("gcc"), "-std=c99", "-Wall", "-Werror", source, "-o", tmp_path / "it", *flags)
    said = says(tmp_path / "it", ort_library, LD_LIBRARY_PATH=str(libraries))
    assert said.startswith(f"{VERSION}: ")


@pytest.mark.parametrize("version", [VERSION, f"{VERSION} EXACT"])
def test_a_program_built_with_find_package(
    root: tuple[Path, Path], ort_library: Path, tmp_path: Path, version: str
) -> None:
    folder, libraries = root
    (tmp_path / "it.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(version=version))
    build = tmp_path / "build"
    run(tool("cmake"), "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={folder / 'usr'}")
    run("cmake", "--build", build)
    with_static = says(build / "with_static", ort_library)
    with_shared = says(build / "with_shared", ort_library, LD_LIBRARY_PATH=str(libraries))
    assert with_static == with_shared
    assert with_static.startswith(f"{VERSION}: ")


@pytest.mark.parametrize("version", ["0.0.9", "0.2", "1.0"])
def test_another_release_is_not_taken_for_it(
    root: tuple[Path, Path], tmp_path: Path, version: str
) -> None:
    """Before 1.0 a minor release may change the interface."""
    (tmp_path / "it.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(version=version))
    prefix = f"-DCMAKE_PREFIX_PATH={root[0] / 'usr'}"
    command = [tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build", prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "compatible with requested version" in " ".join(done.stderr.split())


def test_as_a_part_of_another_project(ort_library: Path, tmp_path: Path) -> None:
    """add_subdirectory gives the same names; without the programs."""
    (tmp_path / "it.c").write_text(PROGRAM)
    added = PROJECT.replace("find_package(edge_imprint {version} REQUIRED)", "{version}")
    given = f'set(EI_PROGRAMS OFF)\nadd_subdirectory("{SOURCE}" edge_imprint)'
    (tmp_path / "CMakeLists.txt").write_text(added.format(version=given))
    run(tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build")
    run("cmake", "--build", tmp_path / "build", "--parallel", str(os.cpu_count() or 1))
    said = says(tmp_path / "build/with_shared", ort_library)
    assert said.startswith(f"{VERSION}: ")
    assert not list((tmp_path / "build").rglob("ei-*"))
