# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint build`."""

from __future__ import annotations

import shlex

import click

from edge_imprint.builder import Build
from edge_imprint.builder import build as run_build
from edge_imprint.cli._console import FORCE, command_name, note, print_json, progress, say
from edge_imprint_runtime.contract.codec import parse_preprocess

__all__ = ["build"]

_SHOWN = 10


@click.command()
@click.argument("data", type=click.Path())
@click.option("--backbone", required=True, help="demo, timm/NAME or onnx:FILE.")
@click.option("--out", required=True, type=click.Path(), help="The head file to write.")
@click.option("--proxies", default=20, show_default=True, help="Proxies a class at most (k).")
@click.option(
    "--generation",
    default="kmeans",
    show_default=True,
    help="How proxies are made: mean, kmeans, random or all.",
)
@click.option("--weights", type=click.Path(), help="A local safetensors file or checkpoint.")
@click.option("--random-weights", is_flag=True, help="Try without pretrained weights.")
@click.option(
    "--preprocess", help="Instead of the backbone's own: a line as 'inspect' prints it."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--max-broken",
    default=0.05,
    show_default=True,
    help="Share of broken photos above which the build stops.",
)
@click.option("--seed", default=0, show_default=True, help="For k-means and random.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@FORCE
def build(
    data: str,
    backbone: str,
    out: str,
    proxies: int,
    generation: str,
    weights: str | None,
    random_weights: bool,
    preprocess: str | None,
    device: str,
    max_broken: float,
    seed: int,
    as_json: bool,
    force: bool,
) -> None:
    """Imprint a head from labelled photos.

    DATA is a folder with one subfolder a class, or a CSV file with the columns path and label.
    """
    with progress() as tell:
        result = run_build(
            data,
            backbone=backbone,
            out=out,
            proxies=proxies,
            generation=generation,
            weights=weights,
            random_weights=random_weights,
            preprocess=None if preprocess is None else parse_preprocess(preprocess),
            device=device,
            max_broken=max_broken,
            random_state=seed,
            force=force,
            progress=tell,
        )
    for line in result.notes:
        note(f"note: {line}")
    for line in result.skipped[:_SHOWN]:
        note(f"skipped: {line}")
    if len(result.skipped) > _SHOWN:
        note(f"skipped: {len(result.skipped) - _SHOWN} more (all of them with --json)")
    if as_json:
        print_json(_summary(result))
    else:
        head = result.head
        say(
            f"{out}: {len(head.labels)} classes, {len(head.proxies)} proxies "
            f"from {result.images} photos ({len(result.skipped)} skipped)"
        )
        say(
            f"embedded on {result.device} in {result.embed_s:.1f} s, "
            f"imprinted in {result.imprint_s:.2f} s"
        )
        say(f"next: {command_name()} export {shlex.quote(out)} --out MODEL.onnx")


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
        "skipped": list(result.skipped),
        "notes": list(result.notes),
        "device": result.device,
        "embed_s": result.embed_s,
        "imprint_s": result.imprint_s,
    }
