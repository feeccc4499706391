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
from edge_imprint.backbones.names import onnx_path
from edge_imprint.embedding.digests import read_digests
from edge_imprint.embedding.neighbours import Neighbours, find_neighbours
from edge_imprint.embedding.run import How, check_max_broken, embed_photos, make_engine
from edge_imprint.hold_out import check_hold_out, digest_of, share_note, without
from edge_imprint.hold_out import hold_out as choose_held_out
from edge_imprint.imprinting.recipe import Recipe, check_seed, check_shots
from edge_imprint.judging.calibrate import (
    FALSE_ALARM,
    Calibration,
    check_false_alarm,
    check_labels,
)
from edge_imprint.judging.choose import Choice
from edge_imprint.keep import check_keep, own_classes
from edge_imprint.make_head import Progress, make_head
from edge_imprint.photos import Location, Photos, find_photos
from edge_imprint.remembered import remember_photos
from edge_imprint.versions import versions
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.files import check_output
from edge_imprint_runtime.head import Head

__all__ = ["Build", "Progress", "build"]


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
        embedded: Photos that were embedded now; of copies one is.
        cached: Photos whose embeddings the cache held.
        neighbours: Copies, near-duplicates and suspects among the photos; all were used.
        paths: The photos that were used, by the positions that ``neighbours`` has.
        notes: What a user should know: small classes, files ignored.
        device: Where it was embedded: ``cpu`` or ``cuda``.
        embed_s: Seconds for reading and embedding.
        imprint_s: Seconds for making the proxies, and for looking for suspects.
    """

    head: Head
    path: Path | None
    images: int
    images_by_class: dict[str, int]
    choice: Choice | None
    calibration: Calibration | None
    held_out: int
    skipped: tuple[str, ...]
    embedded: int
    cached: int
    neighbours: Neighbours
    paths: Sequence[Location]
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
    layer: str | None = None,
    preprocess: Preprocess | None = None,
    interpolation: str | None = None,
    split: str | None = None,
    how: How | None = None,
    max_broken: float = 0.05,
    random_state: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Build:
    """Imprint a classifier from labelled photos.

    Args:
        data: A folder with one subfolder a class, a manifest (CSV, Parquet) of path,label, or
            tar shards; here or in an object store. See `find_photos`.
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
        layer: As in `load_backbone`.
        preprocess: As in `load_backbone`.
        interpolation: Instead of the preprocessing's own: ``linear`` is the one that a graph
            can do for camera frames of any size.
        split: The rows of a manifest to use; None for all.
        how: On which engine and device, and whether the cache is used.
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
    if not isinstance(backbone, str) and (weights or random_weights or layer or preprocess):
        raise ParameterError("a loaded backbone has its weights and preprocessing; give none")
    how = how or How()
    how.check()
    named = backbone if isinstance(backbone, str) else backbone.info.name
    inputs = [path for path in (data, onnx_path(named), weights) if path is not None]
    target = None if out is None else check_output(out, force=force, inputs=inputs)
    photos = find_photos(data, split=split)
    if target is not None:
        photos.spare(target)
    hold_out = round(hold_out, 6)  # as the head's note says it
    tell = progress or _silent
    digests = left_out = None
    if hold_out:
        digests = read_digests(photos.paths, progress=lambda n, of: tell("reading", n, of))
        left_out = choose_held_out(photos, hold_out, digests)
        photos, digests = without(photos, left_out), digests.some(~left_out)
    if calibrate:
        check_labels(photos.labels)
    tell("loading the backbone", 0, 1)
    network = (
        load_backbone(
            backbone,
            weights=weights,
            random_weights=random_weights,
            layer=layer,
            preprocess=preprocess,
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
    network.ensure_graph()  # also where torch embeds, so that export needs no torch
    start = time.perf_counter()
    engine = make_engine(network, how)
    try:
        embedded = embed_photos(
            photos,
            network,
            how,
            engine=engine,
            digests=digests,
            max_broken=max_broken,
            progress=progress,
        )
        embedded_at = time.perf_counter()
        source = embedded.classes(shots=shots, seed=random_state)
        made = make_head(
            source,
            photos.labels,
            chosen,
            false_alarm=false_alarm if calibrate else None,
            own=own,
            seed=random_state,
            device=embedded.kmeans_device,
            backbone=network.info,
            generate=getattr(engine, "generate", None),
            progress=progress,
        )
    finally:
        engine.close()
    neighbours = find_neighbours(
        source.read,
        embedded.class_index,
        embedded.digests,
        progress=lambda n, of: tell("looking for suspects", n, of),
    )
    counts = np.minimum(np.bincount(embedded.class_index), shots or len(photos.paths))
    used = digest_of(digest.tobytes() for digest in embedded.digests)
    line = f"photos={len(embedded.kept)} sha256={used} seed={random_state}"
    line += "" if shots is None else f" shots={shots}"
    notes = {"build": line, "made_with": versions(), **share_note(hold_out)}
    head = made.head.replaced(notes=notes.items())
    if target is not None:
        head.save(target, force=force)
        remember_photos(target, data, split)
    return Build(
        head=head,
        path=target,
        images=int(counts.sum()),
        images_by_class=dict(zip(photos.labels, counts.tolist(), strict=True)),
        choice=made.choice,
        calibration=made.calibration,
        held_out=0 if left_out is None else int(left_out.sum()),
        skipped=embedded.skipped,
        embedded=embedded.embedded,
        cached=embedded.cached,
        neighbours=neighbours,
        paths=_Kept(photos.paths, embedded.kept),
        notes=(
            *_notes(photos, counts, chosen),
            *made.notes,
            *(network.notes if isinstance(backbone, str) else ()),
            *embedded.notes,
        ),
        device=embedded.device,
        embed_s=embedded_at - start,
        imprint_s=time.perf_counter() - embedded_at,
    )


def _with_proxies(recipe: Recipe, proxies: int | str) -> Recipe:
    chosen = recipe.with_proxies(proxies)
    if not recipe.makes_k:
        made = "one proxy a class" if recipe.generation == "mean" else "each photo a proxy"
        raise ParameterError(
            f"the recipe '{recipe}' makes {made}, whatever number of proxies is asked for; "
            "leave out --proxies, or take another --recipe"
        )
    return chosen


def _notes(photos: Photos, counts: npt.NDArray[np.int64], recipe: Recipe) -> Iterator[str]:
    yield from photos.notes
    if photos.ignored_files:
        count = photos.ignored_files
        files = "1 file is no image" if count == 1 else f"{count} files are no images"
        yield f"{files} of a kind that is read, and {'was' if count == 1 else 'were'} ignored"
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


@dataclass(frozen=True)
class _Kept(Sequence[Location]):
    paths: Sequence[Location]
    kept: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, i: int) -> Location:  # type: ignore[override]
        return self.paths[int(self.kept[i])]


def _silent(step: str, done: int, total: int) -> None:
    pass
