# SPDX-License-Identifier: Apache-2.0
"""Memory: what is resident, in a process that takes and gives back known amounts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_imprint_runtime.measuring import memory
from edge_imprint_runtime.measuring.memory import Memory, resident_bytes

LARGE = 100_000_000  # bytes; above what an allocator keeps for itself

CODE = """
from edge_imprint_runtime.measuring.memory import Memory, resident_bytes
past = bytearray(b"x" * {large})  # before: none of the model's business
del past
watched = Memory()
held = bytearray(b"x" * {large})
watched.opened()
more = bytearray(b"x" * {large})
del more
watched.peaked()
later = bytearray(b"x" * (3 * {large}))
print(watched.before_bytes, watched.open_bytes, watched.peak_bytes)
"""


def test_what_is_taken_is_seen_and_what_was_before_is_not() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system has no /proc/self/clear_refs, which starts the peak anew")
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(large=LARGE)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, opened, peak = map(int, done.stdout.split())
    assert before < LARGE
    # A copy of 100 MB is made on the way, and is there for a moment.
    assert LARGE * 0.95 < opened - before < LARGE * 1.2
    assert LARGE * 1.9 < peak - before < LARGE * 3.2


def test_without_a_way_to_know_it_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(memory, "_STATUS", Path("gone"))
    monkeypatch.setattr(memory, "_CLEAR", Path("gone/gone"))
    assert resident_bytes() is None
    watched = Memory()
    watched.opened()
    watched.peaked()
    assert watched.as_json(None) == {
        "rss_before_bytes": None,
        "rss_open_bytes": None,
        "rss_peak_bytes": None,
        "device_bytes": None,
    }


def test_the_peak_of_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc: the most since the process began, in bytes."""
    resource = pytest.importorskip("resource", reason="Windows has no module resource")
    monkeypatch.setattr(memory, "_STATUS", Path("gone"))
    watched = Memory()
    watched.peaked()
    now = resident_bytes()
    assert watched.peak_bytes is not None
    assert now is not None
    assert now * 0.5 < watched.peak_bytes < now * 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_a_report_has_the_device_too() -> None:
    assert Memory(1, 2, 3).as_json(4) == {
        "rss_before_bytes": 1,
        "rss_open_bytes": 2,
        "rss_peak_bytes": 3,
        "device_bytes": 4,
    }
