# SPDX-License-Identifier: Apache-2.0
"""What was collected, by the questions that rules ask of it; and what a rule answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "COMPILE",
    "Finding",
    "SEVERITIES",
    "Seen",
    "family_of",
    "major",
    "numbers",
    "what_it_does",
]

SEVERITIES = ("error", "warning", "note")
"""Something that is to run does not; it may not, or not as it should; good to know."""

COMPILE = "edge-imprint compile MODEL.onnx --out MODEL.engine"
"""Runs a model by TensorRT alone, which a Jetson has from JetPack: no ONNX Runtime needed."""

_NAMES = {
    "CPUExecutionProvider": "ONNX Runtime on the CPU",
    "CUDAExecutionProvider": "ONNX Runtime's CUDA provider",
    "TensorrtExecutionProvider": "ONNX Runtime's TensorRT provider",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, or that one should know.

    Attributes:
        code: Its name, which stays the same over releases.
        severity: Of `SEVERITIES`.
        text: One sentence: what, and where.
        command: What mends it; "" where no command can, or nothing is to be mended.
        about: What it explains: a provider's name, ``TensorRT``, or "".
    """

    code: str
    severity: str
    text: str
    command: str
    about: str = ""


class Seen:
    """What `collect` found, and what can be read off it.

    Args:
        facts: As `collect` gives them; what is not there counts as not known.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.machine: Mapping[str, Any] = facts.get("machine", {})
        self.system: Mapping[str, Any] = facts.get("system", {})
        self.cuda: Mapping[str, Any] = facts.get("cuda", {})
        self.tensorrt: Mapping[str, Any] = facts.get("tensorrt", {})
        self.onnxruntime: Mapping[str, Any] = facts.get("onnxruntime", {})
        self.providers: Mapping[str, Mapping[str, Any]] = facts.get("providers", {})
        self._packages: Mapping[str, Mapping[str, Any]] = facts.get("packages", {})
        self._libraries: Mapping[str, list[dict[str, Any]]] = facts.get("libraries", {})
        self.gpu = bool(facts.get("gpu", {}).get("present"))
        self.jetson = bool(self.system.get("is_jetson"))

    @property
    def jetpack(self) -> tuple[int, ...]:
        """JetPack's version such as (6, 2); its first number alone by L4T; () if not known."""
        own = numbers(self.machine.get("jetpack"))
        l4t = numbers(self.machine.get("l4t"))
        if own or not l4t or not self.jetson:
            return own
        return ({35: 5, 36: 6}.get(l4t[0], 7 if l4t[0] >= 38 else 4),)

    @property
    def python(self) -> tuple[int, ...]:
        """Python's version such as (3, 10, 12)."""
        return numbers(self.system.get("python"))

    def package(self, name: str) -> str | None:
        """Return the version of an installed package."""
        found = self._packages.get(name)
        return None if found is None else str(found["version"])

    def packages(self, start: str) -> list[str]:
        """List the installed packages whose names begin so."""
        return [name for name in self._packages if name.startswith(start)]

    def tags(self, name: str) -> list[str]:
        """Return the tags of the wheel that a package came in."""
        return list(self._packages.get(name, {}).get("tags", []))

    def libraries(self, family: str) -> list[dict[str, Any]]:
        """List a family's libraries, as `find_libraries` describes them."""
        return self._libraries.get(family, [])

    def majors(self, family: str) -> set[int]:
        """Return the first numbers of a family's versions."""
        return {major(entry["file"]) for entry in self.libraries(family)}

    def wanted(self, provider: str) -> dict[str, list[str]]:
        """Say which of NVIDIA's libraries a provider misses.

        Returns:
            By file such as ``libcudnn.so.9``: the folders in which that very file lies,
            where the loader does not look.
        """
        tried = self.providers.get(provider, {})
        if not tried.get("listed") or tried.get("status") in ("runs", "partly"):
            return {}
        lacks = [file for file in tried.get("lacks", []) if family_of(file)]
        absent = [
            file
            for file in tried.get("wants", [])
            if family_of(file) in self._libraries and not self._lying(file)
        ]
        return {file: self._lying(file) for file in dict.fromkeys(lacks + absent)}

    def _lying(self, file: str) -> list[str]:
        entries = self.libraries(family_of(file))
        return [e["path"].rpartition("/")[0] for e in entries if e["file"] == file]

    def says(self, provider: str, *words: str) -> bool:
        """Tell whether what a provider said holds one of these words."""
        tried = self.providers.get(provider, {})
        said = f"{tried.get('reason', '')} {tried.get('log', '')}"
        return any(word in said for word in words)

    @staticmethod
    def name(provider: str) -> str:
        """Return what people call a provider."""
        return _NAMES.get(provider, f"ONNX Runtime's {provider}")


def numbers(version: object) -> tuple[int, ...]:
    """Read a version's numbers; () of what is none."""
    match = re.match(r"[0-9]+(\.[0-9]+)*", str(version or ""))
    return () if match is None else tuple(int(part) for part in match[0].split("."))


def major(file: str) -> int:
    """Return the first number of a library's version, of its file name."""
    return int(file.partition(".so.")[2].partition(".")[0])


def what_it_does(tried: Mapping[str, Any]) -> str:
    """Say in words how an attempt went wrong."""
    stage = tried.get("stage", "start")
    return {
        "crashes": f"takes its process down at the stage '{stage}'",
        "hangs": f"does not get beyond the stage '{stage}'",
        "wrong": "computes wrongly",
        "partly": "does not run all of a model",
    }.get(str(tried.get("status")), f"fails at the stage '{stage}'")


def family_of(file: str) -> str:
    """Return ``cudnn`` of ``libcudnn.so.9``; "" where the name has no version."""
    match = re.fullmatch(r"lib(\w+?)(?:Lt)?\.so\.[0-9.]+", file)
    return "" if match is None else match[1]
