# SPDX-License-Identifier: Apache-2.0
"""The head of a plan, TensorRT's own file: readable without TensorRT.

From TensorRT 10 on bytes 0 to 3 are ``ftrt``, 4 to 7 the form of what follows, 0, and 24 to 27
the version of TensorRT that made it, as NVIDIA's own tools read it. TensorRT 8.5.3 writes
``ptrt``, 0, 232, 0 and a size, and what comes behind these 24 bytes is no version. What 8.6
writes is not known here, so both are taken. Which GPU a plan is for stands nowhere in what is
public: that is what the sidecar is for.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from edge_imprint_runtime.errors import EngineFileError

__all__ = ["MAGICS", "PlanHeader", "header_of", "read_plan_header"]

_VERSIONED = b"ftrt"
MAGICS = (_VERSIONED, b"ptrt")
_HEADER_BYTES = 28
_NEWEST_MAJOR = 20  # what is above is no version, but another layout


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's first bytes say.

    Attributes:
        is_plan: Whether it begins as plans do.
        tensorrt: Which TensorRT made it; None where the bytes hold no version.
    """

    is_plan: bool
    tensorrt: tuple[int, int, int, int] | None


def header_of(start: bytes) -> PlanHeader:
    """Read the first bytes of a plan.

    Args:
        start: At least 28 of them; of fewer nothing is read.

    Returns:
        What they say.
    """
    if len(start) < _HEADER_BYTES or start[:4] not in MAGICS:
        return PlanHeader(False, None)
    if start[:4] != _VERSIONED:
        return PlanHeader(True, None)
    (form,) = struct.unpack_from("<I", start, 4)
    major, minor, patch, build = start[24:28]
    known = form == 0 and 8 <= major <= _NEWEST_MAJOR
    return PlanHeader(True, (major, minor, patch, build) if known else None)


def read_plan_header(path: str | os.PathLike[str]) -> PlanHeader:
    """Read the first bytes of a file.

    Args:
        path: The engine.

    Returns:
        What they say.

    Raises:
        EngineFileError: It is missing or can't be read.
    """
    if not os.path.isfile(path):  # a pipe or a device would be waited for
        raise EngineFileError(f"there is no engine file {path}")
    try:
        with open(path, "rb") as file:
            return header_of(file.read(_HEADER_BYTES))
    except (OSError, ValueError) as error:
        raise EngineFileError(f"cannot read {path}: {error}") from error
