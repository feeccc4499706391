# SPDX-License-Identifier: Apache-2.0
"""Embeddings by photo: what is held is not embedded again."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast, final

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.cache.disk import ROWS, Disk
from edge_imprint.embedding.cache.index import Index, Loose
from edge_imprint.embedding.cache.shards import DIGEST_BYTES, Keys, Rows
from edge_imprint.embedding.cache.space import Space
from edge_imprint_runtime.errors import CacheError, OutputWriteError, ParameterError
from edge_imprint_runtime.files import cache_folder

__all__ = ["EmbeddingStore", "embeddings_folder"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# What was added is written after so many seconds at the latest: what a kill can cost.
_AGE_S = 5.0


def embeddings_folder() -> Path:
    """Return where embeddings are kept; it may not exist yet."""
    return cache_folder() / "embeddings"


def _locked(method: _Method) -> _Method:
    @functools.wraps(method)
    def locked(self: EmbeddingStore, *arguments: Any) -> Any:
        with self._lock:
            return method(self, *arguments)

    return cast("_Method", locked)


@final
class EmbeddingStore:
    """The embeddings of one space, those of earlier builds and those of this one.

    Any number of processes may have the same space open, and any number of threads may use
    one store.

    Attributes:
        notes: What a user should know of the cache, each a sentence.
    """

    def __init__(self, space: Space, *, folder: Path | None = None, keep: bool = True) -> None:
        """Open the store; of the files only the lists of photos are read.

        Args:
            space: What makes its embeddings.
            folder: Where spaces are kept; None for this user's cache.
            keep: Whether it reads and writes files; without, all stays in memory. So does
                what can't be written, and a note says so.
        """
        self.notes: list[str] = []
        self._root = folder or embeddings_folder()
        self._lock = threading.RLock()
        self._index = Index()
        self._pending: list[tuple[bytes, npt.NDArray[np.float32]]] = []
        self._pending_since = 0.0
        self._size: int | None = None
        self._lost = self._writes = False
        self._disk: Disk | None = None
        if keep:
            self._disk = Disk(self._root / space.key, space, self._index)
            self._writes = True
            self._scan()
            self._disk.touch()

    @property
    def embedding_size(self) -> int | None:
        """Numbers of an embedding (D), None until one is held."""
        return self._size

    @_locked
    def holds(self, digests: Keys) -> npt.NDArray[np.bool_]:
        """Tell which photos need no embedding; theirs are checked before that is said.

        Args:
            digests: (n, 32) uint8, the SHA-256 of each photo.

        Returns:
            (n,) bool.
        """
        self.flush()
        lost = np.zeros(len(digests), np.bool_)
        while True:
            shard, _ = self._index.find(digests)
            used = np.unique(shard[shard >= 0])
            bad = [number for number in used if not self._good(int(number))]
            gone = np.isin(shard, bad)
            lost |= gone
            # Another build may have merged what is missing, or embedded it.
            found = bool((gone | (shard < 0)).any()) and self._scan() > 0
            if not bad and not found:
                break
        held: npt.NDArray[np.bool_] = shard >= 0
        self._tell_damage(int((lost & ~held).sum()))
        return held

    @_locked
    def add(self, digests: Sequence[bytes], rows: Rows) -> None:
        """Take embeddings in; they are written when enough have come together.

        Args:
            digests: n SHA-256 of 32 bytes.
            rows: (n, D) float32; copied.

        Raises:
            ParameterError: They don't fit each other, or those that are held.
        """
        if rows.ndim != 2 or len(rows) != len(digests) or not rows.shape[1]:
            raise ParameterError(
                f"rows must be ({len(digests)}, D), one a digest, got {rows.shape}"
            )
        if any(len(digest) != DIGEST_BYTES for digest in digests):
            raise ParameterError(f"digests must be of {DIGEST_BYTES} bytes each")
        if self._size not in (None, rows.shape[1]):
            raise ParameterError(
                f"rows must have {self._size} numbers, as those that are held, "
                f"got {rows.shape[1]}"
            )
        self._size = rows.shape[1]
        self._pending_since = self._pending_since if self._pending else time.monotonic()
        copied = np.array(rows, np.float32, order="C")
        self._pending += zip(map(bytes, digests), copied, strict=True)
        while len(self._pending) >= ROWS:
            self._write(self._pending[:ROWS])
            del self._pending[:ROWS]
        if self._pending and time.monotonic() - self._pending_since >= _AGE_S:
            self.flush()

    @_locked
    def flush(self) -> None:
        """Write what was added."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._write(pending)

    @_locked
    def read(self, digests: Keys) -> Rows:
        """Read embeddings; nothing but these stays in memory.

        Args:
            digests: (n, 32) uint8.

        Returns:
            (n, D) float32, in this order.

        Raises:
            KeyError: One of them is not held.
            CacheError: One was held, and its file is gone.
        """
        self.flush()
        rows = np.empty((len(digests), self._size or 0), np.float32)
        left = np.arange(len(digests))
        while len(left):
            shard, row = self._index.find(digests[left])
            if (shard < 0).any():
                if not self._scan():
                    raise self._missing(digests[left[shard < 0][0]])
                continue
            done = np.zeros(len(left), np.bool_)
            for number in map(int, np.unique(shard)):
                here = shard == number
                if self._good(number):
                    try:
                        rows[left[here]] = self._index.shards[number].rows(row[here])
                        done |= here
                        continue
                    except (OSError, ValueError):  # gone; ValueError: cut short since
                        self._index.remove(number)
                self._lost = True
            left = left[~done]
        return rows

    @_locked
    def close(self) -> None:
        """Write what was added, and forget all; it can't be used afterwards."""
        self.flush()
        self._index = Index()

    def __enter__(self) -> EmbeddingStore:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _scan(self) -> int:
        if self._disk is None:
            return 0
        try:
            found = self._disk.scan()
        except OSError as error:
            self._keep_in_memory("read", error)
            return 0
        if self._size is None:
            for shard in self._index.shards.values():
                self._size = shard.size
        return found

    def _good(self, number: int) -> bool:
        return self._disk is None or self._disk.check(number)

    def _write(self, pending: list[tuple[bytes, npt.NDArray[np.float32]]]) -> None:
        data = b"".join(digest for digest, _ in pending)
        keys = np.frombuffer(data, np.uint8).reshape(-1, DIGEST_BYTES)
        rows = np.stack([row for _, row in pending])
        if self._disk is not None and self._writes:
            try:
                self._disk.write(keys, rows)
                self._disk.merge()
            except (OSError, OutputWriteError) as error:
                self._keep_in_memory("written", error)
            else:
                return
        self._index.add(Loose(rows), keys)

    def _keep_in_memory(self, what: str, error: BaseException) -> None:
        if self._writes:
            reason = str(getattr(error.__cause__ or error, "strerror", None) or error)
            reason = reason[:1].lower() + reason[1:]
            self.notes.append(
                f"the embedding cache {self._root} can't be {what} ({reason}); what is "
                "embedded now stays in memory, and the next build embeds it again"
            )
        self._writes = False

    def _tell_damage(self, lost: int) -> None:
        disk = self._disk
        if disk is not None and disk.damaged:
            files = f"{disk.damaged} damaged file{'s' if disk.damaged > 1 else ''}"
            again = f"; {lost} photos are embedded again" if lost else ""
            self.notes.append(f"the embedding cache held {files}, left out{again}")
            disk.damaged = 0
        if disk is not None and disk.unreadable:
            self.notes.append(
                f"files of the embedding cache {disk.folder} can't be read "
                f"({disk.unreadable}); their photos are embedded again"
            )
            disk.unreadable = ""

    def _missing(self, digest: npt.NDArray[np.uint8]) -> Exception:
        if not self._lost:
            return KeyError(digest.tobytes().hex())
        return CacheError(
            f"the embedding cache {self._root} lost files while this ran, cleared or damaged; "
            "run it again, which embeds their photos anew"
        )
