# SPDX-License-Identifier: Apache-2.0
"""Where a photo lies: a file, a member of a tar shard, an object in a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge_imprint_runtime.images import Readable

__all__ = ["Location", "MAX_PHOTO_BYTES", "Member", "Readable", "Remote", "is_url"]

# What a photo may have at most where its size is a claim: 1 GiB, far above any camera's.
MAX_PHOTO_BYTES = 2**30


def is_url(name: str) -> bool:
    """Whether a name is that of an object in a store (``s3://bucket/key``), not a file's."""
    return "://" in name


@dataclass(frozen=True)
class Remote:
    """An object in a store that fsspec reaches.

    Attributes:
        url: As fsspec takes it.
        size: Bytes by its listing; -1 where none was read.
        stamp: What its listing says of its version (an entity tag, or when it was changed);
            empty where that is not known. A changed object has another size or stamp.
    """

    url: str
    size: int = -1
    stamp: str = ""

    def __str__(self) -> str:
        return self.url

    def read_bytes(self) -> bytes:
        """Return its bytes.

        Raises:
            OSError: It can't be read.
            MissingPackageError: Its store needs a package that is not here.
        """
        from edge_imprint.photos.remote import read_object  # fsspec only where it serves

        return read_object(self.url)

    def read_range(self, start: int, size: int) -> bytes:
        """Return some of its bytes, fewer where it ends.

        Raises:
            OSError: It can't be read.
            MissingPackageError: Its store needs a package that is not here.
        """
        from edge_imprint.photos.remote import read_object

        return read_object(self.url, start, start + size)


@dataclass(frozen=True)
class Member:
    """A photo inside a tar shard, which is never unpacked.

    Attributes:
        archive: The shard.
        name: The photo's name in it.
        offset: Where its bytes begin in the shard.
        size: How many they are.
    """

    archive: Path | Remote
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def read_bytes(self) -> bytes:
        """Return its bytes.

        Raises:
            OSError: The shard can't be read, or it is shorter than it was.
            MissingPackageError: Its store needs a package that is not here.
        """
        if not 0 <= self.size <= MAX_PHOTO_BYTES:
            raise OSError(f"it claims {self.size:,} bytes, the limit is {MAX_PHOTO_BYTES:,}")
        if isinstance(self.archive, Remote):
            data = self.archive.read_range(self.offset, self.size)
        else:
            with open(self.archive, "rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"the shard ends after {len(data):,} of its {self.size:,} bytes")
        return data


Location: TypeAlias = Path | Member | Remote
"""All are `Readable`, hashable, small, and can be sent to another process."""
