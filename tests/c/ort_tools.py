# SPDX-License-Identifier: Apache-2.0
"""Talking to test programs, and other releases of ONNX Runtime to run with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

# Read here, since a fixture gives each run a cache of its own.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-imprint-tests"
# Whose wheels hold no shared library, but whose package for Node.js does.
FROM_NPM = ("1.16.3", "1.18.0")
FROM_WHEELS = ("1.20.1", "1.23.2")
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


class Program:
    """A test program that answers each line it reads with lines, the last of them a dot."""

    def __init__(self, path: Path, **environment: str) -> None:
        self._process = subprocess.Popen(
            [str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def ask(self, *words: str | Path, between: str = " ") -> list[str]:
        """Send a line; returns the answer's lines without the dot."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((between.join(map(str, words)) + "\n").encode())
        self._process.stdin.flush()
        lines = []
        while (line := self._process.stdout.readline()) != b".\n":
            if not line:
                raise AssertionError(f"it ended early: {self.end()}")
            lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        return lines

    @property
    def process_id(self) -> int:
        return self._process.pid

    def end(self) -> tuple[int, str]:
        """Let it end; returns its exit status and what it printed on stderr."""
        _, errors = self._process.communicate(timeout=300)
        return self._process.returncode, errors.decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status, errors = self.end()
        if kind is None:
            assert (status, errors) == (0, "")


class SessionProgram(Program):
    """tests/c/programs/session_check.c: a session, without the model around it."""

    def run(
        self,
        folder: Path,
        inputs: dict[str, npt.NDArray[Any]],
        outputs: dict[str, tuple[type[np.generic], tuple[int, ...]]],
    ) -> dict[str, npt.NDArray[Any]] | str:
        """Run the open model; returns its outputs, or the failure."""
        words = []
        for number, (name, array) in enumerate(inputs.items()):
            path = folder / f"input{number}"
            path.write_bytes(np.ascontiguousarray(array).tobytes())
            words.append(f"{name}={'x'.join(map(str, array.shape))}={path}")
        words.append("--")
        words += [f"{name}={'x'.join(map(str, s))}" for name, (_, s) in outputs.items()]
        answer = self.ask("run", *words)
        failed = next((line for line in answer if line.startswith("EI_")), "")
        if failed != "EI_OK: ":
            return failed
        texts = answer[-len(outputs) :]
        found = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in texts]
        return {
            name: numbers.view(kind).reshape(shape)
            for (name, (kind, shape)), numbers in zip(outputs.items(), found, strict=True)
        }


class Starter:
    """Starts session_check with an ONNX Runtime, the real one or the failing one.

    Args:
        build: The folder of a build.
        ort: ONNX Runtime's shared library.
        folder: For what is written: TensorRT's engines, temporary files.
    """

    def __init__(self, build: Path, ort: Path, folder: Path) -> None:
        self._build, self._ort, self._folder = build, ort, folder
        (folder / "temporary").mkdir(exist_ok=True)

    def __call__(self, **environment: str) -> SessionProgram:
        """Start it with the real one."""
        usual = {
            "EI_TEST_LIBRARY": str(self._ort),
            "EI_REAL_ORT": str(self._ort),
            "EI_TEST_CACHE": str(self._folder / "cache"),
            "TMPDIR": str(self._folder / "temporary"),
        }
        return SessionProgram(
            self._build / "tests" / "session_check", **{**usual, **environment}
        )

    def failing(self, provider: str = "", **environment: str) -> SessionProgram:
        """Start it with the failing one, and a provider; "": the CPU's."""
        library = str(self._build / "tests" / "libfailing_ort.so")
        number = str(["", CUDA, TENSORRT].index(provider))
        return self(
            **{"EI_TEST_LIBRARY": library, "EI_TEST_PROVIDER": number, **environment},
        )

    def on_gpu(self, provider: str, **environment: str) -> SessionProgram:
        """As `failing`; what the provider is told is written to the file ``told``."""
        return self.failing(provider, EI_FAKE_TOLD=str(self._folder / "told"), **environment)


