# SPDX-License-Identifier: Apache-2.0
"""The head of a plan, TensorRT's own file: readable without TensorRT.

From TensorRT 10 on bytes 0 to 3 are ``ftrt``, 4 to 7 the form of what follows, 0, and 24 to 27
the version of TensorRT that made it, as NVIDIA's own tools read it. TensorRT 8.5.3 writes
``ptrt``, 0, 232, 0 and a size, and what comes behind these 24 bytes is no version. What 8.6
writes is not known here, so both are taken. Which GPU a plan is for stands nowhere in what is
public: that is what the sidecar is for.
"""

from __future__ import annotations

import struct

__all__ = ["MAGICS", "plan_version"]

_VERSIONED = b"ftrt"
MAGICS = (_VERSIONED, b"ptrt")
_HEADER_BYTES = 28
_NEWEST_MAJOR = 20  # what is above is no version, but another layout


def plan_version(plan: bytes) -> tuple[int, int, int, int] | None:
    """Read which TensorRT made a plan.

    Args:
        plan: Its bytes, or the first 28 of them.

    Returns:
        Its version; None where the bytes hold none.
    """
    if len(plan) < _HEADER_BYTES or plan[:4] != _VERSIONED:
        return None
    (form,) = struct.unpack_from("<I", plan, 4)
    major, minor, patch, build = plan[24:28]
    known = form == 0 and 8 <= major <= _NEWEST_MAJOR
    return (major, minor, patch, build) if known else None
