# SPDX-License-Identifier: Apache-2.0
"""The photos that an export is calibrated with and judged by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint.embedding.digests import read_digests
from edge_imprint.hold_out import digest_of, held_out_share, hold_out
from edge_imprint.make_head import Progress
from edge_imprint.photos import SUFFIXES, Location, Photos, expand_photos, find_photos
from edge_imprint.remembered import Remembered, recall_photos
from edge_imprint_export.proof.budget import Batch
from edge_imprint_runtime.contract import Frame, Preprocess
from edge_imprint_runtime.errors import (
    BrokenImageError,
    EdgeImprintError,
    ImageTooLargeError,
    NoImagesError,
    TooFewClassesError,
    UnreadableImageError,
)
from edge_imprint_runtime.frames import fit, frame_to_rgb, rgb_to_frame
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import normalize, photo_image, photo_pixels, prepare

__all__ = ["Evidence", "find_evidence", "proof_batches", "calibration_batches"]

PROOF_PHOTOS = 200
CALIBRATION_PHOTOS = 128
_BATCH = 16
_UNREADABLE = (BrokenImageError, ImageTooLargeError, UnreadableImageError)


@dataclass(frozen=True)
class Evidence:
    """Photos to prove an export with, and others to make it with.

    Attributes:
        paths: All photos.
        truth: (N,) class indices of the head, -1 where a photo has no label or its class is
            none of the head's.
        proof: (n,) positions of the photos to compare on.
        calibration: (m,) positions of those that int8 ranges are read off; none of ``proof``.
        source: Where ``proof`` is from; see `Proof`.
    """

    paths: Sequence[Location]
    truth: npt.NDArray[np.int64]
    proof: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]
    source: str


def find_evidence(
    head_file: str | os.PathLike[str],
    head: Head,
    images: str | os.PathLike[str] | None,
    *,
    calibrate: bool,
) -> Evidence | None:
    """Find photos, and choose among them: the same files give the same choice.

    Of the photos of the build those are compared on that it held out; where it held none
    out, those that the head has seen. Of others, all. Where ranges are calibrated, that is
    done with none that are compared on.

    Args:
        head_file: The head's file, by which the build's photos are remembered.
        head: The head.
        images: A folder with one subfolder a class, a CSV file, or a folder of photos of no
            stated class; None for the photos of the build.
        calibrate: Whether int8 ranges are read off photos too.

    Returns:
        The choice; None where no photos are named and those of the build are not where they
        were.

    Raises:
        NoImagesError: The place named holds no photos, or one only where two are needed.
    """
    built = recall_photos(head_file)
    data, split = _place(built, images)
    if data is None:
        return None
    try:
        photos = _photos(data, split)
    except EdgeImprintError:
        if images is not None:
            raise
        return None  # the build's photos are no longer where they were
    positions = {label: c for c, label in enumerate(head.labels)}
    names = [photos.labels[c] for c in photos.class_index]
    truth = np.array([positions.get(name, -1) for name in names], np.int64)
    order = _in_turns(photos)
    share = held_out_share(head.notes)
    own = images is None or _is_same(built, data)
    out = np.zeros(len(order), np.bool_)
    if share or not own:  # else nothing depends on what the photos hold
        digests = read_digests(photos.paths)
        out = hold_out(photos, share, digests)
        used = digest_of(digests.some(~out))
        own = own or f" sha256={used} " in dict(head.notes).get("build", "")
    if own and out.any():
        judges, others = order[out[order]], order[~out[order]]
    else:
        half = min(CALIBRATION_PHOTOS, len(order) // 2) if calibrate else 0
        judges, others = order[half:], order[:half]
    if calibrate and not len(others):
        raise NoImagesError(
            f"{data} holds too few photos to calibrate int8 with some and compare on others; "
            "give more with --images"
        )
    calibration = others[:CALIBRATION_PHOTOS] if calibrate else others[:0]
    source = ("held_out" if out.any() else "build") if own else "given"
    return Evidence(photos.paths, truth, judges[:PROOF_PHOTOS], calibration, source)


def proof_batches(
    evidence: Evidence, head: Head, input_form: str, frame: Frame | None, tell: Progress
) -> Iterator[Batch]:
    """Read the photos to compare on, as the model takes them and as the backbone does.

    Args:
        evidence: The choice.
        head: The head.
        input_form: What the model takes.
        frame: With ``frame``: what the camera delivers. A photo is cut to its size first.
        tell: Told how far it is.

    Yields:
        As `prove` takes them; photos that can't be read are left out.

    Raises:
        NoImagesError: None can be read.
    """
    assert head.backbone is not None
    preprocess, total, found = head.backbone.preprocess, len(evidence.proof), 0
    size = 1 if frame is not None and frame.any_size else _BATCH
    for start in range(0, total, size):
        rows = []
        for i in evidence.proof[start : start + size]:
            try:
                given, pixels = _row(evidence.paths[i], preprocess, frame)
            except _UNREADABLE:
                continue
            rows.append((given, pixels, evidence.truth[i]))
        tell("comparing with float32", min(total, start + size), total)
        if not rows:
            continue
        found += len(rows)
        givens, pixels, truths = (np.stack(part) for part in zip(*rows, strict=True))
        if input_form == "float32":
            givens = normalize(pixels, preprocess)
        yield givens, pixels, truths
    if not found:
        raise NoImagesError(
            "none of the photos to compare on can be read; give others with --images"
        )


def calibration_batches(
    evidence: Evidence, preprocess: Preprocess, tell: Progress
) -> Iterator[npt.NDArray[np.float32]]:
    """Read the photos that int8 ranges are read off.

    Args:
        evidence: The choice.
        preprocess: The backbone's.
        tell: Told how far it is.

    Yields:
        (1, 3, H, W) float32, normalised.
    """
    total = len(evidence.calibration)
    for done, i in enumerate(evidence.calibration, 1):
        tell("calibrating", done, total)
        try:
            pixels = photo_pixels(evidence.paths[i], preprocess)
        except _UNREADABLE:
            continue
        yield normalize(pixels[np.newaxis], preprocess)


def _row(
    path: Location, preprocess: Preprocess, frame: Frame | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return a photo as the model takes it, and as the backbone does."""
    if frame is None:
        pixels = photo_pixels(path, preprocess)
        return pixels, pixels
    image = photo_image(path)
    rgb = np.asarray(image if frame.any_size else fit(image, frame))
    given = rgb_to_frame(rgb[np.newaxis], frame)
    seen = Image.fromarray(frame_to_rgb(given, frame)[0])
    return given[0], prepare(seen, preprocess)


