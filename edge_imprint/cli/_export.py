# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint export`."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict

import click

from edge_imprint.cli._console import (
    FORCE,
    command_name,
    note,
    print_json,
    progress,
    say,
)
from edge_imprint.exporter import Export
from edge_imprint.exporter import export as run_export
from edge_imprint_export.fuse import form_for
from edge_imprint_export.proof.budget import MIN_AGREEMENT
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.errors import ContractValueError
from edge_imprint_runtime.files import size_text

__all__ = ["export"]

_SOURCES = {
    "held_out": "held-out photos",
    "build": "photos of the build",
    "given": "photos given",
}
_FRAME = re.compile(r"(rgb|bgr|nv12|yuyv):(?:(any)|([1-9][0-9]{0,8})x([1-9][0-9]{0,8}))")


@click.command()
@click.argument("head", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The ONNX file to write.")
@click.option(
    "--target",
    default="portable",
    show_default=True,
    help="portable (all can read it), jetpack-5.1, -6.0, -6.2, -7.0, -7.2, tensorrt-11 "
    "or onnxruntime.",
)
@click.option(
    "--precision", default="fp32", show_default=True, help="Of the backbone: fp32, fp16, int8."
)
@click.option(
    "--head-precision",
    default="fp32",
    show_default=True,
    help="Of the proxies: fp32, fp16, int8, or exact (int8, the best again in fp32).",
)
@click.option(
    "--input",
    "input_form",
    default="uint8",
    show_default=True,
    help="uint8 (N, H, W, 3 RGB), float32 (N, 3, H, W, normalised) or frame (a camera's).",
)
@click.option(
    "--frame",
    metavar="FORMAT:WIDTHxHEIGHT",
    help="With --input frame: rgb, bgr, nv12 or yuyv, such as nv12:1280x720; rgb:any.",
)
@click.option(
    "--frame-colour",
    metavar="MATRIX,LEVELS",
    help="Of nv12 and yuyv: bt601 or bt709, limited or full (bt601,limited).",
)
@click.option(
    "--outputs",
    default="scores,label",
    show_default=True,
    help="scores,label and any of embedding, proxy, known, probability.",
)
@click.option("--embedding", is_flag=True, help="The same as embedding among --outputs.")
@click.option(
    "--part", default="all", show_default=True, help="all, backbone or head: what to export."
)
@click.option("--teachable", is_flag=True, help="Let the model learn classes on the device.")
@click.option("--max-classes", type=int, help="With --teachable: how many at most (256).")
@click.option(
    "--taught-proxies", type=int, help="With --teachable: proxies taught per class (5)."
)
@click.option(
    "--images",
    type=click.Path(),
    help="Photos to compare on and to calibrate int8 with; those of the build if not given.",
)
@click.option(
    "--min-agreement",
    type=float,
    help=f"Share of photos whose label must be that of float32 ({MIN_AGREEMENT}).",
)
@click.option("--no-proof", is_flag=True, help="Do not compare with float32.")
@click.option(
    "--keep-float32",
    multiple=True,
    metavar="LAYER",
    help="A layer that stays float32 (* for any letters); may be repeated.",
)
@click.option("--sbom", type=click.Path(), help="A bill of materials to write (CycloneDX).")
@click.option(
    "--weights", type=click.Path(), help="The weights file that the head was built with."
)
@click.option("--backbone", help="Where the backbone is now, if it was moved: onnx:FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@FORCE
def export(
    head: str,
    out: str,
    target: str,
    precision: str,
    head_precision: str,
    input_form: str,
    frame: str | None,
    frame_colour: str | None,
    outputs: str,
    embedding: bool,
    part: str,
    teachable: bool,
    max_classes: int | None,
    taught_proxies: int | None,
    images: str | None,
    min_agreement: float | None,
    no_proof: bool,
    keep_float32: tuple[str, ...],
    sbom: str | None,
    weights: str | None,
    backbone: str | None,
    as_json: bool,
    force: bool,
) -> None:
    """Fuse HEAD and its backbone into one ONNX file, and compare it with float32.

    The backbone's graph comes from the cache that build filled; this takes no torch.
    """
    if no_proof and (min_agreement is not None or (images and precision != "int8")):
        raise click.UsageError(
            "--no-proof compares nothing; leave out --min-agreement and --images"
        )
    if part == "backbone" and outputs != "scores,label":
        raise click.UsageError(
            "a backbone alone has one output, embedding; leave out --outputs"
        )
    given = None
    if max_classes is not None or taught_proxies is not None:
        if not teachable:
            raise click.UsageError("--max-classes and --taught-proxies are for --teachable")
        limits = {"max_classes": max_classes, "taught_proxies": taught_proxies}
        given = {name: value for name, value in limits.items() if value is not None}
    wanted = outputs.split(",") + (["embedding"] if embedding else [])
    with progress() as tell:
        result = run_export(
            head,
            out=out,
            part=part,
            target=target,
            precision=precision,
            head_precision=head_precision,
            input=input_form,
            frame=_frame(input_form, frame, frame_colour),
            teachable=_teachable(teachable, target, given),
            outputs=tuple(dict.fromkeys(wanted)),
            images=images,
            proof=not no_proof,
            min_agreement=min_agreement,
            keep_float32=keep_float32,
            sbom=sbom,
            weights=weights,
            backbone=backbone,
            force=force,
            progress=tell,
        )
    for line in result.notes:
        note(f"note: {line}")
    if as_json:
        print_json(_summary(result))
        return
    what = f"{len(result.head.labels)} classes"
    if part == "backbone":
        what = f"embeddings of {result.head.embedding_size} numbers"
    say(f"{result.path}: {size_text(result.path.stat().st_size)}, {what}, for {target}")
    if result.head_path is not None:
        say(f"{result.head_path}: the head beside it, which teach writes")
    if result.proof is not None:
        say(_evidence(result))
    shown, name = shlex.quote(str(result.path)), command_name()
    if part == "all":
        say(f"next: {name} predict {shown} PHOTO...   {name} bench {shown}")


def _evidence(result: Export) -> str:
    proof = result.proof
    assert proof is not None
    text = f"beside float32, on {proof.photos} {_SOURCES[proof.source]}: "
    text += f"{proof.agreement:.2%} of labels agree"
    if proof.accuracy is not None and proof.accuracy_float32 is not None:
        text += f", {proof.accuracy:.2%} right (float32: {proof.accuracy_float32:.2%})"
    return text + (
        f", scores differ by at most {proof.max_difference:.2g} "
        f"(mean {proof.mean_difference:.2g})"
    )


def _summary(result: Export) -> dict[str, object]:
    return {
        "model": str(result.path),
        "head": None if result.head_path is None else str(result.head_path),
        "size_bytes": result.path.stat().st_size,
        "labels": list(result.head.labels),
        "proof": None if result.proof is None else asdict(result.proof),
        "notes": list(result.notes),
    }


def _frame(input_form: str, text: str | None, colour: str | None) -> Frame | None:
    if input_form != "frame":
        if text is not None or colour is not None:
            raise click.UsageError("--frame and --frame-colour are for --input frame")
        return None
    if text is None:
        raise click.UsageError(
            "--input frame needs --frame, what the camera delivers, such as nv12:1280x720"
        )
    match = _FRAME.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"must be rgb, bgr, nv12 or yuyv and a size, such as nv12:1280x720, got {text!r}",
            param_hint="--frame",
        )
    if match[2] and match[1] in ("nv12", "yuyv"):
        raise click.BadParameter(
            f"frames of any size are rgb or bgr, got {text!r}", param_hint="--frame"
        )
    height, width = (0, 0) if match[3] is None else (int(match[4]), int(match[3]))
    matrix, _, levels = (colour or "bt601,limited").partition(",")
    try:
        return Frame(match[1], height, width, matrix, levels)
    except ContractValueError as error:
        hint = "--frame" if colour is None else "--frame or --frame-colour"
        raise click.BadParameter(str(error), param_hint=hint) from error


def _teachable(asked: bool, target: str, limits: dict[str, int] | None) -> bool | Teachable:
    if limits is None:
        return asked
    form = form_for(target)
    try:
        return Teachable(form, **limits)
    except ContractValueError as error:
        raise click.UsageError(str(error)) from error
