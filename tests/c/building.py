# SPDX-License-Identifier: Apache-2.0
"""Building the C runtime for tests: with cmake, each build once, whoever asks."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_imprint_runtime.files import write_atomic

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "runtime" / "c"
BUILDS = ROOT / "build" / "c-tests"
MAX_SHOWN = 6000


def tool(name: str, package: str | None = None) -> str:
    """Return a program's path, or skip the test and say what to install."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}; on Debian: apt-get install {package or name}")
    return found


def installed_ort() -> Path:
    """Return ONNX Runtime's shared library as the installed wheel has it."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    return library


def run(
    *command: str | Path, timeout: float = 3_600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its failure is the test's, with what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        shown = (done.stdout[-MAX_SHOWN:] + "\n" + done.stderr[-MAX_SHOWN:]).strip()
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{shown}")
    return done


# Read here, since a fixture gives each run a cache of its own.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-imprint-tests"
ARM_ORT = "1.27.0"  # 1.31 crashes under qemu 7.2


def arm_ort() -> Path:
    """Return ONNX Runtime's shared library for 64-bit Arm, downloaded once, or skip."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / f"onnxruntime-{ARM_ORT}-aarch64"
    library = folder / f"libonnxruntime.so.{ARM_ORT}"
    if not library.exists():
        wheel = ["--platform", "manylinux_2_28_aarch64", "--python-version", "3.11"]
        with _locked(CACHE / ".lock"), tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--only-binary", ":all:", *wheel, "--dest", scratch]
            done = subprocess.run(
                [*pip, f"onnxruntime=={ARM_ORT}"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                why = done.stderr.strip().splitlines()
                pytest.skip(f"onnxruntime {ARM_ORT} for aarch64 can't be had: {why[-1:]}")
            (file,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(file) as archive:
                data = archive.read(f"onnxruntime/capi/{library.name}")
            folder.mkdir(exist_ok=True)
            write_atomic(library, data, force=True)
    return library


class Builds:
    """Builds under build/c-tests, kept from run to run and brought up to date once a run."""

    def __init__(self) -> None:
        self._made: set[Path] = set()

    def get(self, name: str, **options: str) -> Path:
        """Return the folder of a build, up to date; ``options`` are cmake's.

        Builds with sanitizers know their lines, and run at a bearable speed. All are
        configured for /usr, as Debian's packages are.
        """
        if "EI_SANITIZE" in options:
            options = {"CMAKE_BUILD_TYPE": "RelWithDebInfo"} | options
        options |= {"CMAKE_INSTALL_PREFIX": "/usr"}
        return self.at(BUILDS / name, **options)

    def at(self, folder: Path, **options: str) -> Path:
        """As ``get``, in a folder of the caller's choice."""
        if folder not in self._made:
            tool("cmake")
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / ".lock"):
                _build(folder, {"EI_TESTS": "ON", "EI_WERROR": "ON"} | options)
            self._made.add(folder)
        return folder


def _build(folder: Path, options: dict[str, str]) -> None:
    given = [f"-D{name}={value}" for name, value in options.items()]
    run("cmake", "-S", SOURCE, "-B", folder, *given)
    run("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock: test processes side by side wait for one build."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
