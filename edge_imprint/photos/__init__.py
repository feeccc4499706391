# SPDX-License-Identifier: Apache-2.0
"""Finding labelled photos: a folder with one subfolder a class, or a CSV of path,label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import ManifestError, NoImagesError, TooFewClassesError

__all__ = ["SUFFIXES", "Location", "Photos", "expand_photos", "find_photos", "image_files"]

Location: TypeAlias = Path

SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Photos:
    """Labelled photos, in an order that depends on their names only.

    Attributes:
        paths: N image files.
        class_index: N positions in ``labels``.
        labels: The class names, sorted.
        ignored_files: How many other files lay among them.
        notes: What a user should know of how the folder was read, each a sentence.
    """

    paths: tuple[Path, ...]
    class_index: tuple[int, ...]
    labels: tuple[str, ...]
    ignored_files: int = 0
    notes: tuple[str, ...] = ()


def find_photos(data: str | os.PathLike[str]) -> Photos:
    """List labelled photos; none is opened yet.

    Args:
        data: A folder with one subfolder a class (photos may lie deeper; links are followed,
            each folder once), or a CSV file with the columns ``path`` and ``label`` (paths
            are relative to it).

    Returns:
        The photos.

    Raises:
        NoImagesError: There is no such folder or file, or no image in it.
        TooFewClassesError: All are of one class.
        ManifestError: The CSV file can't be read.
        ContractValueError: A class name can't be a label.
    """
    root = Path(data)
    ignored, notes = 0, list[str]()
    if os.path.isdir(root):  # unlike Path's, it takes names that no file can have
        pairs, ignored = _from_folder(root, notes)
    elif os.path.isfile(root):
        pairs = _from_csv(root)
    else:
        raise NoImagesError(
            f"there is no folder or CSV file {root}; name a folder with one subfolder a class"
        )
    if not pairs and os.path.isfile(root):
        raise NoImagesError(f"{root} lists no photos; add a line path,label for each")
    if not pairs:
        raise NoImagesError(
            f"{root} holds no images ({_suffix_list()}) in class subfolders; "
            f"put each class's photos into {root / 'CLASS'}/"
        )
    labels = tuple(sorted({label for _, label in pairs}))
    check_labels(labels)
    if len(labels) < 2:
        raise TooFewClassesError(
            f"{root} holds one class only ({labels[0]!r}); a classifier needs at least two"
        )
    pairs.sort(key=lambda pair: (pair[1], os.fsencode(pair[0])))
    position = {label: index for index, label in enumerate(labels)}
    return Photos(
        tuple(path for path, _ in pairs),
        tuple(position[label] for _, label in pairs),
        labels,
        ignored,
        tuple(notes),
    )


def image_files(folder: Path) -> tuple[list[Path], int]:
    """List the image files under a folder.

    Args:
        folder: Where to look; links are followed, each folder is entered once, so that a
            loop of links ends.

    Returns:
        The files, sorted, and how many other files there were.
    """
    found, others = [], 0
    for file in _walk(folder, set()):
        if _is_image(file):
            found.append(file)
        else:
            others += 1
    return sorted(found, key=os.fsencode), others


def expand_photos(path: Path) -> list[Path]:
    """List the photos that a path stands for: itself, or those of a folder.

    Raises:
        NoImagesError: It is a folder without images.
    """
    if not os.path.isdir(path):  # unlike Path's, it takes names that no file can have
        return [path]
    files, _ = image_files(path)
    if not files:
        raise NoImagesError(f"{path} holds no images; name photos, or a folder of photos")
    return files


def _from_folder(root: Path, notes: list[str]) -> tuple[list[tuple[Path, str]], int]:
    pairs: list[tuple[Path, str]] = []
    ignored, outside, empty, nested = 0, 0, list[str](), True
    for entry in sorted(_listing(root), key=lambda entry: os.fsencode(entry.name)):
        path = Path(entry.path)
        if not _is_folder(entry):
            outside += _is_image(path)
            ignored += not _is_image(path)
        elif not entry.name.startswith("."):
            found, others = image_files(path)
            pairs += [(file, entry.name) for file in found]
            ignored += others
            empty += [] if found else [entry.name]
            # Each class's photos in at least two subfolders: train/apple, train/pear, test/...
            if found:
                inside = {file.relative_to(path).parts[0] for file in found}
                nested &= len(inside) > 1 and all(file.parent != path for file in found)
    if outside:
        notes.append(f"{outside} images lie outside the class folders and were left out")
    if empty:
        names = ", ".join(repr(name) for name in empty[:5])
        notes.append(f"no class, for want of images of a known kind: {names}")
    if nested and pairs:
        names = ", ".join(repr(name) for name in sorted({label for _, label in pairs})[:5])
        notes.append(
            f"the classes are {names}, whose photos lie in subfolders; if those are the "
            f"classes, name one of these folders instead of {root}"
        )
    return pairs, ignored


def _is_image(file: Path) -> bool:
    # A Mac writes a ._name beside each name on foreign disks; it is no image.
    return file.suffix.lower() in SUFFIXES and not file.name.startswith("._")


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        stat = folder.stat()
    except OSError:
        return
    if (stat.st_dev, stat.st_ino) in seen:
        return
    seen.add((stat.st_dev, stat.st_ino))
    for entry in _listing(folder):
        if _is_folder(entry):
            yield from _walk(Path(entry.path), seen)
        else:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise NoImagesError(f"cannot list the folder {folder}: {error.strerror}") from error


def _from_csv(manifest: Path) -> list[tuple[Path, str]]:
    import csv  # here, since `predict` imports this module and reads no table

    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        with open(manifest, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise ManifestError(
                    f"{manifest} must begin with a line that names the columns path,label, "
                    "with a comma between them"
                )
            pairs = []
            for row in rows:
                path, label = row["path"], row["label"]
                if not path or not label:
                    raise ManifestError(
                        f"{manifest}, line {rows.line_num}: path or label is empty"
                    )
                pairs.append((manifest.parent / path, label))
            return pairs
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ManifestError(
            f"cannot read {manifest} as CSV in UTF-8: {reason}; "
            "give a CSV file, or a folder (unpacked, if this is an archive)"
        ) from error


def _suffix_list() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
