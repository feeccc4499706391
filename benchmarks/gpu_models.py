# SPDX-License-Identifier: Apache-2.0
"""Models that a machine without torch, onnx and network is to check: packing and unpacking.

Precisions and parts of one backbone hold the same weights. A file is packed as the pieces by
which it differs from the fp16 file of its backbone, so that all of them travel as one of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGE_BYTES",
    "MANIFEST",
    "WHEELS_FOLDER",
    "install",
    "join",
    "pieces",
    "read_answers",
    "unpack",
]

MANIFEST = "manifest.json"
WHEELS_FOLDER = "wheels"
LARGE_BYTES = 4096  # arrays below this are not worth a piece of their own

Piece = list[Any]


def pieces(data: bytes, arrays: list[bytes], base: bytes, halves: list[bytes]) -> list[Piece]:
    """Say how a file is made out of another.

    Args:
        data: The file.
        arrays: Its arrays, as they lie in it.
        base: The other file.
        halves: The other file's float16 arrays, which may be in this one as float32.

    Returns:
        In order: ``["copy", offset, bytes]`` of the other, ``["wide", offset, bytes]``: the
        same cast to float32, ``["text", base64]``: compressed bytes of its own.
    """
    known = {np.frombuffer(raw, "<f2").astype("<f4").tobytes(): raw for raw in halves}
    found: list[tuple[int, int, Piece]] = []
    for raw in arrays:
        start = data.find(raw)
        if len(raw) < LARGE_BYTES or start < 0:
            continue
        if (offset := base.find(raw)) >= 0:
            found.append((start, start + len(raw), ["copy", offset, len(raw)]))
        elif raw in known:
            half = known[raw]
            found.append((start, start + len(raw), ["wide", base.find(half), len(half)]))
    made: list[Piece] = []
    position = 0
    for start, end, piece in sorted(found, key=lambda one: one[:2]):
        if start < position:
            continue  # an array that is there twice
        made += [_text(data[position:start]), piece]
        position = end
    return [*made, _text(data[position:])]


def join(made_of: list[Piece], base: bytes) -> bytes:
    """Make a file of its pieces.

    Args:
        made_of: What `pieces` gave.
        base: The file that they refer to.
    """
    parts = []
    for kind, *rest in made_of:
        if kind == "text":
            parts.append(zlib.decompress(base64.b64decode(rest[0])))
            continue
        offset, size = rest
        raw = base[offset : offset + size]
        parts.append(
            raw if kind == "copy" else np.frombuffer(raw, "<f2").astype("<f4").tobytes()
        )
    return b"".join(parts)


def unpack(packed: Path, out: Path) -> dict[str, Any]:
    """Lay all models of a pack into a folder.

    Args:
        packed: The folder that ``gpu_check_pack.py`` wrote.
        out: Where they are to lie; those that are there and whole stay.

    Returns:
        The manifest.

    Raises:
        ValueError: A file is not what was packed.
    """
    manifest: dict[str, Any] = json.loads((packed / MANIFEST).read_text())
    out.mkdir(parents=True, exist_ok=True)
    for name, entry in manifest["files"].items():
        target = out / name
        if target.is_file() and _digest(target.read_bytes()) == entry["sha256"]:
            continue
        if entry["pieces"] is None:
            data = (packed / name).read_bytes()
        else:
            data = join(entry["pieces"], (packed / entry["base"]).read_bytes())
        if _digest(data) != entry["sha256"]:
            raise ValueError(f"{name} is not what was packed; pack it again")
        target.write_bytes(data)
    return manifest


def read_answers(folder: Path, name: str) -> dict[str, npt.NDArray[np.generic]]:
    """Read a model's images and what the oracle says of them.

    Returns:
        ``images`` (as the model takes them), ``scores`` and ``label``.
    """
    with np.load(folder / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def install(packed: Path, out: Path) -> list[str]:
    """Unpack the wheels of a pack that fit this interpreter into a folder.

    Args:
        packed: The folder that ``gpu_check_pack.py --wheels`` wrote.
        out: Where they are to lie, for ``sys.path``.

    Returns:
        The wheels' names.
    """
    own = f"cp{sys.version_info.major}{sys.version_info.minor}"
    fitting = []
    for wheel in sorted((packed / WHEELS_FOLDER).glob("*.whl")):
        tag, abi, _ = wheel.stem.rsplit("-", 3)[1:]
        if own in tag.split(".") or "py3" in tag.split(".") or "abi3" in abi:
            fitting.append(wheel)
    if fitting and not out.is_dir():
        half = out.with_name(f"{out.name}.part")  # what an interrupt leaves is not taken
        shutil.rmtree(half, ignore_errors=True)
        for wheel in fitting:
            with zipfile.ZipFile(wheel) as files:
                files.extractall(half)
        half.rename(out)
    return [wheel.name for wheel in fitting]


def _text(data: bytes) -> Piece:
    return ["text", base64.b64encode(zlib.compress(data, 9)).decode()]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
