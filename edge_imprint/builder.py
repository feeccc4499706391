# SPDX-License-Identifier: Apache-2.0
"""`build`: labelled photos -> a head file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.embedding.embedders import Embedder, check_device, pick_embedder
from edge_imprint.hold_out import check_hold_out, digest_of, read_digests, share_note, without
from edge_imprint.hold_out import hold_out as choose_held_out
from edge_imprint.imprinting.recipe import Recipe, check_seed, check_shots
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.calibrate import (
    FALSE_ALARM,
    Calibration,
    check_false_alarm,
    check_labels,
)
from edge_imprint.judging.choose import Choice
from edge_imprint.keep import check_keep, own_classes
from edge_imprint.make_head import Progress, make_head
from edge_imprint.photos import Photos, find_photos
from edge_imprint.remembered import remember_photos
from edge_imprint.versions import versions
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.contract.codec import format_preprocess
from edge_imprint_runtime.errors import (
    BrokenImageError,
    EmbeddingError,
    ImageTooLargeError,
    NoImagesError,
    ParameterError,
    TooManyBrokenError,
    UnreadableImageError,
)
from edge_imprint_runtime.files import check_output
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import photo_pixels

__all__ = ["Build", "Embedded", "Progress", "build", "check_max_broken", "embed_photos"]

_BATCH = 32
_MAX_VALUE = 1e16


@dataclass(frozen=True)
class Embedded:
    """Photos as embeddings.

    Attributes:
        embeddings: (N, D) float32, one a readable photo.
        class_index: (N,) int64 positions in the photos' labels.
        kept: (N,) int64 positions in the photos' paths.
        skipped: The broken photos, each as one sentence.
    """

    embeddings: npt.NDArray[np.float32]
    class_index: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Build:
    """What `build` made.

    Attributes:
        head: The head.
        path: The file it was written to, or None.
        images: Photos that were used.
        images_by_class: How many of each class.
        choice: How many proxies each class was given, and why, under ``proxies="auto"``.
        calibration: What calibration found, where it was asked for.
        held_out: Photos that were left out, to judge what comes of the head.
        skipped: The broken photos, each as one sentence.
        notes: What a user should know: small classes, files ignored.
        device: Where it was embedded: ``cpu`` or ``cuda``.
        embed_s: Seconds for reading and embedding.
        imprint_s: Seconds for making the proxies.
    """

    head: Head
    path: Path | None
    images: int
    images_by_class: dict[str, int]
    choice: Choice | None
    calibration: Calibration | None
    held_out: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    device: str
    embed_s: float
    imprint_s: float


def build(
    data: str | os.PathLike[str],
    *,
    backbone: str | Backbone,
    out: str | os.PathLike[str] | None = None,
    recipe: str | Recipe = "imprint",
    proxies: int | str | None = None,
    shots: int | None = None,
    calibrate: bool = False,
    false_alarm: float = FALSE_ALARM,
    keep_classes: bool = False,
    hold_out: float = 0.0,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    device: str = "auto",
    preprocess: Preprocess | None = None,
    interpolation: str | None = None,
    max_broken: float = 0.05,
    random_state: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Build:
    """Imprint a classifier from labelled photos.

    Args:
        data: A folder with one subfolder a class, or a CSV of path,label.
        backbone: A name (see `load_backbone`), or a loaded backbone.
        out: The head file to write; None to write none.
        recipe: A preset's name, a recipe's line or a `Recipe`; see
            `edge_imprint.imprinting.recipe`.
        proxies: Proxies a class at most (k), instead of the recipe's; ``auto`` chooses k for
            each class on held-out photos.
        shots: Photos a class to use, drawn by the seed; None for all.
        calibrate: Whether the head gets a temperature and thresholds, so that a model gives
            probabilities and says ``unknown``.
        false_alarm: Share (0..1) of a class's photos that calibration may call unknown.
        keep_classes: Whether the backbone's own classes stay, beside the new ones.
        hold_out: Share (0..0.5) of the photos that is left out, chosen by their content, so
            that `export` can compare on photos that the head has never seen.
        weights: As in `load_backbone`.
        random_weights: As in `load_backbone`.
        device: ``auto``, ``cpu`` or ``cuda``.
        preprocess: As in `load_backbone`.
        interpolation: Instead of the preprocessing's own: ``linear`` is the one that a graph
            can do for camera frames of any size.
        max_broken: Share of broken photos (0..1) above which the build stops.
        random_state: Seed.
        force: Whether an existing file may be replaced.
        progress: Told how far it is.

    Returns:
        The head, and what there is to say of it.

    Raises:
        EdgeImprintError: One of its classes, each for one cause; nothing is written then.
    """
    chosen = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
    if proxies is not None:
        chosen = _with_proxies(chosen, proxies)
    check_seed(random_state)
    check_shots(shots)
    check_false_alarm(false_alarm)
    check_max_broken(max_broken)
    check_hold_out(hold_out)
    if not isinstance(backbone, str) and (weights or random_weights or preprocess):
        raise ParameterError("a loaded backbone has its weights and preprocessing; give none")
    check_device(device)
    named = backbone if isinstance(backbone, str) else backbone.info.name
    inputs = [data, named.removeprefix("onnx:"), *([] if weights is None else [weights])]
    target = None if out is None else check_output(out, force=force, inputs=inputs)
    photos = find_photos(data)
    hold_out = round(hold_out, 6)  # as the head's note says it
    digests = read_digests(photos.paths)
    left_out = choose_held_out(photos, hold_out, digests)
    rest = np.flatnonzero(~left_out)
    photos = without(photos, left_out)
    if calibrate:
        check_labels(photos.labels)
    if progress is not None:
        progress("loading the backbone", 0, 1)
    network = (
        load_backbone(
            backbone, weights=weights, random_weights=random_weights, preprocess=preprocess
        )
        if isinstance(backbone, str)
        else backbone
    )
    if interpolation is not None:
        network = network.with_interpolation(interpolation)
    own = None
    if keep_classes:  # before the long work, not after it
        own = own_classes(network)
        check_keep(own, photos.labels, chosen)
    embedder, runs_on = pick_embedder(network, device)
    _ = network.onnx  # now in the cache also where torch embeds, so that export needs no torch
    start = time.perf_counter()
    embedded = embed_photos(
        photos, embedder, network.info.preprocess, max_broken=max_broken, progress=progress
    )
    embedded_at = time.perf_counter()
    made = make_head(
        ByClass(embedded.embeddings, embedded.class_index, shots=shots, seed=random_state),
        photos.labels,
        chosen,
        false_alarm=false_alarm if calibrate else None,
        own=own,
        seed=random_state,
        device=runs_on,
        backbone=network.info,
        progress=progress,
    )
    counts = np.minimum(np.bincount(embedded.class_index), shots or len(photos.paths))
    used = digest_of(digests[i] for i in rest[embedded.kept])
    line = f"photos={len(embedded.kept)} sha256={used} seed={random_state}"
    line += "" if shots is None else f" shots={shots}"
    notes = {"build": line, "made_with": versions(), **share_note(hold_out)}
    head = made.head.replaced(notes=notes.items())
    if target is not None:
        head.save(target, force=force)
        remember_photos(target, data)
    return Build(
        head=head,
        path=target,
        images=int(counts.sum()),
        images_by_class=dict(zip(photos.labels, counts.tolist(), strict=True)),
        choice=made.choice,
        calibration=made.calibration,
        held_out=int(left_out.sum()),
        skipped=embedded.skipped,
        notes=(
            *_notes(photos, counts, chosen),
            *made.notes,
            *(_assumed(network) if isinstance(backbone, str) and not preprocess else ()),
        ),
        device=runs_on,
        embed_s=embedded_at - start,
        imprint_s=time.perf_counter() - embedded_at,
    )


def check_max_broken(max_broken: float) -> None:
    """Refuse what is no share.

    Raises:
        ParameterError: It is not from 0 to 1.
    """
    if not 0 <= max_broken <= 1:
        raise ParameterError(f"max_broken must be a share from 0 to 1, got {max_broken}")


def embed_photos(
    photos: Photos,
    embedder: Embedder,
    preprocess: Preprocess,
    *,
    max_broken: float = 0.05,
    progress: Progress | None = None,
) -> Embedded:
    """Read, prepare and embed photos, in batches.

    Args:
        photos: What `find_photos` found.
        embedder: What `pick_embedder` chose.
        preprocess: The backbone's preprocessing.
        max_broken: Share of broken photos (0..1) above which it stops.
        progress: Told how far it is.

    Returns:
        The embeddings of the readable photos.

    Raises:
        TooManyBrokenError: More photos are broken than allowed.
        NoImagesError: A class has no readable photo left.
        EmbeddingError: An embedding is NaN, infinite or zero.
    """
    skipped: list[str] = []
    kept: list[int] = []
    parts: list[npt.NDArray[np.float32]] = []
    total = len(photos.paths)
    for indices, pixels in _batches(photos.paths, preprocess, skipped):
        rows = embedder(pixels)
        _check_embeddings(rows, [photos.paths[index] for index in indices])
        parts.append(rows)
        kept += indices
        if len(skipped) > max_broken * total:
            break
        if progress is not None:
            progress("embedding", len(kept) + len(skipped), total)
    if len(skipped) > max_broken * total:
        raise TooManyBrokenError(
            f"{len(skipped)} of {total} photos are broken, more than {max_broken:.0%}; "
            f"the first: {skipped[0]}; mend them, or allow more with --max-broken"
        )
    index = np.array(photos.class_index, np.int64)[kept]
    for c, label in enumerate(photos.labels):
        if not (index == c).any():
            raise NoImagesError(
                f"the class {label!r} has no readable photo; the first broken: {skipped[0]}"
            )
    return Embedded(np.concatenate(parts), index, np.array(kept, np.int64), tuple(skipped))


def _with_proxies(recipe: Recipe, proxies: int | str) -> Recipe:
    chosen = recipe.with_proxies(proxies)
    if not recipe.makes_k:
        made = "one proxy a class" if recipe.generation == "mean" else "each photo a proxy"
        raise ParameterError(
            f"the recipe '{recipe}' makes {made}, whatever number of proxies is asked for; "
            "leave out --proxies, or take another --recipe"
        )
    return chosen


def _batches(
    paths: Sequence[Path], preprocess: Preprocess, skipped: list[str]
) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
    indices: list[int] = []
    rows: list[npt.NDArray[np.uint8]] = []
    for index, path in enumerate(paths):
        try:
            rows.append(photo_pixels(path, preprocess))
            indices.append(index)
        except (BrokenImageError, ImageTooLargeError, UnreadableImageError) as error:
            skipped.append(str(error))
        if len(rows) == _BATCH or (rows and index == len(paths) - 1):
            yield indices, np.stack(rows)
            indices, rows = [], []


def _check_embeddings(rows: npt.NDArray[np.float32], paths: Sequence[Path]) -> None:
    # Above this the float32 square overflows, and the norm with it.
    finite = np.asarray((np.abs(rows) < _MAX_VALUE).all(axis=1))  # False for NaN too
    good = np.asarray(finite & rows.any(axis=1))
    if not good.all():
        first = int(np.argmin(good))
        what = "zero" if finite[first] else "NaN, infinite or too large"
        raise EmbeddingError(
            f"the backbone's embedding of {paths[first]} is {what}; "
            "check the backbone's weights, or take the photo out"
        )


def _notes(photos: Photos, counts: npt.NDArray[np.int64], recipe: Recipe) -> Iterator[str]:
    yield from photos.notes
    if photos.ignored_files:
        yield f"{photos.ignored_files} files are no images and were ignored"
    proxies = recipe.proxies
    if not isinstance(proxies, int) or not recipe.makes_k:
        return
    few = [int(c) for c in np.flatnonzero(counts < proxies)]
    if few:
        names = ", ".join(f"{photos.labels[c]!r} ({counts[c]})" for c in few[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        yield (
            f"fewer photos than {proxies} proxies in {names}{more}: "
            "each photo becomes a proxy there"
        )


def _assumed(backbone: Backbone) -> Iterator[str]:
    if backbone.info.weights == "own":
        line = format_preprocess(backbone.info.preprocess)
        yield (
            f"an ONNX file does not say how photos are prepared for it; assumed: {line} "
            "(give another with --preprocess)"
        )
