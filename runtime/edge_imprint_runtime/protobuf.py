# SPDX-License-Identifier: Apache-2.0
"""Protobuf's wire format, read in place and with a limit to how much there may be."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from edge_imprint_runtime.errors import ModelFileError, UnsafeModelError

__all__ = ["FIXED32", "FIXED64", "LENGTH", "VARINT", "Wire"]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 5_000_000
_MAX_NUMBER = 2**29 - 1  # of a field


class Wire:
    """A file's bytes as protobuf messages.

    Args:
        data: All of it.
        where: Its name, for messages.
    """

    def __init__(self, data: bytes | mmap.mmap, where: str) -> None:
        self.data, self.where = data, where
        self.fields = 0

    def integers(self, wire: int, start: int, end: int) -> list[int]:
        """Read whole numbers, one or packed: signed, 64 bits."""
        if wire == VARINT:
            return [_signed(start)]
        if wire != LENGTH:
            return []
        values, position = [], start
        while position < end:
            value, position = self.varint(position, end)
            values.append(_signed(value))
            self.count_field()
        return values

    def text(self, start: int, end: int) -> str:
        """Read text."""
        try:
            return bytes(self.data[start:end]).decode()
        except UnicodeDecodeError as error:
            raise self.broken("a name in it is not UTF-8 text") from error

    def read(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield a message's fields: number, wire type, and the value or where it lies."""
        data, position = self.data, start
        while position < end:
            self.count_field()
            key = data[position]
            position += 1
            if key >= 0x80:
                key, position = self.varint(position - 1, end)
            number, wire = key >> 3, key & 7
            # Others would be cut to 32 bits by protobuf, and be another field there.
            if not 0 < number <= _MAX_NUMBER:
                raise self.broken("it is cut off, or no protobuf message")
            if wire == LENGTH:
                size, position = self.varint(position, end)
                after = position + size
                if after > end:
                    raise self.broken("it is cut off, or no protobuf message")
                yield number, wire, position, after
                position = after
            elif wire == VARINT:
                value, position = self.varint(position, end)
                yield number, wire, value, 0
            elif wire in (FIXED64, FIXED32):
                position += 8 if wire == FIXED64 else 4
                yield number, wire, 0, 0
            else:
                raise self.broken("it is no protobuf message")
            if position > end:
                raise self.broken("it is cut off, or no protobuf message")

    def once(self, seen: set[int], number: int, what: str) -> None:
        """Refuse a field that is there again.

        Protobuf merges the two messages, so that neither alone tells what a library reads.

        Args:
            seen: The numbers of the fields that were there; this one is added.
            number: The field's number.
            what: What the field is, for the message.
        """
        if number in seen:
            raise self.unsafe(f"states {what} twice; export it again")
        seen.add(number)

    def count_field(self) -> None:
        """Count one field, of a limited number."""
        self.fields += 1
        if self.fields > _MAX_FIELDS:
            raise self.unsafe(
                f"has more than {_MAX_FIELDS:,} parts beside its weights; use a smaller model"
            )

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Read a number of 1 to 10 bytes; returns it and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
        raise self.broken("it is cut off, or no protobuf message")

    def broken(self, reason: str) -> ModelFileError:
        """Make the error of a file that is no ONNX model."""
        return ModelFileError(f"{self.where} is not an ONNX model: {reason}")

    def unsafe(self, reason: str) -> UnsafeModelError:
        """Make the error of a file that no library should open."""
        return UnsafeModelError(f"{self.where} {reason}")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
