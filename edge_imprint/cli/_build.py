# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint build`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict

import click
import numpy as np

from edge_imprint.builder import Build
from edge_imprint.builder import build as run_build
from edge_imprint.cli._console import (
    FORCE,
    command_name,
    note,
    print_json,
    progress,
    say,
)
from edge_imprint.cli._embedding import Chosen, embedding_options
from edge_imprint.imprinting.recipe import PRESETS, Recipe
from edge_imprint.judging.calibrate import FALSE_ALARM

__all__ = ["build"]

_SHOWN = 10
_FEW = 5


@click.command()
@click.argument("data", type=click.Path())
@click.option(
    "--backbone",
    required=True,
    help="One of 'edge-imprint backbones', onnx:FILE or python:MODULE:FACTORY.",
)
@click.option("--out", required=True, type=click.Path(), help="The head file to write.")
@click.option(
    "--recipe",
    default="imprint",
    show_default=True,
    help=f"{', '.join(PRESETS)}, or a line such as '{PRESETS['imprint']}'.",
)
@click.option(
    "--proxies",
    metavar="K|auto",
    help="Proxies a class at most; auto: what held-out photos say, for each class.",
)
@click.option("--shots", type=int, help="Photos a class to use; all if not given.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Let the model give probabilities and answer 'unknown'.",
)
@click.option(
    "--false-alarm",
    type=float,
    help=f"Share of a class's photos that --calibrate may call unknown ({FALSE_ALARM}).",
)
@click.option(
    "--keep-classes", is_flag=True, help="Keep the backbone's own classes beside the new ones."
)
@click.option(
    "--hold-out",
    default=0.0,
    show_default=True,
    help="Share of the photos to leave out, for export to compare on.",
)
@click.option(
    "--interpolation",
    help="Instead of the backbone's own filter; linear: for frames of any size.",
)
@embedding_options
@click.option(
    "--seed", "random_state", default=0, show_default=True, help="For whatever is drawn."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@FORCE
def build(
    data: str,
    backbone: str,
    out: str,
    recipe: str,
    proxies: str | None,
    shots: int | None,
    calibrate: bool,
    false_alarm: float | None,
    keep_classes: bool,
    hold_out: float,
    interpolation: str | None,
    chosen: Chosen,
    random_state: int,
    as_json: bool,
    force: bool,
) -> None:
    """Imprint a head from labelled photos.

    DATA is a folder with one subfolder a class, a CSV or Parquet file with the columns path
    and label, or tar shards (WebDataset); here or in an object store (s3://...).
    """
    if false_alarm is not None and not calibrate:
        raise click.UsageError("--false-alarm is for --calibrate; give both, or neither")
    with progress() as tell:
        result = run_build(
            data,
            backbone=backbone,
            out=out,
            recipe=recipe,
            proxies=_proxies(proxies),
            shots=shots,
            calibrate=calibrate,
            false_alarm=FALSE_ALARM if false_alarm is None else false_alarm,
            keep_classes=keep_classes,
            hold_out=hold_out,
            interpolation=interpolation,
            weights=chosen.weights,
            random_weights=chosen.random_weights,
            layer=chosen.layer,
            preprocess=chosen.preprocess,
            split=chosen.split,
            how=chosen.how,
            max_broken=chosen.max_broken,
            random_state=random_state,
            force=force,
            progress=tell,
        )
    for line in result.notes:
        note(f"note: {line}")
    for line in result.skipped[:_SHOWN]:
        note(f"skipped: {line}")
    if len(result.skipped) > _SHOWN:
        note(f"skipped: {len(result.skipped) - _SHOWN} more (all of them with --json)")
    for line in _doubts(result):
        note(line)
    if as_json:
        print_json(_summary(result))
    else:
        head = result.head
        say(
            f"{out}: {len(head.labels)} classes, {len(head.proxies)} proxies "
            f"from {result.images} photos ({len(result.skipped)} skipped"
            + (f", {result.held_out} held out)" if result.held_out else ")")
        )
        for line in _evidence(result):
            say(line)
        say(
            f"embedded {result.embedded} photos on {result.device} in {result.embed_s:.1f} s"
            + (f" ({result.cached} were in the cache)" if result.cached else "")
            + f", imprinted in {result.imprint_s:.2f} s"
        )
        say(f"next: {command_name()} export {shlex.quote(out)} --out MODEL.onnx")


def _proxies(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not re.fullmatch("[0-9]{1,9}", text):
        raise click.BadParameter(
            f"must be a whole number or auto, got {text!r}", param_hint="--proxies"
        )
    return int(text)


def _doubts(result: Build) -> Iterator[str]:
    """Tell of photos to look at; all of them were used."""
    found, labels = result.neighbours, result.head.labels
    for pair in found.duplicates[:_FEW]:
        if pair.contradiction:
            what = "is a copy of" if pair.exact else f"is nearly ({pair.similarity:.4f})"
            yield (
                f"contradiction: {result.paths[pair.first]} ({labels[pair.first_class]}) "
                f"{what} {result.paths[pair.second]} ({labels[pair.second_class]})"
            )
    for one in found.suspects[:_FEW]:
        yield (
            f"suspect: {result.paths[one.photo]} is labelled {labels[one.own_class]!r} and "
            f"looks like {labels[one.other_class]!r} ({result.paths[one.neighbour]}, "
            f"{one.similarity:.3f})"
        )
    counts = [
        f"{count} {one if count == 1 else more} {what}"
        for count, one, more, what in (
            (found.duplicate_count, "pair", "pairs", "of copies or near-duplicates"),
            (found.suspect_count, "suspect", "suspects", "of a wrong label"),
        )
        if count
    ]
    if counts:
        yield f"to look at: {', '.join(counts)}; all were used (--json lists them)"


def _evidence(result: Build) -> Iterator[str]:
    choice, calibration = result.choice, result.calibration
    share = Recipe.parse(result.head.recipe).whiten_shrinkage
    if share is not None:
        what = "not whitened" if share == 1 else "1 would be not whitened"
        yield f"whitened with a shrinkage of {share:g} ({what})"
    if choice is not None:
        by_k = ", ".join(
            f"{k}: {accuracy:.1%}"
            for k, accuracy in zip(choice.candidates, choice.accuracy_by_k, strict=True)
        )
        fewest, most = min(choice.ks), max(choice.ks)
        yield (
            f"proxies a class, chosen on held-out photos: {fewest} to {most} "
            f"({choice.accuracy:.1%} right; the same k for all gives {by_k})"
        )
    if calibration is not None:
        yield (
            f"calibrated on held-out photos: {calibration.accuracy:.1%} right at a mean "
            f"probability of {calibration.confidence:.1%}, "
            f"{calibration.false_alarm:.1%} called unknown"
        )
        if calibration.detected is not None and calibration.auroc is not None:
            yield (
                f"photos of a class left out: {calibration.detected:.1%} called unknown, "
                f"AUROC {calibration.auroc:.3f}"
            )


def _summary(result: Build) -> dict[str, object]:
    head = result.head
    assert head.backbone is not None  # build always names it
    return {
        "head": str(result.path),
        "labels": list(head.labels),
        "proxies": len(head.proxies),
        "embedding_size": head.embedding_size,
        "recipe": head.recipe,
        "backbone": head.backbone.name,
        "backbone_weights": head.backbone.weights,
        "images": result.images,
        "images_by_class": result.images_by_class,
        "proxies_by_class": dict(
            zip(head.labels, np.bincount(head.class_index).tolist(), strict=True)
        ),
        "accuracy_by_k": None
        if result.choice is None
        else dict(zip(result.choice.candidates, result.choice.accuracy_by_k, strict=True)),
        "calibration": None if result.calibration is None else _calibration(result),
        "held_out": result.held_out,
        "skipped": list(result.skipped),
        "duplicates": [
            {
                "paths": [str(result.paths[i]) for i in (pair.first, pair.second)],
                "labels": [head.labels[c] for c in (pair.first_class, pair.second_class)],
                "similarity": pair.similarity,
                "exact": pair.exact,
            }
            for pair in result.neighbours.duplicates
        ],
        "duplicate_count": result.neighbours.duplicate_count,
        "suspects": [
            {
                "path": str(result.paths[one.photo]),
                "label": head.labels[one.own_class],
                "looks_like": head.labels[one.other_class],
                "nearest": str(result.paths[one.neighbour]),
                "similarity": one.similarity,
            }
            for one in result.neighbours.suspects
        ],
        "suspect_count": result.neighbours.suspect_count,
        "notes": list(result.notes),
        "embedded": result.embedded,
        "cached": result.cached,
        "device": result.device,
        "embed_s": result.embed_s,
        "imprint_s": result.imprint_s,
    }


def _calibration(result: Build) -> dict[str, object]:
    assert result.calibration is not None
    facts = asdict(result.calibration)
    facts["threshold"] = result.calibration.threshold.tolist()
    return facts
