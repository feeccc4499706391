# SPDX-License-Identifier: Apache-2.0
"""The SHA-256 of each photo's bytes, remembered for files that did not change since.

What is remembered is trusted where path, device, inode, size, mtime and ctime are what they
were. A change sets ctime, and nobody can set it back; but two changes within one tick of the
clock leave the same one. So a digest is remembered only of a file whose last change was two
seconds old when its reading began.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.digest_memory import KEY_BYTES, Memory
from edge_imprint.photos import Location, Member, Remote
from edge_imprint.photos.locations import MAX_PHOTO_BYTES

__all__ = ["Digests", "read_digests", "remember_digests"]

Tell = Callable[[int, int], None]

_PART_BYTES = 2**20
_SETTLED_NS = 2 * 10**9
_NEVER_NS = 2**63 - 1
_BLOCK = 512
# Before any photo was read by this process; see `remember_digests`.
_STARTED_NS = time.time_ns()


@dataclass(frozen=True, eq=False)
class Digests(Sequence["bytes | None"]):
    """The SHA-256 of photos; as a sequence, None of those that can't be read.

    Attributes:
        values: (N, 32) uint8, zeros where it is not known.
        known: (N,) bool.
    """

    values: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Return N."""
        return len(self.known)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Digests: ...
    def __getitem__(self, index: int | slice) -> bytes | Digests | None:
        """Return one, or some."""
        if isinstance(index, slice):
            return Digests(self.values[index], self.known[index])
        return self.values[index].tobytes() if self.known[index] else None

    def some(self, mask: npt.NDArray[np.bool_]) -> Digests:
        """Return those where a (N,) mask is true."""
        return Digests(self.values[mask], self.known[mask])


def read_digests(
    paths: Sequence[Location],
    *,
    progress: Tell | None = None,
    remember: bool = True,
    read: bool = True,
) -> Digests:
    """Tell the digest of each photo.

    Args:
        paths: N photos.
        progress: Told how many of those that must be read were, and how many there are.
        remember: Whether files that did not change are spared; the memory is in the cache
            folder, and a folder that can't be written costs time only.
        read: Whether photos that are not remembered are read.

    Returns:
        The digests; not known where a photo can't be read.

    Raises:
        MissingPackageError: Photos in an object store need a package that is not here.
    """
    values = np.zeros((len(paths), 32), np.uint8)
    known = np.zeros(len(paths), np.bool_)
    seen = _Seen(paths)
    memory = Memory(seen.root) if remember else None
    if memory is not None:
        values, known = memory.find(seen.keys)
    left = np.flatnonzero(~known & seen.readable) if read else np.empty(0, np.int64)
    if not len(left):
        return Digests(values, known)
    from concurrent.futures import ThreadPoolExecutor  # where all is known, it is not needed

    kept, done = known.copy(), 0
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as threads:
        for block in np.split(left, range(_BLOCK, len(left), _BLOCK)):
            since = time.time_ns()
            chosen = [paths[i] for i in block.tolist()]
            for i, digest in zip(block, threads.map(_digest, chosen), strict=True):
                if digest is not None:
                    values[i], known[i] = np.frombuffer(digest, np.uint8), True
            kept[block] = known[block] & seen.settled(block, chosen, since)
            done += len(block)
            if progress is not None:
                progress(done, len(left))
    if memory is not None:
        memory.learn(seen.names, seen.keys, values, kept)
    return Digests(values, known)


def remember_digests(paths: Sequence[Location], digests: Digests) -> None:
    """Remember digests that were found elsewhere, such as by the nodes of a cluster.

    Of files that changed since shortly before this process began nothing is remembered, since
    they may have changed after they were read.

    Args:
        paths: All N photos, as `read_digests` was given them: some of them would make the
            memory of another folder, or push the others out of this one's.
        digests: Theirs; those that are known were read since this process began, or
            remembered.
    """
    seen = _Seen(paths)
    settled = seen.readable & (seen.changed_ns < _STARTED_NS - _SETTLED_NS)
    kept = digests.known & settled
    Memory(seen.root).learn(seen.names, seen.keys, digests.values, kept)


