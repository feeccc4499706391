# SPDX-License-Identifier: Apache-2.0
"""The head file: arrays and metadata in safetensors. What they mean is the head's business."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import HeadFileError

__all__ = ["check_arrays", "dump_arrays", "read_arrays"]

_REQUIRED = {"proxies": "float32", "class_index": "int64"}
_OPTIONAL = dict.fromkeys(("center", "transform", "metric", "threshold", "samples"), "float32")
_OPTIONAL |= dict.fromkeys(("sample_class", "host_proxies"), "int64")


def dump_arrays(
    arrays: Mapping[str, npt.NDArray[np.generic]], metadata: Mapping[str, str]
) -> bytes:
    """Write arrays as safetensors; equal arguments give equal bytes.

    Args:
        arrays: By name.
        metadata: Text by key.

    Returns:
        The file's content.
    """
    from safetensors.numpy import save  # here, since most models come without a head

    data = save(dict(arrays), metadata=dict(metadata))
    # safetensors writes the metadata in hash order: write its header anew, sorted. Offsets
    # count from the header's end, so that they stay as they are.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
    """Read a safetensors file whole.

    Args:
        path: The file.

    Returns:
        Its arrays by name, and its metadata.

    Raises:
        HeadFileError: The file is missing or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, file.metadata() or {}
    except FileNotFoundError as error:
        raise HeadFileError(f"there is no file {path}") from error
    # AttributeError: safetensors 0.8 looks numpy up for types that it lacks, such as float8.
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = "it is a folder" if os.path.isdir(path) else f"safetensors: {error}"
        raise HeadFileError(
            f"{path} is not a head file ({reason}); a head is what "
            "'edge-imprint build' writes, 'export' makes a model of it"
        ) from error


def check_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], where: str) -> None:
    """Check names and types.

    Args:
        arrays: What `read_arrays` gave.
        where: The file's name, for messages.

    Raises:
        HeadFileError: An array is missing, is not a head's, or is of another type.
    """
    for name in _REQUIRED:
        if name not in arrays:
            raise HeadFileError(f"{where} is not a head file: it lacks the array {name}")
    for name, array in arrays.items():
        if (_REQUIRED | _OPTIONAL).get(name) != array.dtype.name:
            raise HeadFileError(
                f"{where}: the array {name[:80]!r} of {array.dtype} is not part of a head file"
            )
