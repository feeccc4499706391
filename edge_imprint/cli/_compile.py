# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint compile`."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import click

from edge_imprint.cli._console import FORCE, build_progress, note, print_json, say
from edge_imprint_runtime.engine.build import compile_engine
from edge_imprint_runtime.engine.options import HARDWARE_LEVELS, MAX_CONTEXTS
from edge_imprint_runtime.engine.refit import refit_engine
from edge_imprint_runtime.engine.sidecar import Sidecar, sidecar_path
from edge_imprint_runtime.files import size_text

__all__ = ["compile"]

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}
_LONG = ("metadata", "head", "inputs", "outputs")


@click.command()
@click.argument("model", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The engine to write.")
@click.option("--batch", help="Fewest, usual and most images of a run.  [default: 1,1,8]")
@click.option("--workspace", help="Memory for kernels beside their data, such as 2GB.")
@click.option("--timing-cache", type=click.Path(), help="Instead of the one in the cache.")
@click.option("--version-compatible", is_flag=True, help="Newer TensorRTs may load it.")
@click.option(
    "--hardware-compatible",
    default="none",
    show_default=True,
    help=f"Which other GPUs may run it: {', '.join(HARDWARE_LEVELS)}.",
)
@click.option("--refittable", is_flag=True, help="The head's numbers can be replaced later.")
@click.option(
    "--refit",
    type=click.Path(),
    metavar="OLD",
    help="Build nothing: take this engine, and put MODEL's proxies into it.",
)
@click.option(
    "--optimization-level", type=int, help="0 (quick) to 5 (long search); TensorRT's own: 3."
)
@click.option(
    "--contexts",
    type=int,
    default=1,
    show_default=True,
    help=f"Callers at once, where each needs a profile (TensorRT 8.5); up to {MAX_CONTEXTS}.",
)
@click.option("--own-kernels", is_flag=True, help="Do without cuBLAS and cuDNN.")
@click.option(
    "--frame-size", metavar="WIDTHxHEIGHT", help="Of frames, where the model takes any size."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON on stdout.")
@FORCE
def compile(
    model: str, out: str, refit: str | None, as_json: bool, force: bool, **options: Any
) -> None:
    """Compile MODEL with TensorRT, for the GPU that is here.

    Beside the engine a file of the same name with .json behind is written, which is read
    before the engine is.
    """
    if refit is not None:
        _check_refit_alone(options)
        made = refit_engine(refit, model, out, force=force)
    else:
        with build_progress() as tell:
            made = compile_engine(
                model, out, progress=tell, note=note, force=force, **_given(options)
            )
    if as_json:
        print_json(_as_json(out, made))
        return
    done = "refitted" if refit is not None else "built"
    typed = "strongly typed" if made.strongly_typed else " ".join(made.builder_flags)
    say(
        f"{out}: {done} in {made.build_s:.1f} s, {size_text(made.engine_bytes)}, TensorRT "
        f"{made.tensorrt}, {made.gpu_name} ({made.compute_capability}), {made.precision}"
        + (f" ({typed})" if typed else "")
    )
    least, usual, most = made.batch
    say(f"{sidecar_path(out)}: batch {least} to {most}, fastest at {usual}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the command's options into `compile_engine`'s."""
    given = dict(options)
    given["batch"] = _batch(given["batch"])
    given["workspace_bytes"] = _bytes(given.pop("workspace"))
    given["frame_size"] = _frame_size(given["frame_size"])
    return given


def _check_refit_alone(options: dict[str, Any]) -> None:
    usual = {"hardware_compatible": "none", "contexts": 1}
    for name, value in options.items():
        if value != usual.get(name) and value not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} says how an engine is built, and --refit builds none; leave it out"
            )


def _as_json(out: str, made: Sidecar) -> dict[str, Any]:
    facts = made.as_json()
    short = {f.name: facts[f.name] for f in fields(made) if f.name not in _LONG}
    return {"engine": out, "sidecar": str(sidecar_path(out))} | short


def _batch(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,4}),([0-9]{1,4}),([0-9]{1,4})", text)
    alone = re.fullmatch(r"[0-9]{1,4}", text)
    if alone is not None:
        return int(text), int(text), int(text)
    if match is None:
        raise click.BadParameter(
            f"must be the fewest, usual and most images such as 1,1,8, got {text!r}",
            param_hint="--batch",
        )
    return int(match[1]), int(match[2]), int(match[3])


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,12})([a-z]{0,3})", text.lower())
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(
            f"must be bytes such as 2GB, 512MB or 1GiB, got {text!r}", param_hint="--workspace"
        )
    return int(match[1]) * _UNITS[match[2]]


def _frame_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise click.BadParameter(
            f"must be WIDTHxHEIGHT such as 1280x720, got {text!r}", param_hint="--frame-size"
        )
    return int(match[2]), int(match[1])
