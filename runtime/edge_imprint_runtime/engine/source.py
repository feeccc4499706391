# SPDX-License-Identifier: Apache-2.0
"""The ONNX file that an engine is made of, read once and checked."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edge_imprint_runtime.contract import Contract, GraphInfo, decode
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.engine.onnx_facts import OnnxFacts, read_facts
from edge_imprint_runtime.engine.precision import wanted_flags
from edge_imprint_runtime.errors import ModelFileError, NoContractError
from edge_imprint_runtime.onnx_scan import check_model_file

__all__ = ["Source", "read_source"]


@dataclass(frozen=True)
class Source:
    """A model as a file.

    Attributes:
        path: The file.
        data: All of it.
        facts: What it says of itself.
        contract: What it says to us; None of a backbone alone, which answers embeddings.
    """

    path: Path
    data: bytes
    facts: OnnxFacts
    contract: Contract | None

    @property
    def where(self) -> str:
        """Its name, for messages."""
        return str(self.path)

    @property
    def sha256(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def graph(self) -> GraphInfo | None:
        """What the contract says of the graph, where there is one."""
        return None if self.contract is None else self.contract.graph

    @property
    def precision(self) -> str:
        """The backbone's: as the contract has it, else as the graph has it."""
        if self.graph is not None:
            return self.graph.precision
        flags = wanted_flags(self.facts)
        return "int8" if "INT8" in flags else "fp16" if "FP16" in flags else "fp32"

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
            none of ours, nor a backbone alone.
    """
    check_model_file(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    facts = read_facts(data, str(path))
    contract: Contract | None = None
    try:
        contract = decode(facts.metadata, model=True, where=str(path))
    except NoContractError:
        if list(facts.outputs) != ["embedding"]:
            raise
    return Source(Path(path), data, facts, contract)
