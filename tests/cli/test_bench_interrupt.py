# SPDX-License-Identifier: Apache-2.0
"""An interrupt whose exception a library's code swallows still ends the bench."""

from __future__ import annotations

import contextlib
import signal

import pytest

from edge_imprint.cli._bench import _progress


def test_an_interrupt_that_was_swallowed_comes_with_the_next_turn() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), _progress() as tell:
        tell("measuring", 1, 10)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        tell("measuring", 2, 10)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_ignores_interrupts_goes_on() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _progress() as tell:
            signal.raise_signal(signal.SIGINT)
            tell("measuring", 1, 10)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
