# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint evaluate`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import load_backbone
from edge_imprint.backbones.names import onnx_path
from edge_imprint.builder import Progress
from edge_imprint.cli._console import (
    FORCE,
    command_name,
    note,
    print_json,
    progress,
    say,
    table,
)
from edge_imprint.cli._embedding import Chosen, embedding_options
from edge_imprint.embedding.run import embed_photos
from edge_imprint.evaluation.embeddings_file import read_embeddings
from edge_imprint.evaluation.evaluate import evaluate as run_evaluate
from edge_imprint.evaluation.page import COLUMNS, cells, not_run, percent, render, worst_first
from edge_imprint.evaluation.result import INTERVAL, Evaluation, as_json
from edge_imprint.photos import find_photos
from edge_imprint.photos.locations import is_url
from edge_imprint.photos.patterns import is_pattern
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import NoImagesError, ParameterError
from edge_imprint_runtime.files import check_output, write_atomic

__all__ = ["evaluate"]

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class _Data:
    """What is evaluated.

    Attributes:
        embeddings: (N, D) float32.
        class_index: (N,) int64.
        labels: The class names.
        paths: What each row was made of, where that is known.
        backbone: What made them; None for an embeddings file.
        device: Where k-means runs.
    """

    embeddings: npt.NDArray[np.float32]
    class_index: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    paths: tuple[str, ...] | None
    backbone: BackboneInfo | None = None
    device: str = "cpu"


@click.command()
@click.argument("data", type=click.Path())
@click.option("--backbone", help="For photos: as for build, such as demo or timm/NAME.")
@click.option("--html", type=click.Path(), help="A page to write, with charts and pictures.")
@click.option("--folds", default=5, show_default=True, help="Parts of the cross-validation.")
@click.option(
    "--seed", "random_state", default=0, show_default=True, help="For whatever is drawn."
)
@embedding_options
@click.option("--json", "as_json_", is_flag=True, help="Print all of it as JSON on stdout.")
@FORCE
def evaluate(
    data: str,
    backbone: str | None,
    html: str | None,
    folds: int,
    random_state: int,
    chosen: Chosen,
    as_json_: bool,
    force: bool,
) -> None:
    """Try the ways to imprint on DATA, by cross-validation, and recommend one.

    DATA is photos as for build, which need --backbone, or an embeddings file: .npz with the
    arrays embeddings (N, D) and labels (N,), and paths (N,) if known.
    """
    bare = data.lower().endswith(".npz")
    given = [] if backbone is None else [f"--backbone {shlex.quote(backbone)}"]
    given += chosen.words
    if bare and given:
        raise ParameterError(
            f"an embeddings file needs no backbone; leave out {given[0]}, or name photos"
        )
    if not bare and backbone is None:
        if not (os.path.exists(data) or is_url(data) or is_pattern(data)):
            raise NoImagesError(
                f"there is no {data}; name a folder of class folders, a CSV or a .npz file"
            )
        raise click.UsageError(
            "photos need a backbone: give --backbone, such as demo or timm/resnet18 "
            "(embeddings need none, but come as .npz)"
        )
    chosen.how.check()
    if html is not None:
        inputs = [data, onnx_path(backbone or ""), chosen.weights]
        check_output(html, force=force, inputs=[path for path in inputs if path is not None])
    with progress() as tell:
        if backbone is None:
            file = read_embeddings(data)
            read = _Data(file.embeddings, file.class_index, file.labels, file.paths)
        else:
            read = _embed(data, backbone, chosen, html, tell)
        found = run_evaluate(
            read.embeddings,
            read.class_index,
            read.labels,
            folds=folds,
            seed=random_state,
            device=read.device,
            backbone=read.backbone,
            paths=read.paths,
            progress=tell,
        )
    commands = _commands(found, data, given, random_state)
    if html is not None:
        page = render(found, title=Path(data).name, commands=commands, pictures=not bare)
        write_atomic(html, page.encode("utf-8", "backslashreplace"), force=force)
    if as_json_:
        print_json(as_json(found, commands))
    else:
        _show(found, commands, html)