class _Seen:
    """What the file system says of photos, without opening them.

    Attributes:
        names: (N,) uint64, a hash of each one's path.
        keys: (N, 16) uint8, a hash of path, device, inode, size and times.
        changed_ns: (N,) int64 when it was last changed (ctime); 0 for an object whose version
            its store has told.
        readable: (N,) bool, whether it is a file at all.
        root: The folder that all lie in.
    """

    def __init__(self, paths: Sequence[Location]) -> None:
        count = len(paths)
        self.names = np.zeros(count, np.uint64)
        self.keys = np.zeros((count, KEY_BYTES), np.uint8)
        self.changed_ns = np.zeros(count, np.int64)
        self.readable = np.zeros(count, np.bool_)
        low, high = b"\xff", b""
        for start in range(0, count, _BLOCK):
            block = paths[start : start + _BLOCK]
            names, keys = bytearray(), bytearray()
            for i, (home, name, state, changed_ns) in enumerate(_states(block), start):
                names += _hash(name, 8)
                keys += _hash(name + state, KEY_BYTES)
                self.changed_ns[i], self.readable[i] = changed_ns, bool(state)
                low = min(low, home)
                high = max(high, home)
            self.names[start : start + len(block)] = np.frombuffer(names, "<u8")
            self.keys[start : start + len(block)] = np.frombuffer(keys, np.uint8).reshape(
                -1, KEY_BYTES
            )
        # Of sorted names the first and the last share what all share.
        pairs = enumerate(zip(low, high, strict=False))
        end = next((i for i, (a, b) in pairs if a != b), len(low))
        self.root = low[:end].rpartition(b"/")[0]

    def settled(
        self, block: npt.NDArray[np.int64], chosen: Sequence[Location], since_ns: int
    ) -> npt.NDArray[np.bool_]:
        """Tell which photos are as they were before they were read, and had been a while."""
        now = np.frombuffer(
            b"".join(_hash(name + state, KEY_BYTES) for _, name, state, _ in _states(chosen)),
            np.uint8,
        ).reshape(-1, KEY_BYTES)
        same = (now == self.keys[block]).all(axis=1)
        result: npt.NDArray[np.bool_] = same & (
            self.changed_ns[block] < since_ns - _SETTLED_NS
        )
        return result


def _states(photos: Sequence[Location]) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """Yield of each photo its file's path, its name, its state (empty: none), its ctime."""
    try:
        here = os.fsencode(os.getcwd() + os.sep)
    except OSError:  # a folder that was removed; relative paths then name no file
        here = b""
    archives: dict[Path, tuple[bytes, int]] = {}
    for photo in photos:
        if isinstance(photo, Path):
            home = _full(here, photo)
            yield home, home, *_state(photo)
            continue
        within = b""
        file: Path | Remote = photo if isinstance(photo, Remote) else photo.archive
        if isinstance(photo, Member):
            within = f"\0{photo.offset} {photo.size}".encode()
        if isinstance(file, Remote):
            home = os.fsencode(file.url)
            # Where a store tells no version, what is read now is not remembered.
            changed_ns = 0 if file.stamp else _NEVER_NS
            state = f"\0{file.size} {file.stamp}"
            yield home, home + within, os.fsencode(state), changed_ns
        else:
            if file not in archives:
                archives[file] = _state(file)
            home = _full(here, file)
            yield home, home + within, *archives[file]


def _full(here: bytes, path: Path) -> bytes:
    name = os.fsencode(path)
    return name if name.startswith(b"/") else here + name


def _state(path: Path) -> tuple[bytes, int]:
    try:
        s = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL byte
        return b"", 0
    if not stat.S_ISREG(s.st_mode):  # a pipe would be waited for
        return b"", 0
    state = f"\0{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
    return state.encode(), s.st_ctime_ns


def _digest(photo: Location) -> bytes | None:
    from hashlib import sha256

    try:
        if not isinstance(photo, Path):
            return sha256(photo.read_bytes()).digest()
        digest = sha256()
        with open(photo, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > MAX_PHOTO_BYTES:  # what embeds says so, too
                return None
            while part := file.read(_PART_BYTES):
                digest.update(part)
        return digest.digest()
    except (OSError, ValueError):
        return None


def _hash(data: bytes, size: int) -> bytes:
    from hashlib import blake2b

    return blake2b(data, digest_size=size).digest()
