# SPDX-License-Identifier: Apache-2.0
"""The C runtime answers as the conformance vectors say: natively, and for 64-bit Arm."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.c.building import SOURCE, Builds, arm_ort, run, tool
from tests.conformance.manifest import VECTORS


def conform(out: str) -> int:
    """Return how many lines were carried out, all of them as expected."""
    found = re.fullmatch(r"conform: (\d+) lines, 0 otherwise than expected\n", out)
    assert found is not None, out
    return int(found[1])


@pytest.mark.parametrize("kind", ["as all tests", "release"])
def test_natively(
    c_build: Path, c_builds: Builds, ort_library: Path, tmp_path: Path, kind: str
) -> None:
    """With the build at hand, which counts lines or has a sanitizer, and with a Release."""
    build = c_builds.get("release") if kind == "release" else c_build
    done = run(build / "tests/conform", VECTORS, ort_library, tmp_path)
    lines = (VECTORS / "manifest.txt").read_text().splitlines()
    expected = [line for line in lines[1:] if not line.startswith("section\t")]
    assert conform(done.stdout) == len(expected)
    assert done.stderr == ""


def test_a_wrong_answer_is_told(c_build: Path, ort_library: Path, tmp_path: Path) -> None:
    """The program that holds the library to the vectors can fail."""
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    for file in VECTORS.iterdir():
        (vectors / file.name).symlink_to(file)
    answers = bytearray((VECTORS / "uint8.answers").read_bytes())
    answers[0] ^= 0x80
    answers[2] ^= 0x01
    (vectors / "uint8.answers").unlink()
    (vectors / "uint8.answers").write_bytes(answers)
    command = [c_build / "tests/conform", vectors, ort_library, tmp_path, "uint8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"manifest.txt:\d+ \(uint8\): scores 0 is ", done.stdout)


def test_where_numbers_have_a_comma(c_build: Path, ort_library: Path, tmp_path: Path) -> None:
    """No number is read or written as the locale of the program around the library has it."""
    if not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("needs a locale's source; on Debian: apt-get install locales")
    run(tool("localedef", "libc-bin"), "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8")
    german = {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}
    done = run(c_build / "tests/conform", VECTORS, ort_library, tmp_path, **german)
    assert done.stderr == "a decimal comma\n"
    assert conform(done.stdout) > 1000


@pytest.fixture(scope="session")
def arm_build(c_builds: Builds) -> Path:
    """A build for 64-bit Arm: the machine's own where it is one."""
    if platform.machine() == "aarch64":
        return c_builds.get("release")
    tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    chain = SOURCE / "cmake/aarch64.cmake"
    return c_builds.get("aarch64", CMAKE_TOOLCHAIN_FILE=str(chain))


def test_on_64_bit_arm(arm_build: Path, tmp_path: Path) -> None:
    """Under qemu-user, with ONNX Runtime's own library for it."""
    program = [arm_build / "tests/conform", VECTORS, arm_ort(), tmp_path]
    if platform.machine() == "aarch64":
        done = run(*program)
    else:
        qemu = tool("qemu-aarch64-static", "qemu-user-static")
        done = run(qemu, "-L", "/usr/aarch64-linux-gnu", *program)
    assert conform(done.stdout) > 1000
