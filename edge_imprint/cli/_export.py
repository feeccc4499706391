# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint export` and `edge-imprint verify`."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import graph_for
from edge_imprint.cli._console import (
    FORCE,
    command_name,
    note,
    print_json,
    progress,
    say,
)
from edge_imprint.photos import expand_photos
from edge_imprint_export import fuse, save
from edge_imprint_export import verify as compare
from edge_imprint_runtime.errors import EdgeImprintError, NoImagesError
from edge_imprint_runtime.files import check_output, size_text
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.images import photo_pixels
from edge_imprint_runtime.model import open_model

__all__ = ["export", "verify"]

_WEIGHTS = click.option(
    "--weights", type=click.Path(), help="The weights file that the head was built with."
)


_BACKBONE = click.option(
    "--backbone", help="Where the backbone is now, if it was moved: onnx:FILE."
)


@click.command()
@click.argument("head", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The ONNX file to write.")
@click.option(
    "--input",
    "input_form",
    default="uint8",
    show_default=True,
    help="uint8 (N, H, W, 3 RGB) or float32 (N, 3, H, W, normalised).",
)
@click.option("--embedding", is_flag=True, help="Give the embedding as an output too.")
@_WEIGHTS
@_BACKBONE
@FORCE
def export(
    head: str,
    out: str,
    input_form: str,
    embedding: bool,
    weights: str | None,
    backbone: str | None,
    force: bool,
) -> None:
    """Fuse HEAD and its backbone into one ONNX file.

    The backbone's graph comes from the cache that build filled; then this takes no torch and
    less than a second.
    """
    loaded = Head.load(head)
    named = backbone or (loaded.backbone.name if loaded.backbone is not None else "")
    check_output(
        out, force=force, inputs=[head, named.removeprefix("onnx:"), *filter(None, [weights])]
    )
    outputs = ("scores", "label", "embedding") if embedding else ("scores", "label")
    graph = graph_for(loaded, weights=weights, backbone=backbone)
    path = save(fuse(graph, loaded, input=input_form, outputs=outputs), out, force=force)
    say(f"{path}: {size_text(path.stat().st_size)}, {len(loaded.labels)} classes")
    shown, name = shlex.quote(str(path)), command_name()
    say(f"next: {name} predict {shown} PHOTO...   {name} bench {shown}")


@click.command()
@click.argument("model", type=click.Path())
@click.option("--head", required=True, type=click.Path(), help="The head it was fused from.")
@click.option("--images", required=True, type=click.Path(), help="A photo, or a folder.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest score difference.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@_WEIGHTS
@_BACKBONE
def verify(
    model: str,
    head: str,
    images: str,
    tolerance: float,
    as_json: bool,
    weights: str | None,
    backbone: str | None,
) -> None:
    """Hold MODEL against its head: the same photos, once fused, once in plain numpy."""
    loaded, opened = Head.load(head), open_model(model, "cpu")
    # Before the photos are read: it refuses a head that names no backbone.
    graph = graph_for(loaded, weights=weights, backbone=backbone)
    result = compare(opened, loaded, graph, _pixels(Path(images), loaded), tolerance=tolerance)
    if as_json:
        print_json(asdict(result) | {"passed": result.passed})
    else:
        votes = loaded.rule.aggregation == "mnn"
        beyond = " beyond what such similarities may vote" if votes else ""
        say(
            f"{result.images} photos: {result.agreement:.2%} of labels agree ({result.ties} "
            f"ties), scores differ by at most {result.max_difference:.2g}{beyond}"
        )
    result.require()


def _pixels(folder: Path, head: Head) -> npt.NDArray[np.uint8]:
    if not os.path.exists(folder):
        raise NoImagesError(f"there is no photo or folder {folder}")
    files = expand_photos(folder)
    rows = []
    assert head.backbone is not None  # graph_for would have refused it
    with progress() as tell:
        for done, file in enumerate(files, 1):
            try:
                rows.append(photo_pixels(file, head.backbone.preprocess))
            except EdgeImprintError as error:
                note(f"skipped: {error}")
            tell("reading", done, len(files))
    if not rows:
        raise NoImagesError(f"{folder} holds no readable images; name others")
    return np.stack(rows)
