# SPDX-License-Identifier: Apache-2.0
"""Finding labelled photos: class folders, manifests, tar shards; here or in a store."""

from __future__ import annotations

from edge_imprint.photos.find import find_photos
from edge_imprint.photos.folders import SUFFIXES, expand_photos, image_files
from edge_imprint.photos.locations import Location, Member, Readable, Remote
from edge_imprint.photos.table import Locations, Photos

__all__ = [
    "Location",
    "Locations",
    "Member",
    "Photos",
    "Readable",
    "Remote",
    "SUFFIXES",
    "expand_photos",
    "find_photos",
    "image_files",
]
