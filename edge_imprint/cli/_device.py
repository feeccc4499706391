# SPDX-License-Identifier: Apache-2.0
"""What also runs on a device: `edge-imprint predict`, `inspect` and `bench`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_imprint.cli._console import FORCE, note, print_json, progress, say, table
from edge_imprint.photos import expand_photos
from edge_imprint_runtime.bench import bench_model
from edge_imprint_runtime.contract.codec import (
    GRAPH_KEYS,
    PREFIX,
    encode,
    format_preprocess,
)
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    InputError,
    ModelFileError,
    UnreadableImageError,
)
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.model import Model, open_model

__all__ = ["bench", "inspect", "predict"]

_BACKEND = click.option(
    "--backend", default="auto", show_default=True, help="auto, cpu, cuda or tensorrt."
)
_THREADS = click.option(
    "--threads", default=0, show_default=True, help="CPU threads; 0: ONNX Runtime chooses."
)


@click.command()
@click.argument("model", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@_BACKEND
@_THREADS
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def predict(
    model: str, paths: tuple[str, ...], backend: str, threads: int, as_json: bool
) -> None:
    """Classify photos, or all photos of a folder, with MODEL."""
    opened = open_model(model, backend, threads=threads)
    files = [file for path in paths for file in expand_photos(Path(path))]
    failed = 0
    for file in files:
        try:
            answer = opened.predict(file)[0]
        except (BrokenImageError, ImageTooLargeError, UnreadableImageError) as error:
            failed, reason = failed + 1, str(error)
        except InputError as error:  # such as a photo that has not the frame's size
            failed, reason = failed + 1, f"{file}: {error}"
        else:
            reason = ""
        if reason:
            if as_json:
                print_json({"path": str(file), "error": reason})
            note(f"error: {reason}")
            continue
        if as_json:
            print_json({"path": str(file)} | asdict(answer))
        elif answer.known is False:
            say(f"{file}: {answer.label} (nearest {answer.nearest!r}) {answer.score:.4f}")
        else:
            say(f"{file}: {answer.label!r} {answer.score:.4f}")
    if failed:
        raise UnreadableImageError(f"{failed} of {len(files)} photos could not be classified")


@click.command()
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def inspect(model: str, as_json: bool) -> None:
    """Show what MODEL (an ONNX model or a head file) says of itself."""
    facts = _facts(Path(model))
    if as_json:
        print_json(facts)
        return
    labels = facts.pop("labels")
    shown = ", ".join(repr(label) for label in labels[:20])
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    for name, value in facts.items():
        if value is not None:
            say(f"{name:18} {value}")
    say(f"{'labels':18} {len(labels)}: {shown}{more}")


@click.command()
@click.argument("model", type=click.Path())
@_BACKEND
@_THREADS
@click.option("--batch", default="1", show_default=True, help="Batch sizes, such as 1,8.")
@click.option(
    "--frame-size", metavar="WIDTHxHEIGHT", help="Of frames, where the model takes any size."
)
@click.option("--iterations", type=int, help="Samples a series; 1000 if no duration is given.")
@click.option("--duration", help="Instead: seconds for each batch size, such as 30s.")
@click.option("--out", type=click.Path(), help="A JSON file for the report and raw samples.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@FORCE
def bench(
    model: str,
    backend: str,
    threads: int,
    batch: str,
    frame_size: str | None,
    iterations: int | None,
    duration: str | None,
    out: str | None,
    as_json: bool,
    force: bool,
) -> None:
    """Measure MODEL's latency, beside that of its backbone alone."""
    batches, duration_s = _batches(batch), _seconds(duration)
    if out is not None:
        check_output(out, force=force, inputs=[model, head_beside(model)])
    opened = open_model(model, backend, threads=threads)
    runs: dict[str, Model | Callable[[Any], object]] = {"fused": opened}
    graph = opened.contract.graph
    bare = graph is not None and graph.input == "embedding"  # a head alone
    backbone = None if bare else _backbone_only(Path(model), backend, threads)
    if backbone is not None:
        runs["backbone only"] = backbone
    with progress() as tell:
        report = bench_model(
            runs,
            opened,
            batches=batches,
            frame_size=None if frame_size is None else _frame_size(frame_size),
            iterations=iterations,
            duration_s=duration_s,
            progress=lambda done, total: tell("measuring", done, total),
        )
    report["model"] = str(model)
    if out is not None:
        write_atomic(out, json.dumps(report).encode(), force=force)
    if as_json:
        print_json(report)
        return
    columns = ["series", "batch", "n", "p50 ms", "p90 ms", "p99 ms", "max ms", "images/s"]
    keys = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    rows = [
        [s["name"], str(s["batch"]), str(s["iterations"])]
        + [f"{s[key]:.3f}" for key in keys]
        + [f"{s['throughput_images_per_s']:.1f}"]
        for s in report["series"]
    ]
    table(f"{model} on {report['provider']}", columns, rows)
    if out is not None:
        say(f"report: {out}")