def _place(
    built: Remembered | None, images: str | os.PathLike[str] | None
) -> tuple[str | None, str | None]:
    """Return where the photos lie, and which split of them."""
    if images is not None:
        same = _is_same(built, os.fspath(images))
        return os.fspath(images), built.split if same and built is not None else None
    return (None, None) if built is None else (built.data, built.split)


def _is_same(built: Remembered | None, data: str) -> bool:
    if built is None:
        return False
    try:
        return os.path.samefile(built.data, data)
    except OSError:  # an address, a pattern, or no longer there
        return built.data == data


def _photos(data: str, split: str | None) -> Photos:
    """List photos as `build` takes them, or those of one folder without classes."""
    photo = os.path.isfile(data) and Path(data).suffix.lower() in SUFFIXES
    try:
        if not photo:
            return find_photos(data, split=split)
    except (NoImagesError, TooFewClassesError):
        if not os.path.isdir(data):
            raise
    paths = tuple(expand_photos(Path(data)))
    return Photos(paths, np.zeros(len(paths), np.int64), ("",))


def _in_turns(photos: Photos) -> npt.NDArray[np.int64]:
    """Order photos so that any first ones hold all classes about alike.

    Within a class by a hash of their names: neighbours by name are often by content, too.
    """
    names = (str(path).rpartition("/")[2] for path in photos.paths)
    hashes = [hashlib.sha256(os.fsencode(name)).digest() for name in names]
    places = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in hashes])
    index = photos.class_index
    rank = np.empty(len(index), np.int64)
    for c in np.unique(index):
        members = np.flatnonzero(index == c)
        rank[members[np.argsort(places[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((places, index, rank))
