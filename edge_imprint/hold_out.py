# SPDX-License-Identifier: Apache-2.0
"""Photos that no head has seen: by their content, so that any folder tells which they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.photos import Photos
from edge_imprint_runtime.errors import ParameterError

__all__ = [
    "check_hold_out",
    "digest_of",
    "held_out_share",
    "hold_out",
    "share_note",
    "without",
]

Digest: TypeAlias = bytes | None

_NOTE = re.compile(r"share=(0\.[0-9]{6})")


def check_hold_out(share: float) -> None:
    """Refuse what is no share.

    Raises:
        ParameterError: It is not from 0 to 0.5.
    """
    if not 0 <= share <= 0.5:
        raise ParameterError(f"hold_out must be a share from 0 to 0.5, got {share}")


def hold_out(photos: Photos, share: float, digests: Sequence[Digest]) -> npt.NDArray[np.bool_]:
    """Choose photos that a build leaves alone, so that they can judge what comes of it.

    A photo is held out if the SHA-256 of its bytes is in the lowest ``share`` of all: this
    needs no list, holds wherever the folder goes, and puts copies of one photo on one side.
    A class that would be left with no photo keeps all of its own.

    Args:
        photos: What `find_photos` found.
        share: From 0 to 0.5.
        digests: What `embedding.digests.read_digests` read of them.

    Returns:
        (N,) bool. Of few photos it may be a share quite other than the one asked for.
    """
    check_hold_out(share)
    out = np.array([_place(digest) < share for digest in digests], np.bool_)
    index = photos.class_index
    for c in range(len(photos.labels)):
        if out[index == c].all():
            out[index == c] = False
    return out


def without(photos: Photos, out: npt.NDArray[np.bool_]) -> Photos:
    """Return the photos that are not held out."""
    return photos.select(np.flatnonzero(~out))


def share_note(share: float) -> dict[str, str]:
    """Return the note of what was held out, for the head; empty for nothing."""
    return {"hold_out": f"share={share:.6f}"} if share else {}


def held_out_share(notes: Sequence[tuple[str, str]]) -> float:
    """Read off a head's notes which share its build held out; 0 for none."""
    match = _NOTE.fullmatch(dict(notes).get("hold_out", ""))
    return 0.0 if match is None else float(match[1])


def digest_of(digests: Iterable[Digest]) -> str:
    """Return one SHA-256, 64 hex digits, of photos' content, whatever their order."""
    known = sorted(digest for digest in digests if digest is not None)
    return hashlib.sha256(b"".join(known)).hexdigest()


def _place(digest: Digest) -> float:
    """Return where a photo's content falls in 0..1; 1 for one that can't be read."""
    return 1.0 if digest is None else int.from_bytes(digest[:8], "big") / 2**64
