# SPDX-License-Identifier: Apache-2.0
"""What runs in the process of an `attempt`: one task, and lines of JSON on its stdout."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["TASKS", "Tell", "main"]

Tell = Callable[..., None]
"""Told of each stage before it begins, with what has been found out so far by keyword."""

# Name -> the module, and the function in it: ``function(tell, argument) -> facts``.
TASKS = {
    "onnxruntime": ("edge_imprint_runtime.doctor.try_onnxruntime", "look"),
    "provider": ("edge_imprint_runtime.doctor.try_onnxruntime", "run"),
    "cuda": ("edge_imprint_runtime.doctor.try_cuda", "look"),
    "tensorrt": ("edge_imprint_runtime.doctor.try_tensorrt", "run"),
}


def main(task: str, argument: str) -> None:
    """Run a task and write what came of it; stages are written as they begin.

    Args:
        task: Of `TASKS`, or ``module:function`` with the same signature.
        argument: What the function is given.
    """
    # Libraries print where they like; only the lines of JSON are to reach the parent.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(line: dict[str, Any]) -> None:
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    def tell(stage: str, **facts: Any) -> None:
        write({"stage": stage, "facts": facts})

    module, function = TASKS[task] if task in TASKS else task.split(":")
    try:
        result = getattr(importlib.import_module(module), function)(tell, argument)
    except BaseException as error:  # a library may raise what it likes, SystemExit too
        reason = " ".join(str(error).split())[:600] or type(error).__name__
        result = {"status": "fails", "reason": reason}
    write({"result": result})
    sys.stderr.flush()
    os._exit(0)  # what a library does on its way out is not what was asked
