# SPDX-License-Identifier: Apache-2.0
"""What a source of readings owes its readers."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Facts", "LostSource", "SensorLostError", "Source"]

# What does not change while a model runs.
Facts = dict[str, str | int | float | None]


class SensorLostError(Exception):
    """A source can't be read any more; its text is the reason.

    Internal: a recorder turns it into an entry of `Trace.lost`, and no command ends with it.
    """


class Source(Protocol):
    """Readings of one library.

    Attributes:
        name: ``psutil``, ``nvml`` or ``jtop``.
    """

    name: str

    def read(self) -> dict[str, float]:
        """Read every value that can be had now, by a name that carries its unit.

        A value that this machine has not, or can't give now, is left out or NaN.

        Raises:
            SensorLostError: Nothing can be read any more.
        """
        ...

    def facts(self) -> Facts:
        """Say what is known of the hardware behind the readings, and how it is set."""
        ...

    def close(self) -> None:
        """Give back what the source holds; twice does no harm."""
        ...


class LostSource:
    """A source that this machine should have, and that could not be opened.

    A recorder notes its reason at the first reading, as it would that of one lost later.

    Args:
        name: The source's.
        reason: Why it can't be read, and what to do.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason

    def read(self) -> dict[str, float]:
        """Say why nothing can be read.

        Raises:
            SensorLostError: Always.
        """
        raise SensorLostError(self.reason)

    def facts(self) -> Facts:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Nothing is held."""
