# SPDX-License-Identifier: Apache-2.0
"""Writes down a real TensorRT's names and signatures, for the stand-ins to be held against.

    python tests/standins/record_api.py tests/standins/tensorrt_8_5_3.json

Needs the module only: neither a GPU nor this package.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["record"]


def record(module: Any) -> dict[str, Any]:
    """Describe a module that pybind11 made.

    Args:
        module: ``tensorrt``.

    Returns:
        ``version``, and ``names``: by name ``members`` of a class, each ``property``, or the
        parameters' names of each overload, ``?`` behind those with a default; ``values`` of an
        enum; or ``parameters`` of a function.
    """
    names = {}
    for name in sorted(vars(module)):
        value = getattr(module, name)
        if name.startswith("_") or type(value).__name__ == "module":
            continue
        if isinstance(value, type):
            names[name] = _class(value)
        elif callable(value):
            names[name] = {"parameters": _overloads(value)}
        else:
            names[name] = {"value": type(value).__name__}
    return {"version": module.__version__, "names": names}


def _class(kind: type[Any]) -> dict[str, Any]:
    if (members := getattr(kind, "__members__", None)) is not None:
        return {"values": sorted(members)}
    found: dict[str, Any] = {}
    for name in sorted(dir(kind)):
        if name.startswith("_") and name != "__init__":
            continue
        value = getattr(kind, name)
        if isinstance(value, property):
            found[name] = "property"
        elif callable(value) and not isinstance(value, type):
            found[name] = _overloads(value)
        else:
            found[name] = type(value).__name__
    return {"members": found}


def _overloads(function: Any) -> list[list[str]]:
    """Read parameters off what pybind11 writes first into a docstring."""
    name = getattr(function, "__name__", "")
    lines = (function.__doc__ or "").splitlines()
    pattern = re.compile(rf"(?:[0-9]+\. )?{re.escape(name)}\((.*)\) -> ")
    return [_parameters(match[1]) for line in lines if (match := pattern.match(line.strip()))]


def _parameters(text: str) -> list[str]:
    found, depth, part = [], 0, ""
    for letter in text + ",":
        if letter == "," and not depth:
            if part.strip():
                name = part.partition(":")[0].strip()
                found.append(name + ("?" if "=" in part else ""))
            part = ""
            continue
        depth += letter in "[(<"
        depth -= letter in "])>"
        part += letter
    return [name for name in found if name != "self"]


if __name__ == "__main__":
    import tensorrt

    text = json.dumps(record(tensorrt), indent=1, sort_keys=True)
    Path(sys.argv[1]).write_text(text + "\n")
