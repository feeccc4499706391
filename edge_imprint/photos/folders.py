# SPDX-License-Identifier: Apache-2.0
"""Photos in folders of this machine: one subfolder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edge_imprint.photos.table import Texts
from edge_imprint_runtime.errors import NoImagesError

__all__ = [
    "ClassFolders",
    "SUFFIXES",
    "class_folders",
    "expand_photos",
    "image_files",
    "is_image",
    "suffix_list",
]

SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


class ClassFolders:
    """What class folders hold, here or in a store.

    Attributes:
        names: Of the photos below the folder, by class; sorted within each.
        ignored: How many other files there are.
        outside: How many images lie in no class folder.
    """

    def __init__(self) -> None:
        self.names: dict[str, Texts] = {}
        self.ignored, self.outside = 0, 0
        self._empty, self._nested = list[str](), True

    def add_file(self, name: str) -> None:
        """Count a file that lies in no class folder."""
        self.outside += is_image(name)
        self.ignored += not is_image(name)

    def add_class(self, label: str, found: list[bytes], others: int) -> None:
        """Take a class folder.

        Args:
            label: Its name.
            found: The names of its images below it, sorted.
            others: How many other files it holds.
        """
        self.ignored += others
        if not found:
            self._empty.append(label)
            return
        # Each class's photos in at least two subfolders: train/apple, train/pear, test/...
        inside = {name.partition(b"/")[0] for name in found}
        self._nested &= len(inside) > 1 and all(b"/" in name for name in found)
        home = os.fsencode(label) + b"/"
        self.names[label] = Texts([home + name for name in found])

    def notes(self, root: str) -> Iterator[str]:
        """Yield what a user should know, each a sentence."""
        if self.outside:
            yield f"{self.outside} images lie outside the class folders and were left out"
        if self._empty:
            names = ", ".join(repr(name) for name in self._empty[:5])
            yield f"no class, for want of images of a known kind: {names}"
        if self._nested and self.names:
            names = ", ".join(repr(name) for name in sorted(self.names)[:5])
            yield (
                f"the classes are {names}, whose photos lie in subfolders; if those are the "
                f"classes, name one of these folders instead of {root}"
            )


def is_image(name: str) -> bool:
    """Whether a file's name is one that images have."""
    # A Mac writes a ._name beside each name on foreign disks; it is no image.
    base = name.rpartition("/")[2]
    return os.path.splitext(base)[1].lower() in SUFFIXES and not base.startswith("._")


def suffix_list() -> str:
    """Name the suffixes that images have, for messages."""
    return ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def image_files(folder: Path) -> tuple[list[Path], int]:
    """List the image files under a folder.

    Args:
        folder: Where to look; links are followed, each folder is entered once, so that a
            loop of links ends.

    Returns:
        The files, sorted, and how many other files there were.
    """
    found, others = _images_below(str(folder))
    return [folder / os.fsdecode(name) for name in found], others


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


def class_folders(root: Path) -> ClassFolders:
    """List the photos in the subfolders of a folder, each subfolder a class.

    Args:
        root: The folder.

    Returns:
        What it holds; photos may lie deeper, links are followed, each folder once.

    Raises:
        NoImagesError: A folder can't be listed.
    """
    made = ClassFolders()
    for entry in sorted(_listing(root), key=lambda entry: os.fsencode(entry.name)):
        if not _is_folder(entry):
            made.add_file(entry.name)
        elif not entry.name.startswith("."):
            made.add_class(entry.name, *_images_below(entry.path))
    return made


def _images_below(folder: str) -> tuple[list[bytes], int]:
    """Return the names of the images below a folder, sorted, and how many other files."""
    # Cut off as bytes: a `Path` for each of a million files would take a minute.
    start = len(os.fsencode(folder.rstrip("/"))) + 1
    found, others = list[bytes](), 0
    for file, readable in _walk(folder):
        if readable and is_image(file):
            found.append(os.fsencode(file)[start:])
        else:
            others += 1
    found.sort()
    return found, others


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    seen, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        inner = waiting.pop()
        try:
            found = os.stat(inner)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        for entry in _listing(inner):
            if _is_folder(entry):
                waiting.append(entry.path)
            else:
                yield entry.path, _may_be_read(entry)


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether reading it ends, as it need not of a pipe; a link to nothing is read at once."""
    try:
        if entry.is_file():
            return True
        os.stat(entry.path)  # a pipe, a socket, a device
        return False
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _listing(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise NoImagesError(f"cannot list the folder {folder}: {error.strerror}") from error
