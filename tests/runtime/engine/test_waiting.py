# SPDX-License-Identifier: Apache-2.0
"""A build is waited for in sight, and can be interrupted."""

from __future__ import annotations

import _thread
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_imprint_runtime.engine import compile_engine, waiting
from edge_imprint_runtime.engine.tensorrt_api import load
from edge_imprint_runtime.engine.waiting import FIRST_RUN, STEP, Watch
from tests.standins import World, tensorrt_build


def test_seconds_or_per_cent_are_told(
    world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_BEAT_S", 0.02)
    told: list[tuple[str, int, int]] = []

    def layer(_: float) -> None:  # takes until it was told twice how far it is
        before, end = len(told), time.monotonic() + 60
        while len(told) < before + 2:
            assert time.monotonic() < end, "nothing was told"
            time.sleep(0.001)

    monkeypatch.setattr(tensorrt_build, "time", SimpleNamespace(sleep=layer))
    notes: list[str] = []
    out = model.with_suffix(".engine")
    compile_engine(model, out, progress=lambda *a: told.append(a), note=notes.append)
    assert notes == [FIRST_RUN]
    assert {step for step, _, _ in told} == {STEP}
    assert told[-1] == (STEP, 100, 100)
    assert len(told) > 5  # never silent
    if world.numbers >= (10,):
        shares = [done for _, done, total in told if total == 100]
        assert shares == sorted(shares)
        assert len(set(shares)) > 5  # how far it is, and not only that it goes on
    else:
        assert {total for _, _, total in told[:-1]} == {0}  # seconds
        seconds = [done for _, done, _ in told[:-1]]
        assert seconds == sorted(seconds)
        assert seconds[0] in (0, 1)


def test_an_error_of_the_build_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        Watch(None).run(fail)
    assert Watch(None).run(lambda: 7) == 7


def test_an_interrupt_ends_the_wait_and_stops_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_BEAT_S", 0.01)
    stopped = threading.Event()
    watch = Watch(None)

    def work() -> None:
        _thread.interrupt_main()
        for _ in range(500):
            if not watch.hear(0.5):  # as TensorRT asks after each step
                stopped.set()
                return
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        watch.run(work)
    assert stopped.wait(60)


def test_phases_within_phases_are_one_share(one_world: World) -> None:
    api = load()
    config = api.builder(api.log()).create_builder_config()
    told: list[float] = []
    going = True

    def tell(share: float) -> bool:
        told.append(share)
        return going

    assert api.monitor(config, tell)
    heard = config.progress_monitor
    heard.phase_start("whole", None, 4)
    assert heard.step_complete("whole", 0)
    heard.phase_start("part", "whole", 2)
    assert heard.step_complete("part", 0)
    heard.phase_start("twin", "whole", 10)  # side by side with the other
    assert heard.step_complete("twin", 0)
    heard.phase_finish("twin")
    heard.phase_finish("part")
    going = False
    assert not heard.step_complete("whole", 3)
    assert not heard.step_complete("never begun", 3)
    assert told == [0.25, 0.375, 0.375, 1.0, 1.0]


def test_before_10_nothing_is_told_of_how_far_it_is(world: World) -> None:
    api = load()
    config = api.builder(api.log()).create_builder_config()
    assert api.monitor(config, lambda _: True) == (world.numbers >= (10,))
