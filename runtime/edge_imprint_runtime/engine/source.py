# SPDX-License-Identifier: Apache-2.0
"""The ONNX file that an engine is made of, read once and checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edge_imprint_runtime.contract import Contract, decode
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.engine.onnx_facts import OnnxFacts, read_facts
from edge_imprint_runtime.errors import ModelFileError
from edge_imprint_runtime.onnx_scan import check_model_file

__all__ = ["Source", "read_source"]


@dataclass(frozen=True)
class Source:
    """A model as a file.

    Attributes:
        path: The file.
        data: All of it.
        facts: What it says of itself.
        contract: What it says to us.
    """

    path: Path
    data: bytes
    facts: OnnxFacts
    contract: Contract

    @property
    def where(self) -> str:
        """Its name, for messages."""
        return str(self.path)

    @property
    def sha256(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        """Its metadata of ours, flat."""
        return {k: v for k, v in self.facts.metadata.items() if k.startswith(PREFIX)}


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read a model that is to be compiled.

    Args:
        path: An ONNX file.

    Returns:
        It.

    Raises:
        ModelFileError, UnsafeModelError: As `check_model_file`.
        NoContractError, ContractVersionError, ContractKeyError, ContractValueError: It is
            none of ours.
    """
    check_model_file(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    facts = read_facts(data, str(path))
    return Source(Path(path), data, facts, decode(facts.metadata, model=True, where=str(path)))
