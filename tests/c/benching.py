# SPDX-License-Identifier: Apache-2.0
"""Running ei-bench as a user does, for tests: its report is held against schema and reader."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jsonschema

from edge_imprint_runtime.reporting.schema import read_report
from tests.c.building import ROOT

Done = subprocess.CompletedProcess[str]

QUICK = ("--warm-up", "0.1s", "--threads", "1")


class Bench:
    """ei-bench of a build: ``bench(*arguments)`` runs it to its end."""

    def __init__(self, build: Path, ort_library: Path) -> None:
        self.program = build / "ei-bench"
        self.environment = {**os.environ, "EDGE_IMPRINT_ONNXRUNTIME": str(ort_library)}
        schema = json.loads((ROOT / "docs/report.schema.json").read_text())
        self.validator = jsonschema.Draft202012Validator(schema)

    def __call__(self, *arguments: object) -> Done:
        return subprocess.run(
            [self.program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=self.environment,
        )

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start it, with pipes to its stdout and stderr."""
        return subprocess.Popen(
            [self.program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def report(self, *arguments: object) -> dict[str, Any]:
        """Measure quickly; return the report, which the schema and the reader take."""
        done = self(*arguments, *QUICK, "--json")
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        report: dict[str, Any] = json.loads(line)
        self.check(report)
        return report

    def check(self, report: dict[str, Any]) -> None:
        """Hold a report against the schema, and against what reads it."""
        self.validator.validate(report)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "report.json"
            file.write_text(json.dumps(report))
            assert read_report(file).data == report
