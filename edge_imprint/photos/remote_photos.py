# SPDX-License-Identifier: Apache-2.0
"""Labelled photos in object stores: class folders, manifests and shards, as on a disk."""

from __future__ import annotations

import os

import numpy as np

from edge_imprint.photos.find import photos_of_folders
from edge_imprint.photos.folders import ClassFolders, is_image
from edge_imprint.photos.locations import Remote
from edge_imprint.photos.manifests import read_open_manifest
from edge_imprint.photos.patterns import expand_braces, has_wildcard
from edge_imprint.photos.remote import Found, Place, open_object
from edge_imprint.photos.shards import read_shards
from edge_imprint.photos.table import Photos, Texts
from edge_imprint_runtime.errors import NoImagesError, ShardError

__all__ = ["remote_folder", "remote_manifest", "remote_shards"]


def remote_folder(url: str) -> Photos:
    """List the photos in class folders below a URL, or in the shards there.

    An object itself is read as a manifest, whatever its name, as a file of this machine is.

    Args:
        url: What holds the class folders or the shards.

    Raises:
        RemoteError: It can't be listed.
        NoImagesError: It holds neither.
        ManifestError: It is an object, and no manifest.
        ShardError: A shard can't be read.
    """
    place = Place(url)
    folders, objects = place.entries()
    if not folders and not objects and place.about() is not None:  # it is an object itself
        return remote_manifest(url, None)
    found, sizes, stamps = ClassFolders(), list[int](), list[bytes]()
    for one in objects:
        found.add_file(one.name)
    for folder in folders:
        if folder.startswith("."):
            continue
        listed = place.below(folder)
        images = [one for one in listed if is_image(one.name)]
        images.sort(key=lambda one: os.fsencode(one.name))
        start = len(os.fsencode(folder)) + 1
        names = [os.fsencode(one.name)[start:] for one in images]
        found.add_class(folder, names, len(listed) - len(images))
        sizes += [one.size for one in images]
        stamps += [os.fsencode(one.stamp) for one in images]
    shards = [one for one in objects if one.name.lower().endswith(".tar")]
    if not found.names and shards:
        return read_shards([_below(place.url, one) for one in shards], url)
    return photos_of_folders(found, place.url, np.array(sizes, np.int64), Texts(stamps))


def remote_manifest(url: str, split: str | None) -> Photos:
    """List the photos that a manifest in a store names, relative to it or as whole URLs.

    Args:
        url: A CSV or a Parquet object.
        split: Which split to use; None for all.

    Raises:
        RemoteError: It can't be read.
        ManifestError: It is no manifest, or contradicts itself.
    """
    home = url.rpartition("/")[0]
    with open_object(url) as (file, _):
        return read_open_manifest(file, url, home, split=split)


def remote_shards(pattern: str) -> Photos:
    """List the photos in shards in a store.

    Args:
        pattern: A shard's URL, or a pattern.

    Raises:
        RemoteError: The store can't be asked.
        ShardError: One is not there, or can't be read.
        NoImagesError: None matches the pattern.
    """
    shards: list[Remote] = []
    for url in expand_braces(pattern):
        place = Place(url)
        if has_wildcard(url):
            shards += [Remote(*one) for one in place.matches()]
            continue
        about = place.about()
        if about is None:
            raise ShardError(f"there is no shard {url}; mend the name")
        shards.append(Remote(*about))
    if not shards:
        raise NoImagesError(f"no shard matches {pattern}; mend it, or name a folder")
    return read_shards(shards, pattern)


def _below(home: str, found: Found) -> Remote:
    return Remote(f"{home}/{found.name}", found.size, found.stamp)
