# SPDX-License-Identifier: Apache-2.0
"""How fast a model is, how sure that is, and whether the run can be trusted.

The method is stated in ``docs/measuring.md``. `measure` times anything callable; `run_bench`
makes the report of a model.
"""

from __future__ import annotations

from edge_imprint_runtime.measuring.bench import run_bench
from edge_imprint_runtime.measuring.plan import Plan
from edge_imprint_runtime.measuring.series import Series
from edge_imprint_runtime.measuring.subjects import Subject, model_subject, runner_subject
from edge_imprint_runtime.measuring.turns import measure

__all__ = [
    "Plan",
    "Series",
    "Subject",
    "measure",
    "model_subject",
    "run_bench",
    "runner_subject",
]
