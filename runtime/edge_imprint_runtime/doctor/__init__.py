# SPDX-License-Identifier: Apache-2.0
"""What this machine can do: everything it has is tried for real, each in its own process."""

from __future__ import annotations

from edge_imprint_runtime.doctor.collect import collect
from edge_imprint_runtime.doctor.findings import can_run, findings
from edge_imprint_runtime.doctor.seen import Finding

__all__ = ["Finding", "can_run", "collect", "findings"]