def _facts(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):
        if os.path.isdir(path):
            raise ModelFileError(f"{path} is a folder; name a model or head file")
        raise ModelFileError(f"there is no model or head file {path}")
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        head = Head.load(path)
        contract, shapes, labels = head.contract, {"proxies": len(head.proxies)}, head.labels
    else:
        model = open_model(path, "cpu")
        contract, shapes, labels = model.contract, {}, model.labels
    facts: dict[str, Any] = {"file": str(path), "size_bytes": path.stat().st_size}
    facts["kind"] = "head" if contract.graph is None else "model"
    facts |= shapes
    facts |= {"recipe": contract.recipe, "embedding_size": contract.embedding_size}
    facts["rule"] = " ".join(f"{key}={value}" for key, value in asdict(contract.rule).items())
    facts |= {
        "calibrated": contract.temperature is not None,
        "temperature": contract.temperature,
    }
    if contract.backbone is not None:
        backbone = asdict(contract.backbone)
        del backbone["preprocess"]
        facts |= {f"backbone_{key}": value for key, value in backbone.items()}
        facts["preprocess"] = format_preprocess(contract.backbone.preprocess)
    if contract.graph is not None:
        text = encode(contract)
        for key in (*GRAPH_KEYS, "teachable"):
            facts[key] = text.get(PREFIX + key)
        facts["slots"] = contract.graph.slots
    # What was proved was proved of other classes, once some were taught.
    stale = ("proof",) if tuple(labels) != contract.labels else ()
    facts |= {f"note_{name}": value for name, value in contract.notes if name not in stale}
    return facts | {"labels": list(labels)}


def _backbone_only(model: Path, backend: str, threads: int) -> Callable[[Any], object] | None:
    try:
        from edge_imprint_export import headless
        from edge_imprint_export.files.guard import read_model
        from edge_imprint_export.graph import to_bytes
    except ImportError:
        note("note: the backbone alone is not measured, that needs the package 'onnx' here")
        return None
    from edge_imprint_runtime.backends.ort import OrtRunner

    runner = OrtRunner(to_bytes(headless(read_model(model))), backend, threads)
    return lambda images: runner.run(["embedding"], images)


def _batches(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise click.BadParameter(
            f"must be numbers from 1 to 4096 such as 1,8, got {text!r}",
            param_hint="--batch",
        )
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def _frame_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise click.BadParameter(
            f"must be WIDTHxHEIGHT such as 1280x720, got {text!r}", param_hint="--frame-size"
        )
    return int(match[2]), int(match[1])


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(s|m|min)?", text)
    if match is None:
        raise click.BadParameter(
            f"must be seconds such as 30s, or minutes such as 2m, got {text!r}",
            param_hint="--duration",
        )
    return float(match[1]) * (60 if (match[2] or "s").startswith("m") else 1)
