# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint verify`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_imprint.backbones import graph_for
from edge_imprint.cli._console import FORCE, note, print_json, progress, say, table
from edge_imprint.photos import expand_photos
from edge_imprint.verify_page import COLUMNS, cells, not_run, pixels_line, render
from edge_imprint_export.proof.budget import MIN_AGREEMENT
from edge_imprint_export.proof.result import Whole
from edge_imprint_export.proof.whole import REFERENCE_INPUTS, verify_whole
from edge_imprint_runtime.errors import NoImagesError
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside

__all__ = ["verify"]

_SHOWN_LAYERS = 10
_SHOWN_SKIPPED = 10


@click.command()
@click.argument("model", type=click.Path())
@click.option("--head", required=True, type=click.Path(), help="The head it was fused from.")
@click.option("--images", required=True, type=click.Path(), help="A photo, or a folder.")
@click.option("--html", type=click.Path(), help="A page to write.")
@click.option(
    "--tolerance",
    default=1e-4,
    show_default=True,
    help="Largest score difference, of a float32 model.",
)
@click.option(
    "--min-agreement",
    default=MIN_AGREEMENT,
    show_default=True,
    help="Share of photos that fp16 and int8 must label as float32 does.",
)
@click.option(
    "--batch",
    default=8,
    show_default=True,
    help="Largest batch that must answer as photo by photo.",
)
@click.option(
    "--reference",
    default=REFERENCE_INPUTS,
    show_default=True,
    help="Photos for ONNX's own evaluator, which is slow; 0: none.",
)
@click.option(
    "--weights", type=click.Path(), help="The weights file that the head was built with."
)
@click.option("--backbone", help="Where the backbone is now, if it was moved: onnx:FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@FORCE
def verify(
    model: str,
    head: str,
    images: str,
    html: str | None,
    tolerance: float,
    min_agreement: float,
    batch: int,
    reference: int,
    weights: str | None,
    backbone: str | None,
    as_json: bool,
    force: bool,
) -> None:
    """Hold MODEL against its head: the same photos, once fused, once in plain numpy.

    Some of the photos, and random inputs, are run at each of ONNX Runtime's optimisation
    levels, by ONNX's own evaluator, and in batches of each size too. A teachable MODEL is run
    with the head given, whatever lies beside it, and with its built-in classes.
    """
    loaded = Head.load(head)
    if html is not None:
        check_output(html, force=force, inputs=[model, head_beside(model), head, images])
    # Before the photos are read: it refuses a head that names no backbone.
    graph = graph_for(loaded, weights=weights, backbone=backbone)
    photos = _photos(Path(images), loaded)
    with progress() as tell:
        found = verify_whole(
            model,
            loaded,
            graph,
            photos,
            tolerance=tolerance,
            min_agreement=min_agreement,
            batch=batch,
            reference=reference,
            progress=tell,
        )
    for line in found.skipped[:_SHOWN_SKIPPED]:
        note(f"skipped: {line}")
    if len(found.skipped) > _SHOWN_SKIPPED:
        note(f"skipped: {len(found.skipped) - _SHOWN_SKIPPED} more")
    for line in found.notes:
        note(f"note: {line}")
    if html is not None:
        page = render(found, [path for path, _ in photos], model=Path(model), head=loaded)
        write_atomic(html, page.encode("utf-8", "backslashreplace"), force=force)
    if as_json:
        print_json(found.summary() | {"head": head})
    else:
        if found.graph.teachable is not None:
            say(f"run with the head {head}")
        _show(found, loaded)
    found.require()


def _photos(folder: Path, head: Head) -> list[tuple[Path, int]]:
    """List photos, each with the class whose name its nearest folder bears, or -1."""
    if not os.path.exists(folder):
        raise NoImagesError(f"there is no photo or folder {folder}")
    positions = {label: c for c, label in enumerate(head.labels)}
    photos = []
    for file in expand_photos(folder):
        folders = (folder.name, *file.relative_to(folder).parts[:-1])
        known = [positions[name] for name in folders if name in positions]
        photos.append((file, known[-1] if known else -1))
    return photos


def _show(found: Whole, head: Head) -> None:
    checked, votes = found.found, head.rule.aggregation == "mnn"
    beyond = " beyond what such similarities may vote" if votes else ""
    say(
        f"{checked.images} photos: {checked.agreement:.2%} of labels agree ({checked.ties} "
        f"ties), scores differ by at most {checked.max_difference:.2g}{beyond}"
    )
    if found.accuracy is not None and found.accuracy_float32 is not None:
        say(f"right: {found.accuracy:.2%} (float32: {found.accuracy_float32:.2%})")
    narrow = [column for column in range(len(COLUMNS)) if COLUMNS[column] != "from all"]
    rows = [[cells(way)[column] for column in narrow] for way in found.ways]
    table("ways to run it", [COLUMNS[column] for column in narrow], rows)
    for line in not_run(found):
        say(f"not run: {line}")
    batches = found.batches
    say(
        f"{batches.images} photos in batches of 1 to {batches.largest}: "
        f"{batches.agreement:.2%} of labels as alone, scores within "
        f"{batches.max_difference:.2g}"
    )
    if found.pixels is not None:
        say(pixels_line(found))
    if found.layers:
        rows = [
            [layer.name, layer.op, f"{layer.error:.2%}", f"{layer.added:.2%}"]
            for layer in found.worst_layers[:_SHOWN_LAYERS]
        ]
        table("layers that cost most", ["layer", "operator", "error", "its own"], rows)
