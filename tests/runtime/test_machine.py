# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine: what can't be had is None, never an error."""

from __future__ import annotations

import json
import os
import platform

import numpy as np

from edge_imprint_runtime.machine import machine_facts

ALWAYS = {
    "board",
    "cpu_model",
    "architecture",
    "cores_usable",
    "cores",
    "memory_bytes",
    "load_average_1min",
    "cpu_governor",
    "system",
    "python",
    "edge-imprint",
}


def test_facts() -> None:
    facts = machine_facts()
    assert facts.keys() >= ALWAYS
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["python"] == platform.python_version()
    assert facts["numpy"] == np.__version__
    assert facts["cores"] == os.cpu_count()
    usable, memory = facts["cores_usable"], facts["memory_bytes"]
    assert usable is None or 1 <= int(usable) <= int(facts["cores"] or 0)
    assert memory is None or int(memory) > 2**26


def test_texts_are_one_line() -> None:
    for key, value in machine_facts().items():
        if isinstance(value, str):
            assert value.strip() == value != "", key
            assert "\n" not in value, key
            assert "\0" not in value, key
