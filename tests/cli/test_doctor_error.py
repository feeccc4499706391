# SPDX-License-Identifier: Apache-2.0
"""That nothing runs here is an error of its own, by which a program can tell it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edge_imprint.cli import _doctor
from edge_imprint_runtime.errors import NothingRunsError


def test_a_machine_on_which_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "collect", lambda tell: {})
    monkeypatch.setattr(_doctor, "can_run", lambda facts: [])
    monkeypatch.setattr(_doctor, "findings", lambda facts: [])
    with pytest.raises(NothingRunsError) as error:
        CliRunner().invoke(_doctor.doctor, ["--json"], catch_exceptions=False)
    assert str(error.value) == (
        "nothing on this machine runs even a tiny model; see the findings, and mend the first"
    )
    assert error.value.exit_code == 1
