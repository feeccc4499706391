# SPDX-License-Identifier: Apache-2.0
"""Photos that a manifest names: path, label, and perhaps split."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt

from edge_imprint.photos.locations import is_url
from edge_imprint.photos.manifest_rows import Row, csv_rows, parquet_rows
from edge_imprint.photos.table import Files, Int64, Photos, Texts
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import ManifestError, NoImagesError

__all__ = ["read_manifest", "read_open_manifest"]


def read_manifest(manifest: Path, *, split: str | None = None) -> Photos:
    """List the photos that a manifest on this machine names.

    Args:
        manifest: A CSV file, or a Parquet file by its suffix. Its paths are relative to it.
        split: Which split to use; None for all.

    Returns:
        The photos; those that are not there are its problems.

    Raises:
        ManifestError: It can't be read, or contradicts itself.
        NoImagesError: It names no photo, or none that is there.
        MissingPackageError: It is Parquet, and pyarrow is not installed.
    """
    try:
        with open(manifest, "rb") as file:
            return read_open_manifest(file, str(manifest), manifest.parent, split=split)
    except OSError as error:
        raise ManifestError(
            f"cannot read {manifest}: {error.strerror or error}; check the file"
        ) from error


def read_open_manifest(
    file: IO[bytes], name: str, home: Path | str, *, split: str | None = None
) -> Photos:
    """List the photos that an open manifest names.

    Args:
        file: Its bytes.
        name: Its name, for messages and for its kind.
        home: What its paths are relative to: a folder, or a URL as text.
        split: Which split to use; None for all.

    Returns:
        The photos. Of files of this machine those that are not there are its problems; what
        lies in a store is not looked up.

    Raises:
        ManifestError, NoImagesError, MissingPackageError: As in `read_manifest`.
        OSError: It can't be read.
    """
    notes: list[str] = []
    parquet = name.lower().endswith(".parquet")
    rows = (parquet_rows if parquet else csv_rows)(file, name, notes)
    listed = _Listed(name, "row" if parquet else "line", home)
    listed.fill(rows, split, notes)
    order, used_twice = listed.in_order()
    if used_twice:
        notes.append(
            f"{name} names {used_twice} photo{'s' * (used_twice > 1)} more than once with "
            "one label; each is used once"
        )
    labels = tuple(sorted(listed.labels))
    check_labels(labels)
    problems: list[str] = []
    if isinstance(home, Path):
        order, problems = listed.there(order)
    if not len(order):
        raise NoImagesError(
            f"none of the photos that {name} names is there; the first: {problems[0]}"
        )
    index = listed.rank()[np.array(listed.label, np.int64)[order]]
    names = Texts([os.fsencode(listed.paths[i]) for i in order.tolist()])
    return Photos(
        Files(home, names), index, labels, notes=tuple(notes), problems=tuple(problems)
    )


class _Listed:
    """The rows used of a manifest, in its order.

    Args:
        name: The manifest's, for messages.
        unit: What its rows are called: ``line`` or ``row``.
        home: What paths are relative to.

    Attributes:
        paths: As they were written, tidied.
        label: The position of each one's label in ``labels``.
        line: Where each was found.
        labels: Each once, as they came.
    """

    def __init__(self, name: str, unit: str, home: Path | str) -> None:
        self.name, self.unit, self.home = name, unit, home
        self.paths: list[str] = []
        self.label, self.line = array("q"), array("q")
        self.labels: list[str] = []

    def fill(self, rows: Iterable[Row], split: str | None, notes: list[str]) -> None:
        """Take the rows of a split."""
        position: dict[str, int] = {}
        splits: dict[str, int] = {}
        for row in rows:
            splits[row.split] = splits.get(row.split, 0) + 1
            if split is not None and row.split != split:
                continue
            self.paths.append(self._tidy(row))
            self.label.append(position.setdefault(row.label, len(position)))
            self.line.append(row.line)
        self.labels = list(position)
        named = ", ".join(f"{one!r} ({count})" for one, count in sorted(splits.items())[:8])
        if not splits:
            raise NoImagesError(f"{self.name} lists no photos; add a line path,label for each")
        if not self.paths:
            have = f"it has: {named}" if set(splits) != {""} else "it has no column split"
            raise ManifestError(f"{self.name} has no photos of the split {split!r}; {have}")
        if split is None and set(splits) != {""}:
            notes.append(
                f"the photos of all splits of {self.name} are used: {named}; "
                "choose one with --split"
            )

    def _tidy(self, row: Row) -> str:
        if is_url(row.path):
            return row.path
        if isinstance(self.home, str):
            pure = PurePosixPath(row.path)
            if pure.is_absolute() or ".." in pure.parts:
                raise ManifestError(
                    f"{self.name}, {self.unit} {row.line}: {row.path!r} leads out of the "
                    "manifest's folder; write a path below it, or a whole URL"
                )
            return str(pure)
        if "\0" in row.path:
            raise ManifestError(
                f"{self.name}, {self.unit} {row.line}: the path holds a zero byte; mend it"
            )
        return str(Path(row.path))  # `./a//b` is `a/b`

    def in_order(self) -> tuple[Int64, int]:
        """Sort by label and path, each photo once.

        Returns:
            Positions, and how many photos were named more than once.

        Raises:
            ManifestError: A photo has two labels.
        """
        keys = self._keys()
        by_path = sorted(range(len(keys)), key=keys.__getitem__)
        kept, again, last = array("q"), set[int](), -1
        for i in by_path:
            if last < 0 or keys[i] != keys[last]:
                kept.append(i)
                last = i
                continue
            if self.label[i] != self.label[last]:
                one, other = (self.labels[self.label[j]] for j in (last, i))
                raise ManifestError(
                    f"{self.name} gives {self.paths[i]} two labels: {one!r} in {self.unit} "
                    f"{self.line[last]} and {other!r} in {self.unit} {self.line[i]}; "
                    "take one out"
                )
            again.add(last)
        order = np.array(kept, np.int64)
        of_class = self.rank()[np.array(self.label, np.int64)[order]]
        return order[np.argsort(of_class, kind="stable")], len(again)

    def rank(self) -> Int64:
        """Return each label's place among the labels, sorted."""
        place = {label: i for i, label in enumerate(sorted(self.labels))}
        return np.array([place[label] for label in self.labels], np.int64)

    def _keys(self) -> Sequence[bytes]:
        """Return each photo's whole name, as bytes."""
        home = self.home
        if isinstance(home, str):
            return [os.fsencode(p if is_url(p) else f"{home}/{p}") for p in self.paths]
        start = os.fsencode(home / "x")[:-1]  # empty for the folder at hand
        return [
            os.fsencode(path)
            if is_url(path) or os.path.isabs(path)
            else start + os.fsencode(path)
            for path in self.paths
        ]

    def there(self, order: npt.NDArray[np.int64]) -> tuple[Int64, list[str]]:
        """Leave out files that are not there.

        Returns:
            Positions of the others, and a sentence for each one that is not.
        """
        assert isinstance(self.home, Path)
        kept, problems = array("q"), list[str]()
        for i in order.tolist():
            path = self.paths[i]
            try:
                if not is_url(path):
                    mode = os.stat(os.path.join(self.home, path)).st_mode
                    if not stat.S_ISREG(mode):  # to read a pipe may never end
                        raise ValueError("not a file but a folder, a pipe or a device")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                if "\\" in path:
                    reason += ", write / instead of \\"
                problems.append(
                    f"cannot read the image {self.home / path}: {reason} "
                    f"({self.unit} {self.line[i]} of {self.name})"
                )
            else:
                kept.append(i)
        return np.array(kept, np.int64), problems
