# SPDX-License-Identifier: Apache-2.0
"""Photos in tar shards of the WebDataset layout, read where they lie."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np

from edge_imprint.photos.folders import SUFFIXES
from edge_imprint.photos.locations import MAX_PHOTO_BYTES, Remote
from edge_imprint.photos.shard_labels import Label, final_labels
from edge_imprint.photos.table import Members, Photos, Texts
from edge_imprint.photos.tar_headers import Entry, TarReader
from edge_imprint_runtime.errors import NoImagesError, RemoteError, ShardError

__all__ = ["Archive", "read_shards"]

Archive: TypeAlias = Path | Remote

_MAX_CLS_BYTES = 4096
_MAX_JSON_BYTES = 2**20


def read_shards(archives: Sequence[Archive], data: str) -> Photos:
    """List the photos in tar shards. Their headers are read, and the labels beside them.

    A sample is the files of a shard that share their name up to the first dot; its label is
    its ``.cls`` (a number or text), the ``label``, ``cls`` or ``class`` of its ``.json``, or
    the folder that it lies in. Numbers become the lines of a ``classes.txt`` or ``labels.txt``
    beside the shards, where there is one.

    Args:
        archives: The shards.
        data: What they were named by, for messages.

    Returns:
        The photos. Those without a label, and each shard that is cut short, are problems.

    Raises:
        ShardError: One can't be read at all, or a number has no name.
        NoImagesError: No photo is in them.
    """
    archives = sorted(archives, key=lambda archive: os.fsencode(str(archive)))
    index = _Index()
    for number, archive in enumerate(archives):
        with _opened(archive) as (file, size):
            index.add(number, archive, TarReader(file, size, str(archive)))
    if not index.names:
        first = f"; the first problem: {index.problems[0]}" if index.problems else ""
        raise NoImagesError(f"no photo with a label is in the shards of {data}{first}")
    final = final_labels(list(index.labels), archives[0], index.notes)
    labels = tuple(sorted(set(final)))
    place = {label: i for i, label in enumerate(labels)}
    of_class = np.array([place[label] for label in final], np.int64)[np.array(index.label)]
    shard = np.array(index.archive, np.int32)
    by_name = sorted(range(len(index.names)), key=index.names.__getitem__)
    order = np.array(by_name, np.int64)
    order = order[np.lexsort((shard[order], of_class[order]))]
    return Photos(
        Members(
            archives,
            shard[order],
            Texts([index.names[i] for i in order.tolist()]),
            np.array(index.places, np.int64).reshape(-1, 2)[order],
        ),
        of_class[order],
        labels,
        index.ignored,
        (*index.notes, *index.counted()),
        tuple(index.problems),
    )


class _Sample:
    """The files of one sample: its photos by what follows the first dot, and its label."""

    __slots__ = ("images", "label", "others", "problem")

    def __init__(self) -> None:
        self.images: dict[bytes, Entry] = {}
        self.label: Label | None = None
        self.others = 0
        self.problem = ""


class _Index:
    """What was found in shards so far.

    Attributes:
        names: Of the photos.
        archive: The position of each one's shard.
        places: The offset and the size of each, one after the other.
        label: The position of each one's label in ``labels``.
        labels: Each once, as they came, with its position.
        ignored: How many files belong to no photo.
        notes: What a user should know.
        problems: Photos that can't be used, and shards cut short.
    """

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.archive, self.places, self.label = array("i"), array("q"), array("q")
        self.labels: dict[Label, int] = {}
        self.ignored, self.links, self.repeated, self.several = 0, 0, 0, 0
        self.notes: list[str] = []
        self.problems: list[str] = []

    def counted(self) -> Iterator[str]:
        """Yield a sentence for each odd thing that was met, with how often."""
        if self.links:
            yield f"{self.links} links or devices in the shards were left out"
        if self.repeated:
            yield (
                f"{self.repeated} names are twice in one shard; "
                "the later file stands, as when it is unpacked"
            )
        if self.several:
            yield f"{self.several} samples hold several photos; the first of each was used"

    def add(self, number: int, archive: Archive, reader: TarReader) -> None:
        """Take a shard's photos."""
        samples: dict[bytes, _Sample] = {}
        last, before = b"", len(self.names)
        for entry in reader.entries():
            last = self._sort_in(entry, reader, samples) or last
        cut = samples.get(last) if reader.cut else None
        for key, sample in samples.items():
            if not sample.images:
                self.ignored += sample.others
                continue
            self._take(number, archive, key, sample, whole=sample is not cut)
        if reader.cut:
            self.problems.append(
                f"the shard {archive} {reader.cut}; {len(self.names) - before} photos before "
                "that are used, copy the shard again for the others"
            )

    def _sort_in(
        self, entry: Entry, reader: TarReader, samples: dict[bytes, _Sample]
    ) -> bytes | None:
        """Put a file to its sample; return the sample's key."""
        folder, _, base = entry.name.rpartition(b"/")
        if not entry.is_file:
            self.links += not entry.name.endswith(b"/") and base not in (b"", b".")
            return None
        stem, dot, ending = base.partition(b".")
        if not stem or not dot:  # hidden files, a Mac's ._name, names without an ending
            self.ignored += 1
            return None
        key = folder + b"/" + stem
        sample = samples.setdefault(key, _Sample())
        plain = ending.lower()
        if b"." + plain.rpartition(b".")[2] in _SUFFIXES:
            self.repeated += ending in sample.images
            sample.images[ending] = entry
            return key
        sample.others += 1
        if plain in (b"cls", b"json"):
            self._read_label(entry, reader, sample, plain)
        return key

    def _read_label(
        self, entry: Entry, reader: TarReader, sample: _Sample, ending: bytes
    ) -> None:
        is_cls = ending == b"cls"
        if entry.size > (_MAX_CLS_BYTES if is_cls else _MAX_JSON_BYTES):
            sample.problem = f"its .{ending.decode()} is too large ({entry.size:,} bytes)"
            return
        try:
            text = reader.read(entry).decode("utf-8-sig")
            label = text.strip() if is_cls else _label_in(text)
        except ValueError:  # no UTF-8, no JSON
            sample.problem = f"its .{ending.decode()} can't be read"
            return
        except RecursionError:
            sample.problem = "its .json is nested too deeply"
            return
        if label and (is_cls or sample.label is None or sample.label.folder):
            sample.label = Label(label)

    def _take(
        self, number: int, archive: Archive, key: bytes, sample: _Sample, *, whole: bool
    ) -> None:
        """Take a sample's photos, or say why not."""
        plain = [end for end in sample.images if b"." not in end]
        endings = plain or list(sample.images)
        folder = key.rpartition(b"/")[0].strip(b"/")
        label = sample.label
        if label is None and not sample.problem and _parts(folder):
            label = Label(os.fsdecode(folder), folder=True)
        if len(endings) > 1 and not (label and label.folder):
            self.several += 1
            endings = endings[:1]  # a label is one photo's; in a folder all photos have it
        for ending in endings:
            entry = sample.images[ending]
            what = self._fault(entry, label, sample.problem)
            if what and (whole or label is not None):
                name = os.fsdecode(entry.name)
                self.problems.append(f"the image {archive}:{name} {what}")
            if what or label is None:
                continue
            self.names.append(entry.name)
            self.archive.append(number)
            self.places.extend((entry.offset, entry.size))
            self.label.append(self.labels.setdefault(label, len(self.labels)))

    @staticmethod
    def _fault(entry: Entry, label: Label | None, problem: str) -> str:
        if entry.size > MAX_PHOTO_BYTES:
            return f"has {entry.size:,} bytes, the limit is {MAX_PHOTO_BYTES:,}; take it out"
        if label is None:
            why = problem or "no .cls, no label in .json, no folder"
            return f"has no label ({why}); add one, or take it out"
        return ""


_SUFFIXES = frozenset(suffix.encode() for suffix in SUFFIXES)


def _parts(folder: bytes) -> list[bytes]:
    return [part for part in folder.split(b"/") if part not in (b"", b".", b"..")]


def _label_in(text: str) -> str | None:
    """Return the label that a sample's .json states; None for none.

    Raises:
        ValueError: It is no JSON, or its label is neither text nor a whole number.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        return None
    for key in ("label", "cls", "class"):
        value = found.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise ValueError(f"{key} is {type(value).__name__}")
    return None


@contextmanager
def _opened(archive: Archive) -> Iterator[tuple[IO[bytes], int]]:
    """Open a shard; give it and its size in bytes."""
    try:
        if isinstance(archive, Remote):
            from edge_imprint.photos.remote import open_object

            with open_object(archive.url) as (file, size):
                yield file, size
        else:
            with open(archive, "rb", buffering=0) as raw:  # headers lie far apart
                yield raw, os.fstat(raw.fileno()).st_size
    except RemoteError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ShardError(f"cannot read the shard {archive}: {reason}") from error
