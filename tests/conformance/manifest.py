# SPDX-License-Identifier: Apache-2.0
"""The list of conformance cases: its lines written and read, and what a status means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_imprint_runtime import errors

VECTORS = Path(__file__).parent / "vectors"
MANIFEST = "manifest.txt"
TITLE = ("edge-imprint conformance", "1")

# What Python raises, and what C returns.
STATUS: dict[type[Exception], str] = {
    errors.ModelFileError: "EI_MODEL_FILE",
    errors.UnsafeModelError: "EI_UNSAFE_MODEL",
    errors.NoContractError: "EI_NO_CONTRACT",
    errors.ContractVersionError: "EI_CONTRACT_VERSION",
    errors.ContractKeyError: "EI_CONTRACT_KEY",
    errors.ContractValueError: "EI_CONTRACT_VALUE",
    errors.LabelCountError: "EI_LABEL_COUNT",
    errors.HeadFileError: "EI_HEAD_FILE",
    errors.HeadValueError: "EI_HEAD_VALUE",
    errors.HeadMismatchError: "EI_HEAD_MISMATCH",
    errors.NotTeachableError: "EI_NOT_TEACHABLE",
    errors.EmbeddingError: "EI_ZERO_EMBEDDING",
    errors.OutputMissingError: "EI_OUTPUT_MISSING",
}
OK = "EI_OK"


def statuses_of(error: Exception) -> set[str]:
    """Return which statuses stand for an error of Python's."""
    if type(error) is errors.ParameterError:  # C tells three causes apart
        return {"EI_INVALID_ARGUMENT", "EI_NO_ROOM", "EI_NO_SUCH_CLASS"}
    if type(error) is errors.InputError:
        return {"EI_INPUT_SIZE", "EI_INPUT_FORMAT", "EI_INPUT_VALUE", "EI_INVALID_ARGUMENT"}
    if type(error) is errors.NonFiniteScoresError:  # C looks at what goes in, too
        return {"EI_INPUT_VALUE", "EI_NON_FINITE"}
    return {STATUS[type(error)]}


def escaped(value: object) -> str:
    """Write a field: printable ASCII as it is, every other byte and ``%`` as ``%XX``."""
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return "".join(chr(b) if 32 <= b < 127 and b != 37 else f"%{b:02X}" for b in data)


def unescaped(text: str) -> bytes:
    """Read a field."""
    parts = re.split("%([0-9A-F]{2})", text)
    return b"".join(
        bytes([int(part, 16)]) if number % 2 else part.encode("ascii")
        for number, part in enumerate(parts)
    )


def line(*fields: object) -> str:
    """Write a line: fields with tabs between."""
    return "\t".join(escaped(field) for field in fields)


def sections(lines: Iterable[str]) -> Iterator[tuple[str, list[list[bytes]]]]:
    """Read a manifest: (name, lines as fields) of each section, the title's line left out."""
    name, found = "", []
    for text in lines:
        fields = [unescaped(field) for field in text.rstrip("\n").split("\t")]
        if fields[0] == b"section":
            if name:
                yield name, found
            name, found = fields[1].decode(), []
        elif name:
            found.append(fields)
    yield name, found
