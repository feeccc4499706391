# SPDX-License-Identifier: Apache-2.0
"""What is asked of a build, beside the shapes."""

from __future__ import annotations

from dataclasses import dataclass

from edge_imprint_runtime.errors import ParameterError

__all__ = ["HARDWARE_LEVELS", "MAX_CONTEXTS", "Options"]

HARDWARE_LEVELS = ("none", "ampere+", "same_compute_capability")
MAX_CONTEXTS = 16
_MIN_WORKSPACE_BYTES = 2**20


@dataclass(frozen=True)
class Options:
    """What is asked of a build; see `compile_engine`.

    Raises:
        ParameterError: A value is out of range.
    """

    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    refittable: bool = False
    optimization_level: int | None = None
    own_kernels: bool = False
    contexts: int = 1

    def __post_init__(self) -> None:
        workspace, level = self.workspace_bytes, self.optimization_level
        if workspace is not None and (
            type(workspace) is not int or not _MIN_WORKSPACE_BYTES <= workspace < 2**63
        ):
            raise ParameterError(
                f"the workspace must be at least {_MIN_WORKSPACE_BYTES:,} bytes, got "
                f"{workspace!r}"
            )
        if level is not None and (type(level) is not int or not 0 <= level <= 5):
            raise ParameterError(
                f"the optimisation level must be a whole number from 0 to 5, got {level!r}"
            )
        if type(self.contexts) is not int or not 1 <= self.contexts <= MAX_CONTEXTS:
            raise ParameterError(
                f"contexts must be a whole number from 1 to {MAX_CONTEXTS}, got "
                f"{self.contexts!r}"
            )
        if self.hardware_compatible not in HARDWARE_LEVELS:
            raise ParameterError(
                f"hardware_compatible must be one of {', '.join(HARDWARE_LEVELS)}, got "
                f"{self.hardware_compatible!r}"
            )
