# SPDX-License-Identifier: Apache-2.0
"""What kind of data a name stands for, and its photos."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import numpy as np

from edge_imprint.photos.folders import ClassFolders, class_folders, suffix_list
from edge_imprint.photos.locations import is_url
from edge_imprint.photos.patterns import expand_braces, has_wildcard, is_pattern
from edge_imprint.photos.table import Files, Int64, Photos, Texts
from edge_imprint_runtime.contract.spec import check_labels
from edge_imprint_runtime.errors import (
    NoImagesError,
    ParameterError,
    ShardError,
    TooFewClassesError,
)

__all__ = ["find_photos", "photos_of_folders"]

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")


def find_photos(data: str | os.PathLike[str], *, split: str | None = None) -> Photos:
    """List labelled photos; none is opened yet.

    Args:
        data: One of these, on this machine or as a URL in a store that fsspec reaches
            (``s3://``, ``gs://``, ``hf://``):

            - a folder with one subfolder a class; photos may lie deeper, links are followed,
              each folder once;
            - a CSV or a Parquet file with the columns ``path`` and ``label``, and perhaps
              ``split``; paths are relative to it;
            - a tar shard of the WebDataset layout, a folder of shards, or a pattern such as
              ``shop-{000..009}.tar``.
        split: Of a manifest, the rows to use; of a folder, the subfolder of this name that
            holds the class folders or shards. None for all.

    Returns:
        The photos.

    Raises:
        NoImagesError: There is no such data, or no image in it.
        TooFewClassesError: All are of one class.
        ManifestError: A manifest can't be read, or contradicts itself.
        ShardError: A shard can't be read at all.
        RemoteError: A store can't be reached, or has no such object.
        MissingPackageError: Parquet, or the store, needs a package that is not here.
        ParameterError: A split is asked of shards named one by one.
        ContractValueError: A class name can't be a label.
    """
    name = os.fspath(data)
    if not name:  # to a Path it is the folder at hand
        raise NoImagesError("the name of the data is empty; name a folder, a file or a URL")
    photos = _remote(name, split) if is_url(name) else _local(name, split)
    check_labels(photos.labels)
    if len(photos.labels) < 2:
        only = f"{name} holds one class only ({photos.labels[0]!r})"
        raise TooFewClassesError(
            "; ".join([only, "a classifier needs at least two", *photos.notes])
        )
    return photos


def photos_of_folders(
    found: ClassFolders,
    home: Path | str,
    sizes: Int64 | None = None,
    stamps: Texts | None = None,
) -> Photos:
    """Make photos of class folders.

    Args:
        found: The class folders.
        home: Where they lie: a folder, or a URL as text.
        sizes: (N,) bytes of each, in the order of ``found``, for objects in a store.
        stamps: Of each, for objects in a store.

    Raises:
        NoImagesError: There is no image in them.
    """
    if not found.names:
        inside = f"{home}/CLASS/" if isinstance(home, str) else f"{home / 'CLASS'}/"
        advice = f"put each class's photos into {inside}"
        if found.outside:
            raise NoImagesError(
                f"{home} holds images, but none in class subfolders; {advice}, or name the "
                "folder above if these are the photos of one class"
            )
        raise NoImagesError(
            f"{home} holds no images ({suffix_list()}) in class subfolders; {advice}"
        )
    named = list(found.names)
    labels = tuple(sorted(named))
    names = Texts.joined([found.names[label] for label in named])
    place = {label: i for i, label in enumerate(labels)}
    counts = [len(found.names[label]) for label in named]
    index = np.repeat(np.array([place[label] for label in named], np.int64), counts)
    files = Files(home, names, sizes, stamps)
    if list(labels) != named:  # names are in the order of their bytes, labels of their text
        order = np.argsort(index, kind="stable")
        files, index = files.take(order), index[order]
    return Photos(files, index, labels, found.ignored, tuple(found.notes(str(home))))


def _local(name: str, split: str | None) -> Photos:
    root = Path(name)
    if os.path.isdir(root):  # unlike Path's, it takes names that no file can have
        return _from_folder(root, split)
    if os.path.isfile(root):
        if name.lower().endswith((".tar", *_COMPRESSED)):
            _no_split(split, name)
            return _from_shards([root], name)
        from edge_imprint.photos.manifests import read_manifest

        return read_manifest(root, split=split)
    if is_pattern(name):
        _no_split(split, name)
        return _from_shards(_matching(name), name)
    raise NoImagesError(
        f"there is no folder or file {root}; name a folder with one subfolder a class, "
        "a CSV or Parquet file, or tar shards"
    )


def _from_folder(root: Path, split: str | None) -> Photos:
    if split is not None:
        if not os.path.isdir(root / split) or not split.strip("./"):
            raise NoImagesError(
                f"{root} has no folder {split!r} for that split; name one that it has"
            )
        root = root / split
    found = class_folders(root)
    if not found.names:
        entries = sorted(os.listdir(root))
        shards = [root / entry for entry in entries if entry.lower().endswith(".tar")]
        if not shards:  # of compressed ones the first says what to do
            shards = [root / entry for entry in entries if entry.lower().endswith(_COMPRESSED)]
        if shards:
            return _from_shards(shards, str(root))
    return photos_of_folders(found, root)


def _from_shards(shards: list[Path], name: str) -> Photos:
    from edge_imprint.photos.shards import read_shards

    return read_shards(shards, name)


def _matching(pattern: str) -> list[Path]:
    """Return the shards that a pattern stands for."""
    shards: list[Path] = []
    for name in expand_braces(pattern):
        if has_wildcard(name):
            shards += [
                Path(found) for found in sorted(glob.glob(name)) if os.path.isfile(found)
            ]
        elif os.path.isfile(name):
            shards.append(Path(name))
        else:
            raise ShardError(f"there is no shard {name}; mend the pattern {pattern}")
    if not shards:
        raise NoImagesError(f"no shard matches {pattern}; mend it, or name a folder")
    return shards


def _no_split(split: str | None, name: str) -> None:
    if split is not None:
        raise ParameterError(
            f"the shards {name} have no splits; leave out --split and name the shards of "
            f"one, as in {split}-*.tar"
        )


def _remote(url: str, split: str | None) -> Photos:
    from edge_imprint.photos.remote_photos import (
        remote_folder,
        remote_manifest,
        remote_shards,
    )

    lower = url.lower()
    if lower.endswith((".csv", ".parquet")):
        return remote_manifest(url, split)
    if is_pattern(url) or lower.endswith((".tar", *_COMPRESSED)):
        _no_split(split, url)
        return remote_shards(url)
    return remote_folder(url if split is None else f"{url.rstrip('/')}/{split}")
