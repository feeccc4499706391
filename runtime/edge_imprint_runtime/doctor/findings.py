# SPDX-License-Identifier: Apache-2.0
"""From what was collected to what is wrong, and to what this machine can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edge_imprint_runtime.doctor.rules_machine import RULES as MACHINE
from edge_imprint_runtime.doctor.rules_onnxruntime import RULES as ONNXRUNTIME
from edge_imprint_runtime.doctor.rules_onnxruntime import provider_does_not_run
from edge_imprint_runtime.doctor.rules_tensorrt import RULES as TENSORRT
from edge_imprint_runtime.doctor.rules_tensorrt import tensorrt_does_not_run
from edge_imprint_runtime.doctor.seen import SEVERITIES, Finding, Seen

__all__ = ["EVERY_RULE", "can_run", "findings"]

_CAUSES = (*ONNXRUNTIME, *TENSORRT, *MACHINE)
_SYMPTOMS = (provider_does_not_run, tensorrt_does_not_run)

EVERY_RULE: tuple[Callable[[Seen], Iterator[Finding]], ...] = (*_CAUSES, *_SYMPTOMS)
"""Each looks for one thing; the last two speak where no other explains."""

_FASTEST_FIRST = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "CPUExecutionProvider",
)


def findings(facts: Mapping[str, Any]) -> list[Finding]:
    """Judge a machine by facts alone; it looks at nothing itself.

    Args:
        facts: As `collect` gives them.

    Returns:
        What is wrong, errors first. Where a known cause explains why something does not
        run, that it does not run is not said again.
    """
    seen = Seen(facts)
    found = [one for rule in _CAUSES for one in rule(seen)]
    explained = {one.about for one in found}
    if "CUDA" in explained:  # without a driver nothing on the GPU runs
        explained |= {*_FASTEST_FIRST[:2], "TensorRT"}
    symptoms = (one for rule in _SYMPTOMS for one in rule(seen))
    found += [one for one in symptoms if one.about not in explained]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def can_run(facts: Mapping[str, Any]) -> list[str]:
    """Name what ran the tiny model, the fastest kind first.

    Args:
        facts: As `collect` gives them.

    Returns:
        ``TensorRT`` and providers' names; none where nothing runs.
    """
    able = ["TensorRT"] if facts.get("tensorrt", {}).get("status") == "runs" else []
    providers = facts.get("providers", {})
    return able + [
        name for name in _FASTEST_FIRST if providers.get(name, {}).get("status") == "runs"
    ]
