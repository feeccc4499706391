# SPDX-License-Identifier: Apache-2.0
"""Many locations in little memory: names in one block, locations made when asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from edge_imprint.photos.locations import Location, Member, Remote, is_url
from edge_imprint_runtime.files import check_output

__all__ = ["Files", "Int64", "Locations", "Members", "Photos", "Texts"]

Int64 = npt.NDArray[np.int64]
_Self = TypeVar("_Self", bound="Locations")


class Texts:
    """Texts, one after another in one block of bytes; 8 bytes each beside it.

    Args:
        encoded: The texts, as `os.fsencode` gives them.
    """

    __slots__ = ("_block", "_ends")

    def __init__(self, encoded: Iterable[bytes]) -> None:
        parts = encoded if isinstance(encoded, list) else list(encoded)
        self._block = b"".join(parts)
        self._ends: Int64 = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=self._ends[1:])

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Return the texts of several, one after another."""
        made = cls([])
        made._block = b"".join(part._block for part in parts)
        lengths = [np.diff(part._ends) for part in parts]
        made._ends = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
        return made

    def __len__(self) -> int:
        return len(self._ends) - 1

    def encoded(self, index: int) -> bytes:
        """Return a text as its bytes; ``index`` is from 0."""
        return self._block[self._ends[index] : self._ends[index + 1]]

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.encoded(index))

    def ending_in(self, end: bytes) -> Iterator[int]:
        """Yield the indices of the texts that end so."""
        if end in self._block:  # of a million texts mostly none does
            yield from (i for i in range(len(self)) if self.encoded(i).endswith(end))

    def take(self, positions: Int64) -> Texts:
        """Return some of the texts, in the order given."""
        return Texts([self.encoded(i) for i in positions.tolist()])

    @property
    def nbytes(self) -> int:
        """How many bytes it holds."""
        return len(self._block) + self._ends.nbytes


class Locations(Sequence[Location]):
    """A sequence of locations, equal to any other sequence of the same ones."""

    @abstractmethod
    def _at(self, index: int) -> Location:
        """Make the location at an index from 0."""

    @abstractmethod
    def take(self: _Self, positions: npt.ArrayLike) -> _Self:
        """Return some of the locations, as compact.

        Args:
            positions: (n,) integers, in the order wanted.
        """

    @abstractmethod
    def sources(self, name: str) -> Iterator[Path]:
        """Yield the files of this machine that are read for them and may be of this name.

        Args:
            name: A file's name without its folder.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """How many bytes it holds."""

    @overload
    def __getitem__(self, index: int) -> Location: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Location]: ...
    def __getitem__(self, index: int | slice) -> Location | Sequence[Location]:
        if isinstance(index, slice):
            return self.take(np.arange(len(self), dtype=np.int64)[index])
        at = int(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"photo {at} of {len(self)}")
        return self._at(at % len(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Locations, tuple, list)):
            return NotImplemented
        return len(self) == len(other) and all(
            a == b for a, b in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} photos{f', the first {self[0]}' if len(self) else ''}>"


class Files(Locations):
    """Files below a folder, or objects below a URL.

    Args:
        home: The folder, or the URL as text.
        names: Below it. An absolute name, or a URL, stands for itself.
        sizes: (N,) bytes of objects by their listing.
        stamps: Of objects by their listing.
    """

    def __init__(
        self,
        home: Path | str,
        names: Texts,
        sizes: Int64 | None = None,
        stamps: Texts | None = None,
    ) -> None:
        self._home, self._names, self._sizes, self._stamps = home, names, sizes, stamps

    def __len__(self) -> int:
        return len(self._names)

    def _at(self, index: int) -> Location:
        name = self._names[index]
        url = is_url(name)
        if not url and isinstance(self._home, Path):
            return Path(self._home, name)
        return Remote(
            name if url else f"{self._home}/{name}",
            -1 if self._sizes is None else int(self._sizes[index]),
            "" if self._stamps is None else self._stamps[index],
        )

    def take(self, positions: npt.ArrayLike) -> Files:
        """Return some of them; see `Locations.take`."""
        at = np.asarray(positions, np.int64)
        return Files(
            self._home,
            self._names.take(at),
            None if self._sizes is None else self._sizes[at],
            None if self._stamps is None else self._stamps.take(at),
        )

    def sources(self, name: str) -> Iterator[Path]:
        """Yield files; see `Locations.sources`."""
        named = map(self._at, self._names.ending_in(os.fsencode(name)))
        yield from (one for one in named if isinstance(one, Path))

    @property
    def nbytes(self) -> int:
        """How many bytes it holds."""
        sizes = 0 if self._sizes is None else self._sizes.nbytes
        return self._names.nbytes + sizes + (self._stamps.nbytes if self._stamps else 0)


class Members(Locations):
    """Members of tar shards.

    Args:
        archives: The shards.
        archive: (N,) the position of each one's shard.
        names: Of the members.
        places: (N, 2) the offset and the size of each, bytes.
    """

    def __init__(
        self,
        archives: Sequence[Path | Remote],
        archive: npt.NDArray[np.int32],
        names: Texts,
        places: Int64,
    ) -> None:
        self._archives, self._archive = tuple(archives), archive
        self._names, self._places = names, places

    def __len__(self) -> int:
        return len(self._names)

    def _at(self, index: int) -> Location:
        offset, size = self._places[index].tolist()
        return Member(self._archives[self._archive[index]], self._names[index], offset, size)

    def take(self, positions: npt.ArrayLike) -> Members:
        """Return some of them; see `Locations.take`."""
        at = np.asarray(positions, np.int64)
        return Members(
            self._archives, self._archive[at], self._names.take(at), self._places[at]
        )

    def sources(self, name: str) -> Iterator[Path]:
        """Yield shards; see `Locations.sources`."""
        yield from (one for one in self._archives if isinstance(one, Path))

    @property
    def nbytes(self) -> int:
        """How many bytes it holds, without the shards' own names."""
        return self._names.nbytes + self._archive.nbytes + self._places.nbytes


@dataclass(frozen=True, eq=False)
class Photos:
    """Labelled photos, in an order that depends on their names only.

    Attributes:
        paths: N locations.
        class_index: (N,) int64 positions in ``labels``.
        labels: The class names, sorted.
        ignored_files: How many other files lay among them.
        notes: What a user should know of how the data were read, each a sentence.
        problems: Photos that could not even be listed (named and not there, in a shard cut
            short), each a sentence: they are broken photos beside the N.
    """

    paths: Sequence[Location]
    class_index: Int64
    labels: tuple[str, ...]
    ignored_files: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def spare(self, output: Path) -> None:
        """Refuse a file to be written that is one of these photos, or a shard of theirs.

        Raises:
            OutputWriteError: It is.
        """
        if isinstance(self.paths, Locations) and output.exists():
            check_output(output, force=True, inputs=self.paths.sources(output.name))

    def select(self, positions: npt.ArrayLike) -> Photos:
        """Return some of the photos; labels, notes and problems stay.

        Args:
            positions: (n,) integers, in the order wanted.
        """
        at = np.asarray(positions, np.int64)
        paths = self.paths
        some = (
            paths.take(at)
            if isinstance(paths, Locations)
            else tuple(paths[i] for i in at.tolist())
        )
        return replace(self, paths=some, class_index=np.asarray(self.class_index)[at])
