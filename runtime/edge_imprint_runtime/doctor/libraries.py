# SPDX-License-Identifier: Apache-2.0
"""Which of NVIDIA's libraries lie on this machine, in which versions, and who brought them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "find_libraries", "folders", "needs_own_kernels", "packages"]

FAMILIES = {
    "cuda": "driver",
    "cudart": "CUDA",
    "cublas": "cuBLAS",
    "cudnn": "cuDNN",
    "curand": "cuRAND",
    "cufft": "cuFFT",
    "nvinfer": "TensorRT",
    "nvonnxparser": "TensorRT's ONNX parser",
}
"""What is looked for, as ``libNAME.so.*``, and what people call it."""

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
)
# Whose versions tell what runs here; prefixes, since CUDA's major is part of many names.
_PACKAGES = (
    "cuda-bindings", "cuda-python", "edge-imprint", "jetson-stats", "numpy", "nvidia-cublas",
    "nvidia-cuda-runtime", "nvidia-cudnn", "nvidia-cufft", "nvidia-curand", "nvidia-ml-py",
    "onnx", "onnxruntime", "pillow", "psutil", "py-cpuinfo", "tensorrt", "torch",
)  # fmt: skip
_SUFFIX = re.compile(r"-cu[0-9]+$")


def folders() -> list[tuple[str, Path]]:
    """List the folders where such libraries may lie.

    Returns:
        Who brought it (``LD_LIBRARY_PATH``, ``system``, ``CUDA folder``, ``pip``) and the
        folder; those that the loader searches by itself come first.
    """
    own = [("LD_LIBRARY_PATH", part) for part in _split(os.environ.get("LD_LIBRARY_PATH"))]
    found = own + [("system", folder) for folder in (*_cached(), *_SYSTEM)]
    for base in sorted(Path("/usr/local").glob("cuda*")):
        found += [("CUDA folder", str(base / "lib64"))]
        found += [("CUDA folder", str(path)) for path in base.glob("targets/*/lib")]
    for entry in dict.fromkeys(sys.path):
        base = Path(entry or ".")
        if os.path.isdir(base / "nvidia"):  # Path.is_dir raises in a closed folder
            found += [("pip", str(path)) for path in sorted(base.glob("nvidia/*/lib"))]
        found += [("pip", str(base / name)) for name in ("tensorrt_libs", "tensorrt")]
    return [(origin, Path(folder)) for origin, folder in dict.fromkeys(found)]


def find_libraries(places: Iterable[tuple[str, Path]]) -> dict[str, list[dict[str, Any]]]:
    """Look for NVIDIA's libraries.

    Args:
        places: As `folders` gives them.

    Returns:
        By family: ``file`` (as a program asks for it, such as ``libcudnn.so.9``),
        ``version`` as far as its file name or pip tells it, ``path`` and ``origin``.
    """
    found: dict[str, list[dict[str, Any]]] = {family: [] for family in FAMILIES}
    seen: set[Path] = set()
    for origin, folder in places:
        for family, files in found.items():
            for path in sorted(folder.glob(f"lib{family}.so.*")):
                real = path.resolve()
                numbers = re.fullmatch(r"[0-9.]+", path.name.partition(".so.")[2])
                if real in seen or numbers is None or not real.is_file():
                    continue
                seen.add(real)
                version = _version(real, family) if origin == "pip" else None
                file = f"lib{family}.so.{_asked_by(family, numbers[0])}"
                in_name = real.name.partition(".so.")[2] or numbers[0]
                files.append(
                    {
                        "file": file,
                        "version": version or in_name,
                        "path": str(path),
                        "origin": origin,
                    }
                )
    return found


def needs_own_kernels(tensorrt: tuple[int, ...]) -> bool:
    """Tell whether TensorRT is to be told to do without cuBLAS and cuDNN.

    TensorRT 8 takes kernels of both by default, loads them when it builds, and ends badly
    where they are not installed; later versions ask for them only where they are told to.

    Args:
        tensorrt: Its version.
    """
    if tensorrt >= (9,):
        return False
    found = find_libraries(folders())
    there = {entry["file"] for family in ("cublas", "cudnn") for entry in found[family]}
    cublas = {"libcublas.so.11", "libcublas.so.12"}  # 8.5 links the one, 8.6 either
    return "libcudnn.so.8" not in there or not there & cublas


def packages() -> dict[str, dict[str, Any]]:
    """List the installed packages that matter here.

    Returns:
        By name: ``version`` and ``tags`` (of the wheel it came in, which tell a build of
        PyPI from one made for a board). Names are in small letters with dashes.
    """
    found: dict[str, dict[str, Any]] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"] or "")).lower()
        plain = _SUFFIX.sub("", name)
        if name in found or not (
            plain in _PACKAGES or plain.startswith(("onnxruntime-", "tensorrt-"))
        ):
            continue
        wheel = distribution.read_text("WHEEL") or ""
        tags = re.findall(r"^Tag: (\S+)", wheel, re.MULTILINE)
        found[name] = {"version": distribution.version, "tags": tags}
    return dict(sorted(found.items()))


def _asked_by(family: str, numbers: str) -> str:
    """Keep of a version what programs ask for; of CUDA 11's runtime that is two numbers."""
    parts = numbers.split(".")
    return ".".join(parts[:2]) if family == "cudart" and parts[0] == "11" else parts[0]


def _version(file: Path, family: str) -> str | None:
    """Ask pip for the version of a library that it brought."""
    names = {
        "cudart": ("nvidia-cuda-runtime",),
        "nvinfer": ("tensorrt",),
        "nvonnxparser": ("tensorrt",),
    }.get(family, (f"nvidia-{family}",))
    major = file.name.partition(".so.")[2].partition(".")[0]
    for name, package in packages().items():
        if name.startswith(names) and package["version"].split(".")[0] == major:
            return str(package["version"])
    return None


def _cached() -> list[str]:
    """Return the folders of the loader's own cache."""
    for program in ("ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"):
        try:
            done = subprocess.run(
                [program, "-p"], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        paths = re.findall(r"=> (\S+)", done.stdout)
        return list(dict.fromkeys(os.path.dirname(path) for path in paths))
    return []


def _split(value: str | None) -> list[str]:
    return [part for part in (value or "").split(":") if part]