def _embed(
    data: str, backbone: str, chosen: Chosen, html: str | None, tell: Progress
) -> _Data:
    photos = find_photos(data, split=chosen.split)
    if html is not None:
        photos.spare(Path(html))
    tell("loading the backbone", 0, 1)
    network = load_backbone(
        backbone,
        weights=chosen.weights,
        random_weights=chosen.random_weights,
        layer=chosen.layer,
        preprocess=chosen.preprocess,
    )
    network.ensure_graph()
    embedded = embed_photos(
        photos, network, chosen.how, max_broken=chosen.max_broken, progress=tell
    )
    for line in (*photos.notes, *network.notes, *embedded.notes):
        note(f"note: {line}")
    for line in embedded.skipped[:_SHOWN]:
        note(f"skipped: {line}")
    if len(embedded.skipped) > _SHOWN:
        note(f"skipped: {len(embedded.skipped) - _SHOWN} more")
    paths = tuple(str(photos.paths[i]) for i in embedded.kept)
    rows, index = embedded.rows, embedded.class_index
    return _Data(rows, index, photos.labels, paths, network.info, embedded.kmeans_device)


def _commands(found: Evaluation, data: str, given: Sequence[str], seed: int) -> list[str]:
    recipe = found.recommendation.recipe
    if not given:
        made = f"edge_imprint.ImprintClassifier.from_recipe({recipe!r})"
        return [
            f"file = numpy.load({data!r})",
            f"{made}.fit(file['embeddings'], file['labels']).head_.save('HEAD')",
            "(a head of bare embeddings scores embeddings; for a model, build from photos)",
        ]
    words = [command_name(), "build", shlex.quote(data), *given, "--out HEAD"]
    words += [f'--recipe "{recipe}"', *([f"--seed {seed}"] if seed else [])]
    return [" ".join(words)]


def _show(found: Evaluation, commands: Sequence[str], html: str | None) -> None:
    best = found.recommendation.row
    # The balanced accuracy and the notes are for wider places.
    balanced = COLUMNS.index("balanced")
    rows = []
    for row in found.rows:
        shown = cells(row)
        shown[0] = f"{'>' if row.name == best else '*' if row.note else ' '} {row.name}"
        rows.append(shown[:balanced] + shown[balanced + 1 :])
    images = int(found.counts.sum())
    table(
        f"{images} images, {len(found.labels)} classes, {found.folds} folds",
        [name for name in COLUMNS if name != "balanced"],
        rows,
    )
    for row in found.rows:
        if row.note:
            say(f"* {row.name}: {row.note}")
    for line in not_run(found):
        say(f"not run: {line}")
    say(f"{INTERVAL}.")
    table(
        f"Lowest accuracies, {best}",
        ["class", "images", "right", "most often taken for"],
        [_class_cells(found, c) for c in worst_first(found)[:_SHOWN]],
    )
    ns = sorted({point.n for point in found.shots})
    by_name = {
        name: {point.n: point for point in found.shots if point.name == name}
        for name in dict.fromkeys(point.name for point in found.shots)
    }
    table(
        "Accuracy by images a class",
        ["way", *(str(n) for n in ns[:-1]), f"all ({ns[-1]})"],
        [
            [name, *(percent(points[n].accuracy) for n in ns)]
            for name, points in by_name.items()
        ],
    )
    say(found.more_photos)
    for line in _findings(found):
        say(line)
    say(f"recommended: {best}, because {found.recommendation.reason}")
    say(f"the rule:    {found.recommendation.rule}")
    for warning in found.recommendation.warnings:
        say(f"but:         {warning}")
    if html is not None:
        say(f"page:        {html}")
    for command in commands:
        say(f"next:        {command}")


def _class_cells(found: Evaluation, c: int) -> list[str]:
    recall, wrong = found.recall[c], found.taken_for(c)
    return [
        found.labels[c],
        str(int(found.counts[c])),
        "-" if recall is None else percent(recall),
        "-" if wrong is None else f"{found.labels[wrong[0]]} ({wrong[1]})",
    ]


def _findings(found: Evaluation) -> list[str]:
    figures = f"NC1 {found.nc1:.2f}, VCI {found.vci:.2f}"
    lines = [f"collapse:    {figures}. {found.collapse_meaning}"]
    calibration = found.calibration
    if calibration.auroc is not None and calibration.detected is not None:
        lines.append(
            f"unknown:     AUROC {calibration.auroc:.3f} when each class in turn is left out; "
            f"build --calibrate would call {percent(calibration.detected)} of the unknown "
            f"images unknown, and {percent(calibration.false_alarm)} of the known"
        )
    named = ", ".join(found.name_of(s.row) for s in found.suspects[:3])
    if found.suspects:
        lines.append(f"suspects:    {found.suspects_total} may be mislabelled: {named} ...")
    if found.duplicates:
        first = found.duplicates[0]
        lines.append(
            f"duplicates:  {found.duplicates_total} pairs in different classes: "
            f"{found.name_of(first.first)} and {found.name_of(first.second)} ..."
        )
    return lines
