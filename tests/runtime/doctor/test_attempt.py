# SPDX-License-Identifier: Apache-2.0
"""Attempts in processes of their own: what dies, hangs or talks there is an answer here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_imprint_runtime.doctor.attempt import STATUSES, attempt
from edge_imprint_runtime.doctor.child import TASKS

TROUBLE = """
import ctypes, os, subprocess, sys, time

def well(tell, argument):
    tell("one", found=1)
    print("a library talks on stdout"); os.write(1, b'{"stage": "no stage of ours"}\\n')
    tell("two", found=2)
    return {"status": "runs", "argument": argument}

def segfault(tell, argument):
    tell("reading what is not there", version="1.2")
    ctypes.string_at(0)

def abort(tell, argument):
    os.abort()

def leave(tell, argument):
    print("the last words", file=sys.stderr)
    os._exit(7)

def leave_silently(tell, argument):
    os._exit(7)

def system_exit(tell, argument):
    sys.exit("I would rather not")

def no_text(tell, argument):
    raise ValueError

def hang(tell, argument):
    tell("waiting")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    open(argument, "w").write(str(child.pid))
    time.sleep(3600)

def library(tell, argument):
    print("\\x1b[0;93mFailed: libcudnn.so.9: cannot open shared object file\\x1b[m",
          file=sys.stderr)
    ctypes.CDLL("libnvinfer.so.10")
"""


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of tasks, on the path of this process and so of its children."""
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "trouble"


def test_what_a_task_finds_comes_back(trouble: str) -> None:
    found = attempt(f"{trouble}:well", "an argument")
    assert found.pop("seconds") > 0
    assert found == {
        "status": "runs",
        "stage": "two",
        "reason": "",
        "found": 2,
        "argument": "an argument",
        "lacks": [],
    }


@pytest.mark.parametrize(
    ("task", "status", "stage", "reason"),
    [
        ("segfault", "crashes", "reading what is not there", "killed by SIGSEGV"),
        ("abort", "crashes", "start", "killed by SIGABRT"),
        ("leave", "crashes", "start", "ended with status 7: the last words"),
        ("leave_silently", "crashes", "start", "ended with status 7: it said nothing"),
        ("system_exit", "fails", "start", "I would rather not"),
        ("no_text", "fails", "start", "ValueError"),
    ],
)
def test_what_dies_is_an_answer(
    trouble: str, task: str, status: str, stage: str, reason: str
) -> None:
    found = attempt(f"{trouble}:{task}")
    assert (found["status"], found["stage"], found["reason"]) == (status, stage, reason)
    assert found["status"] in STATUSES


def test_what_was_found_before_a_crash_is_kept(trouble: str) -> None:
    assert attempt(f"{trouble}:segfault")["version"] == "1.2"


def test_what_hangs_is_ended_with_its_children(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "pid"

    class Late(subprocess.Popen[bytes]):
        """Its time begins once it hangs: a busy machine may take long to start it."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                _wait_for(lambda: told.exists() and told.read_text() != "")
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Late)
    found = attempt(f"{trouble}:hang", str(told), limit_s=1)
    assert found["seconds"] < 600  # and not the hour that it sleeps
    assert (found["status"], found["stage"]) == ("hangs", "waiting")
    assert found["reason"] == "not done after 1 s"
    pid = int(told.read_text())
    _wait_for(lambda: _gone(pid))


def test_libraries_that_are_not_found_are_named(trouble: str) -> None:
    found = attempt(f"{trouble}:library")
    assert found["status"] == "fails"
    assert found["lacks"] == ["libcudnn.so.9", "libnvinfer.so.10"]
    assert found["log"].startswith("Failed: libcudnn.so.9")


def test_no_such_task() -> None:
    found = attempt("nothing_of_that_name:at_all")
    assert found["status"] == "fails"
    assert found["reason"] == "No module named 'nothing_of_that_name'"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_there(task: str) -> None:
    assert attempt(task, "CPUExecutionProvider" if task == "provider" else "")["stage"] != (
        "start"
    )


def _wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Ended, and not yet taken away by whoever is to.
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