def other_release(version: str) -> Path:
    """Return the shared library of an ONNX Runtime release, or skip and say why."""
    folder = CACHE / f"onnxruntime-{version}-{platform.machine()}"
    if not (found := list(folder.glob("libonnxruntime.so*"))):
        fetch = _from_npm if version in FROM_NPM else _from_wheel
        _fetched(folder, fetch, version)
        found = list(folder.glob("libonnxruntime.so*"))
    assert len(found) == 1, found
    return found[0]


def _fetched(folder: Path, fetch: Callable[[str, Path], None], version: str) -> None:
    """Fill a folder of the cache, which is there whole or not at all."""
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    beside.mkdir(parents=True)
    try:
        fetch(version, beside)
        if not folder.exists():
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _from_npm(version: str, folder: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which has old releases of ONNX Runtime: apt-get install npm")
    _call(["npm", "pack", "--silent", f"onnxruntime-node@{version}"], folder)
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
    (package,) = folder.glob("*.tgz")
    with tarfile.open(package) as files:
        for member in files:
            name = Path(member.name).name
            if f"/linux/{machine}/libonnxruntime.so" in member.name:
                inner = files.extractfile(member)
                assert inner is not None
                (folder / name).write_bytes(inner.read())
    package.unlink()


def _from_wheel(version: str, folder: Path) -> None:
    platforms = [
        f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in (17, 27, 28)
    ]
    python = ["--python-version=3.11", "--only-binary=:all:", "--no-deps", "--quiet"]
    command = ["pip", "download", *python, *platforms, f"onnxruntime=={version}"]
    if shutil.which("pip") is None:
        pytest.skip("needs pip, to fetch other releases of ONNX Runtime")
    _call(command, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            if "/capi/libonnxruntime.so" in name:
                (folder / Path(name).name).write_bytes(files.read(name))
    wheel.unlink()


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=3000, check=False
    )
    if done.returncode:
        pytest.skip(f"{' '.join(command[:2])} can't fetch it: {done.stderr.strip()[-300:]}")


def debian_header() -> Path:
    """Return ONNX Runtime's C header as Debian packages it, or skip and say why."""
    folder = CACHE / "libonnxruntime-dev"
    if not folder.is_dir():
        _fetched(folder, _from_debian, "trixie")
    (found,) = folder.rglob("onnxruntime_c_api.h")
    return found


def _from_debian(suite: str, folder: Path) -> None:
    """Fetch the package by an apt of its own, which changes nothing of the system's."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if not sources.is_file() or not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        pytest.skip("needs Debian's apt-get and debian.sources, for ONNX Runtime's header")
    apt = folder / "apt"
    for part in ("state/lists/partial", "cache/archives/partial", "sources"):
        (apt / part).mkdir(parents=True)
    main = sources.read_text(encoding="utf-8").split("\n\n")[0]
    (apt / "sources" / "next.sources").write_text(
        re.sub(r"^Suites:.*$", f"Suites: {suite}", main, flags=re.MULTILINE) + "\n"
    )
    (apt / "apt.conf").write_text(
        f"""
        Dir::State "{apt}/state";
        Dir::Cache "{apt}/cache";
        Dir::Etc::sourcelist "/dev/null";
        Dir::Etc::sourceparts "{apt}/sources";
        Acquire::Languages "none";
        APT::Sandbox::User "root";
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_CONFIG", str(apt / "apt.conf"))
        _call(["apt-get", "-q", "update"], folder)
        _call(["apt-get", "-q", "download", "libonnxruntime-dev"], folder)
    (package,) = folder.glob("*.deb")
    _call(["dpkg-deb", "-x", package.name, "."], folder)
    shutil.rmtree(apt)
    package.unlink()
