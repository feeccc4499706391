# SPDX-License-Identifier: Apache-2.0
"""What lies where in a tar file, read off its headers alone. Nothing is ever unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

from edge_imprint_runtime.errors import ShardError

__all__ = ["COMPRESSED", "Entry", "TarReader"]

_BLOCK_BYTES = 512

# Names and PAX records longer than any file system's: a damaged or a hostile header.
_MAX_NAME_BYTES = 2**20

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
"""What compressed files begin with -> what they are."""


class Entry(NamedTuple):
    """A member of a tar file.

    Attributes:
        name: As it is written there, as `os.fsencode` has names.
        offset: Where its bytes begin.
        size: How many they are.
        is_file: Whether it is a plain file; links, folders and devices are not.
    """

    name: bytes
    offset: int
    size: int
    is_file: bool


class TarReader:
    """Reads the headers of a tar file, one after another: ustar, GNU's and PAX's long names.

    Args:
        file: The tar file, seekable.
        size: How many bytes it has.
        name: Its name, for messages.

    Attributes:
        cut: Once the entries were read: what is wrong with the rest of the file, empty for a
            whole one. A sentence's end, as ``is cut short after 1,024 bytes``.

    Raises:
        ShardError: It is empty, compressed, or no tar file.
    """

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file, self._size, self._name = file, size, name
        self.cut = ""
        start = self._read(0, _BLOCK_BYTES)
        whole = len(start) == _BLOCK_BYTES
        if whole and (not any(start) or _sum_of(start) == _number(start[148:156])):
            return
        for magic, kind in COMPRESSED.items():
            if start.startswith(magic):
                raise ShardError(
                    f"the shard {name} is compressed ({kind}), and photos can't be read out "
                    "of the middle of it; unpack it to a .tar, which is hardly larger"
                )
        what = "is no tar file" if start else "is empty"
        raise ShardError(f"the shard {name} {what}; copy it again, or take it out")

    def entries(self) -> Iterator[Entry]:
        """Read on, to the end or to where the file is damaged; `cut` then says so.

        Yields:
            The members whose bytes are all there.
        """
        at, name, size = 0, None, None
        while True:
            header = self._read(at, _BLOCK_BYTES)
            if len(header) < _BLOCK_BYTES:
                self._note_end(at, header)
                return
            if not any(header):
                return  # the end mark; its second block says no more
            if _sum_of(header) != _number(header[148:156]):
                self.cut = f"is damaged at byte {at:,}"
                return
            found = _number(header[124:136]) if size is None else size
            data = at + _BLOCK_BYTES
            if found < 0:
                self.cut = f"is damaged at byte {at:,} (a size below zero)"
                return
            if found > self._size - data:
                inside = _text(header, name).decode("utf-8", "replace")[-80:]
                self.cut = f"is cut short after {self._size:,} bytes, inside {inside}"
                return
            at = data + -(-found // _BLOCK_BYTES) * _BLOCK_BYTES
            kind = header[156:157]
            if kind in (b"L", b"K", b"x", b"g"):
                if found > _MAX_NAME_BYTES:
                    self.cut = f"is damaged at byte {data - _BLOCK_BYTES:,} (an endless name)"
                    return
                long, large = _meant(kind, self._read(data, found))
                name, size = long or name, size if large is None else large
                continue
            regular = kind in (b"0", b"\0", b"7")
            full = _text(header, name)
            is_file = regular and not full.endswith(b"/")
            yield Entry(full, data, found, is_file)
            name, size = None, None

    def read(self, entry: Entry) -> bytes:
        """Return a member's bytes, which must be few."""
        return self._read(entry.offset, entry.size)

    def _note_end(self, at: int, header: bytes) -> None:
        if header:
            self.cut = f"is cut short after {at + len(header):,} bytes, inside a header"
        else:
            self.cut = f"is cut short after {self._size:,} bytes (it lacks its end mark)"

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


def _text(header: bytes, long: bytes | None) -> bytes:
    """Return a member's name: the long one before it, else the header's own."""
    if long is not None:
        return long
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if prefix and header[257:263] == b"ustar\0":  # GNU's own form has times there
        return prefix + b"/" + name
    return name


def _meant(kind: bytes, data: bytes) -> tuple[bytes | None, int | None]:
    """Return the name and the size that a header of this kind gives the next member."""
    if kind == b"L":
        return data.partition(b"\0")[0], None
    if kind != b"x":  # a link's long target, or what holds for all members
        return None, None
    name, size, at = None, None, 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)  # a length is of 7 digits at most
        length = data[at:space]
        if space < 0 or not length.isdigit() or not space - at < int(length) <= len(data) - at:
            break  # what can't be read gives nothing
        key, _, value = data[space + 1 : at + int(length) - 1].partition(b"=")
        if key == b"path":
            name = value
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        at += int(length)
    return name, size


def _number(field: bytes) -> int:
    """Read a number: octal, or GNU's base 256; -1 for what is none."""
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    text = field.strip(b" \0").partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        return -1


def _sum_of(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * 32
